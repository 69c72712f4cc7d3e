"""How many calls to sellers a request costs, at 20 requests a second for ten minutes over a million books.

Sellers are those of ``capacity``. Ours keeps to their limits of 100 calls a minute. The straightforward solution cannot
and still see the best prices: so that both see them equally often, the comparison is with one that sellers let call as
often as it likes; what it sees within the limits is told beside it. All in virtual time, from a cold start.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from bench.capacity import CALLS_PER_MINUTE, MAX_BATCH, SELLERS
from bench.demand import ZIPF
from bench.drawing import Bars, Chart
from bench.harness import OnProgress, Result, exactly
from bench.market import Market, healthy
from bench.simulated import SimulatedSellers, our_aggregator
from bench.stack import NO_LIMIT, seller
from bench.traffic import Requester, Traffic, asks_naive, asks_ours, drive
from bench.virtual_time import run_virtually
from bench.workers import workers

TITLE = "calls to sellers for a request"
RATE_PER_S = 20.0
TIME_S = 600.0
AIM = 0.1
_EQUAL = 0.005
"""Recalls that differ by no more are taken as equal."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What came of the ten minutes.

    Attributes:
        calls: calls to sellers for a request.
        recall: the part of the requests that saw the true best price.
        busiest: the most calls that one seller saw within any 60 s.

    """

    calls: float
    recall: float
    busiest: int


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure all three; tell the part that is done."""
    done = 0
    async with workers() as run:

        async def cost_of(calls_per_minute: int, *, ours: bool) -> Cost:
            nonlocal done
            cost = await run(simulate, calls_per_minute, ours=ours)
            done += 1
            on_progress(done / 3)
            return cost

        ours, free, limited = await asyncio.gather(
            cost_of(CALLS_PER_MINUTE, ours=True),
            cost_of(NO_LIMIT, ours=False),
            cost_of(CALLS_PER_MINUTE, ours=False),
        )
    return [
        Result(
            name="calls to sellers for a request, Zipf(1.0), 20/s",
            ours=exactly(ours.calls),
            naive=exactly(free.calls),
            ratio=exactly(ours.calls / free.calls),
            unit="calls",
            aim=AIM,
            kept=ours.recall >= free.recall - _EQUAL and ours.busiest <= CALLS_PER_MINUTE,
            note=(
                f"best price seen by {ours.recall:.2%} (ours, at most {ours.busiest} calls to a seller in any 60 s), "
                f"{free.recall:.2%} (naive without limits, {free.busiest}), {limited.recall:.2%} (naive within limits, "
                f"{limited.calls:.1f} calls a request, {limited.busiest})"
            ),
            chart=Chart(
                file="calls",
                title="Calls to sellers for a request, and requests that see the best price",
                x="20 requests a second over a million books, Zipf(1.0), 200 sellers",
                y="calls for a request; % of requests",
                bars=(
                    Bars("calls to sellers for a request", (ours.calls, free.calls, limited.calls)),
                    Bars(
                        "% of requests with the best price",
                        (ours.recall * 100, free.recall * 100, limited.recall * 100),
                    ),
                ),
                names=(
                    "ours, 100 calls a minute",
                    "naive, no limit",
                    "naive, 100 calls a minute",
                ),
            ),
        )
    ]


def simulate(calls_per_minute: int, *, ours: bool) -> Cost:
    """Run the ten minutes, in virtual time."""
    return run_virtually(_simulate(calls_per_minute, ours=ours))


async def _simulate(calls_per_minute: int, *, ours: bool) -> Cost:
    market = Market(SELLERS)
    source = SimulatedSellers(market, healthy(SELLERS), Random(3))

    async def drive_it(requester: Requester) -> Traffic:
        return await drive(
            requester,
            market,
            ZIPF.draw(Random(4)),
            rate_per_s=RATE_PER_S,
            warm_up_s=0.0,
            measured_s=TIME_S,
            seed=5,
        )

    if ours:
        sellers = [
            seller(number, calls_per_minute=calls_per_minute, max_batch_size=MAX_BATCH)
            for number in range(SELLERS)
        ]
        async with our_aggregator(source, sellers) as collector:
            traffic = await drive_it(asks_ours(collector))
    else:
        traffic = await drive_it(asks_naive(source, market, SELLERS, calls_per_minute))
    return Cost(source.calls / traffic.requests, traffic.recall, source.busiest())
