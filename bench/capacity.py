"""How many books a minute can be asked for while at least 99 % of the requests see the true best price.

Each of 200 sellers may be called 100 times a minute and takes 100 books a call. Both sides run in virtual time, over
the same sellers and the same demand. The rate is doubled until too many requests miss the best price, then bisected;
each rate runs for a minute before anything is counted, which fills caches and uses up budgets. Sellers count the calls
that arrive within any 60 seconds, and refuse none. Virtual time leaves out what our own CPU can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from bench.demand import ZIPF, Demand, others
from bench.drawing import Chart, Mark, Series
from bench.harness import OnProgress, Result, exactly
from bench.market import Market, healthy
from bench.simulated import SimulatedSellers, our_aggregator
from bench.stack import seller
from bench.traffic import Requester, Traffic, asks_naive, asks_ours, drive
from bench.virtual_time import run_virtually
from bench.workers import workers

TITLE = "books a minute at 99 % best prices"
SELLERS = 200
CALLS_PER_MINUTE = 100
MAX_BATCH = 100
RECALL = 0.99
AIM = 50
_WARM_UP_S = 60.0
_NAIVE_MEASURED_S = 600.0
"""At so few requests a minute it takes as long to see whether 1 % of them fail."""
_NAIVE_BISECTIONS = 3
_OUR_MEASURED_S = 30.0
_OUR_BISECTIONS = 1
_FIRST_RATIO = 100
_MOST_RATIO = 200
"""Beyond it nobody looks: that takes minutes, and says nothing new."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What happened at one rate.

    Attributes:
        rate: books a minute.
        recall: the part of the requests that saw the true best price; of those counted until it was clear.
        busiest: the most calls that one seller saw within any 60 s.

    """

    rate: float
    recall: float
    busiest: int

    @property
    def sustained(self) -> bool:
        return self.recall >= RECALL


@dataclass(frozen=True, slots=True)
class Found:
    """The rates that were tried, and the highest that was sustained."""

    probes: list[Probe]

    @property
    def best(self) -> Probe:
        return max(
            (probe for probe in self.probes if probe.sustained), key=lambda probe: probe.rate
        )

    @property
    def busiest(self) -> int:
        """The most calls that one seller saw within any 60 s, at any rate that was tried."""
        return max(probe.busiest for probe in self.probes)

    @property
    def line(self) -> list[tuple[float, float]]:
        """Points to draw: percent of the requests by rate."""
        return sorted((probe.rate, probe.recall * 100) for probe in self.probes)


async def measure(on_progress: OnProgress) -> list[Result]:
    """Find both rates for each demand; tell the part that is done."""
    demands = [ZIPF, *others()]
    done = 0
    expected = len(demands) * (2 + _NAIVE_BISECTIONS + 3)

    def on_probe() -> None:
        nonlocal done
        done += 1
        on_progress(min(done / expected, 1.0))

    async with workers() as run:

        async def both(demand: Demand) -> Result:
            async def naive_at(rate: float) -> Probe:
                found = await run(probe, demand, rate, ours=False, measured_s=_NAIVE_MEASURED_S)
                on_probe()
                return found

            async def ours_at(rate: float) -> Probe:
                found = await run(probe, demand, rate, ours=True, measured_s=_OUR_MEASURED_S)
                on_probe()
                return found

            naive = await search(naive_at, first=100.0, bisections=_NAIVE_BISECTIONS)
            ours = await search(
                ours_at,
                first=naive.best.rate * _FIRST_RATIO,
                most=naive.best.rate * _MOST_RATIO,
                bisections=_OUR_BISECTIONS,
            )
            return _result(demand, ours, naive)

        return list(await asyncio.gather(*map(both, demands)))


async def search(
    probe_at: Callable[[float], Awaitable[Probe]],
    *,
    first: float,
    bisections: int,
    most: float = float("inf"),
) -> Found:
    """Double the rate while it is sustained, or halve it until it is; then bisect."""
    probes = [await probe_at(first)]
    while probes[-1].sustained and probes[-1].rate < most:
        probes.append(await probe_at(min(probes[-1].rate * 2, most)))
    while not any(probe.sustained for probe in probes):
        probes.append(await probe_at(probes[-1].rate / 2))
    for _ in range(bisections):
        low = max(probe.rate for probe in probes if probe.sustained)
        high = min((probe.rate for probe in probes if not probe.sustained), default=None)
        if high is None:
            break
        probes.append(await probe_at((low + high) / 2))
    return Found(probes)


def _result(demand: Demand, ours: Found, naive: Found) -> Result:
    at_least = "" if any(not probe.sustained for probe in ours.probes) else "at least, "
    return Result(
        name=f"books a minute at ≥ 99 % best prices, {demand.name}",
        ours=exactly(ours.best.rate),
        naive=exactly(naive.best.rate),
        ratio=exactly(ours.best.rate / naive.best.rate),
        unit="books a minute",
        aim=AIM,
        at_least=True,
        kept=ours.busiest <= CALLS_PER_MINUTE,
        note=(
            f"{at_least}most calls that a seller (limit {CALLS_PER_MINUTE}) saw within any 60 s: ours {ours.busiest}, "
            f"naive {naive.busiest}"
        ),
        chart=Chart(
            file="capacity-" + ("zipf" if demand.file is None else "books"),
            title=f"Requests that see the true best price, demand: {demand.name}",
            x="books asked for a minute (200 sellers, 100 calls a minute each)",
            y="% of requests",
            lines=(Series("ours", ours.line), Series("naive", naive.line)),
            mark=Mark("99 %", RECALL * 100),
            log_x=True,
            dots=True,
        ),
    )


def probe(demand: Demand, rate: float, *, ours: bool, measured_s: float) -> Probe:
    """Try one rate, in virtual time."""
    return run_virtually(_probe(demand, rate, ours=ours, measured_s=measured_s))


async def _probe(demand: Demand, rate: float, *, ours: bool, measured_s: float) -> Probe:
    market = Market(SELLERS)
    source = SimulatedSellers(market, healthy(SELLERS), Random(3))

    async def drive_it(requester: Requester) -> Traffic:
        return await drive(
            requester,
            market,
            demand.draw(Random(4)),
            rate_per_s=rate / 60,
            warm_up_s=_WARM_UP_S,
            measured_s=measured_s,
            seed=5,
            most_wrong=(1 - RECALL) * rate * measured_s / 60,
        )

    if ours:
        sellers = [
            seller(number, calls_per_minute=CALLS_PER_MINUTE, max_batch_size=MAX_BATCH)
            for number in range(SELLERS)
        ]
        async with our_aggregator(source, sellers) as collector:
            traffic = await drive_it(asks_ours(collector))
    else:
        traffic = await drive_it(asks_naive(source, market, SELLERS, CALLS_PER_MINUTE))
    return Probe(rate, traffic.recall, source.busiest())
