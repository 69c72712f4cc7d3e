"""Our books against the payment provider's and the sellers': every difference is a finding, with what to do about it.

Each function takes one purchase as our books have it and one thing that another ledger says of it, and gives what does
not agree. A purchase that a worker still has something to do for is left alone: its books are not closed. What is seen
once may be over a moment later, so whoever calls this looks a second time before believing it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

from mesh.money import Money
from orchestrator.domain.purchase import AuthorizationState, Stage, Status
from sellers.model import Cancelled, Closed, Confirmed, OrderNotFound, Pending, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.domain.purchase import Release
    from sellers.model import OrderState


class Kind(StrEnum):
    """What does not agree."""

    STRAY_AUTHORIZATION = "stray_authorization"
    """The provider reserves money for a purchase that we do not have."""
    STRAY_CAPTURE = "stray_capture"
    """The provider has charged for a purchase that we do not have."""
    SECOND_AUTHORIZATION = "second_authorization"
    """The provider reserves money a second time for one purchase."""
    SECOND_CAPTURE = "second_capture"
    """The provider has charged a second time for one purchase."""
    AUTHORIZATION_LEFT = "authorization_left"
    """The provider still reserves money for a purchase that is over."""
    CAPTURED_THERE_ONLY = "captured_there_only"
    """The provider has charged; our books say that it has not."""
    CAPTURED_HERE_ONLY = "captured_here_only"
    """Our books say charged; the provider has not."""
    VOIDED_THERE_ONLY = "voided_there_only"
    """Our books say reserved; the provider reserves nothing any more."""
    OTHER_AMOUNT_AUTHORIZED = "other_amount_authorized"
    """The provider reserves another amount than our books say."""
    OTHER_AMOUNT_CAPTURED = "other_amount_captured"
    """The provider has charged another amount than our books say."""
    OTHER_AMOUNT_REFUNDED = "other_amount_refunded"
    """The provider has given back another amount than our books say."""
    PAYMENT_MISSING = "payment_missing"
    """The provider does not know a payment that our books name."""
    STRAY_ORDER = "stray_order"
    """A seller has an order under a key of ours for a purchase, or a try, that we do not have."""
    UNKNOWN_ORDER = "unknown_order"
    """A seller has an order under a key that is none of ours."""
    ORDER_LEFT = "order_left"
    """A seller has an order for a purchase that bought nothing."""
    SECOND_ORDER = "second_order"
    """A seller has an order for a purchase that was bought under another key."""
    ORDER_CANCELLED = "order_cancelled"
    """What we have charged for is not sold any more: the seller has cancelled."""
    ORDER_MISSING = "order_missing"
    """What we have charged for is not known to the seller, or not confirmed by it."""
    OTHER_AMOUNT_ORDERED = "other_amount_ordered"
    """The seller charges another amount than we have charged."""
    HOLD_LEFT = "hold_left"
    """A seller has not answered that a hold was given back."""
    OVERDUE = "overdue"
    """A purchase was due long ago, and no worker has taken it."""
    UNFINISHED = "unfinished"
    """A purchase has been worked on for too long."""
    BOOKS_BROKEN = "books_broken"
    """Our own books contradict each other."""
    OPEN_FLAG = "open_flag"
    """A purchase waits for somebody's decision."""


class Remedy(StrEnum):
    """Who can put it right, and how."""

    LOOK_AT_PAYMENT = "look_at_payment"
    """A worker, once it is told to look at the payment."""
    LOOK_AT_ORDER = "look_at_order"
    """A worker, once it is told to look at the order."""
    VOID = "void"
    """Whoever reconciles: no purchase of ours needs what is reserved."""
    CANCEL = "cancel"
    """Whoever reconciles: no purchase of ours needs the order."""
    DECIDE = "decide"
    """Somebody who looks at it: no rule can decide it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not agree.

    Attributes:
        kind: what.
        remedy: who can put it right.
        amount: the money at stake; None where there is none, or nobody says how much.
        began_at: since when, as far as anybody says.
        detail: what was seen, for people.
        request_id: the purchase; None when it is none that we can name.
        seller_id: the seller that it is about.
        provider_id: the provider's name for the payment that it is about.
        order_key: our key of the order that it is about.
        flag: the number of the open flag that it is about.
        invariant: the invariant in doubt, "I1" to "I12".

    """

    kind: Kind
    remedy: Remedy
    amount: Money | None
    began_at: datetime
    detail: str
    request_id: UUID | None = None
    seller_id: str | None = None
    provider_id: str | None = None
    order_key: str | None = None
    flag: int | None = None
    invariant: str = ""

    def identity(self) -> tuple[object, ...]:
        """Give what two sights of the same difference have in common."""
        return (
            self.kind,
            self.request_id,
            self.seller_id,
            self.provider_id,
            self.order_key,
            self.flag,
        )

    @property
    def advice(self) -> str:
        """Say what to do about it."""
        return _ADVICE[self.kind]


@dataclass(frozen=True, slots=True)
class _Difference:
    """A finding, but for whom and what it is about."""

    kind: Kind
    remedy: Remedy
    amount: Money | None
    detail: str


# Our books


@dataclass(frozen=True, slots=True)
class BookedAttempt:
    """A try to buy, as our books have it; ``charged`` is what the seller said it charges."""

    number: int
    seller_id: str
    key: str
    begun_at: datetime
    charged: Money | None
    outcome: str | None


@dataclass(frozen=True, slots=True)
class BookedFlag:
    """An open flag."""

    number: int
    invariant: str
    detail: str
    amount: Money | None
    raised_at: datetime


@dataclass(frozen=True, slots=True)
class Booked:
    """A purchase as our books have it.

    Attributes:
        request_id: its id.
        created_at: when it was committed.
        status: what the customer sees.
        stage: the step that it waits for; a word that this version may not know.
        due_at: when it goes on; None when nothing is left to do.
        payment: where the money is.
        provider_id: the provider's name for the payment, once known.
        authorized: what was to be reserved.
        captured: what was charged.
        refunded: what was given back of it.
        attempts: the tries, in their order.
        last_attempt: the number of the present or last one.
        releases: holds whose release no seller has answered.
        flags: the open ones.

    """

    request_id: UUID
    created_at: datetime
    status: Status
    stage: str
    due_at: datetime | None
    payment: AuthorizationState
    provider_id: str | None
    authorized: Money
    captured: Money | None = None
    refunded: Money | None = None
    attempts: tuple[BookedAttempt, ...] = ()
    last_attempt: int | None = None
    releases: tuple[Release, ...] = ()
    flags: tuple[BookedFlag, ...] = ()

    @property
    def under_way(self) -> bool:
        """Say whether a worker still has something to do for it that moves money or orders."""
        return self.due_at is not None and self.stage not in _CLOSED_STAGES

    @property
    def bought(self) -> BookedAttempt | None:
        """Give the try that it was bought by; None when nothing was bought."""
        if self.status is not Status.PURCHASED:
            return None
        return next((a for a in self.attempts if a.number == self.last_attempt), None)

    def may_be_at(self, order: TheirOrder) -> bool:
        """Say whether a seller's order is under a key that this purchase has, or would have, at that seller."""
        tries = [attempt for attempt in self.attempts if attempt.key == order.key]
        if tries:
            return any(attempt.seller_id == order.seller_id for attempt in tries)
        return order.request_id() == self.request_id

    @property
    def kept_minor(self) -> int:
        """Give what the customer has paid and not got back, in minor units."""
        charged = self.captured.minor if self.captured else 0
        return charged - (self.refunded.minor if self.refunded else 0)


_CLOSED_STAGES = frozenset({Stage.OFFER, Stage.RELEASE, Stage.DONE, Stage.FLAGGED})
"""In these neither the payment nor an order changes any more, unless somebody decides so."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """From when on something takes too long."""

    overdue: timedelta = timedelta(minutes=2)
    """How long a purchase may be due before a worker takes it."""
    unfinished: timedelta = timedelta(minutes=15)
    """How long after its submission a purchase may still be worked on."""
    keys_kept: timedelta = timedelta(days=6, hours=12)
    """How long a seller knows an order by its key for certain: it promises 7 days."""
    stray: timedelta = timedelta(hours=1)
    """How old something without a purchase must be to be taken back."""


def own_findings(booked: Booked, now: datetime, bounds: Bounds) -> Iterator[Finding]:
    """Give what is wrong with a purchase by our books alone."""
    for flag in booked.flags:
        yield Finding(
            Kind.OPEN_FLAG,
            Remedy.DECIDE,
            flag.amount,
            flag.raised_at,
            flag.detail,
            booked.request_id,
            flag=flag.number,
            invariant=flag.invariant,
        )
    if booked.due_at is not None and now - booked.due_at > bounds.overdue:
        detail = f"it waits for its step {booked.stage!r}"
        difference = _Difference(Kind.OVERDUE, Remedy.DECIDE, None, detail)
        yield _of(booked, difference, began_at=booked.due_at)
    elif booked.under_way and now - booked.created_at > bounds.unfinished:
        detail = f"it is {booked.status}, at its step {booked.stage!r}"
        yield _of(booked, _Difference(Kind.UNFINISHED, Remedy.DECIDE, None, detail))
    if not booked.under_way and now - booked.created_at > bounds.unfinished:
        for release in booked.releases:
            detail = "it was asked to give a copy back and has not answered"
            difference = _Difference(Kind.HOLD_LEFT, Remedy.DECIDE, None, detail)
            yield _of(booked, difference, seller_id=release.seller_id, order_key=release.key)
    if not booked.under_way and not booked.flags:
        contradiction = _contradiction(booked)
        if contradiction:
            amount = booked.captured or booked.authorized
            difference = _Difference(Kind.BOOKS_BROKEN, Remedy.DECIDE, amount, contradiction)
            yield _of(booked, difference)


def _contradiction(booked: Booked) -> str:
    """Say how our books contradict each other; empty when they do not."""
    if booked.stage == Stage.FLAGGED:
        return "it waits for a decision, and no open flag says which"
    match booked.status:
        case Status.PENDING:
            return "it is pending, and nothing is left to do for it"
        case Status.PURCHASED:
            return _contradiction_of_purchased(booked)
        case _:
            return f"it is {booked.status} and charged" if booked.kept_minor else ""


def _contradiction_of_purchased(booked: Booked) -> str:
    bought = booked.bought
    if bought is None:
        return "it is purchased from nobody"
    if booked.captured is None:
        return "it is purchased and not charged"
    if bought.charged != booked.captured:
        return f"it is charged {booked.captured} for an order of {bought.charged}"
    return ""


# The provider's books


class TheirState(StrEnum):
    """Where a payment stands at the provider."""

    UNDECIDED = "undecided"
    DECLINED = "declined"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class TheirPayment:
    """A payment as the provider has it; ``reference`` is the name that we gave it, if any."""

    provider_id: str
    reference: str | None
    state: TheirState
    authorized: Money
    captured: Money
    refunded: Money
    created_at: datetime

    @property
    def kept(self) -> Money:
        """Give what was charged and not given back."""
        return Money(self.captured.currency, self.captured.minor - self.refunded.minor)

    def request_id(self) -> UUID | None:
        """Give the purchase that it was made for; None when the reference has not the form of ours."""
        return _uuid(self.reference or "")


def payment_findings(booked: Booked, payment: TheirPayment) -> Iterator[Finding]:
    """Give what does not agree between a purchase and a payment that the provider has for it."""
    if booked.provider_id is not None and booked.provider_id != payment.provider_id:
        found = _besides(booked.provider_id, payment)
    elif booked.under_way:
        return
    else:
        found = _compared(booked, payment)
    if found is not None:
        yield _about(payment, booked.request_id, _undecided(booked, found))


def _besides(provider_id: str, payment: TheirPayment) -> _Difference | None:
    """Say what is wrong with a payment that a purchase has besides its own."""
    if payment.state is TheirState.AUTHORIZED:
        detail = f"{payment.authorized} is reserved besides {provider_id}"
        return _Difference(Kind.SECOND_AUTHORIZATION, Remedy.VOID, payment.authorized, detail)
    if payment.kept.minor:
        detail = f"{payment.kept} is charged besides {provider_id}"
        return _Difference(Kind.SECOND_CAPTURE, Remedy.DECIDE, payment.kept, detail)
    return None


def _compared(booked: Booked, payment: TheirPayment) -> _Difference | None:
    """Compare a purchase whose books are closed with its payment."""
    if booked.captured is not None:
        return _compared_captured(booked, booked.captured, payment)
    said = f"{booked.payment} here, {payment.state} there"
    match payment.state:
        case TheirState.CAPTURED if payment.kept.minor:
            return _Difference(Kind.CAPTURED_THERE_ONLY, Remedy.LOOK_AT_PAYMENT, payment.kept, said)
        case TheirState.AUTHORIZED if payment.authorized != booked.authorized:
            detail = f"{booked.authorized} to be reserved here, {payment.authorized} there"
            return _Difference(
                Kind.OTHER_AMOUNT_AUTHORIZED, Remedy.DECIDE, payment.authorized, detail
            )
        case TheirState.AUTHORIZED:
            return _Difference(
                Kind.AUTHORIZATION_LEFT, Remedy.LOOK_AT_PAYMENT, payment.authorized, said
            )
        case TheirState.VOIDED | TheirState.DECLINED if (
            booked.payment is AuthorizationState.AUTHORIZED
        ):
            return _Difference(
                Kind.VOIDED_THERE_ONLY, Remedy.LOOK_AT_PAYMENT, booked.authorized, said
            )
        case _:
            return None


def _compared_captured(
    booked: Booked, captured: Money, payment: TheirPayment
) -> _Difference | None:
    """Compare a purchase that was charged with its payment."""
    if payment.state is not TheirState.CAPTURED:
        said = f"captured here, {payment.state} there"
        return _Difference(Kind.CAPTURED_HERE_ONLY, Remedy.LOOK_AT_PAYMENT, captured, said)
    if payment.captured != captured:
        detail = f"charged {captured} here, {payment.captured} there"
        amount = _apart(payment.captured, captured)
        return _Difference(Kind.OTHER_AMOUNT_CAPTURED, Remedy.DECIDE, amount, detail)
    given_back = booked.refunded or Money(captured.currency, 0)
    if payment.refunded != given_back:
        detail = f"given back {given_back} here, {payment.refunded} there"
        amount = _apart(payment.refunded, given_back)
        return _Difference(Kind.OTHER_AMOUNT_REFUNDED, Remedy.LOOK_AT_PAYMENT, amount, detail)
    return None


def missing_payment_findings(booked: Booked) -> Iterator[Finding]:
    """Give what does not agree when the provider says that it has no payment of the name that our books have."""
    if booked.under_way or booked.provider_id is None:
        return
    if booked.captured is not None or booked.payment is AuthorizationState.AUTHORIZED:
        difference = _Difference(
            Kind.PAYMENT_MISSING,
            Remedy.LOOK_AT_PAYMENT,
            booked.captured or booked.authorized,
            f"{booked.payment} here, unknown there",
        )
        yield _of(booked, _undecided(booked, difference), provider_id=booked.provider_id)


def stray_payment_findings(payment: TheirPayment) -> Iterator[Finding]:
    """Give what is wrong with a payment that none of our purchases is about.

    One whose reference has not the form of ours is nobody's but a person's to decide on.
    """
    request_id = payment.request_id()
    about = (
        f"the reference is {payment.reference or 'empty'}, which is none of ours"
        if request_id is None
        else "we have no such purchase"
    )
    if payment.state is TheirState.AUTHORIZED:
        remedy = Remedy.DECIDE if request_id is None else Remedy.VOID
        found = _Difference(Kind.STRAY_AUTHORIZATION, remedy, payment.authorized, about)
    elif payment.kept.minor:
        found = _Difference(Kind.STRAY_CAPTURE, Remedy.DECIDE, payment.kept, about)
    else:
        return
    yield _about(payment, request_id, found)


# The sellers' books


@dataclass(frozen=True, slots=True)
class TheirOrder:
    """An order as a seller has it, by our key for it.

    ``reference`` is our name for the purchase, None when the seller was asked for the key alone and does not say;
    ``changed_at`` likewise is when it last changed.
    """

    seller_id: str
    key: str
    state: OrderState | OrderNotFound
    reference: str | None = None
    changed_at: datetime | None = None

    @property
    def live(self) -> bool:
        """Say whether the seller sells, or still may."""
        return isinstance(self.state, (Confirmed, Pending))

    @property
    def total(self) -> Money | None:
        """Give what the seller charges, where it says so."""
        return self.state.total if isinstance(self.state, Confirmed) else None

    def request_id(self) -> UUID | None:
        """Give the purchase that it was made for; None when the key has not the form of ours at this seller."""
        matched = _KEY.fullmatch(self.key)
        if matched is None or matched["seller"] != self.seller_id:
            return None
        request_id = UUID(matched["request"])
        # A pending order has its reference too; only closed keys have none, and those are not live.
        return request_id if self.reference in {None, str(request_id)} else None


_KEY = re.compile(
    r"(?P<request>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):(?P<seller>.+?)(?::2)?"
)


def order_findings(booked: Booked, order: TheirOrder) -> Iterator[Finding]:
    """Give what does not agree between a purchase and what a seller has under one of its keys."""
    if booked.under_way:
        return
    bought = booked.bought
    if bought is not None and bought.key == order.key:
        found = _order_compared(booked, order)
    elif not order.live:
        return
    elif all(attempt.key != order.key for attempt in booked.attempts):
        # No worker knows of this try, so none can undo it.
        found = _Difference(Kind.STRAY_ORDER, Remedy.CANCEL, order.total, "we have no such try")
    elif bought is not None:
        detail = f"besides the order under {bought.key}"
        found = _Difference(Kind.SECOND_ORDER, Remedy.LOOK_AT_ORDER, order.total, detail)
    else:
        detail = f"{booked.status} here, {_word(order)} there"
        found = _Difference(Kind.ORDER_LEFT, Remedy.LOOK_AT_ORDER, order.total, detail)
    if found is not None:
        yield _of(
            booked,
            _undecided(booked, found),
            began_at=order.changed_at,
            seller_id=order.seller_id,
            order_key=order.key,
        )


def _order_compared(booked: Booked, order: TheirOrder) -> _Difference | None:
    """Compare the order that was bought."""
    kept = Money(booked.authorized.currency, booked.kept_minor)
    said = f"charged here, {_word(order)} there"
    if isinstance(order.state, Confirmed):
        if not kept.minor:
            detail = "given back here, confirmed there"
            return _Difference(Kind.ORDER_LEFT, Remedy.LOOK_AT_ORDER, order.total, detail)
        if order.total != booked.captured:
            detail = f"charged {booked.captured} here, {order.total} there"
            amount = _apart(order.state.total, kept)
            return _Difference(Kind.OTHER_AMOUNT_ORDERED, Remedy.DECIDE, amount, detail)
        return None
    if not kept.minor:
        return None
    if isinstance(order.state, (Pending, OrderNotFound)):
        return _Difference(Kind.ORDER_MISSING, Remedy.LOOK_AT_ORDER, kept, said)
    return _Difference(Kind.ORDER_CANCELLED, Remedy.LOOK_AT_ORDER, kept, said)


def stray_order_findings(order: TheirOrder, now: datetime) -> Iterator[Finding]:
    """Give what is wrong with an order that none of our purchases is about."""
    if not order.live:
        return
    request_id = order.request_id()
    kind, remedy, detail = (
        (Kind.UNKNOWN_ORDER, Remedy.DECIDE, "its key is none of ours")
        if request_id is None
        else (Kind.STRAY_ORDER, Remedy.CANCEL, "we have no such purchase")
    )
    yield Finding(
        kind,
        remedy,
        order.total,
        order.changed_at or now,
        detail,
        request_id,
        seller_id=order.seller_id,
        order_key=order.key,
        invariant=_INVARIANTS[kind],
    )


def made_at(request_id: UUID) -> datetime | None:
    """Give when a purchase's id was made; None when it does not say (it is no UUID of version 7)."""
    if request_id.version != _TIMED_UUID:
        return None
    return _EPOCH + timedelta(milliseconds=request_id.int >> 80)


_TIMED_UUID = 7
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def certainly_ours(finding: Finding, now: datetime, bounds: Bounds) -> bool:
    """Say whether a stray may be taken back: it is of a purchase id that we make, and long past any work on it."""
    made = None if finding.request_id is None else made_at(finding.request_id)
    return (
        finding.remedy in {Remedy.VOID, Remedy.CANCEL}
        and made is not None
        and now - made > bounds.stray
        and now - finding.began_at > bounds.stray
    )


# Words

_INVARIANTS: dict[Kind, str] = {
    Kind.STRAY_AUTHORIZATION: "I12",
    Kind.STRAY_CAPTURE: "I12",
    Kind.SECOND_AUTHORIZATION: "I3",
    Kind.SECOND_CAPTURE: "I3",
    Kind.AUTHORIZATION_LEFT: "I9",
    Kind.CAPTURED_THERE_ONLY: "I8",
    Kind.CAPTURED_HERE_ONLY: "I8",
    Kind.VOIDED_THERE_ONLY: "I12",
    Kind.OTHER_AMOUNT_AUTHORIZED: "I3",
    Kind.OTHER_AMOUNT_CAPTURED: "I3",
    Kind.OTHER_AMOUNT_REFUNDED: "I12",
    Kind.PAYMENT_MISSING: "I12",
    Kind.STRAY_ORDER: "I12",
    Kind.UNKNOWN_ORDER: "I12",
    Kind.ORDER_LEFT: "I9",
    Kind.SECOND_ORDER: "I2",
    Kind.ORDER_CANCELLED: "I8",
    Kind.ORDER_MISSING: "I8",
    Kind.OTHER_AMOUNT_ORDERED: "I3",
    Kind.HOLD_LEFT: "I9",
    Kind.OVERDUE: "I7",
    Kind.UNFINISHED: "I7",
    Kind.BOOKS_BROKEN: "I8",
    Kind.OPEN_FLAG: "I7",
}

_ADVICE: dict[Kind, str] = {
    Kind.STRAY_AUTHORIZATION: "release it at the provider, once it is certain that it is ours",
    Kind.STRAY_CAPTURE: "find out whom it was charged; give it back at the provider, or restore the purchase",
    Kind.SECOND_AUTHORIZATION: "release it at the provider",
    Kind.SECOND_CAPTURE: "give it back at the provider",
    Kind.AUTHORIZATION_LEFT: "have it released",
    Kind.CAPTURED_THERE_ONLY: "have it looked at: charged for nothing, it has to be given back",
    Kind.CAPTURED_HERE_ONLY: "have it looked at: the book is sold and not paid for",
    Kind.VOIDED_THERE_ONLY: "have it looked at; no money is at stake",
    Kind.OTHER_AMOUNT_AUTHORIZED: "compare with the provider's records",
    Kind.OTHER_AMOUNT_CAPTURED: "charged too much: give the difference back at the provider; too little: write it off",
    Kind.OTHER_AMOUNT_REFUNDED: "have it looked at, or compare with the provider's records",
    Kind.PAYMENT_MISSING: "ask the provider; is it the same account?",
    Kind.STRAY_ORDER: "cancel it at the seller, once it is certain that it is ours",
    Kind.UNKNOWN_ORDER: "ask the seller whose order it is",
    Kind.ORDER_LEFT: "have it cancelled",
    Kind.SECOND_ORDER: "have it cancelled",
    Kind.ORDER_CANCELLED: "have the customer's money given back",
    Kind.ORDER_MISSING: "have it looked at: without an order the money has to be given back",
    Kind.OTHER_AMOUNT_ORDERED: "ask the seller: its price was agreed when it confirmed",
    Kind.HOLD_LEFT: "nothing, holds end by themselves; ask the seller if it happens often",
    Kind.OVERDUE: "see that orchestrators run and reach the database",
    Kind.UNFINISHED: "look at its events; an operator can resolve it",
    Kind.BOOKS_BROKEN: "look at its events, and decide",
    Kind.OPEN_FLAG: "look at it, and decide",
}


def _of(
    booked: Booked,
    difference: _Difference,
    *,
    began_at: datetime | None = None,
    seller_id: str | None = None,
    provider_id: str | None = None,
    order_key: str | None = None,
) -> Finding:
    return Finding(
        difference.kind,
        difference.remedy,
        difference.amount,
        began_at or booked.created_at,
        difference.detail,
        booked.request_id,
        seller_id=seller_id,
        provider_id=provider_id,
        order_key=order_key,
        invariant=_INVARIANTS[difference.kind],
    )


def _about(payment: TheirPayment, request_id: UUID | None, difference: _Difference) -> Finding:
    return Finding(
        difference.kind,
        difference.remedy,
        difference.amount,
        payment.created_at,
        difference.detail,
        request_id,
        provider_id=payment.provider_id,
        invariant=_INVARIANTS[difference.kind],
    )


def _undecided(booked: Booked, difference: _Difference) -> _Difference:
    """Leave to the decision that an open flag waits for what a worker could do otherwise."""
    workers = {Remedy.LOOK_AT_PAYMENT, Remedy.LOOK_AT_ORDER}
    if booked.flags and difference.remedy in workers:
        return replace(difference, remedy=Remedy.DECIDE)
    return difference


def _word(order: TheirOrder) -> str:
    match order.state:
        case Confirmed():
            return "confirmed"
        case Pending():
            return "pending"
        case Rejected():
            return "rejected"
        case Cancelled():
            return "cancelled"
        case Closed():
            return "closed"
        case OrderNotFound():
            return "unknown"


def _apart(one: Money, other: Money) -> Money | None:
    """Give how far two amounts are apart; None when they are of two currencies."""
    if one.currency != other.currency:
        return None
    return Money(one.currency, abs(one.minor - other.minor))


def _uuid(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
