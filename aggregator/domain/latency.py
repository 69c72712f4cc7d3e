"""How long a seller usually takes: a histogram of its latencies in which old ones fade."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from math import inf

_FIRST_S = 0.005
_GROWTH = 1.35
_BUCKETS = 24
"""From 5 ms, each bound 35 % above the one before: the last is 5 s, above the time of any call to a seller, and what is
above it is one bucket more."""

BOUNDS_S = tuple(_FIRST_S * _GROWTH**i for i in range(_BUCKETS))
_FADE = 0.97
"""What an observation weighs beside the next one: half of all weight lies on the last 23."""

_PRIOR_WEIGHT = 0.5
_LARGEST_UNIT = 1e6


class LatencyHistogram:
    """Latencies of one seller, and what they say of its next answer.

    Before anything is known each bucket weighs the same little, so that an unknown seller is neither fast nor slow.
    A call that nobody waited for to its end says that its latency is longer than the wait.
    """

    __slots__ = ("_cumulated", "_quantiles", "_total", "_unit", "_weights")

    def __init__(self) -> None:
        self._weights = array("d", [_PRIOR_WEIGHT / (_BUCKETS + 1)]) * (_BUCKETS + 1)
        self._total = _PRIOR_WEIGHT
        # What the next observation weighs. It grows, rather than that all the others shrink: as good, and quick.
        self._unit = 1.0
        self._quantiles: dict[float, float] = {}
        self._cumulated: list[float] | None = None

    def add(self, latency_s: float) -> None:
        """Take note of an answer after so many seconds."""
        self._weights[bisect_left(BOUNDS_S, latency_s)] += self._unit
        self._added()

    def add_longer_than(self, waited_s: float) -> None:
        """Take note of a call that nobody waited for any longer: its weight goes to the latencies above, as they are.

        This is Efron's redistribution to the right (1967), by which the Kaplan-Meier estimate comes about.
        """
        index = bisect_left(BOUNDS_S, waited_s)
        growth = 1.0 + self._unit / sum(self._weights[index:])
        for i in range(index, _BUCKETS + 1):
            self._weights[i] *= growth
        self._added()

    def _added(self) -> None:
        self._total += self._unit
        self._unit /= _FADE
        self._quantiles.clear()
        self._cumulated = None
        if self._unit > _LARGEST_UNIT:
            self._weights = array("d", (weight / self._unit for weight in self._weights))
            self._total /= self._unit
            self._unit = 1.0

    def quantile(self, q: float) -> float:
        """Give the latency within which a part ``q`` (0 to 1) of the calls was answered, in seconds.

        Each bucket is taken as even between its bounds. Infinite when fewer than that were answered within the last
        bound.
        """
        found = self._quantiles.get(q)
        if found is None:
            found = self._quantiles[q] = self._quantile(q)
        return found

    def reaches(self, q: float, latency_s: float) -> bool:
        """Say whether the quantile is at least so long; quick where that is longer than the last bound."""
        if latency_s > BOUNDS_S[-1]:
            return sum(self._weights[:_BUCKETS]) < q * self._total
        return self.quantile(q) >= latency_s

    def _quantile(self, q: float) -> float:
        wanted = q * self._total
        sums = self._sums()
        index = bisect_left(sums, wanted)
        if index >= _BUCKETS:
            return inf
        low = BOUNDS_S[index - 1] if index else 0.0
        part = 1.0 - (sums[index] - wanted) / self._weights[index]
        return low + part * (BOUNDS_S[index] - low)

    def answered_by(self, elapsed_s: float, within_s: float) -> float:
        """Give the chance that a call, unanswered after ``elapsed_s``, is answered in the next ``within_s`` seconds."""
        before = self._below(elapsed_s)
        left = self._total - before
        return (
            (self._below(elapsed_s + within_s) - before) / left
            if left > 1e-9 * self._total
            else 0.0
        )

    def _below(self, latency_s: float) -> float:
        """Give the weight of the latencies below one, taking each bucket as even between its bounds."""
        index = bisect_left(BOUNDS_S, latency_s)
        whole = self._sums()[index - 1] if index else 0.0
        if index >= _BUCKETS:
            return whole
        low = BOUNDS_S[index - 1] if index else 0.0
        return whole + self._weights[index] * (latency_s - low) / (BOUNDS_S[index] - low)

    def _sums(self) -> list[float]:
        """Give the weight of each bucket together with all below it: asked for far more often than it changes."""
        if self._cumulated is None:
            self._cumulated = list(accumulate(self._weights))
        return self._cumulated
