"""What happened in a purchase, step by step: kept with it, and shown to those who watch it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mesh.money import Money


class StepName(StrEnum):
    """The steps of a purchase."""

    SUBMITTED = "submitted"
    AUTHORIZED = "authorized"
    AUTHORIZATION_REFUSED = "authorization_refused"
    COLLECTING = "collecting"
    HOLDING = "holding"
    HELD = "held"
    HOLD_RELEASED = "hold_released"
    ORDERING = "ordering"
    ORDERED = "ordered"
    SELLER_REFUSED = "seller_refused"
    CAPTURED = "captured"
    VOIDED = "voided"
    CAPTURE_REFUSED = "capture_refused"
    ORDER_CANCELLED = "order_cancelled"
    CANCEL_REQUESTED = "cancel_requested"
    REFUNDED = "refunded"
    FLAGGED = "flagged"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Step:
    """A step was taken; the seller, the amount and a word for why, where they apply."""

    name: StepName
    seller_id: str | None = None
    total: Money | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a collection that did not ask all sellers may have missed.

    ``asked`` were chosen of ``of``. One of the others is cheaper than the best with the chance ``chance_cheaper``, 0 to
    1, and if so by ``expected_saving`` on average; None where there is no best.
    """

    asked: int
    of: int
    chance_cheaper: float
    expected_saving: Money | None


@dataclass(frozen=True, slots=True)
class Collected:
    """A collection ended. The counts are of sellers; misses are counted by reason; ``elapsed_s`` is in seconds.

    ``cached`` is how many of those that answered were not asked, because their answer was known; ``best`` is the lowest
    total, None without one; ``coverage`` is None where all sellers were asked. Collections from before these were kept
    have none of them.
    """

    collection_id: str
    sellers: int
    asked: int
    answered: int
    quoted: int
    misses: tuple[tuple[str, int], ...]
    started_at: datetime
    elapsed_s: float
    cached: int = 0
    best: Money | None = None
    coverage: Coverage | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The status is final; what it is stands in the purchase."""


Event = Step | Collected | Finished


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Sellers' answers that arrived together, for those who watch: nothing is decided by them.

    ``packed`` is a serialised ``bookmesh.orchestrator.v1.QuotesArrived``: as they are kept, and as those who watch get
    them. Taking 200 answers apart and putting them together again would cost more than all else in a collection.
    """

    packed: bytes

    @classmethod
    def joined(cls, batches: Iterable[AnswerBatch]) -> AnswerBatch:
        """Make one of batches of one collection: messages behind one another are one that has all their items."""
        return cls(b"".join(batch.packed for batch in batches))
