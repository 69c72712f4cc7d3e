"""A purchase and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from mesh.money import Money
    from sellers.model import Condition


class Status(StrEnum):
    """What the customer sees. All but ``PENDING`` are final."""

    PENDING = "pending"
    PURCHASED = "purchased"
    PRICE_NOT_MET = "price_not_met"
    NOT_AVAILABLE = "not_available"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FailureReason(StrEnum):
    """Why a purchase failed."""

    CARD_DECLINED = "card_declined"
    ACTION_REQUIRED = "action_required"
    PAYMENT_TOKEN_INVALID = "payment_token_invalid"  # noqa: S105  a word, not a password
    PAYMENT_UNAVAILABLE = "payment_unavailable"
    NO_SELLER_ANSWERED = "no_seller_answered"
    CAPTURE_REFUSED = "capture_refused"
    OUT_OF_TIME = "out_of_time"
    AUTHORIZATION_EXPIRING = "authorization_expiring"


class Stage(StrEnum):
    """The step that a purchase waits for. Each names the one effect that a worker has in it.

    AUTHORIZE ──► COLLECT ──► HOLD ──► ORDER ──► CAPTURE ──► DONE
        │          │ ▲ │       │ ▲      │ │ ▲       │
        │          │ │ └─ REQUOTE┘      │ │ │       └► CANCEL_ORDER ──► VOID (or FLAGGED)
        │          │ └── (next seller) ─┴─┼─┘
        │          └──────► VOID ──► DONE └► RESOLVE_ORDER ──► next seller or CAPTURE
        └► SETTLE_AUTHORIZATION ──► VOID or DONE

    After VOID or CAPTURE what is left is done: RELEASE, OFFER, DONE. What others tell of a purchase that is done leads
    from DONE to CHECK_PAYMENT, CHECK_ORDER and REFUND, and back. FLAGGED may follow any of them; an operator's decision
    leads out of it.
    """

    AUTHORIZE = "authorize"
    """Reserve max_price at the payment provider."""
    SETTLE_AUTHORIZATION = "settle_authorization"
    """Given up; find out whether the authorization stands, so that it can be voided."""
    COLLECT = "collect"
    """Ask the sellers for quotes."""
    REQUOTE = "requote"
    """Ask the cheapest seller again, whose quote has expired."""
    HOLD = "hold"
    """Have a copy set aside."""
    ORDER = "order"
    """Buy the copy."""
    RESOLVE_ORDER = "resolve_order"
    """Find out what became of an order whose outcome is unknown or pending, or close its key."""
    CAPTURE = "capture"
    """Charge the order's total."""
    CANCEL_ORDER = "cancel_order"
    """Take back an order that cannot be charged."""
    VOID = "void"
    """Release what is reserved at the provider."""
    RELEASE = "release"
    """Give back holds whose release has not been answered yet."""
    OFFER = "offer"
    """Keep the payment token until the offer ends, so that the offer can be accepted without a new one."""
    CHECK_PAYMENT = "check_payment"
    """Ask the provider how the payment stands, because somebody says that it has changed."""
    CHECK_ORDER = "check_order"
    """Ask the seller how the order stands, because somebody says that it has changed."""
    SETTLE_PAYMENT = "settle_payment"
    """Take what the provider says of the payment as it is, because an operator has decided so."""
    REFUND = "refund"
    """Give back what was charged."""
    DONE = "done"
    """Nothing is left to do."""
    FLAGGED = "flagged"
    """An operator has to decide."""


class AuthorizationState(StrEnum):
    """Where the money is."""

    INTENDED = "intended"
    AUTHORIZED = "authorized"
    DECLINED = "declined"
    CAPTURED = "captured"
    VOIDED = "voided"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Authorization:
    """The reservation of max_price at the payment provider, under the key ``{request_id}:authorize``.

    Attributes:
        state: where the money is.
        provider_id: the provider's name for it, once known.
        captured: what was charged; with ``CAPTURED`` and ``REFUNDED``.
        capture_before: when the provider lets it lapse; None when it does not say.
        refunded: what was given back: all with ``REFUNDED``, with ``CAPTURED`` a part of it, by hand.

    """

    state: AuthorizationState = AuthorizationState.INTENDED
    provider_id: str | None = None
    captured: Money | None = None
    capture_before: datetime | None = None
    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A seller that can be tried.

    Attributes:
        seller_id: who.
        quote_id: the quote to buy from.
        total: the lowest total known of it now.
        expires_at: when the quote ends, by the mesh's clock.

    """

    seller_id: str
    quote_id: str
    total: Money
    expires_at: datetime

    def rank(self) -> tuple[int, str]:
        """Give the place in the order in which sellers are tried: by total, then by id."""
        return self.total.minor, self.seller_id


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to buy from one seller. Kept once its intent is committed.

    Attributes:
        number: counts the tries of the purchase from 1.
        seller_id: who.
        key: the idempotency key of its hold and of its order.
        quote_id: the quote that it is made from.
        quoted: the total of that quote.
        with_hold: whether the copy is held before it is ordered.
        not_after: after this the seller does nothing any more, by the mesh's clock.
        hold_id: the seller's name for the hold, once there is one.
        agreed: the total at which the order is placed: the hold's, or the quote's.
        order_id: the seller's name for the order, once it is confirmed.
        charged: what the seller charges, once it is confirmed.
        outcome: a word for how it ended; None while it is under way.

    """

    number: int
    seller_id: str
    key: str
    quote_id: str
    quoted: Money
    with_hold: bool
    not_after: datetime
    agreed: Money
    hold_id: str | None = None
    order_id: str | None = None
    charged: Money | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """The lowest total above max_price, which the customer may accept until ``expires_at``."""

    total: Money
    seller_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """A hold whose release is committed and has not been answered yet.

    ``refused`` when an order was placed from it and definitely refused: the seller may say that the hold went into it.
    """

    seller_id: str
    key: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a purchase knows of the sellers.

    Attributes:
        candidates: sellers that can be tried, in the order in which they will be.
        dearer: the cheapest quote above max_price, or None.
        tries: how many keys were used at each seller.
        collections: how many collections were made.
        answered: how many sellers really answered, in the best of them.
        silent: how many did not, of those that were meant to be asked in that one.
        releases: holds whose release has not been answered yet.
        stopped: whether the last collection did not wait for all sellers.
        obstructed: whether an affordable seller could not be bought from although it had not said no; until a
            collection in which everybody answers.

    """

    candidates: tuple[Candidate, ...] = ()
    dearer: Candidate | None = None
    tries: tuple[tuple[str, int], ...] = ()
    collections: int = 0
    answered: int = 0
    silent: int = 0
    releases: tuple[Release, ...] = ()
    stopped: bool = False
    obstructed: bool = False

    @property
    def tells_of_stock(self) -> bool:
        """Whether what no seller has is not to be had: at least one, and at least half of them, have answered."""
        return self.answered > 0 and self.answered >= self.silent

    def tries_at(self, seller_id: str) -> int:
        """Say how many keys were used at a seller."""
        return dict(self.tries).get(seller_id, 0)


@dataclass(frozen=True, slots=True)
class Purchase:
    """A purchase, as a worker sees it.

    Attributes:
        request_id: its id.
        customer_id: whose.
        book_id: the book, normalised.
        max_price: the most to charge, and what is authorized.
        conditions: those that will do.
        created_at: when it was committed, by the database's clock.
        traceparent: the trace that it belongs to.
        stage: the step that it waits for.
        tries: how often the effect of this stage was tried without a definite answer, as far as it is counted.
        status: what the customer sees.
        failure_reason: with ``FAILED``.
        offer: with ``PRICE_NOT_MET``.
        authorization: where the money is.
        plan: what is known of the sellers.
        attempt: the present or last try.
        epoch: grows with every claim; a commit under an older one changes nothing.
        accepted_offer_of: the purchase whose offer it was made of.
        resume: with ``FLAGGED``, the stage at which an operator's retry goes on.
        cancel_requested: whether the customer has asked for it to be cancelled, as far as its worker knows.
        flagged: whether a flag of it is open.
        flag: the number of the newest open one, 0 without; read anew whenever somebody has told something.

    """

    request_id: UUID
    customer_id: str
    book_id: str
    max_price: Money
    conditions: tuple[Condition, ...]
    created_at: datetime
    traceparent: str | None = None
    stage: Stage = Stage.AUTHORIZE
    tries: int = 0
    status: Status = Status.PENDING
    failure_reason: FailureReason | None = None
    offer: Offer | None = None
    authorization: Authorization = Authorization()
    plan: Plan = Plan()
    attempt: Attempt | None = None
    epoch: int = 0
    accepted_offer_of: UUID | None = None
    resume: Stage | None = None
    cancel_requested: bool = False
    flagged: bool = False
    flag: int = 0
