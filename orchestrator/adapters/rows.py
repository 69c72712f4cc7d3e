"""Rows and JSON columns to and from the domain. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mesh.money import Money
from orchestrator.domain.events import Collected, Coverage, Event, Finished, Step, StepName
from orchestrator.domain.flags import Flag, Invariant, Settled
from orchestrator.domain.observations import (
    Decision,
    Observation,
    OrderChanged,
    PaymentChanged,
    Resolve,
)
from orchestrator.domain.purchase import (
    Attempt,
    Authorization,
    AuthorizationState,
    Candidate,
    FailureReason,
    Offer,
    Plan,
    Purchase,
    Release,
    Stage,
    Status,
)
from orchestrator.operator_ports import (
    AttemptRecord,
    FlagRecord,
    ObservationRecord,
    PaymentRecord,
)
from orchestrator.ports import Loaded, Offered, PurchaseView, Recorded, SealedToken, Unreadable
from sellers.model import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpg import Record

    from orchestrator.domain.observations import Told

Json = dict[str, Any]

COMMITTED = frozenset(
    {Stage.ORDER, Stage.RESOLVE_ORDER, Stage.CAPTURE, Stage.CANCEL_ORDER, Stage.FLAGGED}
)
"""Stages in which an order may stand although the status is not final."""


_STEPS = {name.value: name for name in StepName}


def loaded(row: Record) -> Loaded | Unreadable:
    """Read a row of ``load``. What a newer version has written may be beyond this one."""
    try:
        return _loaded(row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Unreadable(row["stage"], f"{type(error).__name__}: {error}", row["claims"])


def _loaded(row: Record) -> Loaded:
    currency = row["currency"]
    offer = row["offer"]
    told = row["observations"]
    resume = row["resume_stage"]
    purchase = Purchase(
        request_id=row["request_id"],
        customer_id=row["customer_id"],
        book_id=row["book_id"],
        max_price=Money(currency, row["max_price_minor"]),
        conditions=tuple(Condition(word) for word in row["conditions"]),
        created_at=row["created_at"],
        traceparent=row["traceparent"],
        stage=Stage(row["stage"]),
        tries=row["tries"],
        status=Status(row["status"]),
        failure_reason=FailureReason(row["failure_reason"]) if row["failure_reason"] else None,
        offer=_offer(json.loads(offer), currency) if offer else None,
        authorization=Authorization(
            state=AuthorizationState(row["payment_state"]),
            provider_id=row["provider_id"],
            captured=_money(currency, row["captured_minor"]),
            capture_before=row["capture_before"],
            refunded=_money(currency, row["refunded_minor"]),
        ),
        plan=_plan(json.loads(row["plan"]), currency),
        attempt=_attempt(row, currency) if row["number"] is not None else None,
        epoch=row["epoch"],
        accepted_offer_of=row["accepted_offer_of"],
        resume=Stage(resume) if resume else None,
        cancel_requested=row["cancel_requested"],
        flagged=row["flag"] is not None,
        flag=row["flag"] or 0,
    )
    return Loaded(
        purchase,
        row["age_s"],
        _token(row),
        row["event_seq"],
        claims=row["claims"],
        claimed_for_s=row["claimed_for_s"] or 0.0,
        observed=row["observed_seq"],
        observations=tuple(_observation(entry, currency) for entry in json.loads(told))
        if told
        else (),
    )


def view(row: Record) -> PurchaseView:
    """Read a row of ``get`` or ``list``."""
    currency = row["currency"]
    status = Status(row["status"])
    bought = status is Status.PURCHASED
    offer = row["offer"]
    return PurchaseView(
        request_id=row["request_id"],
        status=status,
        book_id=row["book_id"],
        max_price=Money(currency, row["max_price_minor"]),
        created_at=row["created_at"],
        settled=row["stage"] != Stage.AUTHORIZE,
        failure_reason=FailureReason(row["failure_reason"]) if row["failure_reason"] else None,
        offer=_offer(json.loads(offer), currency) if offer else None,
        final_price=_money(currency, row["captured_minor"]) if bought else None,
        seller_id=row["seller_id"] if bought else None,
        confirmation=row["order_id"] if bought else None,
        committed=status is Status.PENDING and row["stage"] in COMMITTED,
        cancel_requested=row["cancel_requested"],
        accepted_offer_of=row["accepted_offer_of"],
        offer_accepted_by=row["offer_accepted_by"],
        refunded=_money(currency, row["refunded_minor"]),
    )


def offered(row: Record) -> Offered:
    """Read a row of ``offered``."""
    offer = row["offer"]
    return Offered(
        row["book_id"],
        tuple(Condition(word) for word in row["conditions"]),
        _offer(json.loads(offer), row["currency"]) if offer else None,
        _token(row),
    )


def recorded(rows: Iterable[Record]) -> list[Recorded]:
    """Read rows of ``events``, without those of a kind that only a newer version knows.

    Replicas of two versions serve one purchase while one is deployed: what the newer one has added to an event is left
    out by the older, what the older one did not write has a default in the newer.
    """
    events = ((row, _event(row["kind"], json.loads(row["body"]))) for row in rows)
    return [
        Recorded(row["seq"], row["happened_at"], event)
        for row, event in events
        if event is not None
    ]


def flag_record(row: Record) -> FlagRecord:
    """Read a row of ``open_flags`` or ``flags_of``."""
    flag = Flag(
        Invariant(row["invariant"]),
        row["detail"],
        row["advice"],
        _money(row["currency"], row["amount_minor"]),
    )
    resolved_at = row["resolved_at"]
    return FlagRecord(
        flag_id=row["flag_id"],
        request_id=row["request_id"],
        number=row["number"],
        flag=flag,
        raised_at=row["raised_at"],
        resolved_at=resolved_at,
        settled=Settled(row["resolved_by"], row["resolution"]) if resolved_at else None,
    )


def payment_record(row: Record) -> PaymentRecord:
    """Read the payment in a row of ``inspect``."""
    currency = row["currency"]
    return PaymentRecord(
        state=row["state"],
        provider_id=row["provider_id"],
        authorized=Money(currency, row["authorized_minor"]),
        captured=_money(currency, row["captured_minor"]),
        refunded=_money(currency, row["refunded_minor"]),
        capture_before=row["capture_before"],
    )


def attempt_record(row: Record) -> AttemptRecord:
    """Read a row of ``attempts_of``."""
    return AttemptRecord(_attempt(row, row["currency"]), row["begun_at"])


def observation_record(row: Record) -> ObservationRecord:
    """Read a row of ``observations_of``."""
    return ObservationRecord(
        number=row["number"],
        kind=row["kind"],
        body=row["body"],
        observed_at=row["observed_at"],
        observed_by=row["observed_by"],
        consumed=row["consumed"],
    )


def event_columns(events: Sequence[Event]) -> tuple[list[str], list[str]]:
    """Give the kinds of events and their bodies as JSON."""
    columns = [_event_json(event) for event in events]
    return [kind for kind, _ in columns], [json.dumps(body) for _, body in columns]


def offer_json(offer: Offer) -> Json:
    """Give an offer as JSON; its currency is the purchase's."""
    return {
        "total_minor": offer.total.minor,
        "seller_id": offer.seller_id,
        "expires_at": offer.expires_at.isoformat(),
    }


def plan_json(plan: Plan) -> Json:
    """Give a plan as JSON; its currency is the purchase's."""
    return {
        "candidates": [_candidate_json(candidate) for candidate in plan.candidates],
        "dearer": _candidate_json(plan.dearer) if plan.dearer else None,
        "tries": dict(plan.tries),
        "collections": plan.collections,
        "answered": plan.answered,
        "silent": plan.silent,
        "releases": [asdict(release) for release in plan.releases],
        "stopped": plan.stopped,
        "obstructed": plan.obstructed,
    }


def attempt_json(attempt: Attempt) -> Json:
    """Give an attempt as JSON, by the columns of its table."""
    return {
        "number": attempt.number,
        "seller_id": attempt.seller_id,
        "key": attempt.key,
        "quote_id": attempt.quote_id,
        "quoted_minor": attempt.quoted.minor,
        "with_hold": attempt.with_hold,
        "not_after": attempt.not_after.isoformat(),
        "agreed_minor": attempt.agreed.minor,
        "hold_id": attempt.hold_id,
        "order_id": attempt.order_id,
        "charged_minor": attempt.charged.minor if attempt.charged else None,
        "outcome": attempt.outcome,
    }


def flag_json(flag: Flag) -> Json:
    """Give a flag as JSON, by the columns of its table."""
    return {
        "invariant": flag.invariant.value,
        "detail": flag.detail,
        "advice": flag.advice,
        "amount_minor": flag.amount.minor if flag.amount else None,
    }


def told_columns(what: Told) -> tuple[str, str]:
    """Give the kind of what is told of a purchase, and its body as JSON; its currency is the purchase's."""
    match what:
        case PaymentChanged(detail, provider_id):
            changed: Json = {"detail": detail}
            if provider_id is not None:
                changed["provider_id"] = provider_id
            return "payment_changed", json.dumps(changed)
        case OrderChanged(key, detail):
            return "order_changed", json.dumps({"key": key, "detail": detail})
        case Resolve(decision, reason, order_id, total, flag):
            body: Json = {"decision": decision.value, "reason": reason}
            if order_id is not None:
                body["order_id"] = order_id
            if total is not None:
                body["total_minor"] = total.minor
            if flag is not None:
                body["flag"] = flag
            return "resolve", json.dumps(body)


def _observation(entry: Json, currency: str) -> Observation:
    return Observation(entry["number"], entry["by"], _told(entry["kind"], entry["body"], currency))


def _told(kind: str, body: Json, currency: str) -> Told:
    if kind == "payment_changed":
        return PaymentChanged(body["detail"], body.get("provider_id"))
    if kind == "order_changed":
        return OrderChanged(body["key"], body["detail"])
    return Resolve(
        Decision(body["decision"]),
        body["reason"],
        body.get("order_id"),
        _money(currency, body.get("total_minor")),
        body.get("flag"),
    )


def _token(row: Record) -> SealedToken | None:
    sealed = row["token_sealed"]
    return SealedToken(row["key_id"], sealed) if sealed is not None else None


def _money(currency: str, minor: int | None) -> Money | None:
    return Money(currency, minor) if minor is not None else None


def _plan(body: Json, currency: str) -> Plan:
    if not body:
        return Plan()
    dearer = body["dearer"]
    return Plan(
        candidates=tuple(_candidate(candidate, currency) for candidate in body["candidates"]),
        dearer=_candidate(dearer, currency) if dearer else None,
        tries=tuple(body["tries"].items()),
        collections=body["collections"],
        answered=body["answered"],
        releases=tuple(Release(**release) for release in body["releases"]),
        # Not in plans that were written before there were such things.
        silent=body.get("silent", 0),
        stopped=body.get("stopped", False),
        obstructed=body.get("obstructed", False),
    )


def _candidate_json(candidate: Candidate) -> list[Any]:
    """Give a candidate as a list, because a purchase may have hundreds."""
    return [
        candidate.seller_id,
        candidate.quote_id,
        candidate.total.minor,
        candidate.expires_at.isoformat(timespec="milliseconds"),
    ]


def _candidate(body: list[Any], currency: str) -> Candidate:
    seller_id, quote_id, minor, expires_at = body
    return Candidate(
        seller_id, quote_id, Money(currency, minor), datetime.fromisoformat(expires_at)
    )


def _attempt(row: Record, currency: str) -> Attempt:
    return Attempt(
        number=row["number"],
        seller_id=row["seller_id"],
        key=row["key"],
        quote_id=row["quote_id"],
        quoted=Money(currency, row["quoted_minor"]),
        with_hold=row["with_hold"],
        not_after=row["not_after"],
        agreed=Money(currency, row["agreed_minor"]),
        hold_id=row["hold_id"],
        order_id=row["order_id"],
        charged=_money(currency, row["charged_minor"]),
        outcome=row["outcome"],
    )


def _offer(body: Json, currency: str) -> Offer:
    expires_at = datetime.fromisoformat(body["expires_at"])
    return Offer(Money(currency, body["total_minor"]), body["seller_id"], expires_at)


def _event_json(event: Event) -> tuple[str, Json]:
    match event:
        case Step(name, seller_id, total, reason):
            body: Json = {"name": name.value}
            if seller_id is not None:
                body["seller_id"] = seller_id
            if total is not None:
                body["currency"], body["total_minor"] = total.currency, total.minor
            if reason is not None:
                body["reason"] = reason
            return "step", body
        case Collected():
            body = asdict(event)
            body["misses"] = dict(event.misses)
            body["started_at"] = event.started_at.isoformat()
            return "collected", body
        case Finished():
            return "finished", {}


def _event(kind: str, body: Json) -> Event | None:
    match kind:
        case "step" if name := _STEPS.get(body["name"]):
            return Step(
                name,
                body.get("seller_id"),
                _total(body),
                body.get("reason"),
            )
        case "collected":
            return Collected(
                collection_id=body["collection_id"],
                sellers=body["sellers"],
                asked=body["asked"],
                answered=body["answered"],
                quoted=body["quoted"],
                misses=tuple(body["misses"].items()),
                started_at=datetime.fromisoformat(body["started_at"]),
                elapsed_s=body["elapsed_s"],
                cached=body.get("cached", 0),
                best=_amount(body.get("best")),
                coverage=_coverage(body.get("coverage")),
            )
        case "finished":
            return Finished()
        case _:
            return None


def _coverage(body: Json | None) -> Coverage | None:
    if body is None:
        return None
    return Coverage(
        asked=body["asked"],
        of=body["of"],
        chance_cheaper=body["chance_cheaper"],
        expected_saving=_amount(body["expected_saving"]),
    )


def _amount(body: Json | None) -> Money | None:
    return None if body is None else Money(body["currency"], body["minor"])


def _total(body: Json) -> Money | None:
    minor = body.get("total_minor")
    return Money(body["currency"], minor) if minor is not None else None
