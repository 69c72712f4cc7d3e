"""The orchestrator's contract to and from its domain. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never
from uuid import UUID

from bookmesh.aggregator.v1 import aggregator_pb2 as aggregator_pb
from bookmesh.common.v1 import quote_pb2 as common_pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.seller.v1 import seller_pb2
from mesh import convert, errors
from mesh.money import MoneyError
from orchestrator.app.purchases import Acceptance, Order
from orchestrator.app.watch import WatchEvent
from orchestrator.domain.events import AnswerBatch, Collected, Coverage, Step
from orchestrator.domain.purchase import Candidate, Status
from orchestrator.ports import PurchaseView, Wanted
from sellers.model import Condition

_CONDITIONS = {
    condition: seller_pb2.Condition.Value(f"CONDITION_{condition.name}") for condition in Condition
}
_CONDITION_WORDS = {number: condition for condition, number in _CONDITIONS.items()}
_REASONS = {
    name.removeprefix("REASON_").lower(): number for name, number in common_pb.Miss.Reason.items()
}
_REASON_WORDS = {number: word for word, number in _REASONS.items()}
_UNKNOWN = "unspecified"
"""Stands for a reason that only a newer version of the program knows that gave it."""
_STATUSES = {pb.Purchase.Status.Value(f"STATUS_{status.name}"): status for status in Status}


def order(request: pb.SubmitPurchaseRequest) -> Order:
    """Read what a customer asks for.

    Raises:
        InvalidArgument: when max_price is not an amount of money above 0.

    """
    try:
        max_price = convert.money_from_proto(request.max_price)
    except MoneyError as error:
        raise _wrong_max_price(str(error)) from None
    if not max_price.minor:
        raise _wrong_max_price("must be above 0")
    return Order(
        request_id=UUID(request.request_id),
        customer_id=request.customer_id,
        idempotency_key=request.idempotency_key or None,
        book_id=request.book_id,
        max_price=max_price,
        payment_token=request.payment_token,
        conditions=tuple(_CONDITION_WORDS[number] for number in request.conditions),
    )


def wanted(request: pb.ListPurchasesRequest) -> Wanted:
    """Read which purchases a list is to have."""
    after, before = request.created_after, request.created_before
    return Wanted(
        statuses=frozenset(_STATUSES[number] for number in request.statuses),
        book_id=request.book_id or None,
        created_after=convert.from_timestamp(after) if request.HasField("created_after") else None,
        created_before=convert.from_timestamp(before)
        if request.HasField("created_before")
        else None,
    )


def acceptance(request: pb.AcceptOfferRequest) -> Acceptance:
    """Read what a customer says to an offer."""
    return Acceptance(
        customer_id=request.customer_id,
        request_id=request.request_id,
        new_request_id=UUID(request.new_request_id),
        payment_token=request.payment_token,
    )


def purchase(view: PurchaseView) -> pb.Purchase:
    """Give a purchase as callers see it."""
    message = pb.Purchase(
        request_id=str(view.request_id),
        status=pb.Purchase.Status.Value(f"STATUS_{view.status.name}"),
        book_id=view.book_id,
        max_price=convert.money_to_proto(view.max_price),
        create_time=convert.timestamp(view.created_at),
        seller_id=view.seller_id or "",
        confirmation=view.confirmation or "",
        cancel_requested=view.cancel_requested,
        accepted_offer_of=_id(view.accepted_offer_of),
        offer_accepted_by=_id(view.offer_accepted_by),
    )
    if view.refunded is not None:
        message.refunded.CopyFrom(convert.money_to_proto(view.refunded))
    if view.final_price is not None:
        message.final_price.CopyFrom(convert.money_to_proto(view.final_price))
    if view.failure_reason is not None:
        message.failure_reason = pb.Purchase.FailureReason.Value(
            f"FAILURE_REASON_{view.failure_reason.name}"
        )
    if view.offer is not None:
        message.offer.CopyFrom(
            pb.Offer(
                total=convert.money_to_proto(view.offer.total),
                seller_id=view.offer.seller_id,
                expires_at=convert.timestamp(view.offer.expires_at),
            )
        )
    return message


def watch_event(event: WatchEvent) -> pb.WatchPurchaseResponse:
    """Give an event as those who watch see it."""
    message = pb.WatchPurchaseResponse(
        event_id=event.event_id, event_time=convert.timestamp(event.happened_at)
    )
    match event.shown:
        case Step():
            message.step.CopyFrom(_step(event.shown))
        case Collected():
            message.collection.CopyFrom(_summary(event.shown))
        case AnswerBatch():
            message.quotes.MergeFromString(event.shown.packed)
        case PurchaseView():
            message.result.CopyFrom(purchase(event.shown))
        case _:
            assert_never(event.shown)
    return message


def answer_batch(collection_id: str, batch: aggregator_pb.AnswerBatch) -> AnswerBatch:
    """Read answers that arrived together."""
    message = pb.QuotesArrived(
        collection_id=collection_id, quotes=batch.quotes, misses=batch.misses
    )
    return AnswerBatch(message.SerializeToString())


def candidate(quote: common_pb.Quote) -> Candidate:
    """Read what matters of a quote to whoever buys."""
    return Candidate(
        quote.seller_id,
        quote.quote_id,
        convert.money_from_proto(quote.total),
        convert.from_timestamp(quote.expires_at),
    )


def collected(summary: common_pb.CollectionSummary) -> Collected:
    """Read how a collection came out."""
    return Collected(
        collection_id=summary.collection_id,
        sellers=summary.sellers,
        asked=summary.asked,
        answered=summary.answered,
        quoted=summary.quoted,
        misses=tuple((_reason_word(miss.reason), miss.count) for miss in summary.misses),
        started_at=convert.from_timestamp(summary.start_time),
        elapsed_s=convert.seconds(summary.elapsed),
        cached=summary.cached,
        best=convert.money_from_proto(summary.best_total)
        if summary.HasField("best_total")
        else None,
        coverage=_covered(summary.coverage) if summary.HasField("coverage") else None,
    )


def _covered(said: common_pb.Coverage) -> Coverage:
    return Coverage(
        asked=said.asked,
        of=said.of,
        chance_cheaper=said.chance_cheaper,
        expected_saving=convert.money_from_proto(said.expected_saving)
        if said.HasField("expected_saving")
        else None,
    )


def conditions(words: Iterable[Condition]) -> list[seller_pb2.Condition.ValueType]:
    """Give conditions as the contracts have them."""
    return [_CONDITIONS[word] for word in words]


def _id(request_id: UUID | None) -> str:
    return str(request_id) if request_id is not None else ""


def _wrong_max_price(problem: str) -> errors.InvalidArgument:
    field = errors.FieldViolation("max_price", problem)
    return errors.InvalidArgument(f"{field.field}: {field.description}", fields=(field,))


def _step(step: Step) -> pb.Step:
    message = pb.Step(
        name=pb.Step.Name.Value(f"NAME_{step.name.name}"),
        seller_id=step.seller_id or "",
        reason=step.reason or "",
    )
    if step.total is not None:
        message.total.CopyFrom(convert.money_to_proto(step.total))
    return message


def _summary(summary: Collected) -> common_pb.CollectionSummary:
    message = common_pb.CollectionSummary(
        collection_id=summary.collection_id,
        sellers=summary.sellers,
        asked=summary.asked,
        answered=summary.answered,
        quoted=summary.quoted,
        misses=[
            common_pb.MissCount(reason=_reason(word), count=count) for word, count in summary.misses
        ],
        start_time=convert.timestamp(summary.started_at),
        elapsed=convert.duration(summary.elapsed_s),
        cached=summary.cached,
    )
    if summary.best is not None:
        message.best_total.CopyFrom(convert.money_to_proto(summary.best))
    if (said := summary.coverage) is not None:
        message.coverage.MergeFrom(
            common_pb.Coverage(asked=said.asked, of=said.of, chance_cheaper=said.chance_cheaper)
        )
        if said.expected_saving is not None:
            message.coverage.expected_saving.CopyFrom(convert.money_to_proto(said.expected_saving))
    return message


def _reason_word(reason: common_pb.Miss.Reason.ValueType) -> str:
    return _REASON_WORDS.get(reason, _UNKNOWN)


def _reason(word: str) -> common_pb.Miss.Reason.ValueType:
    return _REASONS.get(word, _REASONS[_UNKNOWN])
