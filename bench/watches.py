"""Many open watches: what each costs in memory, how soon all of them hear of an event, and how others fare meanwhile.

Customers watch purchases through Envoy: over gRPC, 100 watches on a connection, or by server-sent events, each on a
connection of its own, as browsers do. The seller decides on all orders at about the same time, long after all watches
are open; the time is from the commit of each purchase's end to each watch. Somebody else buys while all are open, and
one more watch than there may be is tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from bench.harness import OnProgress, Result, exactly, spread
from bench.shop import CUSTOMERS, MAX_PRICE, buyers, shop
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub

TITLE = "open watches"
WATCHES = int(os.environ.get("WATCHES", "2000"))
"""How many; `WATCHES=10000 python -m bench watches` for as many as there may be."""

OVER = os.environ.get("OVER", "grpc")
"""How they are opened: ``grpc``, or ``events`` for server-sent events."""

DECIDES_AFTER_S = float(os.environ.get("DECIDES_AFTER_S", 40 + WATCHES / 50))
"""When the seller decides; longer on a machine that has other things to do."""

KIB_AIM = 200.0
_A_CONNECTION = 100
_AT_ONCE = 200
_WITHIN_S = 2 * DECIDES_AFTER_S
_SETTLE_S = 3.0
_OTHERS = 20
_SPARE_FILES = 500
_BOOK, _OTHER_BOOK = "watched", "bought-meanwhile"
_QUICK: dict[str, Any] = {"carries": 0, "latency_constant_ms": 5, "latency_exponential_ms": 5}
_UNDECIDED: dict[str, Any] = {
    **_QUICK,
    "supports_holds": False,
    "pending_rate": 1,
    "pending_s": DECIDES_AFTER_S,
    "too_late_rate": 1,
    "calls_per_minute": 1_000_000,
}
_BOOKS = [
    {
        "isbn": book,
        "title": book,
        "author": "A. Bench",
        "offers": [{"seller": seller, "total": 10.0, "copies": 1_000_000}],
    }
    for book, seller in ((_BOOK, "undecided-001"), (_OTHER_BOOK, "quick-001"))
]
_SERVICES = ("envoy", "gateway", "orchestrator")


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure all; tell the part that is done."""
    if OVER == "events":
        _open_files(WATCHES + _SPARE_FILES)
    groups = {"undecided": _UNDECIDED, "quick": _QUICK | {"calls_per_minute": 1_000_000}}
    async with (
        shop(groups, {"undecided": 1, "quick": 1}, _BOOKS) as mesh,
        buyers(mesh) as others,
        AsyncExitStack() as stack,
    ):
        stubs = [
            await stack.enter_async_context(_connection(mesh))
            for _ in range(-(-WATCHES // _A_CONNECTION))
        ]
        watchers = [
            _Watcher(
                mesh, PurchaseServiceStub(channel), mesh.token(f"customer-{number % CUSTOMERS}")
            )
            for number, channel in enumerate(stubs)
        ]
        before = _memory_kib(mesh)
        ids = [await watcher.submit() for watcher in watchers[:CUSTOMERS]]
        opened: list[asyncio.Task[float]] = []
        for number in range(WATCHES):
            index = number // _A_CONNECTION
            ready = asyncio.Event()
            opened.append(asyncio.create_task(watchers[index].watch(ids[index % len(ids)], ready)))
            if (number + 1) % _AT_ONCE == 0:
                await ready.wait()
                on_progress(0.6 * (number + 1) / WATCHES)
        await asyncio.gather(*(watcher.all_open() for watcher in watchers))
        await asyncio.sleep(_SETTLE_S)
        after = _memory_kib(mesh)
        one_more = await watchers[0].one_more(ids[0])
        bought_ms = [await _bought_ms(others.buy) for _ in range(_OTHERS)]
        if ended := [watch for watch in opened if watch.done()]:
            await asyncio.gather(*ended)
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
            + "; with them open "
            + ", ".join(f"{name} {kib / 1024:,.0f}" for name, kib in after.items())
            + f" MiB; one more: {one_more}",
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
        Result(
            name=f"a purchase of somebody else with {WATCHES:,} watches open",
            ours=spread(sorted(bought_ms)),
            naive=None,
            ratio=None,
            unit="ms",
            aim=None,
            note=f"{_OTHERS} one after the other, all of them bought; the slowest took {max(bought_ms):,.0f} ms",
        ),
    ]


async def _bought_ms(buy: Callable[[str], Awaitable[str]]) -> float:
    begun = time.monotonic()
    status = await buy(_OTHER_BOOK)
    if status != "purchased":
        raise RuntimeError(f"a purchase ended as {status} while watches were open")
    return (time.monotonic() - begun) * 1000


class _Watcher:
    """A customer, with a connection for gRPC."""

    def __init__(self, mesh: LocalMesh, stub: PurchaseServiceAsyncStub, token: str) -> None:
        self._address = mesh.rest_url.partition("//")[2]
        self._stub = stub
        self._token = token
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
        try:
            way = self._events if OVER == "events" else self._messages
            return await way(request_id, ready)
        finally:
            ready.set()

    async def _messages(self, request_id: str, ready: asyncio.Event) -> float:
        delay_ms = 0.0
        async for event in self._call(request_id):
            ready.set()
            if event.HasField("result"):
                delay_ms = (time.time_ns() - event.event_time.ToNanoseconds()) / 1e6
        return delay_ms

    async def one_more(self, request_id: str) -> str:
        """Try a watch beyond those that are open; give how it is answered."""
        if OVER == "events":
            _, writer, status = await self._opened(request_id)
            writer.close()
            return status
        call = self._call(request_id)
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        call.cancel()
        return "OK"

    async def all_open(self) -> None:
        """Return when each watch has had an event."""
        async with asyncio.timeout(_WITHIN_S):
            await asyncio.gather(*(ready.wait() for ready in self._ready))

    def _call(
        self, request_id: str
    ) -> grpc.aio.UnaryStreamCall[pb.WatchPurchaseRequestRequest, pb.WatchPurchaseRequestResponse]:
        request = pb.WatchPurchaseRequestRequest(request_id=request_id)
        return self._stub.WatchPurchaseRequest(request, metadata=self._metadata)

    async def _events(self, request_id: str, ready: asyncio.Event) -> float:
        reader, writer, status = await self._opened(request_id)
        if " 200 " not in status:
            raise RuntimeError(f"a watch was refused: {status}")
        name = b""
        delay_ms = 0.0
        while (line := await reader.readline()) != b"0\r\n":
            if not line:
                raise RuntimeError("a watch was cut off")
            if line.startswith(b"event: "):
                ready.set()
                name = line[7:].strip()
            elif line.startswith(b"data: ") and name == b"result":
                happened = datetime.fromisoformat(json.loads(line[6:])["event_time"])
                delay_ms = (time.time() - happened.timestamp()) * 1000
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return delay_ms

    async def _opened(
        self, request_id: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        """Give the stream behind the headers of its answer, and the first line of those."""
        host, _, port = self._address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /api/v1/purchase-requests/{request_id}:events HTTP/1.1\r\nhost: {self._address}\r\n"
            f"authorization: Bearer {self._token}\r\naccept: text/event-stream\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        return reader, writer, head.decode().partition("\r\n")[0]


def _open_files(wanted: int) -> None:
    """See that this process may have so many files open."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        raise RuntimeError(
            f"{wanted:,} open files are needed, and {most:,} allowed: see `ulimit -Hn`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


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
