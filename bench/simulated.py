"""Sellers inside this process, and our aggregator and the straightforward one before them, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random

from aggregator.app.collect import QuoteCollector
from aggregator.domain.cached import CacheSettings
from bench.market import Market, Pace
from bench.memory_cache import MemoryCache
from bench.stack import core, running
from bench.virtual_time import VirtualClock
from sellers.admission import model as admission
from sellers.admission.admission import Admission, rules_of
from sellers.admission.ledger import Ledger, Report, Request, Standing, Verdict
from sellers.model import (
    BatchOutcome,
    CallFailed,
    Condition,
    FailureKind,
    QuoteOutcome,
    Seller,
)

WINDOW_S = 60.0
_LONGEST_WAY_S = 0.2
_TIMED_OUT = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="no answer")


class SimulatedSellers:
    """Implements ``aggregator.ports.QuoteSource``: answers by a market, at each seller's pace, and counts arrivals.

    It refuses nothing: that a seller is called too often is seen in ``busiest``.

    Attributes:
        calls: how many there were.

    """

    def __init__(self, market: Market, paces: Sequence[Pace], rng: Random) -> None:
        self.calls = 0
        self._market = market
        self._paces = paces
        self._rng = rng
        self._arrivals: list[list[float]] = [[] for _ in paces]

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,  # noqa: ARG002  all ask the same
        conditions: frozenset[Condition],  # noqa: ARG002  likewise
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        number = int(seller.seller_id)
        if await self.answers(number, timeout_s):
            return self._market.outcome(number, book_id)
        return _TIMED_OUT

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,  # noqa: ARG002  all ask the same
        conditions: frozenset[Condition],  # noqa: ARG002  likewise
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        number = int(seller.seller_id)
        if await self.answers(number, timeout_s):
            return tuple([self._market.outcome(number, book_id) for book_id in book_ids])
        return _TIMED_OUT

    async def answers(self, number: int, timeout_s: float) -> bool:
        """Take a call and the time for it; say whether the answer came within the timeout."""
        self.calls += 1
        latency_s = self._paces[number].draw(self._rng)
        # It arrives some time on its way, which is not known to who sent it.
        way_s = self._rng.uniform(0.0, min(latency_s / 2, _LONGEST_WAY_S))
        self._arrivals[number].append(asyncio.get_running_loop().time() + way_s)
        await asyncio.sleep(min(latency_s, timeout_s))
        return latency_s < timeout_s

    def busiest(self) -> int:
        """Give the most calls that arrived at any one seller within any 60 s."""
        return max(map(_most_in_a_window, self._arrivals))


def _most_in_a_window(arrivals: Iterable[float]) -> int:
    times = sorted(arrivals)
    most = first = 0
    for last, time in enumerate(times):
        while times[first] <= time - WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most


class MemoryLedger:
    """Implements ``FleetLedger`` by the scripts' twin in this process."""

    def __init__(self, ledger: Ledger, clock: VirtualClock) -> None:
        self._ledger = ledger
        self._clock = clock
        ledger.declare_quiet(self._now_ms())

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        return self._ledger.admit(self._now_ms(), requests)

    async def report(self, reports: Sequence[Report]) -> None:
        self._ledger.report(self._now_ms(), reports)

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        return self._ledger.standings(self._now_ms(), seller_ids)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


@asynccontextmanager
async def our_aggregator(
    source: SimulatedSellers, sellers: Sequence[Seller]
) -> AsyncIterator[QuoteCollector]:
    """Run our aggregator in virtual time, as the only process that calls these sellers."""
    clock = VirtualClock()
    limits = [admission.Limits.of(seller) for seller in sellers]
    rules = admission.AdmissionSettings()
    ledger = MemoryLedger(Ledger(rules_of(rules)), clock)
    admitting = Admission(ledger, clock, rules, sellers=lambda: limits, quiet=True)
    cache = MemoryCache(clock, CacheSettings())
    async with (
        running(admitting.run()),
        core(source, admitting, cache, sellers, clock) as collector,
    ):
        yield collector
