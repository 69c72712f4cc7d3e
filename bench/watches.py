"""Many open watches: what each costs in memory, and how soon all of them hear of an event.

Customers watch purchases over gRPC through Envoy, 100 watches on a connection. The seller decides on all orders at
about the same time, long after all watches are open; the time is from the commit of each purchase's end to each watch.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench.harness import OnProgress, Result, exactly, spread
from bench.shop import CUSTOMERS, MAX_PRICE, shop
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub

TITLE = "open watches"
WATCHES = int(os.environ.get("WATCHES", "2000"))
"""How many; `WATCHES=10000 python -m bench watches` for what a gateway takes at most."""

DECIDES_AFTER_S = 40 + WATCHES / 50
KIB_AIM = 200.0
_A_CONNECTION = 100
_AT_ONCE = 200
_WITHIN_S = 2 * DECIDES_AFTER_S
_SETTLE_S = 3.0
_BOOK = "watched"
_UNDECIDED = {
    "carries": 1,
    "in_stock": 1,
    "max_copies": 100_000,
    "supports_holds": False,
    "latency_constant_ms": 5,
    "latency_exponential_ms": 5,
    "pending_rate": 1,
    "pending_s": DECIDES_AFTER_S,
    "too_late_rate": 1,
    "calls_per_minute": 1_000_000,
}
_SERVICES = ("envoy", "gateway", "orchestrator")


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    async with shop({"undecided": _UNDECIDED}, {"undecided": 2}) as mesh, AsyncExitStack() as stack:
        stubs = [
            await stack.enter_async_context(_connection(mesh))
            for _ in range(-(-WATCHES // _A_CONNECTION))
        ]
        watchers = [
            _Watcher(PurchaseServiceStub(channel), mesh.token(f"customer-{number % CUSTOMERS}"))
            for number, channel in enumerate(stubs)
        ]
        before = _memory_kib(mesh)
        ids = [await watcher.submit() for watcher in watchers[:CUSTOMERS]]
        opened: list[asyncio.Task[float]] = []
        for number in range(WATCHES):
            index = number // _A_CONNECTION
            watcher = watchers[index]
            ready = asyncio.Event()
            opened.append(asyncio.create_task(watcher.watch(ids[index % len(ids)], ready)))
            if (number + 1) % _AT_ONCE == 0:
                await ready.wait()
                on_progress(0.7 * (number + 1) / WATCHES)
        await asyncio.gather(*(watcher.all_open() for watcher in watchers))
        await asyncio.sleep(_SETTLE_S)
        after = _memory_kib(mesh)
        if any(watch.done() for watch in opened):
            raise RuntimeError("purchases ended before all watches were open")
        async with asyncio.timeout(_WITHIN_S):
            took_ms = sorted(await asyncio.gather(*opened))
        on_progress(1.0)
    parts = {name: (after[name] - before[name]) / WATCHES for name in _SERVICES}
    return [
        Result(
            name=f"memory of an open watch, {WATCHES:,} of them, all processes of the mesh",
            ours=exactly(sum(parts.values())),
            naive=None,
            ratio=None,
            unit="KiB",
            aim=KIB_AIM,
            absolute=True,
            note=", ".join(f"{name} {kib:.0f} KiB" for name, kib in parts.items())
            + f"; {sum(after.values()) / 1024:,.0f} MiB in all with them open",
        ),
        Result(
            name=f"from an event to {WATCHES:,} watches that are told",
            ours=spread(took_ms),
            naive=None,
            ratio=None,
            unit="ms",
            aim=None,
            note=(
                f"{len(ids)} purchases end at about the same time, each with {len(took_ms) // len(ids)} watches; "
                f"the last after {took_ms[-1]:,.0f} ms"
            ),
        ),
    ]


class _Watcher:
    """A customer on a connection of its own."""

    def __init__(self, stub: PurchaseServiceAsyncStub, token: str) -> None:
        self._stub = stub
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._ready: list[asyncio.Event] = []

    async def submit(self) -> str:
        created = await self._stub.CreatePurchaseRequest(
            pb.CreatePurchaseRequestRequest(
                book_id=_BOOK,
                max_price=MAX_PRICE,
                payment_token="tok_bench",  # noqa: S106  the sandbox's
            ),
            metadata=self._metadata,
            timeout=10,
        )
        return created.request_id

    async def watch(self, request_id: str, ready: asyncio.Event) -> float:
        """Give how long after the end of the purchase this watch heard of it, in milliseconds."""
        self._ready.append(ready)
        delay_ms = 0.0
        call = self._stub.WatchPurchaseRequest(
            pb.WatchPurchaseRequestRequest(request_id=request_id), metadata=self._metadata
        )
        async for event in call:
            ready.set()
            if event.HasField("result"):
                delay_ms = (time.time_ns() - event.event_time.ToNanoseconds()) / 1e6
        return delay_ms

    async def all_open(self) -> None:
        """Return when each watch has had an event."""
        async with asyncio.timeout(_WITHIN_S):
            await asyncio.gather(*(ready.wait() for ready in self._ready))


def _connection(mesh: LocalMesh) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(mesh.grpc_address, options=options)


def _memory_kib(mesh: LocalMesh) -> dict[str, float]:
    """Give the resident memory of each service, all replicas together."""
    used = dict.fromkeys(_SERVICES, 0.0)
    for name, pid in mesh.pids().items():
        kind = name.partition("-")[0]
        if kind in used:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            used[kind] += pages * os.sysconf("SC_PAGE_SIZE") / 1024
    return used
