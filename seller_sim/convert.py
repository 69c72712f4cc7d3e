"""The published contract and the control contract to and from the domain."""

from __future__ import annotations

import base64
import copy
import math
from dataclasses import asdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from google.protobuf import struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.sellersim.v1 import control_pb2
from mesh import errors
from mesh.convert import money_from_proto, money_to_proto
from mesh.errors import FieldViolation
from mesh.money import MoneyError
from seller_sim.domain.catalogue import Condition
from seller_sim.domain.records import (
    Cancelled,
    Closed,
    Confirmed,
    HoldAnswer,
    HoldRecord,
    OrderAnswer,
    OrderRecord,
    Pending,
    Quote,
    Reason,
    Rejection,
)
from seller_sim.domain.seller import (
    CancelResult,
    HoldRequest,
    OrderRequest,
    QuoteRequest,
    Released,
    Seller,
    Unavailable,
)

if TYPE_CHECKING:
    from mesh.money import Money
    from seller_sim.domain.behaviour import Behaviour

KEY_RETENTION_S: Final = 400 * 86_400
"""Keys are kept as long as the ledger's file; this is what the sellers promise."""

CONTRACT_VERSION: Final = "v1"
_DEFAULT_PAGE_SIZE = 100
_MICROSECONDS = 1_000_000
_NANOS_PER_US = 1_000

_UNAVAILABLE = {
    Unavailable.OUT_OF_STOCK: pb.Unavailable.REASON_OUT_OF_STOCK,
    Unavailable.NOT_CARRIED: pb.Unavailable.REASON_NOT_CARRIED,
    Unavailable.CONDITION: pb.Unavailable.REASON_CONDITION,
    Unavailable.CURRENCY: pb.Unavailable.REASON_CURRENCY,
}
_REASONS = {
    Reason.OUT_OF_STOCK: pb.Rejection.REASON_OUT_OF_STOCK,
    Reason.QUOTE_EXPIRED: pb.Rejection.REASON_QUOTE_EXPIRED,
    Reason.HOLD_EXPIRED: pb.Rejection.REASON_HOLD_EXPIRED,
    Reason.PRICE_CHANGED: pb.Rejection.REASON_PRICE_CHANGED,
    Reason.PAST_NOT_AFTER: pb.Rejection.REASON_PAST_NOT_AFTER,
    Reason.KEY_CLOSED: pb.Rejection.REASON_KEY_CLOSED,
    Reason.REFUSED: pb.Rejection.REASON_REFUSED,
}
_RELEASED = {
    Released.RELEASED: pb.ReleaseHoldResponse.RESULT_RELEASED,
    Released.CLOSED: pb.ReleaseHoldResponse.RESULT_CLOSED,
    Released.ORDERED: pb.ReleaseHoldResponse.RESULT_ORDERED,
}
_CANCELLED = {
    CancelResult.CLOSED: pb.CancelOrderResponse.RESULT_CLOSED,
    CancelResult.CANCELLED: pb.CancelOrderResponse.RESULT_CANCELLED,
    CancelResult.TOO_LATE: pb.CancelOrderResponse.RESULT_TOO_LATE,
}


def capabilities_to_proto(behaviour: Behaviour) -> pb.Capabilities:
    """Give what a seller with this behaviour can do."""
    return pb.Capabilities(
        supports_holds=behaviour.supports_holds,
        max_batch_size=behaviour.max_batch_size,
        currency_codes=[behaviour.currency],
        calls_per_minute=behaviour.calls_per_minute,
        quotes_per_minute=behaviour.quotes_per_minute,
        min_quote_life=_duration(int(behaviour.quote_life_s * _MICROSECONDS)),
        key_retention=Duration(seconds=KEY_RETENTION_S),
        supports_cancel_before_order=behaviour.supports_cancel_before_order,
        supports_get_order=behaviour.supports_get_order,
        honours_not_after=behaviour.honours_not_after,
        contract_versions=[CONTRACT_VERSION],
    )


def quote_request(request: pb.GetQuoteRequest) -> QuoteRequest:
    """Read a request for a quote."""
    conditions = [Condition(condition) for condition in request.conditions]
    return QuoteRequest(request.book_id, request.currency_code, conditions)


def quote_response(book_id: str, answer: Quote | Unavailable) -> pb.GetQuoteResponse:
    """Give the answer to one request for a quote."""
    if isinstance(answer, Unavailable):
        unavailable = pb.Unavailable(reason=_UNAVAILABLE[answer])
        return pb.GetQuoteResponse(book_id=book_id, unavailable=unavailable)
    return pb.GetQuoteResponse(book_id=book_id, quote=_quote_to_proto(answer))


def hold_request(request: pb.HoldBookRequest) -> HoldRequest:
    """Read a request to hold a copy."""
    return HoldRequest(
        key=request.idempotency_key,
        content=_content(request),
        quote_id=request.quote_id,
        book_id=request.book_id,
        not_after_us=_microseconds(request.not_after),
    )


def hold_response(answer: HoldAnswer) -> pb.HoldBookResponse:
    """Give the answer to a request to hold a copy."""
    if isinstance(answer, Rejection):
        return pb.HoldBookResponse(rejected=_rejection_to_proto(answer))
    return pb.HoldBookResponse(
        hold=pb.Hold(
            hold_id=answer.hold_id,
            total=money_to_proto(answer.total),
            expires_at=_timestamp(answer.expires_us),
            valid_for=_duration(answer.valid_us),
        )
    )


def release_response(released: Released) -> pb.ReleaseHoldResponse:
    """Give the answer to a release."""
    return pb.ReleaseHoldResponse(result=_RELEASED[released])


def order_request(request: pb.PlaceOrderRequest) -> OrderRequest:
    """Read an order.

    Raises:
        InvalidArgument: if ``max_total`` is not an amount of money above 0.

    """
    return OrderRequest(
        key=request.idempotency_key,
        content=_content(request),
        hold_id=request.hold_id,
        quote_id=request.quote_id,
        book_id=request.book_id,
        buyer_reference=request.buyer_reference,
        max_total=_max_total(request),
        not_after_us=_microseconds(request.not_after),
    )


def order_response(answer: OrderAnswer) -> pb.PlaceOrderResponse:
    """Give the answer to an order."""
    match answer:
        case Confirmed():
            return pb.PlaceOrderResponse(confirmed=_confirmed_to_proto(answer))
        case Pending():
            return pb.PlaceOrderResponse(pending=_pending_to_proto(answer))
        case Rejection():
            return pb.PlaceOrderResponse(rejected=_rejection_to_proto(answer))


def order_to_proto(record: OrderRecord) -> pb.Order:
    """Give an order as GetOrder does."""
    order = pb.Order(
        idempotency_key=record.key,
        buyer_reference=record.buyer_reference,
        book_id=record.book_id,
        create_time=_timestamp(record.created_us),
        update_time=_timestamp(record.updated_us),
    )
    match record.state:
        case Confirmed():
            order.confirmed.CopyFrom(_confirmed_to_proto(record.state))
        case Pending():
            order.pending.CopyFrom(_pending_to_proto(record.state))
        case Rejection():
            order.rejected.CopyFrom(_rejection_to_proto(record.state))
        case Cancelled(order_id=order_id, cancelled_us=cancelled_us):
            cancel_time = _timestamp(cancelled_us)
            order.cancelled.CopyFrom(pb.OrderCancelled(order_id=order_id, cancel_time=cancel_time))
        case Closed():
            order.closed.SetInParent()
    return order


def cancel_response(result: CancelResult, record: OrderRecord) -> pb.CancelOrderResponse:
    """Give the answer to a cancel."""
    return pb.CancelOrderResponse(result=_CANCELLED[result], order=order_to_proto(record))


def page_of(request: pb.ListOrdersRequest) -> tuple[int, tuple[int, str], int]:
    """Give since when to list orders, after which one, and how many.

    Raises:
        InvalidArgument: if the page token was not given for this request.

    """
    from_us = 0
    if request.HasField("update_time_from"):
        from_us = math.ceil(request.update_time_from.ToNanoseconds() / _NANOS_PER_US)
    size = request.page_size or _DEFAULT_PAGE_SIZE
    if not request.page_token:
        return from_us, (0, ""), size
    try:
        token = base64.b64decode(request.page_token, altchars=b"-_", validate=True).decode()
        token_from, updated, key = token.split(":", 2)
        after = (int(updated), key)
        fits = int(token_from) == from_us
    except ValueError:
        raise _wrong("page_token", "is not one that this seller gave") from None
    if not fits:
        raise _wrong("page_token", "was given for another update_time_from")
    return from_us, after, size


def page_token(from_us: int, last: OrderRecord) -> str:
    """Give the token of the page after the one that ends with ``last``."""
    return base64.urlsafe_b64encode(f"{from_us}:{last.updated_us}:{last.key}".encode()).decode()


def seller_to_proto(seller: Seller, endpoint: str) -> control_pb2.SimulatedSeller:
    """Give what a registration needs to know of a seller."""
    behaviour = struct_pb2.Struct()
    behaviour.update(asdict(seller.behaviour))
    return control_pb2.SimulatedSeller(
        seller_id=seller.seller_id,
        display_name=seller.display_name,
        endpoint=endpoint,
        credential_reference=seller.seller_id,
        capabilities=capabilities_to_proto(seller.behaviour),
        behaviour=behaviour,
    )


def counters_to_proto(seller: Seller) -> control_pb2.SellerCounters:
    """Give what a seller has counted."""
    traffic = seller.traffic
    return control_pb2.SellerCounters(
        seller_id=seller.seller_id,
        calls=traffic.calls,
        rate_limited=traffic.rate_limited,
        peak_calls_per_minute=traffic.peak_per_minute,
    )


def ledger_order_to_proto(seller_id: str, record: OrderRecord) -> control_pb2.LedgerOrder:
    """Give an order of a ledger."""
    return control_pb2.LedgerOrder(seller_id=seller_id, order=order_to_proto(record))


def ledger_hold_to_proto(seller_id: str, record: HoldRecord) -> control_pb2.LedgerHold:
    """Give a hold of a ledger."""
    return control_pb2.LedgerHold(
        seller_id=seller_id,
        idempotency_key=record.key,
        book_id=record.book_id,
        state=record.state.value,
    )


def _quote_to_proto(quote: Quote) -> pb.Quote:
    return pb.Quote(
        quote_id=quote.quote_id,
        price=money_to_proto(quote.price),
        shipping=money_to_proto(quote.shipping),
        total=money_to_proto(quote.total),
        condition=pb.Condition.ValueType(quote.condition),
        quantity=quote.copies,
        expires_at=_timestamp(quote.expires_us),
        valid_for=_duration(quote.valid_us),
    )


def _rejection_to_proto(rejection: Rejection) -> pb.Rejection:
    updated = rejection.updated_quote
    return pb.Rejection(
        reason=_REASONS[rejection.reason],
        updated_quote=_quote_to_proto(updated) if updated else None,
    )


def _confirmed_to_proto(confirmed: Confirmed) -> pb.OrderConfirmed:
    return pb.OrderConfirmed(order_id=confirmed.order_id, total=money_to_proto(confirmed.total))


def _pending_to_proto(pending: Pending) -> pb.OrderPending:
    return pb.OrderPending(retry_after=_duration(pending.retry_after_us))


def _max_total(request: pb.PlaceOrderRequest) -> Money:
    try:
        max_total = money_from_proto(request.max_total)
    except MoneyError as error:
        raise _wrong("max_total", str(error)) from None
    if not max_total.minor:
        raise _wrong("max_total", "must be above 0")
    return max_total


def _wrong(field: str, description: str) -> errors.InvalidArgument:
    fault = FieldViolation(field, description)
    return errors.InvalidArgument(f"{field}: {description}", fields=(fault,))


def _content(request: pb.HoldBookRequest | pb.PlaceOrderRequest) -> bytes:
    without_key = copy.copy(request)
    without_key.ClearField("idempotency_key")
    return blake2b(without_key.SerializeToString(deterministic=True), digest_size=16).digest()


def _timestamp(moment_us: int) -> Timestamp:
    seconds, rest_us = divmod(moment_us, _MICROSECONDS)
    return Timestamp(seconds=seconds, nanos=rest_us * _NANOS_PER_US)


def _microseconds(moment: Timestamp) -> int:
    return moment.seconds * _MICROSECONDS + moment.nanos // _NANOS_PER_US


def _duration(length_us: int) -> Duration:
    seconds, rest_us = divmod(length_us, _MICROSECONDS)
    return Duration(seconds=seconds, nanos=rest_us * _NANOS_PER_US)
