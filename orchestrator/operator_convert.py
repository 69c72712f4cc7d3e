"""The operators' contract to and from the domain. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from mesh import convert, errors
from mesh.money import MoneyError
from orchestrator import convert as purchase_convert
from orchestrator.app.watch import WatchEvent
from orchestrator.domain.events import Finished
from orchestrator.domain.observations import Decision, Resolve

if TYPE_CHECKING:
    from orchestrator.operator_ports import (
        AttemptRecord,
        Dossier,
        FlagRecord,
        ObservationRecord,
        PaymentRecord,
    )


def decision(request: pb.ResolvePurchaseRequest) -> Resolve:
    """Read what an operator decides.

    Raises:
        InvalidArgument: when the total is no amount of money.

    """
    word = pb.ResolvePurchaseRequest.Decision.Name(request.decision)
    total = None
    if request.HasField("total"):
        try:
            total = convert.money_from_proto(request.total)
        except MoneyError as error:
            field = errors.FieldViolation("total", str(error))
            msg = f"{field.field}: {field.description}"
            raise errors.InvalidArgument(msg, fields=(field,)) from None
    return Resolve(
        Decision(word.removeprefix("DECISION_").lower()),
        request.reason,
        request.order_id or None,
        total,
        request.flag_number,
    )


def flag(record: FlagRecord) -> pb.Flag:
    """Give a flag."""
    message = pb.Flag(
        request_id=str(record.request_id),
        number=record.number,
        invariant=record.flag.invariant.value,
        detail=record.flag.detail,
        advice=record.flag.advice,
        raise_time=convert.timestamp(record.raised_at),
    )
    if record.flag.amount is not None:
        message.amount.CopyFrom(convert.money_to_proto(record.flag.amount))
    if record.resolved_at is not None:
        message.resolve_time.CopyFrom(convert.timestamp(record.resolved_at))
    if record.settled is not None:
        message.resolved_by, message.resolution = record.settled.by, record.settled.how
    return message


def inspection(dossier: Dossier) -> pb.InspectPurchaseResponse:
    """Give all that is known of a purchase."""
    events = [
        WatchEvent(
            str(recorded.seq),
            recorded.happened_at,
            dossier.view if isinstance(recorded.event, Finished) else recorded.event,
        )
        for recorded in dossier.events
    ]
    message = pb.InspectPurchaseResponse(
        purchase=purchase_convert.purchase(dossier.view),
        customer_id=dossier.customer_id,
        stage=dossier.stage,
        tries=dossier.tries,
        epoch=dossier.epoch,
        payment=_payment(dossier.payment),
        attempts=[_attempt(record) for record in dossier.attempts],
        flags=[flag(record) for record in dossier.flags],
        observations=[_observation(record) for record in dossier.observations],
        events=[purchase_convert.watch_event(event) for event in events],
    )
    if dossier.due_at is not None:
        message.due_time.CopyFrom(convert.timestamp(dossier.due_at))
    return message


def _payment(record: PaymentRecord) -> pb.Payment:
    message = pb.Payment(
        state=record.state,
        provider_id=record.provider_id or "",
        authorized=convert.money_to_proto(record.authorized),
    )
    if record.captured is not None:
        message.captured.CopyFrom(convert.money_to_proto(record.captured))
    if record.refunded is not None:
        message.refunded.CopyFrom(convert.money_to_proto(record.refunded))
    if record.capture_before is not None:
        message.capture_before.CopyFrom(convert.timestamp(record.capture_before))
    return message


def _attempt(record: AttemptRecord) -> pb.Attempt:
    attempt = record.attempt
    message = pb.Attempt(
        number=attempt.number,
        seller_id=attempt.seller_id,
        idempotency_key=attempt.key,
        hold_id=attempt.hold_id or "",
        order_id=attempt.order_id or "",
        agreed=convert.money_to_proto(attempt.agreed),
        outcome=attempt.outcome or "",
        begin_time=convert.timestamp(record.begun_at),
    )
    if attempt.charged is not None:
        message.charged.CopyFrom(convert.money_to_proto(attempt.charged))
    return message


def _observation(record: ObservationRecord) -> pb.Observation:
    return pb.Observation(
        number=record.number,
        kind=record.kind,
        detail=record.body,
        observe_time=convert.timestamp(record.observed_at),
        observed_by=record.observed_by,
        consumed=record.consumed,
    )
