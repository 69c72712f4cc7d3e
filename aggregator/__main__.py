"""Starts the aggregator: ``python -m aggregator``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from random import Random, SystemRandom

import numpy as np

from aggregator.adapters.capabilities import PostgresCapabilityChecks
from aggregator.adapters.history import PostgresHistoryStore
from aggregator.adapters.market import PostgresMarketStore
from aggregator.adapters.measured import measure
from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.adapters.valkey import ValkeyQuoteCache, open_client
from aggregator.app.capabilities import CapabilityKeeper, CapabilitySettings
from aggregator.app.collect import Limits, QuoteCollector
from aggregator.app.gather import Gatherer
from aggregator.app.health import HealthObserver
from aggregator.app.history import HistorySettings, WriteBehindHistory
from aggregator.app.lots import GatherSettings
from aggregator.app.market import Market, MarketSettings
from aggregator.app.refresh import Refresher, RefreshSettings
from aggregator.app.registry import Registry
from aggregator.app.selecting import Selector
from aggregator.domain.cached import CacheSettings
from aggregator.domain.history import CollectionRecord
from aggregator.domain.outlook import Outlooks
from aggregator.selection.categories import category_of
from aggregator.selection.policy import Policy, RandomChoice, Thompson, WeightedScore
from aggregator.selection.selection import PHASES, Phase, Selection, SelectionSettings
from aggregator.selection.statistics import Statistics, StatisticsSettings
from aggregator.servicer import (
    DEFAULT_TIMEOUT_S,
    QuoteServicer,
    RegistryServicer,
    SellerHealthServicer,
)
from aggregator.settings import Settings
from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
    add_QuoteServiceServicer_to_server,
    add_RegistryServiceServicer_to_server,
    add_SellerHealthServiceServicer_to_server,
)
from mesh import telemetry
from mesh.clock import SystemClock
from mesh.grpc.server import Served, Serving, serve
from mesh.ids import uuid7_factory
from mesh.postgres import open_pool
from mesh.settings import load
from sellers.admission.opening import open_admission
from sellers.connections import ConnectionSettings
from sellers.credentials import Credentials
from sellers.model import Seller
from sellers.registry import Directory, Snapshot
from sellers.transport import SellerTransport

_SERVICES = aggregator_pb2.DESCRIPTOR.services_by_name
QUOTES = _SERVICES["QuoteService"].full_name
REGISTRY = _SERVICES["RegistryService"].full_name
HEALTH = _SERVICES["SellerHealthService"].full_name


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (RandomChoice, Thompson, WeightedScore)
}


async def run(settings: Settings) -> None:
    """Wire it up and answer until told to stop.

    Ready means that the registry has been read once: from then on it is in memory, and collections go on without
    PostgreSQL.
    """
    clock = SystemClock()
    rng = SystemRandom()
    new_id = uuid7_factory(clock, rng)
    directory, outlooks = Directory(), Outlooks()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            await open_pool(settings.database_url, max_size=4, application_name="aggregator")
        )
        credentials = Credentials(settings.seller_credentials_file, clock)
        admission = await stack.enter_async_context(
            open_admission(
                settings,
                directory,
                clock,
                browse_share=settings.browse_share,
                kept_share=settings.kept_share,
            )
        )

        def on_rate_limited(seller: Seller, retry_after_s: float | None) -> None:
            capabilities.suspect(seller.seller_id)
            admission.hold_off(seller.seller_id, retry_after_s)

        sellers = await stack.enter_async_context(
            SellerTransport(
                credentials,
                clock,
                connections=ConnectionSettings.of(settings),
                on_rate_limited=on_rate_limited,
            )
        )
        valkey = await stack.enter_async_context(open_client(settings.valkey_url))
        lasting = CacheSettings(
            quote_s=settings.quote_good_s,
            no_s=settings.no_good_s,
            failure_s=settings.failure_good_s,
            margin_s=settings.quote_margin_s,
        )
        cache = ValkeyQuoteCache(valkey, clock, str(new_id()), lasting)

        def on_change(snapshot: Snapshot) -> None:
            sellers.retain(snapshot.sellers.values())
            active = {seller.seller_id for seller in snapshot.active}
            outlooks.retain(active)
            gatherer.retain(active)
            selector.on_change(snapshot)

        registry = Registry(
            PostgresSellerStore(pool),
            directory,
            clock,
            on_change=on_change,
            poll_s=settings.registry_poll_s,
        )
        capabilities = CapabilityKeeper(
            PostgresCapabilityChecks(pool),
            sellers,
            admission,
            registry,
            directory,
            settings=CapabilitySettings(every_s=settings.capabilities_every_s),
            clock=clock,
            rng=rng,
        )
        keeping = HistorySettings(
            buffer_quotes=settings.history_buffer_quotes, days=settings.history_days
        )
        history = WriteBehindHistory(PostgresHistoryStore(pool), clock, keeping)
        gathering = GatherSettings(
            linger_s=settings.linger_s,
            longest_linger_s=settings.longest_linger_s,
            seller_s=settings.seller_timeout_s,
        )
        gatherer = Gatherer(sellers, admission, outlooks, gathering, clock)
        refresher = Refresher(
            gatherer,
            cache,
            RefreshSettings(ahead_s=settings.refresh_ahead_s, hot=settings.refresh_demand),
            clock=clock,
            new_id=new_id,
            on_ended=history.record,
        )

        market = Market(
            Statistics(StatisticsSettings(books=settings.market_books)),
            PostgresMarketStore(pool, settings.process_index),
            category_of,
            clock,
            MarketSettings(currency=settings.market_currency, days=settings.market_days),
        )
        selector = Selector(
            market,
            _selection(settings, market, rng),
            category_of,
            clock,
            above=settings.select_above,
            currency=settings.market_currency,
        )

        def on_ended(record: CollectionRecord) -> None:
            measure(record)
            history.record(record)
            selector.record(record)

        collector = QuoteCollector(
            directory,
            gatherer,
            cache,
            outlooks,
            clock=clock,
            new_id=new_id,
            limits=Limits(merge_margin_s=settings.merge_margin_s, joined_s=settings.quote_good_s),
            on_known=refresher.served,
            on_ended=on_ended,
            selector=selector,
        )

        observer = HealthObserver(directory, admission, outlooks, look_every_s=1.0)

        async def ready() -> bool:
            return directory.snapshot is not None

        async def on_drain() -> None:
            registry.close()
            observer.close()

        quotes, registrations = QuoteServicer(collector, market.sold), RegistryServicer(registry)
        serving = Serving(
            services=(
                Served(
                    QUOTES,
                    partial(add_QuoteServiceServicer_to_server, quotes),
                    callers=("gateway", "orchestrator"),
                ),
                Served(
                    REGISTRY,
                    partial(add_RegistryServiceServicer_to_server, registrations),
                    callers=("operator",),
                    exceptions={"WatchSellers": ("operator", "orchestrator")},
                ),
                Served(
                    HEALTH,
                    partial(
                        add_SellerHealthServiceServicer_to_server, SellerHealthServicer(observer)
                    ),
                    callers=("operator",),
                ),
            ),
            ready=ready,
            on_drain=on_drain,
            unbounded=(f"/{REGISTRY}/WatchSellers", f"/{HEALTH}/WatchSellerHealth"),
            default_timeout_s=DEFAULT_TIMEOUT_S,
        )
        async with asyncio.TaskGroup() as tasks:
            helpers = [
                tasks.create_task(helper)
                for helper in (
                    registry.follow(),
                    admission.run(),
                    cache.run(),
                    gatherer.run(),
                    refresher.run(),
                    capabilities.run(),
                    history.run(),
                    market.run(),
                    selector.run(gatherer, new_id, history.record),
                )
            ]
            await serve(serving, settings, clock)
            for helper in helpers:
                helper.cancel()


def _selection(settings: Settings, market: Market, rng: Random) -> Selection:
    """Say whom to choose where there are too many sellers."""
    sizes = (settings.select_first, settings.select_next, settings.select_last)
    phases = [Phase(most, phase.until_s) for most, phase in zip(sizes, PHASES, strict=True) if most]
    return Selection(
        statistics=market.statistics,
        policy=POLICIES[settings.select_policy](),
        settings=SelectionSettings(
            phases=phases, most=settings.select_most, full_share=settings.select_checked_share
        ),
        calibration=market.calibration,
        rng=np.random.default_rng(rng.getrandbits(128)),
    )


def main() -> None:
    """Read the settings and run."""
    settings = load(Settings)
    provider = telemetry.set_up("aggregator", settings.listen, settings.log_level)
    try:
        asyncio.run(run(settings))
    finally:
        provider.shutdown()


if __name__ == "__main__":
    main()
