"""The other side: sellers and a payment provider that keep their contracts, and books that the invariants read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import count
from math import inf
from typing import TypeVar, cast
from uuid import UUID

from mesh.clock import Clock
from mesh.money import Money
from orchestrator.domain.purchase import Attempt, Candidate, FailureReason
from orchestrator.domain.saga import SellerKind
from orchestrator.ports import (
    AlreadyCaptured,
    Authorized,
    AuthorizeOutcome,
    Captured,
    CaptureOutcome,
    Declined,
    PaymentState,
    ProviderPayment,
    Refunded,
    RefundOutcome,
    Refused,
    Voided,
    VoidOutcome,
)
from sellers.model import (
    CallFailed,
    Cancelled,
    CancelOutcome,
    Closed,
    Condition,
    Confirmed,
    FailureKind,
    GetOrderOutcome,
    Held,
    HoldOutcome,
    OrderNotFound,
    Pending,
    PlaceOutcome,
    Quote,
    Rejected,
    RejectionReason,
    Released,
    ReleaseOutcome,
    TooLate,
)

OutcomeT = TypeVar("OutcomeT")

CURRENCY = "USD"
PROVIDER = "provider"
WINDOW_S = 60.0
"""In any such time a seller takes as many calls as it allows."""


def usd(minor: int) -> Money:
    """Give an amount in the currency of the simulation."""
    return Money(CURRENCY, minor)


@dataclass(frozen=True, slots=True)
class Effect:
    """A request that has reached a seller or the provider, after it was dealt with.

    Attributes:
        name: what was asked: authorize, capture, void, refund, hold, release, order, cancel or get_order.
        request_id: for which purchase, by its key.
        party: the seller's id, or ``PROVIDER``.
        key: under which idempotency key.
        amount: of money, where the request names one.
        source: the hold or quote of an order, the quote of a hold.
        done: whether it changed anything; a replay does not.
        answer: what was answered; it may get lost on its way.

    """

    name: str
    request_id: UUID
    party: str
    key: str
    amount: Money | None
    source: str | None
    done: bool
    answer: object


@dataclass(frozen=True, slots=True)
class Sent:
    """A request for an effect that is about to leave a process.

    Attributes:
        name: what is asked, as in ``Effect``.
        request_id: for which purchase, by its key.
        takes_s: how long its sender waits for the answer, in seconds.
        lease_left_s: how long the purchase is still left to the sender, in seconds; below 0 when it is not any more.
        attempt: of holds and orders, the try.

    """

    name: str
    request_id: UUID
    takes_s: float
    lease_left_s: float
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection gave, and how many sellers answered."""

    found: tuple[Candidate, ...]
    answered: int


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The answer to a key that was used with other content: a fault of the caller's program."""


OnEffect = Callable[[Effect], None]


@cache
def purchase_of(key: str) -> UUID:
    """Give the purchase that a key is for."""
    return UUID(key.split(":", 1)[0])


class HoldState(StrEnum):
    HELD = "held"
    RELEASED = "released"
    EXPIRED = "expired"
    ORDERED = "ordered"
    REFUSED = "refused"
    CLOSED = "closed"


@dataclass(slots=True)
class HoldEntry:
    state: HoldState
    answer: HoldOutcome
    total: Money | None = None
    expires_at: datetime | None = None


class OrderState(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    CLOSED = "closed"


@dataclass(slots=True)
class OrderEntry:
    state: OrderState
    total: Money | None = None
    order_id: str = ""
    content: tuple[object, ...] = ()
    reason: RejectionReason = RejectionReason.REFUSED
    updated: Quote | None = None
    decided_at: datetime | None = None


LIVE = frozenset({OrderState.PENDING, OrderState.CONFIRMED})


@dataclass(frozen=True, slots=True)
class SellerScript:
    """How a seller behaves. Money in minor units, times in seconds.

    Attributes:
        quote: the total that it quotes; None when it does not have the book.
        hold: the total of its holds; the quote's when None.
        order: the total that it charges for an order; what was agreed when None.
        with_holds: whether it has holds.
        closable: whether it takes a cancel before the order exists.
        answers: whether it tells what became of an order; one that does not honours not_after.
        honours_not_after: whether it refuses what comes too late.
        heeds_max_total: whether it refuses to sell for more than max_total.
        cancels: whether a confirmed order can be cancelled.
        charges_in: the currency of its holds and orders; its quotes are in the one that is asked for.
        in_flight_s: how long it works on an order before anything is to be seen of it.
        silent_for: how many collections it does not answer.
        sells_out: whether others buy its copies between its quote and the first call after it.
        stock: how many copies it has.
        quote_life_s: how long its quotes live.
        hold_life_s: how long its holds live.
        pending_s: how long an order is pending before it is decided; None: decided at once.
        retry_after_s: how long it asks to be left alone while an order is pending.
        rejects_in_the_end: whether a pending order is rejected then, instead of confirmed.
        counters: the total that it offers instead with that rejection, in the currency of its orders.
        gone_for_s: for how long the registry does not have it, once it has vanished; None when it does not vanish.
        shrinks_to: how many calls a minute it allows, once its limits have shrunk; None when they do not.

    """

    quote: int | None
    hold: int | None = None
    order: int | None = None
    with_holds: bool = True
    closable: bool = True
    answers: bool = True
    honours_not_after: bool = True
    heeds_max_total: bool = True
    cancels: bool = True
    charges_in: str = CURRENCY
    in_flight_s: float = 0.0
    silent_for: int = 0
    sells_out: bool = False
    stock: int = 5
    quote_life_s: float = 60.0
    hold_life_s: float = 120.0
    pending_s: float | None = None
    retry_after_s: float = 1.0
    rejects_in_the_end: bool = False
    counters: int | None = None
    gone_for_s: float | None = None
    shrinks_to: int | None = None


class SellerLedger:
    """A seller that keeps the contract (protos/bookmesh/seller/v1), with its books."""

    def __init__(
        self, seller_id: str, script: SellerScript, clock: Clock, on_effect: OnEffect
    ) -> None:
        self.seller_id = seller_id
        self.script = script
        self.holds: dict[str, HoldEntry] = {}
        self.orders: dict[str, OrderEntry] = {}
        self.stock = script.stock
        self.vanished = False
        self._gone_until_s = 0.0
        self._allows: float = inf
        self._called_s: list[float] = []
        self._collections = count(1)
        self._quotes: dict[str, tuple[int, datetime]] = {}
        self._numbers = count(1)
        self._clock = clock
        self._on_effect = on_effect

    def kind(self) -> SellerKind:
        """Tell what a purchase must know of it."""
        script = self.script
        return SellerKind(
            script.with_holds, script.closable, script.answers, script.honours_not_after
        )

    def now_after(self, moment: datetime) -> float:
        """Give the seconds since a moment, by the seller's clock."""
        return (self._clock.now() - moment).total_seconds()

    def silent(self) -> bool:
        """Say whether it leaves a collection without an answer, or cannot be asked for one."""
        silent = next(self._collections) <= self.script.silent_for
        return silent or not self.take_slot()

    # As the registry and its limits have it

    def vanish(self) -> None:
        """Leave the registry, as one that was disabled; once."""
        if self.script.gone_for_s is not None and not self.vanished:
            self.vanished = True
            self._gone_until_s = self._clock.monotonic() + self.script.gone_for_s

    @property
    def gone(self) -> bool:
        """Whether the registry does not have it now."""
        return self.vanished and self._clock.monotonic() < self._gone_until_s

    def shrink(self) -> None:
        """Allow few calls from now on."""
        if self.script.shrinks_to is not None:
            self._allows = self.script.shrinks_to

    def slot_in_s(self) -> float:
        """Say how long it takes until it allows another call."""
        if len(self._called_s) < self._allows:
            return 0.0
        return self._called_s[-int(self._allows)] + WINDOW_S - self._clock.monotonic()

    def take_slot(self) -> bool:
        """Count a call that is to be made now; False when it allows none."""
        if self.script.shrinks_to is None:
            return True
        if self.slot_in_s() > 0:
            return False
        self._called_s.append(self._clock.monotonic())
        return True

    def candidate(self) -> Candidate | None:
        """Give a quote, as the aggregator passes it on; None when it has no copy."""
        if self.script.quote is None or self.stock <= 0:
            return None
        quote = self._quote_of(usd(self.script.quote))
        return Candidate(self.seller_id, quote.quote_id, quote.total, quote.expires_at)

    def hold(self, key: str, quote_id: str, not_after: datetime) -> HoldOutcome:
        """Set a copy aside."""
        known = self.holds.get(key)
        if known is None:
            self.holds[key] = entry = self._hold(quote_id, not_after)
        else:
            entry = known
        done = known is None and entry.state is HoldState.HELD
        self._tell("hold", key, entry.answer, source=quote_id, done=done)
        return entry.answer

    def release(self, key: str) -> ReleaseOutcome:
        """Give a copy back, or close the key."""
        self.settle()
        entry = self.holds.get(key)
        if entry is None:
            answer = Rejected(RejectionReason.KEY_CLOSED, None)
            self.holds[key] = HoldEntry(HoldState.CLOSED, answer)
            released = Released.CLOSED
        elif entry.state is HoldState.HELD:
            entry.state = HoldState.RELEASED
            self.stock += 1
            released = Released.RELEASED
        else:
            order = self.orders.get(key)
            stands = order is not None and order.state in LIVE
            released = Released.ORDERED if stands else Released.CLOSED
        self._tell("release", key, released, done=released is Released.RELEASED)
        return released

    def place_order(
        self, key: str, source: str, max_total: Money, not_after: datetime
    ) -> PlaceOutcome:
        """Sell a copy."""
        self.settle()
        content = (source, max_total, not_after)
        entry = self.orders.get(key)
        done = False
        if entry is None:
            entry = self.orders[key] = self._order(key, source, max_total, not_after)
            entry.content = content
            done = entry.state in LIVE
        elif entry.content not in {(), content}:
            self._tell("order", key, KeyReused(), amount=max_total, source=source)
            detail = "the key was used for another order"
            return CallFailed(FailureKind.KEY_MISMATCH, definitely_not_done=True, detail=detail)
        answer = self._in_flight(entry) or self._placed(entry)
        self._tell("order", key, answer, amount=max_total, source=source, done=done)
        return answer

    def get_order(self, key: str) -> GetOrderOutcome:
        """Tell what became of an order."""
        assert self.script.answers
        self.settle()
        entry = self.orders.get(key)
        answer: GetOrderOutcome
        if entry is None or self._in_flight(entry):
            answer = OrderNotFound()
        elif entry.state is OrderState.CANCELLED:
            answer = Cancelled()
        elif entry.state is OrderState.CLOSED:
            answer = Closed()
        else:
            answer = self._placed(entry)
        self._tell("get_order", key, answer)
        return answer

    def cancel_order(self, key: str) -> CancelOutcome:
        """Cancel an order, or close its key."""
        self.settle()
        entry = self.orders.get(key)
        done = False
        answer: CancelOutcome
        if entry is None:
            if self.script.closable:
                self.orders[key] = OrderEntry(OrderState.CLOSED, reason=RejectionReason.KEY_CLOSED)
                answer = Closed()
            else:
                answer = OrderNotFound()
        elif entry.state in LIVE and not self.script.cancels:
            assert entry.total is not None
            confirmed = Confirmed(entry.order_id, entry.total)
            pending = Pending(self.script.retry_after_s)
            answer = TooLate(confirmed if entry.state is OrderState.CONFIRMED else pending)
        elif entry.state in LIVE:
            entry.state = OrderState.CANCELLED
            self.stock += 1
            done = True
            answer = Cancelled()
        else:
            answer = Cancelled() if entry.state is OrderState.CANCELLED else Closed()
        self._tell("cancel", key, answer, done=done)
        return answer

    def cancel_by_itself(self, request_id: UUID) -> list[str]:
        """Cancel the orders of a purchase on the seller's own account; give their keys."""
        keys = [
            key
            for key, entry in self.orders.items()
            if entry.state in LIVE and purchase_of(key) == request_id
        ]
        for key in keys:
            self.orders[key].state = OrderState.CANCELLED
        return keys

    def close_by_hand(self, key: str) -> None:
        """Have a key closed under which there is nothing, without a call."""
        assert key not in self.orders
        self.orders[key] = OrderEntry(OrderState.CLOSED, reason=RejectionReason.KEY_CLOSED)

    def live_orders(self, request_id: UUID) -> list[OrderEntry]:
        """Give the orders of a purchase that stand or may still come to stand."""
        return [
            entry
            for key, entry in self.orders.items()
            if entry.state in LIVE and purchase_of(key) == request_id
        ]

    def live_holds(self, request_id: UUID) -> list[str]:
        """Give the keys of the copies held for a purchase."""
        self.settle()
        return [
            key
            for key, entry in self.holds.items()
            if entry.state is HoldState.HELD and purchase_of(key) == request_id
        ]

    def settle(self) -> None:
        """Bring the books to the present: holds that have ended, pending orders that are decided."""
        now = self._clock.now()
        for entry in self.holds.values():
            if (
                entry.state is HoldState.HELD
                and entry.expires_at is not None
                and entry.expires_at <= now
            ):
                entry.state = HoldState.EXPIRED
                self.stock += 1
        for order in self.orders.values():
            if (
                order.state is OrderState.PENDING
                and order.decided_at is not None
                and order.decided_at <= now
            ):
                if self.script.rejects_in_the_end:
                    order.state = OrderState.REJECTED
                    if self.script.counters is not None:
                        order.updated = self._quote_of(self._charge(self.script.counters))
                    self.stock += 1
                else:
                    order.state = OrderState.CONFIRMED

    def _hold(self, quote_id: str, not_after: datetime) -> HoldEntry:
        now = self._clock.now()
        if self.script.honours_not_after and now > not_after:
            return _refused_hold(RejectionReason.PAST_NOT_AFTER)
        quoted, expires_at = self._quotes[quote_id]
        if expires_at <= now:
            return _refused_hold(RejectionReason.QUOTE_EXPIRED)
        if not self._take_copy():
            return _refused_hold(RejectionReason.OUT_OF_STOCK)
        total = self._charge(quoted if self.script.hold is None else self.script.hold)
        ends_at = now + timedelta(seconds=self.script.hold_life_s)
        held = Held(f"h{next(self._numbers)}", total, ends_at)
        return HoldEntry(HoldState.HELD, held, total, ends_at)

    def _order(self, key: str, source: str, max_total: Money, not_after: datetime) -> OrderEntry:
        now = self._clock.now()
        if self.script.honours_not_after and now > not_after:
            return _refused_order(RejectionReason.PAST_NOT_AFTER)
        price = self._price_of_order(key, source)
        if isinstance(price, RejectionReason):
            return _refused_order(price)
        total = self._charge(price.minor if self.script.order is None else self.script.order)
        if total.minor > max_total.minor and self.script.heeds_max_total:
            refused = _refused_order(RejectionReason.PRICE_CHANGED)
            refused.updated = self._quote_of(total)
            return refused
        if self.script.with_holds:
            self.holds[key].state = HoldState.ORDERED
        elif not self._take_copy():
            return _refused_order(RejectionReason.OUT_OF_STOCK)
        order_id = f"o{next(self._numbers)}"
        decided_s = self.script.pending_s or self.script.in_flight_s
        if decided_s:
            decided_at = now + timedelta(seconds=decided_s)
            return OrderEntry(OrderState.PENDING, total, order_id, decided_at=decided_at)
        return OrderEntry(OrderState.CONFIRMED, total, order_id)

    def _price_of_order(self, key: str, source: str) -> Money | RejectionReason:
        if self.script.with_holds:
            held = self.holds.get(key)
            if held is None or held.state is not HoldState.HELD or held.total is None:
                return RejectionReason.HOLD_EXPIRED
            return held.total
        quoted, expires_at = self._quotes[source]
        return usd(quoted) if expires_at > self._clock.now() else RejectionReason.QUOTE_EXPIRED

    def _quote_of(self, total: Money) -> Quote:
        quote_id = f"q{next(self._numbers)}"
        expires_at = self._clock.now() + timedelta(seconds=self.script.quote_life_s)
        self._quotes[quote_id] = (total.minor, expires_at)
        return Quote(quote_id, total, usd(0), total, Condition.NEW, 1, expires_at)

    def _charge(self, minor: int) -> Money:
        return Money(self.script.charges_in, minor)

    def _in_flight(self, entry: OrderEntry) -> CallFailed | None:
        """Give what a call under the key of an order gets while the seller is at work on it."""
        if entry.state is not OrderState.PENDING or not self.script.in_flight_s:
            return None
        return CallFailed(FailureKind.IN_FLIGHT, definitely_not_done=False, detail="at work on it")

    def _take_copy(self) -> bool:
        if self.script.sells_out:
            self.stock = 0
        if self.stock <= 0:
            return False
        self.stock -= 1
        return True

    def _placed(self, entry: OrderEntry) -> Confirmed | Pending | Rejected:
        match entry.state:
            case OrderState.PENDING:
                return Pending(self.script.retry_after_s)
            case OrderState.CONFIRMED:
                assert entry.total is not None
                return Confirmed(entry.order_id, entry.total)
            case OrderState.CANCELLED | OrderState.CLOSED:
                return Rejected(RejectionReason.KEY_CLOSED, None)
            case OrderState.REJECTED:
                return Rejected(entry.reason, entry.updated)

    def _tell(
        self,
        name: str,
        key: str,
        answer: object,
        *,
        amount: Money | None = None,
        source: str | None = None,
        done: bool = False,
    ) -> None:
        self._on_effect(
            Effect(name, purchase_of(key), self.seller_id, key, amount, source, done, answer)
        )


def _refused_hold(reason: RejectionReason) -> HoldEntry:
    return HoldEntry(HoldState.REFUSED, Rejected(reason, None))


def _refused_order(reason: RejectionReason) -> OrderEntry:
    return OrderEntry(OrderState.REJECTED, reason=reason)


@dataclass(slots=True)
class AuthorizationEntry:
    """What the provider has reserved. Amounts in minor units."""

    provider_id: str
    reference: UUID
    authorized: int
    created_at: datetime
    expires_at: datetime
    state: PaymentState = PaymentState.AUTHORIZED
    captured: int = 0
    captures: int = 0
    released: int = 0
    refunded: int = 0


@dataclass(frozen=True, slots=True)
class ProviderScript:
    """How the provider behaves.

    Attributes:
        declines: whether it declines.
        refuses_capture: whether it refuses every capture.
        expires_s: how long an authorization lives, in seconds.
        reusable_tokens: whether a token may be authorized again.

    """

    declines: bool = False
    refuses_capture: bool = False
    expires_s: float = 7 * 86400.0
    reusable_tokens: bool = True


class ProviderLedger:
    """A payment provider with keys: the same one gives the first answer."""

    def __init__(self, script: ProviderScript, clock: Clock, on_effect: OnEffect) -> None:
        self.script = script
        self.authorizations: dict[str, AuthorizationEntry] = {}
        self._answers: dict[str, tuple[tuple[object, ...], object]] = {}
        self._clock = clock
        self._on_effect = on_effect

    def authorize(self, key: str, amount: Money, reference: str) -> AuthorizeOutcome:
        """Reserve an amount."""

        def work() -> tuple[AuthorizeOutcome, bool]:
            if self.script.declines:
                return Declined(FailureReason.CARD_DECLINED), False
            now = self._clock.now()
            entry = AuthorizationEntry(
                f"a{len(self.authorizations) + 1}",
                UUID(reference),
                amount.minor,
                now,
                now + timedelta(seconds=self.script.expires_s),
            )
            self.authorizations[entry.provider_id] = entry
            return Authorized(entry.provider_id, entry.expires_at), True

        return self._once("authorize", key, (amount, reference), amount, work)

    def capture(self, key: str, provider_id: str, amount: Money) -> CaptureOutcome:
        """Charge at most what is reserved, once, and release the rest."""

        def work() -> tuple[CaptureOutcome, bool]:
            entry = self._settled(provider_id)
            if self.script.refuses_capture or entry.state is not PaymentState.AUTHORIZED:
                return Refused(f"not_chargeable_{entry.state}"), False
            if amount.minor > entry.authorized:
                return Refused("above_authorized"), False
            entry.state = PaymentState.CAPTURED
            entry.captured += amount.minor
            entry.captures += 1
            entry.released = entry.authorized - amount.minor
            return Captured(), True

        return self._once("capture", key, (provider_id, amount), amount, work)

    def void(self, key: str, provider_id: str) -> VoidOutcome:
        """Release what is reserved."""

        def work() -> tuple[VoidOutcome, bool]:
            entry = self._settled(provider_id)
            if entry.state is PaymentState.CAPTURED:
                return AlreadyCaptured(), False
            done = entry.state is PaymentState.AUTHORIZED
            entry.state = PaymentState.VOIDED
            entry.released = entry.authorized
            return Voided(), done

        return self._once("void", key, (provider_id,), None, work)

    def refund(self, key: str, provider_id: str, amount: Money) -> RefundOutcome:
        """Give back what was charged."""

        def work() -> tuple[RefundOutcome, bool]:
            entry = self._settled(provider_id)
            if entry.refunded + amount.minor > entry.captured:
                return Refused("above_captured"), False
            entry.refunded += amount.minor
            return Refunded(), True

        return self._once("refund", key, (provider_id, amount), amount, work)

    def get(self, provider_id: str) -> ProviderPayment | None:
        """Tell of a payment."""
        if provider_id not in self.authorizations:
            return None
        entry = self._settled(provider_id)
        return ProviderPayment(
            provider_id,
            str(entry.reference),
            entry.state,
            usd(entry.authorized),
            usd(entry.captured),
            usd(entry.refunded),
            entry.expires_at,
            entry.created_at,
        )

    def charge_by_hand(self, request_id: UUID, minor: int | None = None) -> None:
        """Charge what is reserved, or a part of it, without a call of ours."""
        for entry in self.of(request_id):
            if entry.state is PaymentState.AUTHORIZED:
                entry.state = PaymentState.CAPTURED
                entry.captured = entry.authorized if minor is None else minor
                entry.captures = 1
                entry.released = entry.authorized - entry.captured

    def give_back_by_hand(self, request_id: UUID, minor: int | None = None) -> None:
        """Give back what was charged, or a part of it, without a call of ours."""
        for entry in self.of(request_id):
            left = entry.captured - entry.refunded
            entry.refunded += left if minor is None else min(minor, left)

    async def list_since(self, since: datetime) -> AsyncIterator[ProviderPayment]:
        """Tell of all payments."""
        for provider_id, entry in list(self.authorizations.items()):
            payment = self.get(provider_id)
            if payment is not None and entry.created_at >= since.astimezone(UTC):
                yield payment

    def of(self, request_id: UUID) -> list[AuthorizationEntry]:
        """Give all that was ever reserved for a purchase."""
        return [
            self._settled(entry.provider_id)
            for entry in self.authorizations.values()
            if entry.reference == request_id
        ]

    def _settled(self, provider_id: str) -> AuthorizationEntry:
        entry = self.authorizations[provider_id]
        if entry.state is PaymentState.AUTHORIZED and entry.expires_at <= self._clock.now():
            entry.state = PaymentState.VOIDED
            entry.released = entry.authorized
        return entry

    def _once(
        self,
        name: str,
        key: str,
        content: tuple[object, ...],
        amount: Money | None,
        work: Callable[[], tuple[OutcomeT, bool]],
    ) -> OutcomeT:
        """Give the answer that is kept under a key, or do the work and keep its answer."""
        if key in self._answers:
            kept, answer = self._answers[key]
            if kept != content:
                reused = Effect(
                    name,
                    purchase_of(key),
                    PROVIDER,
                    key,
                    amount,
                    None,
                    done=False,
                    answer=KeyReused(),
                )
                self._on_effect(reused)
                raise ValueError(f"{key} was used for other content")
            done = False
        else:
            answer, done = work()
            self._answers[key] = (content, answer)
        self._on_effect(Effect(name, purchase_of(key), PROVIDER, key, amount, None, done, answer))
        return cast("OutcomeT", answer)
