"""The whole local mesh as measurements of purchases need it, and buyers for it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import yaml

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub

SELLERS = 200
MAX_PRICE = 500.0
"""Above what any simulated book costs."""

CUSTOMERS = 20
_TOLD = {
    "BOOKMESH_LOG_LEVEL": "WARNING",
    # What is measured is what the mesh can take, not what it grants to one customer or one address.
    "BOOKMESH_EDGE_ADDRESS_RATE": "100000",
    "BOOKMESH_EDGE_ADDRESS_BURST": "100000",
    "BOOKMESH_EDGE_CUSTOMER_RATE": "100000",
    "BOOKMESH_EDGE_CUSTOMER_BURST": "100000",
    "BOOKMESH_CUSTOMER_STREAMS": "10000",
}
_LOOK_S = 0.1
_CALL_S = 10.0

Buy = Callable[[str], Awaitable[str]]
"""Buys a book and gives the final status, a word."""


@dataclass(frozen=True, slots=True)
class Bought:
    """A purchase that is final: its status, and when it became so by the database's clock."""

    status: str
    final_at: datetime


@asynccontextmanager
async def shop(
    groups: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, int],
    books: Sequence[Mapping[str, Any]] = (),
) -> AsyncIterator[LocalMesh]:
    """Run the whole mesh with simulated sellers of these kinds (``seller_sim/scenarios/demo.yaml`` describes them).

    Of ``books`` more is known, as there.
    """
    scenario = {
        "seed": 7,
        "groups": [
            {
                "name": name,
                "display_name": name.title(),
                "count": counts[name],
                "behaviour": dict(behaviour),
            }
            for name, behaviour in groups.items()
        ],
        "books": [dict(book) for book in books],
    }
    with tempfile.TemporaryDirectory(prefix="bookmesh-bench-") as folder:
        file = Path(folder) / "scenario.yaml"
        file.write_text(yaml.safe_dump(scenario))
        options = MeshOptions(
            data=Path(folder) / "mesh",
            http_port=0,
            grpc_port=0,
            sellers=sum(counts.values()),
            scenario=file,
            environment=inherited_environment() | _TOLD,
        )
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        async with LocalMesh(options) as mesh:
            yield mesh


class Buyers:
    """Buys at a mesh over gRPC through Envoy, as customers in turn; looks in the database for what became of it.

    Asking for each purchase again and again, as customers would, would cost more than the purchases.
    """

    def __init__(
        self,
        stub: PurchaseServiceAsyncStub,
        tokens: list[str],
        database: asyncpg.Connection[asyncpg.Record],
    ) -> None:
        self._stub = stub
        self._tokens = tokens
        self._database = database
        self._waiting: dict[str, asyncio.Future[Bought]] = {}
        self._made = 0

    async def submit(self, book_id: str) -> str:
        """Submit a purchase; give its id once it was accepted."""
        token = self._tokens[self._made % len(self._tokens)]
        self._made += 1
        created = await self._stub.CreatePurchaseRequest(
            pb.CreatePurchaseRequestRequest(
                book_id=book_id,
                max_price=MAX_PRICE,
                payment_token="tok_bench",  # noqa: S106  the sandbox's
            ),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=_CALL_S,
        )
        return created.request_id

    async def final(self, request_id: str) -> Bought:
        """Return when a purchase is final."""
        self._waiting[request_id] = asyncio.get_running_loop().create_future()
        return await self._waiting[request_id]

    async def buy(self, book_id: str) -> str:
        """Buy a book and give the final status."""
        return (await self.final(await self.submit(book_id))).status

    async def run(self) -> None:
        """Look for purchases that became final, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            found = await self._database.fetch(_FINAL, list(self._waiting))
            for row in found:
                self._waiting.pop(row["request_id"]).set_result(
                    Bought(row["status"], row["happened_at"])
                )


@asynccontextmanager
async def buyers(mesh: LocalMesh) -> AsyncIterator[Buyers]:
    """Open the way of some customers to a mesh."""
    database = await asyncpg.connect(mesh.dsn)
    try:
        async with grpc.aio.insecure_channel(mesh.grpc_address) as channel:
            tokens = [mesh.token(f"customer-{number}") for number in range(CUSTOMERS)]
            there = Buyers(PurchaseServiceStub(channel), tokens, database)
            async with asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(there.run())
                yield there
                looking.cancel()
    finally:
        await database.close()


@dataclass(frozen=True, slots=True)
class Rate:
    """What was bought in some time.

    Attributes:
        per_second: purchases that ended as purchased, a second, in each second that was measured.
        outcomes: how many ended how, in all of that time.

    """

    per_second: list[float]
    outcomes: Counter[str]


async def rate(
    buy: Buy, books: Iterator[str], *, at_once: int, warm_up_s: float, slices: int, slice_s: float
) -> Rate:
    """Let buyers buy as fast as they can, ``at_once`` at a time; count after the warm-up, slice by slice."""
    outcomes: Counter[str] = Counter()
    stopped = False

    async def keep_buying() -> None:
        while not stopped:
            try:
                outcomes[await buy(next(books))] += 1
            except grpc.aio.AioRpcError as error:
                outcomes[error.code().name.lower()] += 1
                await asyncio.sleep(_LOOK_S)

    per_second = []
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(keep_buying())
        await asyncio.sleep(warm_up_s)
        outcomes.clear()
        before = 0
        for _ in range(slices):
            await asyncio.sleep(slice_s)
            per_second.append((outcomes["purchased"] - before) / slice_s)
            before = outcomes["purchased"]
        counted = Counter(outcomes)
        stopped = True
    return Rate(per_second, counted)


_FINAL = """
SELECT purchase.request_id::text, purchase.status, event.happened_at
FROM unnest($1::text[]) AS wanted (request_id)
JOIN orchestrator.purchase ON purchase.request_id = wanted.request_id::uuid AND purchase.status <> 'pending'
JOIN orchestrator.purchase_event AS event ON event.request_id = purchase.request_id AND event.kind = 'finished'
"""
