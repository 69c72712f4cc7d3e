"""``bookmesh.aggregator.v1`` to and from the domain. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aggregator.app.collect import Wish
from aggregator.app.registry import Chunk
from aggregator.domain.collection import (
    Answer,
    Coverage,
    MissReason,
    Question,
    Summary,
    miss_reason,
)
from aggregator.domain.health import Health
from aggregator.domain.stopping import Policy
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.common.v1 import quote_pb2
from bookmesh.seller.v1 import seller_pb2
from mesh import convert, errors
from mesh.money import MoneyError, decimals_of
from sellers import registration
from sellers.admission.model import BreakerState
from sellers.answers import CONDITIONS
from sellers.model import Condition, Quote

_CONDITION_NUMBERS: dict[Condition, seller_pb2.Condition.ValueType] = {
    condition: number for number, condition in CONDITIONS.items()
}
_MISS_REASONS: dict[MissReason, quote_pb2.Miss.Reason.ValueType] = {
    MissReason.OUT_OF_STOCK: quote_pb2.Miss.REASON_OUT_OF_STOCK,
    MissReason.NOT_CARRIED: quote_pb2.Miss.REASON_NOT_CARRIED,
    MissReason.CONDITION: quote_pb2.Miss.REASON_CONDITION,
    MissReason.CURRENCY: quote_pb2.Miss.REASON_CURRENCY,
    MissReason.TIMED_OUT: quote_pb2.Miss.REASON_TIMED_OUT,
    MissReason.UNREACHABLE: quote_pb2.Miss.REASON_UNREACHABLE,
    MissReason.SELLER_ERROR: quote_pb2.Miss.REASON_SELLER_ERROR,
    MissReason.RATE_LIMITED: quote_pb2.Miss.REASON_RATE_LIMITED,
    MissReason.REFUSED: quote_pb2.Miss.REASON_REFUSED,
    MissReason.INVALID_ANSWER: quote_pb2.Miss.REASON_INVALID_ANSWER,
    MissReason.STOPPED: quote_pb2.Miss.REASON_STOPPED,
    MissReason.CIRCUIT_OPEN: quote_pb2.Miss.REASON_CIRCUIT_OPEN,
    MissReason.NO_BUDGET: quote_pb2.Miss.REASON_NO_BUDGET,
    MissReason.BUSY: quote_pb2.Miss.REASON_BUSY,
    MissReason.TOO_SLOW: quote_pb2.Miss.REASON_TOO_SLOW,
    MissReason.NO_CREDENTIAL: quote_pb2.Miss.REASON_NO_CREDENTIAL,
    MissReason.NOT_SELECTED: quote_pb2.Miss.REASON_NOT_SELECTED,
}


_MOST_INT32 = 2**31 - 1
"""What a seller without limits has left is this; with this process's own share it would be more."""

_BREAKERS: dict[BreakerState, pb.SellerHealth.Breaker.ValueType] = {
    BreakerState.CLOSED: pb.SellerHealth.BREAKER_CLOSED,
    BreakerState.OPEN: pb.SellerHealth.BREAKER_OPEN,
    BreakerState.HALF_OPEN: pb.SellerHealth.BREAKER_PROBING,
}
_POLICIES = {
    pb.POLICY_UNSPECIFIED: Policy.BEST_PRICE,
    pb.POLICY_BEST_PRICE: Policy.BEST_PRICE,
    pb.POLICY_BALANCED: Policy.BALANCED,
    pb.POLICY_FAST: Policy.FAST,
}


def question(request: pb.CollectQuotesRequest) -> Question:
    """Read what is to be asked.

    Raises:
        InvalidArgument: for a currency that there is not.

    """
    try:
        decimals_of(request.currency_code)
    except MoneyError as error:
        raise _wrong("currency_code", str(error)) from None
    return Question(
        book_id=request.book_id,
        currency=request.currency_code,
        conditions=frozenset(CONDITIONS[number] for number in request.conditions),
    )


def wish(request: pb.CollectQuotesRequest) -> Wish:
    """Read what the caller wants of the collection.

    Raises:
        InvalidArgument: for an affordable total that is no money, or in another currency than the quotes.

    """
    affordable_minor = None
    if request.HasField("affordable"):
        try:
            affordable = convert.money_from_proto(request.affordable)
        except MoneyError as error:
            raise _wrong("affordable", str(error)) from None
        if affordable.currency != request.currency_code:
            raise _wrong(
                "affordable", f"must be in {request.currency_code}, the currency of the quotes"
            )
        affordable_minor = affordable.minor
    return Wish(
        policy=_POLICIES[request.policy],
        affordable_minor=affordable_minor,
        customer_id=request.customer_id,
        fresh=request.fresh,
        browsing=request.purpose == pb.PURPOSE_BROWSE,
    )


def _wrong(field: str, description: str) -> errors.InvalidArgument:
    violation = errors.FieldViolation(field, description)
    return errors.InvalidArgument(f"{field}: {description}", fields=(violation,))


def batch(answers: Sequence[Answer]) -> pb.AnswerBatch:
    """Give the message of some answers."""
    message = pb.AnswerBatch()
    for answer in answers:
        outcome = answer.outcome
        if isinstance(outcome, Quote):
            message.quotes.add(
                seller_id=answer.seller_id,
                quote_id=outcome.quote_id,
                price=convert.money_to_proto(outcome.price),
                shipping=convert.money_to_proto(outcome.shipping),
                total=convert.money_to_proto(outcome.total),
                condition=_CONDITION_NUMBERS[outcome.condition],
                quantity=outcome.quantity,
                expires_at=convert.timestamp(outcome.expires_at),
                latency=convert.duration(answer.latency_s),
                age=convert.duration(answer.age_s),
            )
        else:
            message.misses.add(
                seller_id=answer.seller_id,
                reason=_MISS_REASONS[miss_reason(outcome)],
                latency=convert.duration(answer.latency_s),
            )
    return message


def summary(result: Summary) -> quote_pb2.CollectionSummary:
    """Give the message of a collection's summary."""
    message = quote_pb2.CollectionSummary(
        collection_id=str(result.collection_id),
        book_id=result.book_id,
        sellers=result.sellers,
        asked=result.asked,
        answered=result.answered,
        quoted=result.quoted,
        misses=[
            quote_pb2.MissCount(reason=_MISS_REASONS[reason], count=count)
            for reason, count in result.misses.items()
        ],
        start_time=convert.timestamp(result.started_at),
        elapsed=convert.duration(result.elapsed_s),
        cached=result.cached,
    )
    if result.best is not None:
        message.best_total.CopyFrom(convert.money_to_proto(result.best))
    if result.coverage is not None:
        message.coverage.CopyFrom(_coverage(result.coverage))
    return message


def _coverage(said: Coverage) -> quote_pb2.Coverage:
    message = quote_pb2.Coverage(asked=said.asked, of=said.of, chance_cheaper=said.chance_cheaper)
    if said.expected_saving is not None:
        message.expected_saving.CopyFrom(convert.money_to_proto(said.expected_saving))
    return message


def watch_response(chunk: Chunk) -> pb.WatchSellersResponse:
    """Give the message of a chunk of the registry."""
    return pb.WatchSellersResponse(
        sellers=[registration.to_proto(seller) for seller in chunk.sellers],
        complete=chunk.complete,
        revision=chunk.revision,
    )


def seller_health(health: Health) -> pb.SellerHealth:
    """Give the message of a seller's health."""
    calls = health.calls
    message = pb.SellerHealth(
        seller_id=health.seller_id,
        state=registration.STATE_NUMBERS[health.state],
        breaker=_BREAKERS[calls.breaker],
        calls=calls.judged,
        failures=calls.failed,
        budget_left=min(calls.calls_left, _MOST_INT32),
        in_flight=calls.in_flight,
        from_fleet=calls.from_fleet,
    )
    if calls.open_since is not None:
        message.breaker_since.CopyFrom(convert.timestamp(calls.open_since))
    fields = (message.latency_p50, message.latency_p90, message.latency_p99)
    for field, latency_s in zip(fields, health.latencies_s, strict=True):
        if latency_s is not None:
            field.CopyFrom(convert.duration(latency_s))
    return message
