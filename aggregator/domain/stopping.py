"""When to stop waiting for the rest of the sellers: when what they could still save is worth less than the wait.

The price that a seller would quote is taken as log-normal around the level of the book: the level is what the sellers
that have answered say of it, each corrected by how it usually stands to that level. What a seller at level ratio
``exp(mu)`` with deviation ``sigma`` can be expected to save below the best price ``B`` is then the value of a put
(Black and Scholes 1973, without interest):

    E[(B - X)+] = B Phi(d) - L exp(mu + sigma^2/2) Phi(d - sigma),    d = (ln(B/L) - mu) / sigma
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aggregator.domain.latency import LatencyHistogram

_FADE = 0.95
_PRIOR_OBSERVATIONS = 2.0
_PRIOR_SIGMA = 0.2
_LEAST_SIGMA = 0.01
_PRIOR_HAS = 0.5
_PLAUSIBLE = 0.4
_ENOUGH = 3
_MORE_WITHIN_S = 1.0
_HORIZONS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0)


class Policy(StrEnum):
    """How much waiting a lower price is worth to whoever asks."""

    BEST_PRICE = "best_price"
    """Any: all answers until the deadline."""
    BALANCED = "balanced"
    """0.2 % of the price for each second."""
    FAST = "fast"
    """5 % of the price for each second."""


COST_OF_A_SECOND = {Policy.BALANCED: 0.002, Policy.FAST: 0.05}
"""What a second of waiting costs, as a part of the best price."""


class PriceHistory:
    """How a seller's totals usually stand to the level of a book, and how often it has one. Old ones fade."""

    __slots__ = ("_asked", "_had", "_mean", "_square", "_weight")

    def __init__(self) -> None:
        self._weight = _PRIOR_OBSERVATIONS
        self._mean = 0.0
        self._square = _PRIOR_SIGMA**2
        self._asked = _PRIOR_OBSERVATIONS
        self._had = _PRIOR_OBSERVATIONS * _PRIOR_HAS

    def add(self, log_ratio: float | None) -> None:
        """Take note of an answer: the logarithm of its total over the book's level, or None for "no"."""
        self._asked = self._asked * _FADE + 1.0
        self._had *= _FADE
        if log_ratio is None:
            return
        self._had += 1.0
        weight = self._weight * _FADE
        self._weight = weight + 1.0
        self._mean += (log_ratio - self._mean) / self._weight
        self._square = (self._square * weight + (log_ratio - self._mean) ** 2) / self._weight

    @property
    def mu(self) -> float:
        """The mean of the logarithm of its ratio to the level."""
        return self._mean

    @property
    def sigma(self) -> float:
        """The deviation of that."""
        return max(math.sqrt(self._square), _LEAST_SIGMA)

    @property
    def has(self) -> float:
        """The chance that it has a book for which it is asked."""
        return self._had / self._asked


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A seller that has not answered yet: its histories, and for how long it has been asked, in seconds."""

    prices: PriceHistory
    latency: LatencyHistogram
    asked_for_s: float


def level(totals: Iterable[tuple[float, PriceHistory]]) -> float | None:
    """Give the level of a book: the median of what each total says of it; None without totals."""
    levels = [total / math.exp(history.mu) for total, history in totals]
    return statistics.median(levels) if levels else None


def least_plausible(totals: Collection[float]) -> float:
    """Give the lowest total of a book that may be true: 40 % of the median; 0 for fewer than three totals.

    What is below is more likely a mistake, or a lure, than a bargain that makes all others not worth the wait.
    """
    return _PLAUSIBLE * statistics.median(totals) if len(totals) >= _ENOUGH else 0.0


def too_few(totals: int, outstanding: Iterable[Outstanding]) -> bool:
    """Say whether so many totals are too few to know a price by, and another one is likely within a second."""
    return (
        totals < _ENOUGH
        and sum(
            seller.prices.has * seller.latency.answered_by(seller.asked_for_s, _MORE_WITHIN_S)
            for seller in outstanding
        )
        > 1 / 2
    )


def expected_saving(best: float, book_level: float, history: PriceHistory) -> float:
    """Give by how much a seller that has the book can be expected to undercut the best price; in its unit."""
    sigma = history.sigma
    d = (math.log(best / book_level) - history.mu) / sigma
    forward = book_level * math.exp(history.mu + sigma**2 / 2)
    return max(0.0, best * _phi(d) - forward * _phi(d - sigma))


def worth_waiting(
    best: float, book_level: float, outstanding: Iterable[Outstanding], policy: Policy
) -> bool:
    """Say whether the sellers that have not answered can be expected to save more than waiting for them costs.

    Args:
        best: the lowest plausible total so far, in any unit.
        book_level: the level of the book, in the same unit.
        outstanding: who has not answered.
        policy: what a second is worth.

    """
    if policy is Policy.BEST_PRICE:
        return any(True for _ in outstanding)
    cost_per_s = COST_OF_A_SECOND[policy] * best
    # Most often the first few are worth the shortest wait already.
    soonest_s, *later_s = _HORIZONS_S
    savings: list[tuple[Outstanding, float]] = []
    saved = 0.0
    for seller in outstanding:
        saving = seller.prices.has * expected_saving(best, book_level, seller.prices)
        saved += saving * seller.latency.answered_by(seller.asked_for_s, soonest_s)
        if saved > cost_per_s * soonest_s:
            return True
        savings.append((seller, saving))
    # Even if all of them were to answer.
    most = sum(saving for _, saving in savings)
    return any(
        most > cost_per_s * within_s
        and sum(
            saving * seller.latency.answered_by(seller.asked_for_s, within_s)
            for seller, saving in savings
        )
        > cost_per_s * within_s
        for within_s in later_s
    )


def _phi(x: float) -> float:
    """Give the standard normal distribution function."""
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))
