"""Resident memory of an aggregator with 200 sellers connected, over 10,000 collections.

The aggregator is the program as it is deployed (``python -m aggregator``), with PostgreSQL and Valkey and everything
that it keeps: the history, what it learns of sellers, known quotes. It is asked over gRPC for books by Zipf's law, 50
at a time, and looked at after every 500 collections. Sellers are stand-ins that take batches. Flat means that the last
half adds at most 5 %.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from bench.demand import ZIPF
from bench.drawing import Chart, Mark, Series
from bench.harness import OnProgress, Result, exactly
from bench.stack import CREDENTIAL, data_folder, database, postgres_server, seller, valkey_server
from bench.standins import standins
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceStub, RegistryServiceStub
from bookmesh.seller.v1 import seller_pb2
from deploy.local.certificates import connect, ensure_certificates
from deploy.local.child import Child
from deploy.local.options import inherited_environment
from deploy.local.ports import Ports
from deploy.local.services import address, service
from mesh.clock import SystemClock
from sellers.registration import to_proto

if TYPE_CHECKING:
    # Exist for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
        QuoteServiceAsyncStub,
        RegistryServiceAsyncStub,
    )

TITLE = "memory over 10,000 collections"
SELLERS = 200
COLLECTIONS = 10_000
AIM_MB = 200
_NAME = "aggregator"
_AT_ONCE = 50
_EVERY = 500
_MAX_BATCH = 100
_TIME_S = 30.0
_FLAT = 1.05


async def measure(on_progress: OnProgress) -> list[Result]:
    """Run the aggregator; tell the part that is done."""
    points: list[tuple[float, float]] = []
    quoted = 0
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(standins(SELLERS))
        valkey_url = await stack.enter_async_context(valkey_server())
        dsn = await database(await stack.enter_async_context(postgres_server()), "bench_memory")
        running = await stack.enter_async_context(_aggregator(valkey_url, dsn))
        await running.register(addresses)
        await _collect(running.quotes, "the-first")
        points.append((0, running.resident_mb()))
        books = ZIPF.draw(Random(4))
        done = 0

        async def keep_asking(books: Iterator[str]) -> None:
            nonlocal done, quoted
            while done < COLLECTIONS:
                done += 1
                if done % _EVERY == 0:
                    points.append((done, running.resident_mb()))
                    on_progress(done / COLLECTIONS)
                quotes = await _collect(running.quotes, next(books))
                quoted += quotes

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(keep_asking(books))
    at_half = next(megabytes for collections, megabytes in points if collections >= COLLECTIONS / 2)
    last = points[-1][1]
    return [
        Result(
            name="resident memory after 10,000 collections, 200 sellers connected",
            ours=exactly(last),
            naive=None,
            ratio=None,
            unit="MB",
            aim=AIM_MB,
            absolute=True,
            kept=last <= at_half * _FLAT,
            note=(
                f"connected {points[0][1]:.0f} MB, after half of them {at_half:.0f} MB, at the end {last:.0f} MB;"
                f" {quoted / COLLECTIONS:.0f} quotes a collection"
            ),
            chart=Chart(
                file="memory",
                title="Resident memory of an aggregator, 200 sellers connected",
                x="collections",
                y="MB",
                lines=(Series("ours", points),),
                mark=Mark("200 MB", AIM_MB),
            ),
        )
    ]


@dataclass(frozen=True, slots=True)
class _Aggregator:
    """A running aggregator: its process, and the ways to it."""

    pid: int
    quotes: QuoteServiceAsyncStub
    registry: RegistryServiceAsyncStub

    def resident_mb(self) -> float:
        """Give its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    async def register(self, addresses: list[str]) -> None:
        """Have it know the sellers at these addresses."""
        sellers = [
            to_proto(seller(number, max_batch_size=_MAX_BATCH, endpoint=address))
            for number, address in enumerate(addresses)
        ]
        await self.registry.RegisterSellers(pb.RegisterSellersRequest(sellers=sellers))


@asynccontextmanager
async def _aggregator(valkey_url: str, dsn: str) -> AsyncIterator[_Aggregator]:
    """Run an aggregator that is told what it would be told in a mesh."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        data = stack.enter_context(data_folder())
        ports = stack.enter_context(Ports(data.ports))
        ensure_certificates(data, clock.now())
        data.seller_credentials.write_text(json.dumps({"all": CREDENTIAL}))
        port = ports.take(_NAME)
        program = service(
            _NAME,
            _NAME,
            data,
            port=port,
            admin_port=ports.take(f"{_NAME}-admin"),
            environment=inherited_environment() | {"BOOKMESH_LOG_LEVEL": "WARNING"},
            settings={
                "DATABASE_URL": dsn,
                "VALKEY_URL": valkey_url,
                "SELLER_CREDENTIALS_FILE": str(data.seller_credentials),
                "QUIET_START": "true",
            },
        )
        child = Child(program, clock, report=print)
        await child.start()
        stack.push_async_callback(child.stop)
        pid = child.pid
        if pid is None:
            raise RuntimeError(f"the aggregator has ended: see {program.log}")
        channels = [
            await stack.enter_async_context(connect(data, address(port), _NAME, by=caller))
            for caller in ("orchestrator", "operator")
        ]
        yield _Aggregator(pid, QuoteServiceStub(channels[0]), RegistryServiceStub(channels[1]))


async def _collect(quotes: QuoteServiceAsyncStub, book_id: str) -> int:
    """Collect quotes for a book; give how many there are."""
    request = pb.CollectQuotesRequest(
        book_id=book_id, currency_code="USD", conditions=[seller_pb2.CONDITION_NEW]
    )
    quoted = 0
    async for part in quotes.CollectQuotes(request, timeout=_TIME_S):
        quoted = part.summary.quoted
    return quoted
