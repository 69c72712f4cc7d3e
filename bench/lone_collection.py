"""One collection alone over 200 sellers that answer one book a call.

Ours goes through the aggregator's use case and the sellers' transport, with everything that they do: the shared cache,
admission, both in a real Valkey, credentials, deadlines, checking each answer, handing on batches. Naive is a bare
gather over the generated stubs, which believes what it gets. Both ask the same sellers, each over connections of its
own, for a book that nobody has asked for before.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import grpc

from aggregator.adapters.valkey import ValkeyQuoteCache, open_client
from aggregator.app.collect import Limits, QuoteCollector, Wish
from aggregator.app.gather import Gatherer, GatherSettings
from aggregator.app.refresh import Refresher, RefreshSettings
from aggregator.domain.cached import CacheSettings
from aggregator.domain.collection import Question
from aggregator.domain.outlook import Outlooks
from bench.harness import Result, Side, compared, take_turns
from bench.naive.collect import collect
from bench.standins import standins
from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceStub
from deploy.local import valkey
from deploy.local.child import Child
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.ports import Ports
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from sellers.admission.admission import Admission, rules_of
from sellers.admission.model import AdmissionSettings
from sellers.admission.valkey import valkey_ledger
from sellers.credentials import Credentials
from sellers.model import Capabilities, Condition, Seller, SellerState
from sellers.registry import Directory
from sellers.transport import SellerTransport

TITLE = "one collection over 200 sellers"
SELLERS = 200
ROUNDS = 35
AIM = 1.25
_WARM_UP_ROUNDS = 3
_TIME_S = 10.0
_CREDENTIAL = "the-same-for-all"


async def measure(on_progress: Callable[[float], None]) -> list[Result]:
    """Measure time and CPU; tell the part that is done."""
    done = 0

    def on_round() -> None:
        nonlocal done
        done += 1
        on_progress(done / (ROUNDS + _WARM_UP_ROUNDS))

    async with (
        standins(SELLERS) as addresses,
        _our_side(addresses) as ours,
        _naive_side(addresses) as naive,
    ):
        await take_turns(ours, naive, _WARM_UP_ROUNDS, on_round)
        our_samples, naive_samples = await take_turns(ours, naive, ROUNDS, on_round)
    return [
        compared(
            "time of a collection",
            [sample.wall_s * 1e3 for sample in our_samples],
            [sample.wall_s * 1e3 for sample in naive_samples],
            unit="ms",
            aim=AIM,
        ),
        compared(
            "CPU per quote, one lone collection",
            [sample.cpu_s / SELLERS * 1e6 for sample in our_samples],
            [sample.cpu_s / SELLERS * 1e6 for sample in naive_samples],
            unit="µs",
            aim=AIM,
        ),
    ]


@asynccontextmanager
async def _our_side(addresses: list[str]) -> AsyncIterator[Side]:
    clock = SystemClock()
    directory = Directory()
    directory.replace([_seller(number, address) for number, address in enumerate(addresses)], 1)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "credentials.json").write_text(json.dumps({"all": _CREDENTIAL}))
        credentials = Credentials(folder / "credentials.json", clock)
        transport = await stack.enter_async_context(SellerTransport(credentials, clock))
        url = await stack.enter_async_context(_valkey(folder))
        rules = AdmissionSettings()
        ledger = await stack.enter_async_context(
            valkey_ledger(url, rules_of(rules), timeout_s=rules.valkey_timeout_s)
        )
        await ledger.declare_quiet()
        admission = Admission(ledger, clock, rules, sellers=list, quiet=True)
        client = await stack.enter_async_context(open_client(url))
        cache = ValkeyQuoteCache(client, clock, "bench", CacheSettings())
        outlooks = Outlooks()
        gatherer = Gatherer(transport, admission, outlooks, GatherSettings(), clock)
        refresher = Refresher(gatherer, cache, RefreshSettings(), clock)
        await stack.enter_async_context(
            _running(admission.run(), cache.run(), gatherer.run(), refresher.run())
        )
        collector = QuoteCollector(
            directory,
            gatherer,
            cache,
            outlooks,
            clock=clock,
            new_id=uuid7_factory(clock, Random(1)),
            limits=Limits(),
            on_known=refresher.served,
        )

        async def once(book_id: str) -> None:
            question = Question(book_id, "USD", frozenset({Condition.NEW}))
            async with collector.open(question, _TIME_S, Wish()) as collection:
                async for _ in collection.batches():
                    pass
            _check(collection.summary().quoted)

        yield once


@asynccontextmanager
async def _valkey(folder: Path) -> AsyncIterator[str]:
    """Run Valkey on an empty data folder; give its URL."""
    data = DataFolder(folder / "valkey")
    data.prepare()
    with Ports(data.ports) as ports:
        port = ports.take(valkey.NAME)
        server = Child(valkey.program(data, port, os.environ), SystemClock(), report=print)
        await server.start()
        try:
            yield f"redis://{HOST}:{port}/0"
        finally:
            await server.stop()


@asynccontextmanager
async def _running(*helpers: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run what a collector needs until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(helper) for helper in helpers]
        yield
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def _naive_side(addresses: list[str]) -> AsyncIterator[Side]:
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for address in addresses
        ]
        stubs = [SellerServiceStub(channel) for channel in channels]

        async def once(book_id: str) -> None:
            answers = await collect(stubs, _CREDENTIAL, book_id)
            _check(sum(not isinstance(answer, BaseException) for answer in answers))

        yield once


def _check(quotes: int) -> None:
    if quotes != SELLERS:
        raise RuntimeError(f"{quotes} of {SELLERS} sellers gave a quote: nothing can be compared")


def _seller(number: int, address: str) -> Seller:
    return Seller(
        seller_id=f"stand-in-{number}",
        display_name=f"Stand-in {number}",
        endpoint=address,
        tls_roots="",
        credential_reference="all",
        capabilities=Capabilities(
            supports_holds=False,
            max_batch_size=0,
            currencies=("USD",),
            calls_per_minute=1_000_000,
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
