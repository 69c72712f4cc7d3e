"""What sellers are, and what they may answer. Pure: no protobuf, no gRPC.

A business outcome ("sold out", "the price is now ...") is a value of its own; a call that gave no usable answer is a
``CallFailed``. No call to a seller raises for anything that a seller or the network did.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from mesh.money import Money

SYSTEM_ROOTS = "system"
"""The value of ``Seller.tls_roots`` that stands for the roots of the system."""


class Condition(StrEnum):
    """Condition of a copy, as booksellers grade it."""

    NEW = "new"
    LIKE_NEW = "like_new"
    VERY_GOOD = "very_good"
    GOOD = "good"
    ACCEPTABLE = "acceptable"


class SellerState(StrEnum):
    """The life of a registration."""

    ACTIVE = "active"
    """Asked and bought from."""
    DRAINING = "draining"
    """Not asked; orders under way are brought to their end."""
    DISABLED = "disabled"
    """Not called at all."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a seller says it can do; the fields are those of ``bookmesh.seller.v1.Capabilities``."""

    supports_holds: bool
    max_batch_size: int
    currencies: tuple[str, ...]
    calls_per_minute: int
    quotes_per_minute: int
    min_quote_life_s: float
    key_retention_s: float
    supports_cancel_before_order: bool
    supports_get_order: bool
    honours_not_after: bool
    contract_versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seller:
    """A seller as the registry knows it.

    Attributes:
        seller_id: chosen at registration; customers see it.
        display_name: for people.
        endpoint: ``host:port``.
        tls_roots: PEM of the roots that its certificate must lead to; ``SYSTEM_ROOTS`` for the system's; empty for no
            TLS.
        credential_reference: under which name the credentials file has its secret.
        capabilities: what it can do.
        state: whether it is asked at all.
        revision: the registry's revision that last changed it.

    """

    seller_id: str
    display_name: str
    endpoint: str
    tls_roots: str
    credential_reference: str
    capabilities: Capabilities
    state: SellerState
    revision: int


class FailureKind(StrEnum):
    """Why a call gave no usable answer."""

    TIMED_OUT = "timed_out"
    """No answer in the time that it had."""
    UNREACHABLE = "unreachable"
    """No connection."""
    SELLER_ERROR = "seller_error"
    """The seller failed (UNAVAILABLE, INTERNAL, UNKNOWN, ...)."""
    RATE_LIMITED = "rate_limited"
    """The seller says that it is called too often."""
    REFUSED = "refused"
    """The seller does not accept our credential, or does not have the method."""
    NOT_UNDERSTOOD = "not_understood"
    """The seller does not accept what the call says (INVALID_ARGUMENT): a book id of an unknown form, perhaps."""
    NO_CREDENTIAL = "no_credential"
    """We have none for it: it was not called."""
    IN_FLIGHT = "in_flight"
    """The seller is still working on an earlier call with the same key: try again."""
    KEY_MISMATCH = "key_mismatch"
    """The seller knows the key with other content; what that earlier call did stands."""
    NOT_FOUND = "not_found"
    """The seller does not know what the call is about. ``get_order`` and ``cancel_order`` have a value for it."""
    INVALID_ANSWER = "invalid_answer"
    """The answer breaks the contract."""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call without a usable answer.

    Attributes:
        kind: why.
        definitely_not_done: whether it is certain that *this call* changed nothing at the seller: it was never sent,
            or the seller answered with a status that promises so (rule 2 of the seller contract). It says nothing of
            an earlier call with the same key. False means unknown.
        detail: for logs and operators; up to 200 printable characters, in part the seller's own words.
        retry_after_s: how long the seller asks to be left alone; None where it does not say. At most an hour.

    """

    kind: FailureKind
    definitely_not_done: bool
    detail: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """A seller's price for one copy, checked against what was asked. It reserves nothing.

    Attributes:
        quote_id: the seller's name for it, 1 to 128 printable characters.
        price: of the copy alone.
        shipping: cost of sending it.
        total: all that the seller will charge, above 0; need not be the sum of the two.
        condition: of the copy.
        quantity: copies in stock, at least 1.
        expires_at: when it ends, by our clock: receipt plus the life that the seller gave it.

    """

    quote_id: str
    price: Money
    shipping: Money
    total: Money
    condition: Condition
    quantity: int
    expires_at: datetime


class UnavailableReason(StrEnum):
    """Why a seller says that a book cannot be had."""

    OUT_OF_STOCK = "out_of_stock"
    NOT_CARRIED = "not_carried"
    CONDITION = "condition"
    CURRENCY = "currency"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The seller's "no"."""

    reason: UnavailableReason


QuoteOutcome: TypeAlias = Quote | Unavailable | CallFailed


class RejectionReason(StrEnum):
    """Why a seller refuses a hold or an order."""

    OUT_OF_STOCK = "out_of_stock"
    QUOTE_EXPIRED = "quote_expired"
    HOLD_EXPIRED = "hold_expired"
    PRICE_CHANGED = "price_changed"
    PAST_NOT_AFTER = "past_not_after"
    KEY_CLOSED = "key_closed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A hold or an order that the seller refused: it has no effect, and its key is used up.

    Attributes:
        reason: why.
        updated_quote: the seller's price now, where it gave a valid one in the currency of the call. Its condition
            is a known one, but need not be among those that the customer accepts: check it before buying on it.

    """

    reason: RejectionReason
    updated_quote: Quote | None


@dataclass(frozen=True, slots=True)
class Held:
    """A copy set aside.

    Attributes:
        hold_id: the seller's name for it.
        total: all that the seller will charge for an order from it, above 0; may be more than the quote's.
        expires_at: when it ends, by our clock: receipt plus the life that the seller gave it.

    """

    hold_id: str
    total: Money
    expires_at: datetime


HoldOutcome: TypeAlias = Held | Rejected | CallFailed


class Released(StrEnum):
    """What a release found. With the first two no copy is held under the key, now or later."""

    RELEASED = "released"
    """A copy was held and is given back."""
    CLOSED = "closed"
    """Nothing was held; the key is closed to a hold that arrives later."""
    ORDERED = "ordered"
    """An order was made from the hold and stands; cancel it instead."""


ReleaseOutcome: TypeAlias = Released | CallFailed


@dataclass(frozen=True, slots=True)
class HoldRef:
    """An order is made from this hold."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class QuoteRef:
    """An order is made straight from this quote, at a seller without holds."""

    quote_id: str


OrderSource: TypeAlias = HoldRef | QuoteRef


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The copy is sold to us.

    Attributes:
        order_id: the seller's name for the order; the customer's confirmation.
        total: what the seller charges, above 0. From ``place_order`` it is at most the call's ``max_total``; from the
            other calls it is what the seller says.

    """

    order_id: str
    total: Money


@dataclass(frozen=True, slots=True)
class Pending:
    """The seller has not decided; ask ``get_order`` after ``retry_after_s`` (0.1 to 60 s)."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The order was cancelled; nothing is charged for it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """No order exists under the key, and none ever will."""


@dataclass(frozen=True, slots=True)
class OrderNotFound:
    """The seller knows nothing of the key; a ``place_order`` that is under way may still arrive."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The order stands and cannot be cancelled any more."""

    order: Confirmed | Pending


PlaceOutcome: TypeAlias = Confirmed | Pending | Rejected | CallFailed
OrderState: TypeAlias = Confirmed | Pending | Rejected | Cancelled | Closed
GetOrderOutcome: TypeAlias = OrderState | OrderNotFound | CallFailed
CancelOutcome: TypeAlias = Closed | Cancelled | TooLate | OrderNotFound | CallFailed


@dataclass(frozen=True, slots=True)
class Order:
    """An order, or what stands in its place, as a seller lists it.

    Attributes:
        key: the idempotency key under which we placed it.
        buyer_reference: our name for the purchase; empty for a closed key.
        book_id: the book; empty for a closed key.
        state: its state now.
        updated_at: when that last changed, by the seller's clock.

    """

    key: str
    buyer_reference: str
    book_id: str
    state: OrderState
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OrderPage:
    """Part of a seller's orders, oldest change first; ``next_page_token`` is empty after the last."""

    orders: tuple[Order, ...]
    next_page_token: str


ListOrdersOutcome: TypeAlias = OrderPage | CallFailed
CapabilitiesOutcome: TypeAlias = Capabilities | CallFailed
BatchOutcome: TypeAlias = tuple[QuoteOutcome, ...] | CallFailed
