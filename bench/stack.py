"""Our aggregator as measurements need it: its own core, over sellers, admission and a cache of their choice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import asyncpg

from aggregator.adapters.valkey import ValkeyQuoteCache, open_client
from aggregator.app.collect import Limits, QuoteCollector
from aggregator.app.gather import Gatherer
from aggregator.app.lots import GatherSettings
from aggregator.app.refresh import Refresher, RefreshSettings
from aggregator.domain.cached import CacheSettings
from aggregator.domain.history import CollectionRecord
from aggregator.domain.outlook import Outlooks
from aggregator.ports import CallAdmission, QuoteCache, QuoteSource
from deploy.local import postgres, valkey
from deploy.local.child import Child
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.ports import Ports
from mesh.clock import Clock, SystemClock
from mesh.ids import uuid7_factory
from mesh.postgres import migrate
from sellers.admission import model as admission
from sellers.admission.admission import Admission, rules_of
from sellers.admission.valkey import valkey_ledger
from sellers.credentials import Credentials
from sellers.model import Capabilities, Seller, SellerState
from sellers.registry import Directory
from sellers.transport import SellerTransport

CREDENTIAL = "the-same-for-all"
NO_LIMIT = 1_000_000
"""Calls a minute of a seller whose limit plays no part."""


def _forget(_record: CollectionRecord) -> None:
    """Keep no history: it has a measurement of its own."""


@asynccontextmanager
async def core(
    source: QuoteSource,
    admitting: CallAdmission,
    cache: QuoteCache,
    sellers: Sequence[Seller],
    clock: Clock,
) -> AsyncIterator[QuoteCollector]:
    """Run the aggregator's core."""
    directory, outlooks = Directory(), Outlooks()
    directory.replace(sellers, 1)
    gatherer = Gatherer(source, admitting, outlooks, GatherSettings(), clock)
    new_id = uuid7_factory(clock, Random(1))
    refresher = Refresher(
        gatherer, cache, RefreshSettings(), clock=clock, new_id=new_id, on_ended=_forget
    )
    async with running(gatherer.run(), refresher.run()):
        yield QuoteCollector(
            directory,
            gatherer,
            cache,
            outlooks,
            clock=clock,
            new_id=new_id,
            limits=Limits(),
            on_known=refresher.served,
        )


@asynccontextmanager
async def replica(
    url: str,
    sellers: Sequence[Seller],
    source: QuoteSource | None = None,
    *,
    number: int = 0,
    of: int = 1,
) -> AsyncIterator[QuoteCollector]:
    """Run one of several aggregators that share this Valkey, in real time.

    It asks its sellers over gRPC, unless it is given another ``source``.
    """
    clock = SystemClock()
    limits = [admission.Limits.of(seller) for seller in sellers]
    rules = admission.AdmissionSettings(processes=of, process_index=number)
    async with AsyncExitStack() as stack:
        if source is None:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "credentials.json"
            file.write_text(json.dumps({"all": CREDENTIAL}))
            transport = SellerTransport(Credentials(file, clock), clock)
            source = await stack.enter_async_context(transport)
        ledger = await stack.enter_async_context(
            valkey_ledger(url, rules_of(rules), timeout_s=rules.valkey_timeout_s)
        )
        if number == 0:
            await ledger.declare_quiet()
        admitting = Admission(ledger, clock, rules, sellers=lambda: limits, quiet=True)
        client = await stack.enter_async_context(open_client(url))
        cache = ValkeyQuoteCache(client, clock, f"bench-{number}", CacheSettings())
        await stack.enter_async_context(running(admitting.run(), cache.run()))
        yield await stack.enter_async_context(core(source, admitting, cache, sellers, clock))


@asynccontextmanager
async def running(*helpers: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run what others need until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(helper) for helper in helpers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def valkey_server() -> AsyncIterator[str]:
    """Run Valkey on an empty data folder; give its URL."""
    with data_folder() as data, Ports(data.ports) as ports:
        port = ports.take(valkey.NAME)
        program = valkey.program(data, port, os.environ)
        server = Child(program, SystemClock(), report=print)
        await server.start()
        try:
            yield f"redis://{HOST}:{port}/0"
        finally:
            await server.stop()


@asynccontextmanager
async def postgres_server() -> AsyncIterator[int]:
    """Run PostgreSQL on an empty data folder; give its port."""
    clock = SystemClock()
    with data_folder() as data, Ports(data.ports) as ports:
        port = ports.take(postgres.NAME)
        await postgres.initialise(data, os.environ)
        server = Child(postgres.program(data, port, os.environ, clock), clock, report=print)
        await server.start()
        try:
            yield port
        finally:
            await server.stop()


async def database(port: int, name: str) -> str:
    """Make a migrated database; give its connection string."""
    connection = await asyncpg.connect(postgres.dsn(port, "postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    dsn = postgres.dsn(port, name)
    await migrate(dsn, ("aggregator",))
    return dsn


@contextmanager
def data_folder() -> Iterator[DataFolder]:
    """Make an empty data folder that is gone after it."""
    root = Path(tempfile.mkdtemp(prefix="bookmesh-bench-"))
    # As root, PostgreSQL runs as `nobody`, who has to come through.
    root.chmod(0o711)
    try:
        data = DataFolder(root)
        data.prepare()
        yield data
    finally:
        shutil.rmtree(root)


def seller(
    number: int,
    *,
    calls_per_minute: int = NO_LIMIT,
    max_batch_size: int = 0,
    endpoint: str = "simulated:1",
) -> Seller:
    """Describe a seller whose id is its number."""
    return Seller(
        seller_id=str(number),
        display_name=f"Seller {number}",
        endpoint=endpoint,
        tls_roots="",
        credential_reference="all",
        capabilities=Capabilities(
            supports_holds=False,
            max_batch_size=max_batch_size,
            currencies=("USD",),
            calls_per_minute=calls_per_minute,
            quotes_per_minute=0,
            min_quote_life_s=60.0,
            key_retention_s=7 * 24 * 3600.0,
            supports_cancel_before_order=True,
            supports_get_order=True,
            honours_not_after=True,
            contract_versions=("v1",),
        ),
        state=SellerState.ACTIVE,
        revision=1,
    )
