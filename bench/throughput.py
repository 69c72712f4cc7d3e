"""Purchases a second: the whole mesh, its databases and 200 sellers on this one machine.

Buyers come back as soon as their purchase is over, 100 at a time, over gRPC through Envoy. They go on for more than the
minute over which sellers' limits count, so that it shows at the end if these do not last. Sellers are simulated, quick
and honest, half with holds; each may be called 100 times a minute and takes 100 books a call. The straightforward shop
has the same sellers, sandbox and databases; besides, it is measured with sellers that have no limit.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from random import Random

import grpc

from bench.demand import ZIPF, Demand, others
from bench.drawing import Bars, Chart
from bench.harness import OnProgress, Result, Spread, spread
from bench.shop import MAX_PRICE, SELLERS, Buy, Rate, buyers, rate, shop
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh
from deploy.local.options import HOST
from deploy.local.ports import Ports

TITLE = "purchases a second"
CALLS_PER_MINUTE = 100
NO_LIMIT = 1_000_000
AT_ONCE = 100
MONTH_IN_AN_HOUR = 111.0
AIM = 5.0
_WARM_UP_S = 10.0
_SLICES, _SLICE_S = 16, 5.0
_NAIVE_SLICES, _NAIVE_SLICE_S = 4, 5.0
_SHARED = {
    "carries": 0.6,
    "max_copies": 1000,
    "latency_constant_ms": 20,
    "latency_exponential_ms": 80,
    "max_batch_size": 100,
}


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both shops, with each demand; tell the part that is done."""
    demands = [ZIPF, *others()]
    parts = 2 * len(demands) + 1
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        on_progress(done / parts)

    ours, naive = {}, {}
    async with _mesh(CALLS_PER_MINUTE) as mesh:
        for demand in demands:
            async with buyers(mesh) as there:
                books = demand.draw(Random(11))
                ours[demand] = await _rate(there.buy, books, _SLICES, _SLICE_S)
            one_more()
    for demand in demands:
        naive[demand] = await _naive_rate(demand, CALLS_PER_MINUTE)
        one_more()
    free = await _naive_rate(ZIPF, NO_LIMIT)
    one_more()
    return [_result(demand, ours[demand], naive[demand], free) for demand in demands]


def _result(demand: Demand, ours: Rate, naive: Rate, free: Rate) -> Result:
    our_rate, naive_rate, free_rate = (spread(found.per_second) for found in (ours, naive, free))
    return Result(
        name=f"purchases a second, whole mesh on two cores, {demand.name}",
        ours=our_rate,
        naive=naive_rate,
        ratio=_over(ours.per_second, naive_rate.median),
        unit="purchases a second",
        aim=AIM,
        at_least=True,
        note=(
            f"{our_rate.median / MONTH_IN_AN_HOUR:.0%} of {MONTH_IN_AN_HOUR:.0f} (a month's traffic in an hour); "
            f"outcomes: ours {_told(ours)}; naive {_told(naive)}; "
            f"naive with sellers without limits {free_rate.median:.1f} a second ({_told(free)})"
        ),
        chart=Chart(
            file="purchases-" + ("zipf" if demand.file is None else "books"),
            title=f"Purchases a second, all on two cores, demand: {demand.name}",
            x=f"{SELLERS} sellers, {CALLS_PER_MINUTE} calls a minute each",
            y="purchases a second",
            bars=(Bars("", (our_rate.median, naive_rate.median, free_rate.median)),),
            names=("ours", "naive", "naive, sellers without limits"),
        ),
    )


def _over(values: list[float], by: float) -> Spread | None:
    return spread([value / by for value in values]) if by else None


def _told(found: Rate) -> str:
    return (
        ", ".join(f"{count:,} {status}" for status, count in found.outcomes.most_common()) or "none"
    )


async def _rate(buy: Buy, books: Iterator[str], slices: int, slice_s: float) -> Rate:
    return await rate(
        buy, books, at_once=AT_ONCE, warm_up_s=_WARM_UP_S, slices=slices, slice_s=slice_s
    )


@asynccontextmanager
async def _mesh(calls_per_minute: int) -> AsyncIterator[LocalMesh]:
    behaviour = _SHARED | {"calls_per_minute": calls_per_minute}
    groups = {"holding": behaviour, "atomic": behaviour | {"supports_holds": False}}
    async with shop(groups, dict.fromkeys(groups, SELLERS // 2)) as mesh:
        yield mesh


async def _naive_rate(demand: Demand, calls_per_minute: int) -> Rate:
    """Let the straightforward shop work with a mesh's sellers and databases, which does nothing itself meanwhile."""
    async with _mesh(calls_per_minute) as mesh:
        with Ports(mesh.data.root / "naive-port.json") as ports:
            address = f"{HOST}:{ports.take('naive')}"
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.naive.shop", address, mesh.dsn, mesh.valkey_url),
                *(mesh.sim_control, str(mesh.data.root), str(calls_per_minute)),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                if process.stdout is None or not await process.stdout.readline():
                    raise RuntimeError(
                        "the straightforward shop ended badly: see what it printed above"
                    )
                async with grpc.aio.insecure_channel(address) as channel:
                    return await _rate(
                        _naive_buyer(channel),
                        demand.draw(Random(11)),
                        _NAIVE_SLICES,
                        _NAIVE_SLICE_S,
                    )
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


def _naive_buyer(channel: grpc.aio.Channel) -> Buy:
    stub = PurchaseServiceStub(channel)

    async def buy(book_id: str) -> str:
        answer = await stub.CreatePurchaseRequest(
            pb.CreatePurchaseRequestRequest(
                book_id=book_id,
                max_price=MAX_PRICE,
                payment_token="tok_bench",  # noqa: S106  the sandbox's
            ),
            timeout=60,
        )
        return pb.PurchaseStatus.Word.Name(answer.status)

    return buy
