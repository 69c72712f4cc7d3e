"""What a process has learned of a seller from its answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

from aggregator.domain.collection import Answer
from aggregator.domain.latency import LatencyHistogram
from aggregator.domain.stopping import PriceHistory, level
from sellers.model import CallFailed, FailureKind, Quote

USUAL = 0.5
"""A seller's usual time is the one within which this part of its calls is answered."""


class Outlook:
    """Latency and prices of one seller.

    Attributes:
        latency: how long its answers take.
        prices: what it asks, beside the others.
        answered: whether it ever has.
        silent_since_s: when it was first asked after its last answer, by the monotonic clock; infinite when it was not.

    """

    __slots__ = ("answered", "latency", "prices", "silent_since_s")

    def __init__(self) -> None:
        self.latency = LatencyHistogram()
        self.prices = PriceHistory()
        self.answered = False
        self.silent_since_s = math.inf

    def usual_s(self) -> float:
        """Give the seller's usual time in seconds; 0 before it has answered at all."""
        return self.latency.quantile(USUAL) if self.answered else 0.0

    def takes(self, latency_s: float) -> bool:
        """Say whether the seller's usual time is at least so long; quicker than to work it out."""
        if not self.answered:
            return latency_s <= 0.0
        return self.latency.reaches(USUAL, latency_s)


class Outlooks:
    """The outlooks of all sellers that were ever asked, save those that were let go."""

    def __init__(self) -> None:
        self._by_id: defaultdict[str, Outlook] = defaultdict(Outlook)

    def __getitem__(self, seller_id: str) -> Outlook:
        """Give a seller's outlook; a blank one for a seller never asked."""
        return self._by_id[seller_id]

    def retain(self, seller_ids: Collection[str]) -> None:
        """Forget all sellers but these."""
        for seller_id in self._by_id.keys() - seller_ids:
            del self._by_id[seller_id]

    def learn_asked(self, seller_id: str, now: float) -> None:
        """Take note that a seller is asked now."""
        outlook = self._by_id[seller_id]
        outlook.silent_since_s = min(outlook.silent_since_s, now)

    def learn_latency(self, seller_id: str, outcome: object, latency_s: float) -> None:
        """Take note of how long an answer took, or that none came in so long."""
        outlook = self._by_id[seller_id]
        if not isinstance(outcome, CallFailed):
            outlook.latency.add(latency_s)
            outlook.answered = True
        elif outcome.kind is FailureKind.TIMED_OUT:
            outlook.latency.add_longer_than(latency_s)
            return
        outlook.silent_since_s = math.inf

    def learn_unanswered(self, seller_id: str, waited_s: float) -> None:
        """Take note that nobody waited any longer for an answer."""
        self._by_id[seller_id].latency.add_longer_than(waited_s)

    def learn_prices(self, answers: Iterable[Answer]) -> None:
        """Take note of the prices of one collection, against the level that they show together."""
        fresh = [answer for answer in answers if not answer.cached]
        book_level = self.level(fresh)
        for answer in fresh:
            if isinstance(answer.outcome, Quote):
                if book_level is not None:
                    ratio = answer.outcome.total.minor / book_level
                    self._by_id[answer.seller_id].prices.add(math.log(ratio))
            elif answer.answered:
                self._by_id[answer.seller_id].prices.add(None)

    def level(self, answers: Iterable[Answer]) -> float | None:
        """Give the level of a book in minor units, by the quotes among these answers; None without any."""
        return level(
            (answer.outcome.total.minor, self._by_id[answer.seller_id].prices)
            for answer in answers
            if isinstance(answer.outcome, Quote)
        )
