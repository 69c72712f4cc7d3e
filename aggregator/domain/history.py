"""What is kept of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from aggregator.domain.collection import Answer
from sellers.model import Condition


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection that has ended, for the history.

    Attributes:
        collection_id: names it; those who used it refer to it by this.
        book_id: the book.
        currency: the one in which quotes were of use.
        conditions: those that would do.
        started_at: when it began.
        elapsed_s: how long it took.
        answers: of all sellers, one each; before them quotes that expired before the end, so that their sellers were
            asked again.
        fresh: those of the answers that were not known before. Only these are kept, so that each quote is there once.

    """

    collection_id: UUID
    book_id: str
    currency: str
    conditions: frozenset[Condition]
    started_at: datetime
    elapsed_s: float
    answers: Sequence[Answer]
    fresh: Sequence[Answer] = field(init=False)

    def __post_init__(self) -> None:
        """Pick out the fresh answers once for all who read."""
        fresh = tuple(answer for answer in self.answers if not answer.cached)
        object.__setattr__(self, "fresh", fresh)
