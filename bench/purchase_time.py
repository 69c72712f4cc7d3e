"""How long a purchase takes, from the answer to its submission to its final status, and what that time is made of.

First 5 purchases a second, each of another book, while 5 % of the 200 sellers are dead and 5 % take more than 3 s.

Then one purchase at a time, over 5 and over 200 sellers that all take 100 ms for every call: what it takes beyond the
time in which any seller is at work on a call for it is our own. The simulated sellers count that time themselves, from
a call's arrival in their process to its answer: what their process, on the same two cores, needs beyond its 100 ms to
answer 200 calls at once is theirs. The way there and back, and the calls to the sandbox provider, count as ours.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import asyncpg

from bench.drawing import Bars, Chart
from bench.harness import OnProgress, Result, exactly, spread
from bench.shop import SELLERS, Bought, Buyers, buyers, shop
from bookmesh.sellersim.v1 import control_pb2
from bookmesh.sellersim.v1.control_pb2_grpc import ControlServiceStub

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.sellersim.v1.control_pb2_grpc import ControlServiceAsyncStub

TITLE = "time of a purchase"
RATE_PER_S = 5.0
TIME_S = 60.0
P99_AIM_S = 10.0
OVERHEAD_AIM_MS = 60.0
FEW = 5
ALONE = 40
SELLER_MS = 100.0
_CALLS_IN_A_ROW = 3
_WARM_UP = 10
_DEAD = _SLOW = SELLERS // 20
_USUAL = {"carries": 0.6, "max_copies": 1000, "max_batch_size": 100, "calls_per_minute": 1000}
_STEPS = {
    "authorized": "authorize",
    "collected": "collect",
    "held": "hold",
    "ordered": "order",
    "captured": "capture",
}
_HUNDRED = 100


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    return [
        await _under_faults(lambda part: on_progress(part * 0.7)),
        await _alone(FEW, lambda part: on_progress(0.7 + part * 0.1)),
        await _alone(SELLERS, lambda part: on_progress(0.8 + part * 0.2)),
    ]


async def _under_faults(on_progress: OnProgress) -> Result:
    groups = {
        "usual": _USUAL | {"latency_constant_ms": 20, "latency_exponential_ms": 80},
        "dead": _USUAL | {"dead": True},
        "slow": _USUAL | {"latency_constant_ms": 3200, "latency_exponential_ms": 500},
    }
    counts = {"usual": SELLERS - _DEAD - _SLOW, "dead": _DEAD, "slow": _SLOW}
    async with shop(groups, counts) as mesh, buyers(mesh) as there:
        took_s: list[float] = []
        statuses: list[str] = []
        ids: list[str] = []

        async def buy(book_id: str) -> None:
            request_id = await there.submit(book_id)
            accepted = datetime.now(UTC)
            bought = await there.final(request_id)
            took_s.append((bought.final_at - accepted).total_seconds())
            statuses.append(bought.status)
            ids.append(request_id)

        rng, began = Random(12), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            number = 0
            while (gone_s := time.perf_counter() - began) < TIME_S:
                tasks.create_task(buy(f"{number}-faulty"))
                number += 1
                on_progress(gone_s / TIME_S)
                await asyncio.sleep(rng.expovariate(RATE_PER_S))
        parts = await _parts(mesh.dsn, ids)
    percentiles = statistics.quantiles(took_s, n=_HUNDRED, method="inclusive")
    p50, p99 = percentiles[49], percentiles[98]
    told = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    return Result(
        name="p99 from accepted to final, 5 purchases a second, 5 % of sellers dead, 5 % above 3 s",
        ours=exactly(p99),
        naive=None,
        ratio=None,
        unit="s",
        aim=P99_AIM_S,
        absolute=True,
        kept=statuses.count("purchased") == len(statuses),
        note=f"p50 {p50:.2f} s; {told}",
        chart=Chart(
            file="purchase-time",
            title="The parts of a purchase's time, 5 % of sellers dead, 5 % above 3 s",
            x="5 purchases a second, 200 sellers",
            y="seconds",
            bars=[Bars(name, values) for name, values in parts.items()],
            names=("median", "p99"),
        ),
    )


async def _alone(sellers: int, on_progress: OnProgress) -> Result:
    groups = {
        "steady": _USUAL
        | {"carries": 1, "latency_constant_ms": SELLER_MS, "latency_exponential_ms": 0}
    }
    own_ms, beyond_ms, sellers_ms = [], [], []
    async with (
        shop(groups, {"steady": sellers}) as mesh,
        buyers(mesh) as there,
        mesh.connect(mesh.sim_control, "sellersim") as channel,
    ):
        control = ControlServiceStub(channel)
        for number in range(_WARM_UP + ALONE):
            busy_before_s = await _busy_s(control)
            took_s = await _one(there, f"{number}-alone")
            busy_s = await _busy_s(control) - busy_before_s
            own_ms.append((took_s - busy_s) * 1000)
            beyond_ms.append(took_s * 1000 - _CALLS_IN_A_ROW * SELLER_MS)
            sellers_ms.append(busy_s * 1000)
            on_progress((number + 1) / (_WARM_UP + ALONE))
    return Result(
        name=f"our own part of a purchase that meets no fault, {sellers} sellers",
        ours=spread(own_ms[_WARM_UP:]),
        naive=None,
        ratio=None,
        unit="ms",
        aim=OVERHEAD_AIM_MS,
        absolute=True,
        note=(
            f"submission to final status less the {statistics.median(sellers_ms[_WARM_UP:]):.0f} ms in which sellers "
            f"were at work; less three calls of {SELLER_MS:.0f} ms it would be "
            f"{statistics.median(beyond_ms[_WARM_UP:]):.0f} ms"
        ),
    )


async def _busy_s(control: ControlServiceAsyncStub) -> float:
    """Say for how long sellers have been at work, quotes, holds and orders alone."""
    counters = await control.GetCounters(control_pb2.GetCountersRequest())
    return counters.busy_time.ToTimedelta().total_seconds()


async def _one(there: Buyers, book_id: str) -> float:
    began = datetime.now(UTC)
    bought: Bought = await there.final(await there.submit(book_id))
    if bought.status != "purchased":
        raise RuntimeError(
            f"a purchase over healthy sellers ended as {bought.status}: nothing can be measured"
        )
    return (bought.final_at - began).total_seconds()


async def _parts(dsn: str, ids: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Give for each part of a purchase its median and its 99th percentile, in seconds."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_EVENTS, list(ids))
    finally:
        await connection.close()
    spent: dict[str, dict[str, float]] = {}
    for before, after in pairwise(rows):
        part = _STEPS.get(after["name"])
        if part is not None and before["request_id"] == after["request_id"]:
            of_purchase = spent.setdefault(after["request_id"], {})
            took_s = (after["happened_at"] - before["happened_at"]).total_seconds()
            of_purchase[part] = of_purchase.get(part, 0.0) + took_s
    parts = {}
    for part in _STEPS.values():
        values = sorted(of_purchase.get(part, 0.0) for of_purchase in spent.values())
        parts[part] = values[len(values) // 2], values[int(len(values) * 0.99)]
    return parts


_EVENTS = """
SELECT request_id, happened_at, coalesce(body ->> 'name', kind) AS name
FROM orchestrator.purchase_event WHERE request_id = ANY ($1::text[]::uuid[]) ORDER BY request_id, seq
"""
