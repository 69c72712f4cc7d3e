"""Sellers' answers, from protobuf to ``sellers.model``, trusting nothing. Pure.

Whatever breaks the seller contract raises ``InvalidAnswerError``, whose message says what was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TypeVar

import protovalidate
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert, money
from mesh.money import Money, MoneyError
from sellers import model

MAX_ID_LENGTH = 128
"""Longest name that a seller may give to a quote, a hold or an order."""

MAX_KEY_LENGTH = 200
"""Longest idempotency key."""

MIN_LIFE_S = 1.0
"""What lives shorter is over before anybody can use it."""

MAX_LIFE_S = 24 * 3600.0
"""No quote and no hold lives longer; what claims to is wrong."""

MAX_CLOCK_SKEW_S = 24 * 3600.0
"""How far a seller's clock may be off. Its ``valid_for`` decides, so that a wrong time zone is forgiven."""

MAX_PAGE_TOKEN_LENGTH = 512

MAX_CAPABILITIES_BYTES = 16 * 1024
"""What the contract allows has 2 KB. Validation takes 0.1 ms an item, and nothing else runs meanwhile."""

_MAX_CAPABILITY_ITEMS = 200 + 16  # currencies and versions, as the contract has it

_LEAST_POLL_S, _USUAL_POLL_S, _LONGEST_POLL_S = 0.1, 1.0, 60.0

MessageT = TypeVar("MessageT")

# Books cost much the same, and so does sending them: finding an amount is quicker than working it out again.
_money = lru_cache(maxsize=16_384)(money.from_units_nanos)

CONDITIONS: dict[pb.Condition.ValueType, model.Condition] = {
    pb.CONDITION_NEW: model.Condition.NEW,
    pb.CONDITION_LIKE_NEW: model.Condition.LIKE_NEW,
    pb.CONDITION_VERY_GOOD: model.Condition.VERY_GOOD,
    pb.CONDITION_GOOD: model.Condition.GOOD,
    pb.CONDITION_ACCEPTABLE: model.Condition.ACCEPTABLE,
}
"""The conditions of ``bookmesh.seller.v1`` and their words."""

ALL_CONDITIONS = frozenset(model.Condition)

_UNAVAILABLE: dict[int, model.Unavailable] = {
    pb.Unavailable.REASON_UNSPECIFIED: model.Unavailable(model.UnavailableReason.OUT_OF_STOCK),
    pb.Unavailable.REASON_OUT_OF_STOCK: model.Unavailable(model.UnavailableReason.OUT_OF_STOCK),
    pb.Unavailable.REASON_NOT_CARRIED: model.Unavailable(model.UnavailableReason.NOT_CARRIED),
    pb.Unavailable.REASON_CONDITION: model.Unavailable(model.UnavailableReason.CONDITION),
    pb.Unavailable.REASON_CURRENCY: model.Unavailable(model.UnavailableReason.CURRENCY),
}
_REJECTIONS: dict[int, model.RejectionReason] = {
    pb.Rejection.REASON_UNSPECIFIED: model.RejectionReason.OUT_OF_STOCK,
    pb.Rejection.REASON_OUT_OF_STOCK: model.RejectionReason.OUT_OF_STOCK,
    pb.Rejection.REASON_QUOTE_EXPIRED: model.RejectionReason.QUOTE_EXPIRED,
    pb.Rejection.REASON_HOLD_EXPIRED: model.RejectionReason.HOLD_EXPIRED,
    pb.Rejection.REASON_PRICE_CHANGED: model.RejectionReason.PRICE_CHANGED,
    pb.Rejection.REASON_PAST_NOT_AFTER: model.RejectionReason.PAST_NOT_AFTER,
    pb.Rejection.REASON_KEY_CLOSED: model.RejectionReason.KEY_CLOSED,
    pb.Rejection.REASON_REFUSED: model.RejectionReason.REFUSED,
}
_RELEASES: dict[int, model.Released] = {
    pb.ReleaseHoldResponse.RESULT_UNSPECIFIED: model.Released.RELEASED,
    pb.ReleaseHoldResponse.RESULT_RELEASED: model.Released.RELEASED,
    pb.ReleaseHoldResponse.RESULT_CLOSED: model.Released.CLOSED,
    pb.ReleaseHoldResponse.RESULT_ORDERED: model.Released.ORDERED,
}


class InvalidAnswerError(Exception):
    """An answer that breaks the contract; the message says how, in at most 200 characters of ours."""


def quote(
    answer: bytes,
    *,
    book_id: str,
    currency: str,
    conditions: Collection[model.Condition],
    now: datetime,
) -> model.Quote | model.Unavailable:
    """Read a ``GetQuoteResponse`` to a question for this book, currency and conditions, received ``now``."""
    return _quote_answer(
        _parsed(pb.GetQuoteResponse.FromString, answer), book_id, currency, conditions, now
    )


def quote_batch(
    answer: bytes,
    *,
    book_ids: Collection[str],
    currency: str,
    conditions: Collection[model.Condition],
    now: datetime,
) -> tuple[model.Quote | model.Unavailable | InvalidAnswerError, ...]:
    """Read a ``BatchGetQuotesResponse``: one answer a book, in their order. A wrong item spoils itself alone.

    Raises:
        InvalidAnswerError: if there are not as many answers as questions.

    """
    responses = _parsed(pb.BatchGetQuotesResponse.FromString, answer).responses
    if len(responses) != len(book_ids):
        raise InvalidAnswerError(f"{len(responses)} answers to {len(book_ids)} questions")
    items: list[model.Quote | model.Unavailable | InvalidAnswerError] = []
    for book_id, response in zip(book_ids, responses, strict=True):
        try:
            items.append(_quote_answer(response, book_id, currency, conditions, now))
        except InvalidAnswerError as error:
            items.append(error)
    return tuple(items)


def hold(answer: bytes, *, currency: str, now: datetime) -> model.Held | model.Rejected:
    """Read a ``HoldBookResponse``, received ``now``."""
    response = _parsed(pb.HoldBookResponse.FromString, answer)
    if response.HasField("rejected"):
        return _rejection(response.rejected, currency, now)
    if not response.HasField("hold"):
        raise InvalidAnswerError("neither hold nor rejected is set")
    held = response.hold
    return model.Held(
        hold_id=_name(held.hold_id, "hold_id"),
        total=_charge(held.total, currency),
        expires_at=_end_of_life(held.valid_for, held.expires_at, now),
    )


def release(answer: bytes) -> model.Released:
    """Read a ``ReleaseHoldResponse``."""
    result = _parsed(pb.ReleaseHoldResponse.FromString, answer).result
    if result not in _RELEASES:
        raise InvalidAnswerError(f"unknown result {result}")
    return _RELEASES[result]


def placed(
    answer: bytes, *, max_total: Money, now: datetime
) -> model.Confirmed | model.Pending | model.Rejected:
    """Read a ``PlaceOrderResponse`` to an order of at most ``max_total``, received ``now``."""
    response = _parsed(pb.PlaceOrderResponse.FromString, answer)
    if response.HasField("rejected"):
        return _rejection(response.rejected, max_total.currency, now)
    if response.HasField("pending"):
        return _pending(response.pending)
    if not response.HasField("confirmed"):
        raise InvalidAnswerError("none of confirmed, pending and rejected is set")
    total = _charge(response.confirmed.total, max_total.currency)
    if total.minor > max_total.minor:
        raise InvalidAnswerError(f"confirmed at {total}, above max_total {max_total}")
    return model.Confirmed(_name(response.confirmed.order_id, "order_id"), total)


def order(answer: bytes, *, key: str, now: datetime) -> model.OrderState:
    """Read a ``GetOrderResponse`` about the order under ``key``, received ``now``."""
    response = _parsed(pb.GetOrderResponse.FromString, answer)
    if response.order.idempotency_key != key:
        raise InvalidAnswerError("the order is not the one that was asked for")
    return _order_state(response.order, now)


def cancel(
    answer: bytes, *, key: str, now: datetime
) -> model.Closed | model.Cancelled | model.TooLate:
    """Read a ``CancelOrderResponse`` about the order under ``key``, received ``now``."""
    response = _parsed(pb.CancelOrderResponse.FromString, answer)
    if response.result == pb.CancelOrderResponse.RESULT_CLOSED:
        return model.Closed()
    if response.result == pb.CancelOrderResponse.RESULT_CANCELLED:
        return model.Cancelled()
    if response.result != pb.CancelOrderResponse.RESULT_TOO_LATE:
        raise InvalidAnswerError(f"unknown result {response.result}")
    if response.order.idempotency_key != key:
        raise InvalidAnswerError("too late, but without the order that stands")
    state = _order_state(response.order, now)
    if not isinstance(state, model.Confirmed | model.Pending):
        raise InvalidAnswerError("too late, but the order does not stand")
    return model.TooLate(state)


def order_page(answer: bytes, *, now: datetime) -> model.OrderPage:
    """Read a ``ListOrdersResponse``, received ``now``."""
    response = _parsed(pb.ListOrdersResponse.FromString, answer)
    if len(response.next_page_token) > MAX_PAGE_TOKEN_LENGTH:
        raise InvalidAnswerError("next_page_token is too long")
    return model.OrderPage(
        orders=tuple(
            model.Order(
                key=_name(item.idempotency_key, "idempotency_key", MAX_KEY_LENGTH),
                buyer_reference=item.buyer_reference[:MAX_ID_LENGTH],
                book_id=item.book_id[:MAX_ID_LENGTH],
                state=_order_state(item, now),
                updated_at=_moment(item.update_time),
            )
            for item in response.orders
        ),
        next_page_token=response.next_page_token,
    )


def capabilities_answer(answer: bytes) -> model.Capabilities:
    """Read a ``GetCapabilitiesResponse``."""
    if len(answer) > MAX_CAPABILITIES_BYTES:
        raise InvalidAnswerError(
            f"the capabilities have {len(answer)} bytes, at most {MAX_CAPABILITIES_BYTES} are read"
        )
    response = _parsed(pb.GetCapabilitiesResponse.FromString, answer)
    said = response.capabilities
    items = len(said.currency_codes) + len(said.contract_versions)
    if items > _MAX_CAPABILITY_ITEMS:
        raise InvalidAnswerError(
            f"the capabilities have {items} currencies and versions, at most {_MAX_CAPABILITY_ITEMS} are read"
        )
    violations = protovalidate.collect_violations(response, fail_fast=True)
    if violations:
        raise InvalidAnswerError(violations[0].proto.message[:200])
    return capabilities(response.capabilities)


def capabilities(message: pb.Capabilities) -> model.Capabilities:
    """Convert ``Capabilities`` that have been validated."""
    return model.Capabilities(
        supports_holds=message.supports_holds,
        max_batch_size=message.max_batch_size,
        currencies=tuple(message.currency_codes),
        calls_per_minute=message.calls_per_minute,
        quotes_per_minute=message.quotes_per_minute,
        min_quote_life_s=convert.seconds(message.min_quote_life),
        key_retention_s=convert.seconds(message.key_retention),
        supports_cancel_before_order=message.supports_cancel_before_order,
        supports_get_order=message.supports_get_order,
        honours_not_after=message.honours_not_after,
        contract_versions=tuple(message.contract_versions),
    )


def _parsed(parse: Callable[[bytes], MessageT], answer: bytes) -> MessageT:
    try:
        return parse(answer)
    except DecodeError:
        raise InvalidAnswerError("the answer is not a message of the contract") from None


def _quote_answer(
    response: pb.GetQuoteResponse,
    book_id: str,
    currency: str,
    conditions: Collection[model.Condition],
    now: datetime,
) -> model.Quote | model.Unavailable:
    if response.book_id != book_id:
        raise InvalidAnswerError("the answer is about another book")
    if response.HasField("quote"):
        return _quote(response.quote, currency, conditions, now)
    if not response.HasField("unavailable"):
        raise InvalidAnswerError("neither quote nor unavailable is set")
    unavailable = _UNAVAILABLE.get(response.unavailable.reason)
    if unavailable is None:
        raise InvalidAnswerError(f"unknown reason {response.unavailable.reason}")
    return unavailable


def _quote(
    message: pb.Quote, currency: str, conditions: Collection[model.Condition], now: datetime
) -> model.Quote:
    condition = CONDITIONS.get(message.condition)
    if condition is None or condition not in conditions:
        raise InvalidAnswerError(f"condition {message.condition} was not asked for")
    if message.quantity < 1:
        raise InvalidAnswerError(f"quantity is {message.quantity}")
    return model.Quote(
        _name(message.quote_id, "quote_id"),
        _amount(message.price, currency),
        _amount(message.shipping, currency),
        _charge(message.total, currency),
        condition,
        message.quantity,
        _end_of_life(message.valid_for, message.expires_at, now),
    )


def _rejection(message: pb.Rejection, currency: str, now: datetime) -> model.Rejected:
    reason = _REJECTIONS.get(message.reason)
    if reason is None:
        raise InvalidAnswerError(f"unknown reason {message.reason}")
    updated_quote = None
    if message.HasField("updated_quote"):
        # A wrong quote does not undo the rejection.
        with suppress(InvalidAnswerError):
            updated_quote = _quote(message.updated_quote, currency, ALL_CONDITIONS, now)
    return model.Rejected(reason, updated_quote)


def _pending(message: pb.OrderPending) -> model.Pending:
    if not message.HasField("retry_after"):
        return model.Pending(_USUAL_POLL_S)
    asked_s = convert.seconds(message.retry_after)
    return model.Pending(min(max(asked_s, _LEAST_POLL_S), _LONGEST_POLL_S))


def _order_state(message: pb.Order, now: datetime) -> model.OrderState:
    match message.WhichOneof("state"):
        case "confirmed":
            return model.Confirmed(
                _name(message.confirmed.order_id, "order_id"), _charge(message.confirmed.total)
            )
        case "pending":
            return _pending(message.pending)
        case "rejected":
            return _rejection(
                message.rejected, message.rejected.updated_quote.total.currency_code, now
            )
        case "cancelled":
            return model.Cancelled()
        case "closed":
            return model.Closed()
        case None:
            raise InvalidAnswerError("the order has no state")


def _name(text: str, field: str, max_length: int = MAX_ID_LENGTH) -> str:
    if not 1 <= len(text) <= max_length or not text.isprintable():
        raise InvalidAnswerError(f"{field} must have 1 to {max_length} printable characters")
    return text


def _amount(message: money_pb2.Money, currency: str) -> Money:
    if message.currency_code != currency:
        raise InvalidAnswerError(f"an amount is not in {currency}")
    try:
        return _money(currency, message.units, message.nanos)
    except MoneyError as error:
        raise InvalidAnswerError(str(error)) from None


def _charge(message: money_pb2.Money, currency: str | None = None) -> Money:
    charge = _amount(message, message.currency_code if currency is None else currency)
    if charge.minor == 0:
        raise InvalidAnswerError("the total is 0")
    return charge


def _end_of_life(valid_for: Duration, expires_at: Timestamp, now: datetime) -> datetime:
    life_s = valid_for.seconds + valid_for.nanos / 1e9
    if not MIN_LIFE_S <= life_s <= MAX_LIFE_S:
        raise InvalidAnswerError(f"valid_for is {life_s:g} s, must be 1 s to a day")
    ends_at = now + timedelta(seconds=life_s)
    if abs(expires_at.seconds - ends_at.timestamp()) > MAX_CLOCK_SKEW_S:
        raise InvalidAnswerError("expires_at is more than a day away from the end of valid_for")
    return ends_at


def _moment(message: Timestamp) -> datetime:
    try:
        return convert.from_timestamp(message)
    except (ValueError, OverflowError):
        raise InvalidAnswerError("a time is out of range") from None
