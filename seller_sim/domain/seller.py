"""One simulated seller: its answers as decisions, given the time. Nothing is changed until a decision is written."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Generic, TypeVar

from mesh.money import Money
from seller_sim.domain.account import Account, Record
from seller_sim.domain.catalogue import Book, Condition, Offer, offers_of
from seller_sim.domain.draws import Draws, draws, exponential, lognormal
from seller_sim.domain.quote_ids import QuotedPrice, quote_id_of, read_quote_id
from seller_sim.domain.records import (
    Cancelled,
    Closed,
    Confirmed,
    Hold,
    HoldAnswer,
    HoldRecord,
    HoldState,
    OrderAnswer,
    OrderRecord,
    Pending,
    Quote,
    Reason,
    Rejection,
)
from seller_sim.domain.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from seller_sim.domain.behaviour import Behaviour

_MICROSECONDS = 1_000_000
_LEAST_RETRY_US = 50_000
_LATEST_RETRY_US = 1_000_000


class Unavailable(Enum):
    """Why a book cannot be had; the names are those of the contract."""

    OUT_OF_STOCK = "out_of_stock"
    NOT_CARRIED = "not_carried"
    CONDITION = "condition"
    CURRENCY = "currency"


class Released(Enum):
    """What a release found; the names are those of the contract."""

    RELEASED = "released"
    CLOSED = "closed"
    ORDERED = "ordered"


class CancelResult(Enum):
    """How a cancel ended; the names are those of the contract."""

    CLOSED = "closed"
    CANCELLED = "cancelled"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class QuoteRequest:
    """Asks for the lowest total of one copy."""

    book_id: str
    currency: str
    conditions: Collection[Condition]


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Asks for a copy to be set aside; ``content`` is the fingerprint of all but the key."""

    key: str
    content: bytes
    quote_id: str
    book_id: str
    not_after_us: int


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """Asks to buy a copy: from a hold, or from a quote when ``hold_id`` is empty."""

    key: str
    content: bytes
    hold_id: str
    quote_id: str
    book_id: str
    buyer_reference: str
    max_total: Money
    not_after_us: int


@dataclass(frozen=True, slots=True)
class Mishaps:
    """What goes wrong with one call, and how long its answer takes, in seconds."""

    fails: bool
    hangs: bool
    loses_answer: bool
    invalid_quote: bool
    latency_s: float


AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Decision(Generic[AnswerT]):
    """An answer, and the records that must be written before it may be given."""

    answer: AnswerT
    records: tuple[Record, ...] = ()


class Seller:
    """A seller with its account and its traffic.

    Attributes:
        seller_id: its id.
        display_name: its name for people.
        credential: what a caller must show.
        behaviour: how it behaves from now on; may be replaced at any time.
        account: what it has held and sold.
        traffic: what it has counted.

    """

    def __init__(
        self,
        *,
        seed: int,
        seller_id: str,
        display_name: str,
        credential: str,
        behaviour: Behaviour,
        books: Mapping[str, Book],
        records: Iterable[Record] = (),
    ) -> None:
        """Take up business where ``records`` end."""
        self.seller_id = seller_id
        self.display_name = display_name
        self.credential = credential
        self.behaviour = behaviour
        self.account = Account(records)
        self.traffic = Traffic()
        self._seed = seed
        self._key = credential.encode()[:64]
        self._books = books
        self._calls = 0

    def mishaps(self) -> Mishaps:
        """Give what befalls the next call; the sequence is the same whenever the process starts."""
        self._calls += 1
        behaviour = self.behaviour
        chance = draws(self._seed, self.seller_id, self._calls)
        latency_ms = behaviour.latency_constant_ms
        if behaviour.latency_exponential_ms:
            latency_ms += exponential(behaviour.latency_exponential_ms, chance[4])
        if chance[5] < behaviour.latency_tail_rate:
            median_ms, sigma = behaviour.latency_tail_median_ms, behaviour.latency_tail_sigma
            latency_ms += lognormal(median_ms, sigma, chance[6])
        return Mishaps(
            fails=chance[0] < behaviour.error_rate,
            hangs=chance[1] < behaviour.hang_rate,
            loses_answer=chance[2] < behaviour.lost_answer_rate,
            invalid_quote=chance[3] < behaviour.invalid_quote_rate,
            latency_s=latency_ms / 1_000,
        )

    def quote(self, request: QuoteRequest, now_us: int) -> Quote | Unavailable:
        """Give the lowest total of a copy in one of the conditions that the caller accepts."""
        offers = self._offers(request.book_id, now_us)
        if offers is None:
            return Unavailable.NOT_CARRIED
        account = self.account
        free = [
            (offer.total_minor, copies, offer)
            for offer in offers
            if (copies := offer.copies - account.taken(request.book_id, offer.condition, now_us))
            > 0
        ]
        if not free:
            return Unavailable.OUT_OF_STOCK
        if request.currency != self.behaviour.currency:
            return Unavailable.CURRENCY
        accepted = [entry for entry in free if entry[2].condition in request.conditions]
        if not accepted:
            return Unavailable.CONDITION
        total_minor, copies, offer = min(accepted, key=lambda entry: entry[0])
        return self._quote_of(request.book_id, offer, total_minor, copies, now_us)

    def hold(self, request: HoldRequest, now_us: int) -> Decision[HoldAnswer]:
        """Decide on a hold whose key is new: a copy is set aside, or the key is used up by a rejection."""
        chance = draws(self._seed, self.seller_id, "hold", request.key)
        quoted = read_quote_id(self._key, request.book_id, request.quote_id)
        answer: HoldAnswer
        if self.behaviour.honours_not_after and now_us > request.not_after_us:
            answer = Rejection(Reason.PAST_NOT_AFTER)
        elif quoted is None or quoted.expires_us <= now_us:
            answer = self._quote_expired(request.book_id, quoted, now_us)
        elif refusal := self._refusal(request.book_id, quoted, chance, now_us):
            answer = refusal
        else:
            life_us = int(self.behaviour.hold_life_s * _MICROSECONDS)
            answer = Hold(
                hold_id=self._name("H", request.key),
                total=Money(quoted.currency, self._repriced(quoted.total_minor, chance)),
                expires_us=now_us + life_us,
                valid_us=life_us,
            )
        record = HoldRecord(
            key=request.key,
            content=request.content,
            book_id=request.book_id,
            condition=quoted.condition if quoted else None,
            answer=answer,
            state=HoldState.HELD if isinstance(answer, Hold) else HoldState.REJECTED,
        )
        return Decision(answer, (record,))

    def release(self, key: str, now_us: int) -> Decision[Released]:
        """Decide on a release: the copy is given back, or a key without a hold is closed."""
        record = self.account.holds.get(key)
        if record is None:
            closed = HoldRecord(key, b"", "", None, None, HoldState.CLOSED)
            return Decision(Released.CLOSED, (closed,))
        match record.at(now_us).state:
            case HoldState.HELD:
                return Decision(Released.RELEASED, (replace(record, state=HoldState.RELEASED),))
            case HoldState.RELEASED:
                return Decision(Released.RELEASED)
            case HoldState.ORDERED:
                return Decision(Released.ORDERED)
            case HoldState.EXPIRED | HoldState.REJECTED | HoldState.CLOSED:
                return Decision(Released.CLOSED)

    def order(self, request: OrderRequest, now_us: int) -> Decision[OrderAnswer]:
        """Decide on an order whose key is new: a copy is sold, or the key is used up by a rejection."""
        chance = draws(self._seed, self.seller_id, "order", request.key)
        hold: HoldRecord | None = None
        condition: Condition | None = None
        total: Money | Rejection
        if self.behaviour.honours_not_after and now_us > request.not_after_us:
            total = Rejection(Reason.PAST_NOT_AFTER)
        elif request.hold_id:
            hold = self.account.hold_with_id(request.hold_id)
            condition = hold.condition if hold else None
            total = self._total_from_hold(request, hold, now_us)
        else:
            quoted = read_quote_id(self._key, request.book_id, request.quote_id)
            condition = quoted.condition if quoted else None
            total = self._total_from_quote(request, quoted, chance, now_us)

        answer = (
            total
            if isinstance(total, Rejection)
            else self._sold(request.key, total, chance, now_us)
        )
        record = OrderRecord(
            key=request.key,
            content=request.content,
            buyer_reference=request.buyer_reference,
            book_id=request.book_id,
            condition=condition,
            answer=answer,
            state=answer,
            created_us=now_us,
            updated_us=now_us,
        )
        if hold is None or isinstance(answer, Rejection):
            return Decision(answer, (record,))
        return Decision(answer, (replace(hold, state=HoldState.ORDERED), record))

    def cancel(self, key: str, now_us: int) -> Decision[CancelResult] | None:
        """Decide on a cancel; None when there is no such order and this seller closes no keys beforehand."""
        record = self.account.orders.get(key)
        if record is None:
            if not self.behaviour.supports_cancel_before_order:
                return None
            closed = OrderRecord(key, b"", "", "", None, None, Closed(), now_us, now_us)
            return Decision(CancelResult.CLOSED, (closed,))
        record = record.at(now_us)
        match record.state:
            case Rejection() | Closed():
                return Decision(CancelResult.CLOSED)
            case Cancelled():
                return Decision(CancelResult.CANCELLED)
            case Confirmed(order_id=order_id) | Pending(decision=Confirmed(order_id=order_id)):
                return self._cancel_standing(record, order_id, now_us)
            case Pending():
                return _cancelled(record, "", now_us)

    def _cancel_standing(
        self, record: OrderRecord, order_id: str, now_us: int
    ) -> Decision[CancelResult]:
        if record.too_late:
            return Decision(CancelResult.TOO_LATE)
        chance = draws(self._seed, self.seller_id, "cancel", record.key)
        if chance[0] < self.behaviour.too_late_rate:
            return Decision(CancelResult.TOO_LATE, (replace(record, too_late=True),))
        return _cancelled(record, order_id, now_us)

    def _offers(self, book_id: str, now_us: int) -> list[Offer] | None:
        book = self._books.get(book_id)
        return offers_of(
            seed=self._seed,
            seller_id=self.seller_id,
            behaviour=self.behaviour,
            book_id=book_id,
            book=book,
            now_us=now_us,
        )

    def _quote_of(
        self, book_id: str, offer: Offer, total_minor: int, copies: int, now_us: int
    ) -> Quote:
        currency = self.behaviour.currency
        life_us = int(self.behaviour.quote_life_s * _MICROSECONDS)
        quoted = QuotedPrice(offer.condition, total_minor, currency, now_us + life_us)
        shipping_minor = min(offer.shipping_minor, total_minor)
        return Quote(
            quote_id=quote_id_of(self._key, book_id, quoted),
            price=Money(currency, total_minor - shipping_minor),
            shipping=Money(currency, shipping_minor),
            total=Money(currency, total_minor),
            condition=offer.condition,
            copies=copies,
            expires_us=now_us + life_us,
            valid_us=life_us,
        )

    def _total_from_hold(
        self, request: OrderRequest, hold: HoldRecord | None, now_us: int
    ) -> Money | Rejection:
        if (
            hold is None
            or hold.book_id != request.book_id
            or hold.at(now_us).state is not HoldState.HELD
        ):
            return Rejection(Reason.HOLD_EXPIRED)
        total = hold.answer_as_hold().total
        if self._refuses_price(total, request.max_total):
            return Rejection(Reason.PRICE_CHANGED)
        return total

    def _total_from_quote(
        self, request: OrderRequest, quoted: QuotedPrice | None, chance: Draws, now_us: int
    ) -> Money | Rejection:
        if quoted is None or quoted.expires_us <= now_us:
            return self._quote_expired(request.book_id, quoted, now_us)
        refusal = self._refusal(request.book_id, quoted, chance, now_us)
        if refusal:
            return refusal
        total = Money(quoted.currency, self._repriced(quoted.total_minor, chance))
        if self._refuses_price(total, request.max_total):
            updated = self._current_quote(request.book_id, quoted.condition, now_us, total.minor)
            return Rejection(Reason.PRICE_CHANGED, updated)
        return total

    def _sold(self, key: str, total: Money, chance: Draws, now_us: int) -> OrderAnswer:
        confirmed = Confirmed(self._name("BK", key), total)
        if chance[2] >= self.behaviour.pending_rate:
            return confirmed
        wait_us = int(self.behaviour.pending_s * _MICROSECONDS)
        rejected = chance[3] < self.behaviour.pending_rejected_rate
        return Pending(
            retry_after_us=min(max(wait_us, _LEAST_RETRY_US), _LATEST_RETRY_US),
            decided_us=now_us + wait_us,
            decision=Rejection(Reason.OUT_OF_STOCK) if rejected else confirmed,
        )

    def _refuses_price(self, total: Money, max_total: Money) -> bool:
        if total.currency != max_total.currency:
            # No amount of another currency allows anything.
            return True
        return self.behaviour.heeds_max_total and total.minor > max_total.minor

    def _refusal(
        self, book_id: str, quoted: QuotedPrice, chance: Draws, now_us: int
    ) -> Rejection | None:
        if chance[4] < self.behaviour.refused_rate:
            return Rejection(Reason.REFUSED)
        if chance[0] < self.behaviour.sold_out_rate:
            return Rejection(Reason.OUT_OF_STOCK)
        if self._free_offer(book_id, quoted.condition, now_us) is None:
            return Rejection(Reason.OUT_OF_STOCK)
        return None

    def _free_offer(
        self, book_id: str, condition: Condition, now_us: int
    ) -> tuple[Offer, int] | None:
        for offer in self._offers(book_id, now_us) or ():
            copies = offer.copies - self.account.taken(book_id, condition, now_us)
            if offer.condition is condition and copies > 0:
                return offer, copies
        return None

    def _quote_expired(self, book_id: str, quoted: QuotedPrice | None, now_us: int) -> Rejection:
        updated = self._current_quote(book_id, quoted.condition, now_us) if quoted else None
        return Rejection(Reason.QUOTE_EXPIRED, updated)

    def _current_quote(
        self, book_id: str, condition: Condition, now_us: int, total_minor: int | None = None
    ) -> Quote | None:
        free = self._free_offer(book_id, condition, now_us)
        if free is None:
            return None
        offer, copies = free
        return self._quote_of(book_id, offer, total_minor or offer.total_minor, copies, now_us)

    def _repriced(self, total_minor: int, chance: Draws) -> int:
        if chance[1] >= self.behaviour.reprice_rate:
            return total_minor
        return max(1, round(total_minor * (1 + self.behaviour.reprice_by)))

    def _name(self, prefix: str, key: str) -> str:
        digest = blake2b(f"{prefix}:{key}".encode(), key=self._key, digest_size=10).digest()
        return f"{prefix}-{base64.b32encode(digest).decode()}"


def _cancelled(record: OrderRecord, order_id: str, now_us: int) -> Decision[CancelResult]:
    cancelled = replace(record, state=Cancelled(order_id, now_us), updated_us=now_us)
    return Decision(CancelResult.CANCELLED, (cancelled,))
