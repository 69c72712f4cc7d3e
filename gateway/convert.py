"""The customer's contract to and from the orchestrator's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from uuid import UUID

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.common.v1 import quote_pb2 as common_pb
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2
from bookmesh.seller.v1 import seller_pb2
from customers import sentences
from customers.form import double, failure_word, purchase_request, status
from mesh import book_id, convert, errors, money
from mesh.book_id import BookIdError
from mesh.errors import FieldViolation
from mesh.grpc.interceptor import describe
from mesh.money import Money, MoneyError

PURCHASES_PATH = "/api/v1/purchase-requests"
IDEMPOTENCY_KEY = "idempotency-key"
"""The metadata, over REST the header, with the customer's idempotency key."""

_CHANCE_DECIMALS = 4
_LONGEST_KEY = 255
_FIRST_VISIBLE, _LAST_VISIBLE = "!", "~"

_Status = orchestrator_pb2.Purchase.Status
_Reason = orchestrator_pb2.Purchase.FailureReason

CARD_FAULTS = frozenset(
    {
        _Reason.FAILURE_REASON_CARD_DECLINED,
        _Reason.FAILURE_REASON_ACTION_REQUIRED,
        _Reason.FAILURE_REASON_PAYMENT_TOKEN_INVALID,
    }
)

_REASON_WORDS = {
    number: name.removeprefix("REASON_").lower() for name, number in common_pb.Miss.Reason.items()
}
_UNKNOWN = _REASON_WORDS[common_pb.Miss.REASON_UNSPECIFIED]
"""Stands for a reason that only a newer version of the aggregator knows."""


def submission(
    request: pb.CreatePurchaseRequestRequest,
    idempotency_keys: Sequence[str],
    *,
    customer_id: str,
    request_id: UUID,
    authorization_wait_s: float,
    default_currency: str,
) -> orchestrator_pb2.SubmitPurchaseRequest:
    """Give what the orchestrator is asked for when a customer asks for a book.

    The rules of the proto hold already; here the rest is checked. A double holds every decimal of up to 15
    significant digits, so that the shortest decimal form of max_price is the amount that the customer wrote.

    Args:
        request: what the customer sent.
        idempotency_keys: the values of the metadata ``idempotency-key``.
        customer_id: who asks.
        request_id: the id of the purchase, new for each call.
        authorization_wait_s: how long the orchestrator waits for the card, in seconds.
        default_currency: the currency of a request that names none.

    Raises:
        InvalidArgument: naming every field that is wrong.

    """
    wrong: list[FieldViolation] = []
    book, max_price = "", Money(default_currency, 0)
    currency = request.currency_code or default_currency
    try:
        book = book_id.normalise(request.book_id)
    except BookIdError as error:
        wrong.append(FieldViolation("book_id", str(error)))
    if currency not in money.DECIMALS:
        wrong.append(_no_currency(currency))
    else:
        try:
            max_price = money.from_decimal(currency, Decimal(repr(request.max_price)))
        except MoneyError as error:
            wrong.append(FieldViolation("max_price", str(error)))
    if not _is_key(idempotency_keys):
        description = f"must be 1 to {_LONGEST_KEY} visible ASCII characters, and be given once"
        wrong.append(FieldViolation(IDEMPOTENCY_KEY, description))
    if wrong:
        raise errors.InvalidArgument(describe(tuple(wrong)), fields=tuple(wrong))
    return orchestrator_pb2.SubmitPurchaseRequest(
        customer_id=customer_id,
        idempotency_key=idempotency_keys[0] if idempotency_keys else "",
        book_id=book,
        max_price=convert.money_to_proto(max_price),
        payment_token=request.payment_token,
        conditions=_conditions(request.conditions),
        authorization_wait=convert.duration(authorization_wait_s),
        request_id=str(request_id),
    )


def cancellation(
    customer_id: str, request_id: str, wait_s: float
) -> orchestrator_pb2.CancelPurchaseRequest:
    """Give what the orchestrator is asked for when a customer cancels a request."""
    return orchestrator_pb2.CancelPurchaseRequest(
        customer_id=customer_id, request_id=request_id, wait=convert.duration(wait_s)
    )


def acceptance(
    request: pb.AcceptOfferRequest,
    *,
    customer_id: str,
    request_id: str,
    new_request_id: UUID,
    authorization_wait_s: float,
) -> orchestrator_pb2.AcceptOfferRequest:
    """Give what the orchestrator is asked for when a customer accepts an offer."""
    return orchestrator_pb2.AcceptOfferRequest(
        customer_id=customer_id,
        request_id=request_id,
        payment_token=request.payment_token,
        new_request_id=str(new_request_id),
        authorization_wait=convert.duration(authorization_wait_s),
    )


def listing(
    request: pb.ListPurchaseRequestsRequest, customer_id: str
) -> orchestrator_pb2.ListPurchasesRequest:
    """Give what the orchestrator is asked for when a customer lists requests.

    Raises:
        InvalidArgument: naming every field that is wrong.

    """
    wrong: list[FieldViolation] = []
    book = ""
    if request.book_id:
        try:
            book = book_id.normalise(request.book_id)
        except BookIdError as error:
            wrong.append(FieldViolation("book_id", str(error)))
    for name in ("created_after", "created_before"):
        try:
            convert.from_timestamp(getattr(request, name))
        except (ValueError, OverflowError):
            wrong.append(FieldViolation(name, "is not a time from the year 1 to 9999"))
    if wrong:
        raise errors.InvalidArgument(describe(tuple(wrong)), fields=tuple(wrong))
    return orchestrator_pb2.ListPurchasesRequest(
        customer_id=customer_id,
        page_size=request.page_size,
        page_token=request.page_token,
        statuses=[
            _Status.Value(f"STATUS_{pb.PurchaseStatus.Word.Name(word).upper()}")
            for word in request.statuses
        ],
        book_id=book,
        created_after=request.created_after if request.HasField("created_after") else None,
        created_before=request.created_before if request.HasField("created_before") else None,
    )


def comparison(
    request: pb.ListQuotesRequest | pb.StreamQuotesRequest | pb.StreamQuotesEventsRequest,
    customer_id: str,
    default_currency: str,
) -> aggregator_pb2.CollectQuotesRequest:
    """Give what the aggregator is asked for when a customer compares prices.

    Raises:
        InvalidArgument: naming every field that is wrong.

    """
    wrong: list[FieldViolation] = []
    book = ""
    currency = request.currency_code or default_currency
    try:
        book = book_id.normalise(request.book_id)
    except BookIdError as error:
        wrong.append(FieldViolation("book_id", str(error)))
    if currency not in money.DECIMALS:
        wrong.append(_no_currency(currency))
    if wrong:
        raise errors.InvalidArgument(describe(tuple(wrong)), fields=tuple(wrong))
    return aggregator_pb2.CollectQuotesRequest(
        book_id=book,
        currency_code=currency,
        conditions=_conditions(request.conditions),
        policy=aggregator_pb2.POLICY_BEST_PRICE,
        customer_id=customer_id,
        purpose=aggregator_pb2.PURPOSE_BROWSE,
    )


def canonical_id(request_id: str) -> str | None:
    """Give the id of a purchase request as we write it; None for a string that never was one."""
    try:
        parsed = UUID(request_id)
    except ValueError:
        return None
    return str(parsed) if str(parsed) == request_id.lower() else None


def status_url(request_id: str) -> str:
    """Give the path at which the status of a purchase request can be read."""
    return f"{PURCHASES_PATH}/{request_id}"


def created(purchase: orchestrator_pb2.Purchase) -> pb.CreatePurchaseRequestResponse:
    """Give the answer to a customer whose request was accepted."""
    return pb.CreatePurchaseRequestResponse(
        request_id=purchase.request_id,
        status=status(purchase.status),
        status_url=status_url(purchase.request_id),
    )


def accepted(purchase: orchestrator_pb2.Purchase) -> pb.AcceptOfferResponse:
    """Give the answer to a customer who has accepted an offer."""
    return pb.AcceptOfferResponse(
        request_id=purchase.request_id,
        status=status(purchase.status),
        status_url=status_url(purchase.request_id),
    )


def card_fault(purchase: orchestrator_pb2.Purchase) -> errors.FailedPrecondition | None:
    """Give the error for a customer whose card was refused; None for a purchase that did not fail by its card."""
    if purchase.status != _Status.STATUS_FAILED or purchase.failure_reason not in CARD_FAULTS:
        return None
    word = failure_word(purchase.failure_reason)
    return errors.FailedPrecondition(
        sentences.FAILURES[word],
        reason=word.upper(),
        metadata={
            "request_id": purchase.request_id,
            "status_url": status_url(purchase.request_id),
        },
    )


def summary(purchase: orchestrator_pb2.Purchase) -> pb.PurchaseRequestSummary:
    """Give a purchase as a line of a list."""
    message = pb.PurchaseRequestSummary(
        request_id=purchase.request_id,
        status=status(purchase.status),
        book_id=purchase.book_id,
        max_price=double(purchase.max_price),
        currency_code=purchase.max_price.currency_code,
        create_time=purchase.create_time,
    )
    if purchase.status == _Status.STATUS_PURCHASED:
        message.final_price = double(purchase.final_price)
    elif purchase.status == _Status.STATUS_PRICE_NOT_MET:
        message.lowest_price = double(purchase.offer.total)
    return message


def event(event: orchestrator_pb2.WatchPurchaseResponse) -> pb.WatchPurchaseRequestResponse:
    """Give an event of a purchase as its customer sees it."""
    message = pb.WatchPurchaseRequestResponse(event_id=event.event_id, event_time=event.event_time)
    match event.WhichOneof("event"):
        case "step":
            message.step.CopyFrom(_step(event.step))
        case "quotes":
            message.quotes.CopyFrom(
                pb.QuoteBatch(
                    quotes=[_quote(quote) for quote in event.quotes.quotes],
                    misses=[miss(one) for one in event.quotes.misses],
                )
            )
        case "collection":
            message.collection.CopyFrom(collection(event.collection))
        case "result":
            message.result.CopyFrom(purchase_request(event.result))
        case None:
            pass  # a kind of event that only a newer orchestrator knows
    return message


def collection(summary: common_pb.CollectionSummary) -> pb.Collection:
    """Give what a gathering of quotes came to."""
    message = pb.Collection(
        sellers=summary.sellers,
        asked=summary.asked,
        answered=summary.answered,
        quoted=summary.quoted,
        elapsed_ms=summary.elapsed.ToMilliseconds(),
        from_cache=summary.cached,
    )
    if summary.HasField("best_total"):
        message.best_total = double(summary.best_total)
    if summary.HasField("coverage"):
        message.coverage.CopyFrom(_coverage(summary.coverage))
    return message


def _coverage(said: common_pb.Coverage) -> pb.Coverage:
    message = pb.Coverage(
        asked=said.asked, of=said.of, chance_cheaper=round(said.chance_cheaper, _CHANCE_DECIMALS)
    )
    if said.HasField("expected_saving"):
        message.expected_saving = double(said.expected_saving)
    return message


def cheapest_first(quotes: Iterable[common_pb.Quote]) -> list[pb.Quote]:
    """Give prices to compare, with how old they are."""
    compared = []
    for quote in quotes:
        message = _quote(quote)
        message.age_ms = quote.age.ToMilliseconds()
        compared.append(message)
    return sorted(compared, key=lambda quote: (quote.total, quote.seller_id))


def miss(miss: common_pb.Miss) -> pb.Miss:
    """Give a seller without a price."""
    return pb.Miss(
        seller_id=miss.seller_id,
        reason=_REASON_WORDS.get(miss.reason, _UNKNOWN),
        latency_ms=miss.latency.ToMilliseconds(),
    )


def _is_key(values: Sequence[str]) -> bool:
    if not values:
        return True
    [*others, key] = values
    return (
        not others
        and 1 <= len(key) <= _LONGEST_KEY
        and all(_FIRST_VISIBLE <= character <= _LAST_VISIBLE for character in key)
    )


def _step(step: orchestrator_pb2.Step) -> pb.Step:
    word = orchestrator_pb2.Step.Name.Name(step.name).removeprefix("NAME_").lower()
    message = pb.Step(name=pb.Step.Name.Value(word))
    if step.seller_id:
        message.seller_id = step.seller_id
    if step.HasField("total"):
        message.total = double(step.total)
    if step.reason:
        message.reason = step.reason
    return message


def _quote(quote: common_pb.Quote) -> pb.Quote:
    return pb.Quote(
        seller_id=quote.seller_id,
        total=double(quote.total),
        price=double(quote.price),
        shipping=double(quote.shipping),
        condition=_condition_to_customer(quote.condition),
        latency_ms=quote.latency.ToMilliseconds(),
    )


def _no_currency(currency: str) -> FieldViolation:
    return FieldViolation("currency_code", f"{currency!r} is not an ISO 4217 currency code")


def _conditions(
    words: Iterable[pb.BookCondition.Word.ValueType],
) -> list[seller_pb2.Condition.ValueType]:
    return [_condition_to_mesh(word) for word in words] or [seller_pb2.CONDITION_NEW]


def _condition_to_mesh(word: pb.BookCondition.Word.ValueType) -> seller_pb2.Condition.ValueType:
    return seller_pb2.Condition.Value(f"CONDITION_{pb.BookCondition.Word.Name(word).upper()}")


def _condition_to_customer(
    condition: seller_pb2.Condition.ValueType,
) -> pb.BookCondition.Word.ValueType:
    word = seller_pb2.Condition.Name(condition).removeprefix("CONDITION_").lower()
    return pb.BookCondition.Word.Value(word)
