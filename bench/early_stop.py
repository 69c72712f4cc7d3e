"""How much sooner a caller has its answer who stops when the rest is not worth the wait, and what that costs.

Of 200 sellers 5 % are dead and 5 % take more than the 3 seconds that they are given. About every second somebody asks
for a book that nobody has asked for before. Ours stops by the policy ``balanced``; naive waits for all. Both have
breakers, which after a while leave out most of those that never answer in time, and run in virtual time over the same
sellers. Regret is by how much the best price seen lies above the best one of the sellers that answer in time, on
average.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from random import Random

from aggregator.domain.stopping import Policy
from bench.drawing import Chart, Series
from bench.harness import OnProgress, Result, exactly, spread
from bench.market import DEAD, Market, Pace, healthy
from bench.simulated import SimulatedSellers, our_aggregator
from bench.stack import NO_LIMIT, seller
from bench.traffic import Requester, Traffic, asks_naive, asks_ours, drive
from bench.virtual_time import run_virtually
from bench.workers import workers

TITLE = "the early stop"
SELLERS = 200
ILL = SELLERS // 20
WAIT_AIM = 0.5
REGRET_AIM_PERCENT = 0.5
_SLOW = Pace(1.0, floor_s=3.0)
_WARM_UP_S = 120.0
_MEASURED_S = 300.0
_FIRST_ISBN = 9_780_000_000_000


@dataclass(frozen=True, slots=True)
class Waits:
    """What requests waited, in seconds, and what they paid above the best price, as parts of it."""

    waits_s: Sequence[float]
    regrets: Sequence[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.waits_s)

    @property
    def regret_percent(self) -> float:
        return statistics.fmean(self.regrets) * 100


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure the policies and naive; tell the part that is done."""
    done = 0
    kinds = (Policy.BALANCED, Policy.FAST, Policy.BEST_PRICE, None)
    async with workers() as run:

        async def waits_of(policy: Policy | None) -> Waits:
            nonlocal done
            waits = await run(simulate, policy)
            done += 1
            on_progress(done / len(kinds))
            return waits

        balanced, fast, best_price, naive = await asyncio.gather(*map(waits_of, kinds))
    # The stricter comparison: ours waiting for all, or naive, whichever is faster.
    shortest_s = min(best_price.median_s, naive.median_s)
    return [
        Result(
            name="median wait, stopping by `balanced`",
            ours=spread(balanced.waits_s),
            naive=spread(naive.waits_s),
            ratio=exactly(balanced.median_s / shortest_s),
            unit="s",
            aim=WAIT_AIM,
            note=(
                f"medians: balanced {balanced.median_s:.2f} s, fast {fast.median_s:.2f} s, ours waiting for all "
                f"{best_price.median_s:.2f} s, naive {naive.median_s:.2f} s; the ratio is to the shorter of the two"
            ),
            chart=Chart(
                file="early-stop",
                title="How long requests wait: 5 % of sellers dead, 5 % above 3 s",
                x="wait, s",
                y="% of requests that have their answer",
                lines=(
                    Series("ours, balanced", _distribution(balanced.waits_s)),
                    Series("naive, waits for all", _distribution(naive.waits_s)),
                    Series("ours, best_price", _distribution(best_price.waits_s)),
                    Series("ours, fast", _distribution(fast.waits_s)),
                ),
            ),
        ),
        Result(
            name="price regret, stopping by `balanced`",
            ours=exactly(balanced.regret_percent),
            naive=exactly(naive.regret_percent),
            ratio=None,
            unit="%",
            aim=REGRET_AIM_PERCENT,
            absolute=True,
            note=(
                f"mean; {_share(balanced.regrets):.1%} of the requests got the best price; by `fast` regret is "
                f"{fast.regret_percent:.2f} %"
            ),
        ),
    ]


def simulate(policy: Policy | None) -> Waits:
    """Run ours by a policy, or naive without one, in virtual time."""
    return run_virtually(_simulate(policy))


async def _simulate(policy: Policy | None) -> Waits:
    market, paces = Market(SELLERS), healthy(SELLERS)
    order = Random(6).sample(range(SELLERS), SELLERS)
    for number in order[:ILL]:
        paces[number] = DEAD
    for number in order[ILL : 2 * ILL]:
        paces[number] = _SLOW
    well = order[2 * ILL :]
    source = SimulatedSellers(market, paces, Random(3))
    regrets: dict[str, float] = {}

    def noting(requester: Requester) -> Requester:
        async def request(book_id: str) -> int | None:
            best, least = await requester(book_id), market.best_of(book_id, well)
            if best is None or least is None:
                raise RuntimeError(f"no seller quoted {book_id}: nothing can be compared")
            regrets[book_id] = best / least - 1
            return best

        return request

    async def drive_it(requester: Requester) -> Traffic:
        return await drive(
            noting(requester),
            market,
            map(str, count(_FIRST_ISBN)),
            rate_per_s=1.0,
            warm_up_s=_WARM_UP_S,
            measured_s=_MEASURED_S,
            seed=5,
        )

    if policy is None:
        traffic = await drive_it(asks_naive(source, market, SELLERS, NO_LIMIT))
    else:
        sellers = [seller(number) for number in range(SELLERS)]
        async with our_aggregator(source, sellers) as collector:
            traffic = await drive_it(asks_ours(collector, policy))
    # In the order of the books, the last ones are those that count.
    counted = [regrets[book_id] for book_id in sorted(regrets)][-traffic.requests :]
    return Waits(traffic.waits_s, counted)


def _share(regrets: Sequence[float]) -> float:
    return sum(regret == 0 for regret in regrets) / len(regrets)


def _distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(values)
    return [(value, 100 * (rank + 1) / len(ordered)) for rank, value in enumerate(ordered)]
