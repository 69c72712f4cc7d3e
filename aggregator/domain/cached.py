"""Which answer is good for how long, and those that one process knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import assert_never

from aggregator.domain.collection import Skipped
from aggregator.domain.packed import good, is_answer
from sellers.model import CallFailed, FailureKind, Quote, Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How long answers and leads last, and how much is kept.

    Attributes:
        quote_s: the most that a quote is good for.
        margin_s: how long before it expires a quote stops being good, so that there is time left to buy on it.
        no_s: how long a seller's "no" is good; also that it does not understand the question.
        failure_s: how long the others are told that a call failed or was not made; also of a quote that is within its
            margin already.
        lease_s: how long a lead lasts that is not renewed.
        known_entries: how many answers a process itself remembers; those of the question used longest ago go first.

    """

    quote_s: float = 60.0
    margin_s: float = 10.0
    no_s: float = 60.0
    failure_s: float = 1.0
    lease_s: float = 1.0
    known_entries: int = 100_000

    @property
    def longest_s(self) -> float:
        """The longest that any answer is good."""
        return max(self.quote_s, self.no_s, self.failure_s)


def good_for_s(
    outcome: Quote | Unavailable | CallFailed | Skipped, now: datetime, settings: CacheSettings
) -> float:
    """Give how many seconds an answer is good that has just come in."""
    match outcome:
        case Quote():
            life_s = (outcome.expires_at - now).total_seconds()
            good_s = max(min(settings.quote_s, life_s - settings.margin_s), settings.failure_s)
            return max(min(good_s, life_s), 0.0)
        case Unavailable() | CallFailed(FailureKind.NOT_UNDERSTOOD):
            return settings.no_s
        case CallFailed() | Skipped():
            return settings.failure_s
        case _:
            assert_never(outcome)


def keep(entries: dict[str, bytes], seller_id: str, packed: bytes) -> None:
    """Put a packed answer in the place of what was known of the seller.

    A call that failed does not displace an answer that is good for longer: that is still the best that is known.
    """
    known = entries.get(seller_id)
    if known is None or is_answer(packed) or good(packed) >= good(known):
        entries[seller_id] = packed


class KnownAnswers:
    """Packed answers by question and seller, up to a number; ``good`` is a moment of the process's own clock.

    What is no longer good stays until it is replaced or its question is the one used longest ago.
    """

    def __init__(self, most: int) -> None:
        """Keep at most this many answers, and the questions count as one each."""
        self._most = most
        self._questions: OrderedDict[str, dict[str, bytes]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """Give the number of answers and questions."""
        return self._size

    def of(self, question: str) -> Mapping[str, bytes]:
        """Give what is known of a question, good or not."""
        known = self._questions.get(question)
        if known is None:
            return MappingProxyType({})
        self._questions.move_to_end(question)
        return known

    def put(self, question: str, entries: Iterable[tuple[str, bytes]]) -> None:
        """Add answers to a question, as ``keep`` does."""
        known = self._questions.get(question)
        if known is None:
            known = self._questions[question] = {}
            self._size += 1
        else:
            self._questions.move_to_end(question)
        before = len(known)
        for seller_id, packed in entries:
            keep(known, seller_id, packed)
        self._size += len(known) - before
        while self._size > self._most and len(self._questions) > 1:
            _, forgotten = self._questions.popitem(last=False)
            self._size -= 1 + len(forgotten)
