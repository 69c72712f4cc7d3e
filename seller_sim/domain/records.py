"""Holds and orders as a seller keeps them: immutable, each replaced by the next.

Time does some of the work: a hold expires and a pending order is decided without anybody writing anything. ``at``
gives a record as it is at a moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from mesh.money import Money
from seller_sim.domain.catalogue import Condition


class Reason(Enum):
    """Why a hold or an order was refused; the names are those of the contract."""

    OUT_OF_STOCK = "out_of_stock"
    QUOTE_EXPIRED = "quote_expired"
    HOLD_EXPIRED = "hold_expired"
    PRICE_CHANGED = "price_changed"
    PAST_NOT_AFTER = "past_not_after"
    KEY_CLOSED = "key_closed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Quote:
    """A seller's price for one copy of one book."""

    quote_id: str
    price: Money
    shipping: Money
    total: Money
    condition: Condition
    copies: int
    expires_us: int
    valid_us: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """Nothing was held or bought."""

    reason: Reason
    updated_quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A copy set aside, as the answer to HoldBook said it."""

    hold_id: str
    total: Money
    expires_us: int
    valid_us: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An order that stands."""

    order_id: str
    total: Money


@dataclass(frozen=True, slots=True)
class Pending:
    """An order that will be decided at ``decided_us``; ``retry_after_us`` is what the caller was told."""

    retry_after_us: int
    decided_us: int
    decision: Confirmed | Rejection


@dataclass(frozen=True, slots=True)
class Cancelled:
    """An order that was cancelled; the id is empty when it never had one."""

    order_id: str
    cancelled_us: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A key that was closed before anything happened under it."""


HoldAnswer = Hold | Rejection
OrderAnswer = Confirmed | Pending | Rejection
OrderState = Confirmed | Pending | Rejection | Cancelled | Closed


class HoldState(Enum):
    """What has become of a hold; the values are those of the control contract."""

    HELD = "held"
    EXPIRED = "expired"
    RELEASED = "released"
    ORDERED = "ordered"
    REJECTED = "rejected"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """All that is kept under a key of HoldBook.

    Attributes:
        key: the caller's key.
        content: fingerprint of the request; empty for a key that was closed before its HoldBook.
        book_id: the book; empty for a closed key.
        condition: of the copy; None where there is none.
        answer: the first answer; None for a closed key.
        state: what has become of it, as last written.

    """

    key: str
    content: bytes
    book_id: str
    condition: Condition | None
    answer: HoldAnswer | None
    state: HoldState

    def at(self, now_us: int) -> HoldRecord:
        """Give the record as it is at a moment."""
        if self.state is HoldState.HELD and self.answer_as_hold().expires_us <= now_us:
            return replace(self, state=HoldState.EXPIRED)
        return self

    def answer_as_hold(self) -> Hold:
        """Give the hold of a record that is or was held.

        Raises:
            TypeError: if nothing was ever held.

        """
        if not isinstance(self.answer, Hold):
            raise TypeError(f"nothing was held under key {self.key!r}")
        return self.answer


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """All that is kept under a key of PlaceOrder.

    Attributes:
        key: the caller's key.
        content: fingerprint of the request; empty for a key that was closed before its PlaceOrder.
        buyer_reference: as the request had it; empty for a closed key.
        book_id: the book; empty for a closed key.
        condition: of the copy; None where there is none.
        answer: the first answer; None for a closed key.
        state: what the order is, as last written.
        created_us: when the record came into being, in microseconds since 1970.
        updated_us: when its state last changed, likewise.
        too_late: whether a cancel was answered with "too late", which later ones repeat.

    """

    key: str
    content: bytes
    buyer_reference: str
    book_id: str
    condition: Condition | None
    answer: OrderAnswer | None
    state: OrderState
    created_us: int
    updated_us: int
    too_late: bool = False

    def at(self, now_us: int) -> OrderRecord:
        """Give the record as it is at a moment."""
        if isinstance(self.state, Pending) and self.state.decided_us <= now_us:
            return replace(self, state=self.state.decision, updated_us=self.state.decided_us)
        return self
