"""What operators need to see of purchases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from mesh.money import Money
    from orchestrator.domain.flags import Flag, Settled
    from orchestrator.domain.purchase import Attempt, Purchase
    from orchestrator.ports import PurchaseView, Recorded


@dataclass(frozen=True, slots=True)
class FlagRecord:
    """A flag: its place among all flags and among those of its purchase, and how it was resolved, if it was."""

    flag_id: int
    request_id: UUID
    number: int
    flag: Flag
    raised_at: datetime
    resolved_at: datetime | None
    settled: Settled | None


@dataclass(frozen=True, slots=True)
class ObservationRecord:
    """What somebody told: what it is in a word, the rest as JSON, and whether a worker has acted on it."""

    number: int
    kind: str
    body: str
    observed_at: datetime
    observed_by: str
    consumed: bool


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """The payment of a purchase; ``state`` is a word of ``AuthorizationState``."""

    state: str
    provider_id: str | None
    authorized: Money
    captured: Money | None
    refunded: Money | None
    capture_before: datetime | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A try to buy, and when its intent was committed."""

    attempt: Attempt
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is known of a purchase.

    Attributes:
        view: as its customer sees it.
        customer_id: whose.
        stage: the step that it waits for, a word.
        tries: how often that was tried without a definite answer.
        epoch: how often it was claimed.
        due_at: when it may be claimed; None when nothing is left to do.
        purchase: as a worker would see it; None when this program cannot read it.
        payment: where the money is.
        attempts: the first first; likewise the others.

    """

    view: PurchaseView
    customer_id: str
    stage: str
    tries: int
    epoch: int
    due_at: datetime | None
    purchase: Purchase | None
    payment: PaymentRecord
    attempts: tuple[AttemptRecord, ...]
    flags: tuple[FlagRecord, ...]
    observations: tuple[ObservationRecord, ...]
    events: tuple[Recorded, ...]


class PurchaseRecords(Protocol):
    """Purchases to look at, whosever they are. Methods raise ``mesh.errors.Unavailable`` as ``PurchaseStore`` does."""

    async def open_flags(self, after: int, limit: int) -> list[FlagRecord]:
        """Give the open flags that come after the one with this ``flag_id``, the oldest first; 0 for all."""
        ...

    async def inspect(self, request_id: UUID) -> Dossier | None:
        """Give all that is known of a purchase."""
        ...

    async def of_payment(self, provider_id: str, event_id: str) -> UUID | None:
        """Give the purchase of a payment; None when there is none, or an observation of it has this event already."""
        ...
