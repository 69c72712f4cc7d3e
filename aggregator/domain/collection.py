"""A collection: one gathering of quotes for one book."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from mesh.money import Money
from sellers.model import (
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Unavailable,
    UnavailableReason,
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every seller: one copy of this book, in this currency and in one of these conditions."""

    book_id: str
    currency: str
    conditions: frozenset[Condition]


class MissReason(StrEnum):
    """Why a seller gives no price. The first four are answers of the seller."""

    OUT_OF_STOCK = "out_of_stock"
    NOT_CARRIED = "not_carried"
    CONDITION = "condition"
    CURRENCY = "currency"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    SELLER_ERROR = "seller_error"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    INVALID_ANSWER = "invalid_answer"
    STOPPED = "stopped"
    CIRCUIT_OPEN = "circuit_open"
    NO_BUDGET = "no_budget"
    BUSY = "busy"
    TOO_SLOW = "too_slow"
    NO_CREDENTIAL = "no_credential"
    NOT_SELECTED = "not_selected"


_NOT_ASKED = frozenset(
    {
        MissReason.CIRCUIT_OPEN,
        MissReason.NO_BUDGET,
        MissReason.BUSY,
        MissReason.TOO_SLOW,
    }
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The seller was not asked, or its answer was not waited for; ``asked`` is whether it was, if ``reason`` allows."""

    reason: MissReason
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking one seller.

    Attributes:
        seller_id: who.
        outcome: its answer, or why there is none.
        latency_s: from asking to the outcome; 0 for one that was known already.
        cached: whether it was known already.
        age_s: how long ago the seller gave it as a price; 0 for one that was not known already.

    """

    seller_id: str
    outcome: QuoteOutcome | Skipped
    latency_s: float
    cached: bool = False
    age_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the seller said something, a price or "no"."""
        return isinstance(self.outcome, Quote | Unavailable)

    @property
    def asked(self) -> bool:
        """Whether the seller was asked."""
        outcome = self.outcome
        if isinstance(outcome, Skipped):
            return outcome.asked and outcome.reason not in _NOT_ASKED
        return not isinstance(outcome, CallFailed) or outcome.kind is not FailureKind.NO_CREDENTIAL


_BY_ANSWER = {
    UnavailableReason.OUT_OF_STOCK: MissReason.OUT_OF_STOCK,
    UnavailableReason.NOT_CARRIED: MissReason.NOT_CARRIED,
    UnavailableReason.CONDITION: MissReason.CONDITION,
    UnavailableReason.CURRENCY: MissReason.CURRENCY,
}
_BY_FAILURE = {
    FailureKind.TIMED_OUT: MissReason.TIMED_OUT,
    FailureKind.UNREACHABLE: MissReason.UNREACHABLE,
    FailureKind.SELLER_ERROR: MissReason.SELLER_ERROR,
    FailureKind.RATE_LIMITED: MissReason.RATE_LIMITED,
    FailureKind.REFUSED: MissReason.REFUSED,
    FailureKind.NOT_UNDERSTOOD: MissReason.REFUSED,
    FailureKind.NO_CREDENTIAL: MissReason.NO_CREDENTIAL,
    FailureKind.INVALID_ANSWER: MissReason.INVALID_ANSWER,
    # None of these answers a GetQuote: a seller that says so is not right in itself.
    FailureKind.IN_FLIGHT: MissReason.SELLER_ERROR,
    FailureKind.KEY_MISMATCH: MissReason.SELLER_ERROR,
    FailureKind.NOT_FOUND: MissReason.SELLER_ERROR,
}


def miss_reason(outcome: Unavailable | CallFailed | Skipped) -> MissReason:
    """Say why there is no price."""
    if isinstance(outcome, Skipped):
        return outcome.reason
    if isinstance(outcome, Unavailable):
        return _BY_ANSWER[outcome.reason]
    return _BY_FAILURE[outcome.kind]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is said of the sellers that were not asked, where not all were.

    Attributes:
        asked: how many were chosen.
        of: of how many that could have been.
        chance_cheaper: the chance that one of the others is cheaper than the best; 1 if there is no best.
        expected_saving: by how much, if so, on average; None if there is no best.

    """

    asked: int
    of: int
    chance_cheaper: float
    expected_saving: Money | None


@dataclass(frozen=True, slots=True)
class Summary:
    """How a collection came out.

    Attributes:
        collection_id: names it.
        book_id: the book.
        sellers: active sellers in the registry.
        asked: sellers that were asked, now or, where the answer was known already, before.
        answered: sellers that answered, with a price or with "no".
        quoted: sellers with a price.
        cached: of those that answered, sellers whose answer was known already.
        misses: how many there were of each kind.
        started_at: when it began.
        elapsed_s: how long it took.
        best: the lowest total; None where there is no price.
        coverage: what is said of the sellers that were not chosen; None where all were.

    """

    collection_id: UUID
    book_id: str
    sellers: int
    asked: int
    answered: int
    quoted: int
    cached: int
    misses: dict[MissReason, int]
    started_at: datetime
    elapsed_s: float
    best: Money | None
    coverage: Coverage | None = None

    def of(self, sellers: int, coverage: Coverage | None) -> Self:
        """Give the summary where these were chosen of so many sellers."""
        misses = {**self.misses, MissReason.NOT_SELECTED: sellers - self.sellers}
        return replace(
            self,
            sellers=sellers,
            misses={reason: count for reason, count in misses.items() if count},
            coverage=coverage,
        )


def summarise(
    answers: Iterable[Answer],
    *,
    collection_id: UUID,
    book_id: str,
    started_at: datetime,
    elapsed_s: float,
) -> Summary:
    """Count the answers of a collection that has one of every seller."""
    sellers = asked = answered = quoted = cached = 0
    misses: Counter[MissReason] = Counter()
    best: Money | None = None
    for answer in answers:
        sellers += 1
        answered += answer.answered
        cached += answer.answered and answer.cached
        if isinstance(answer.outcome, Quote):
            asked += 1
            quoted += 1
            total = answer.outcome.total
            if best is None or total.minor < best.minor:
                best = total
        else:
            asked += answer.asked
            misses[miss_reason(answer.outcome)] += 1
    return Summary(
        collection_id=collection_id,
        book_id=book_id,
        sellers=sellers,
        asked=asked,
        answered=answered,
        quoted=quoted,
        cached=cached,
        misses=dict(misses),
        started_at=started_at,
        elapsed_s=elapsed_s,
        best=best,
    )
