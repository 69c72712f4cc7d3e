"""What decisions are made of: the clock of a purchase, what is known of sellers and payments, what to commit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.purchase import AuthorizationState

if TYPE_CHECKING:
    from datetime import datetime

    from mesh.money import Money
    from orchestrator.domain.events import Event
    from orchestrator.domain.flags import Flag, Settled
    from orchestrator.domain.purchase import Attempt, Authorization, Purchase

MOST_TRIES_AT_A_SELLER = 2
MOST_COLLECTIONS = 2
MOST_SILENT_COLLECTIONS = 4
"""When too few have answered to tell anything: all of them may be out of reach for some seconds."""
MOST_FAULTS = 20
"""Tries after which a step that fails by a fault of ours is left to an operator."""

CONFIRMED = "confirmed"
"""How a try has ended that was bought by."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The clock of a purchase, in seconds since it was committed unless said otherwise (DESIGN, "A purchase")."""

    authorize_by_s: float = 8.0
    """Until then an authorization without an answer is sent again; after it the purchase has failed."""
    collect_by_s: float = 10.0
    """End of collecting."""
    recollect_s: float = 1.0
    """After how long to ask again when too few have answered to tell anything; twice as long each time."""
    hold_by_s: float = 14.0
    """No hold is begun after this."""
    order_by_s: float = 17.0
    """No order is begun after this."""
    pending_until_s: float = 20.0
    """An order that is still pending after this is cancelled."""
    not_after_s: float = 5.0
    """How long a seller may still work on a call, after it was decided."""
    not_found_counts_after_s: float = 5.0
    """How long after ``not_after`` NOT_FOUND means that an order never will be."""
    quote_margin_s: float = 1.0
    """A quote with less life than this is asked for again."""
    in_flight_s: float = 0.25
    """When to ask again for what a seller is still working on."""
    offer_life_s: float = 300.0
    """How long an offer may be accepted."""
    release_for_s: float = 90_000.0
    """For how long a release without an answer is repeated: by then a hold, of a day at most, has ended by itself."""
    capture_margin_s: float = 86_400.0
    """No order is begun on an authorization that lapses within this time."""
    overdue_s: float = 600.0
    """After this an operator is told of an outcome that is still unknown. It is tried on meanwhile."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is decided: by the mesh's clock, and as the age of the purchase in seconds."""

    now: datetime
    age_s: float


@dataclass(frozen=True, slots=True)
class SellerKind:
    """What a purchase must know of a seller."""

    supports_holds: bool
    supports_cancel_before_order: bool
    supports_get_order: bool = True
    honours_not_after: bool = True


@dataclass(frozen=True, slots=True)
class Next:
    """What to commit.

    Attributes:
        purchase: as it is from now on.
        events: what happened.
        delay_s: after how many seconds it goes on.
        ended: the try before the purchase's present one, when it has ended in this decision.
        flags: what an operator must know.
        settled: resolves the flags that were open; never together with ``flags``.

    """

    purchase: Purchase
    events: tuple[Event, ...] = ()
    delay_s: float = 0.0
    ended: Attempt | None = None
    flags: tuple[Flag, ...] = ()
    settled: Settled | None = None


@dataclass(frozen=True, slots=True)
class PaymentFound:
    """A payment as the provider has it: whether something is still reserved, what is charged and what given back."""

    reserved: bool
    captured: Money
    refunded: Money

    @property
    def nothing_reserved(self) -> bool:
        """Whether it has come to nothing: nothing is reserved, and nothing was charged."""
        return not self.reserved and not self.captured.minor

    def agrees_with(self, ours: Authorization) -> bool:
        """Say whether our books say the same."""
        match ours.state:
            case AuthorizationState.CAPTURED:
                given_back = ours.refunded.minor if ours.refunded else 0
                return self.captured == ours.captured and self.refunded.minor == given_back
            case AuthorizationState.REFUNDED:
                return self.captured == ours.captured and self.refunded == ours.refunded
            case AuthorizationState.VOIDED | AuthorizationState.DECLINED:
                return self.nothing_reserved
            case AuthorizationState.INTENDED | AuthorizationState.AUTHORIZED:
                return not self.captured.minor

    def __str__(self) -> str:
        """Say it in words for operators."""
        if not self.captured.minor:
            return "it still reserved" if self.reserved else "nothing charged or reserved"
        given_back = f", {self.refunded} of it given back" if self.refunded.minor else ""
        return f"{self.captured} charged{given_back}"


class Resolution(StrEnum):
    """How to find out what became of an order."""

    REPLAY = "replay"
    """Place it again under its key: the first answer comes back, or it is placed now."""
    POLL = "poll"
    """Ask for it by its key."""
    CANCEL = "cancel"
    """Close its key."""
    POLL_FOR_GOOD = "poll_for_good"
    """Ask for it by its key; NOT_FOUND means that it never will be."""
