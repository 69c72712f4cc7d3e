"""Rows and JSON columns to and from the domain. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mesh.money import Money
from orchestrator.domain.events import Collected, Event, Finished, Step, StepName
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
from orchestrator.ports import Loaded, PurchaseView, Recorded, SealedToken
from sellers.model import Condition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record

Json = dict[str, Any]


def loaded(row: Record) -> Loaded:
    """Read a row of ``load``."""
    currency = row["currency"]
    captured = row["captured_minor"]
    offer = row["offer"]
    token = row["token_sealed"]
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
            captured=Money(currency, captured) if captured is not None else None,
        ),
        plan=_plan(json.loads(row["plan"]), currency),
        attempt=_attempt(row, currency) if row["number"] is not None else None,
        epoch=row["epoch"],
    )
    sealed = SealedToken(row["key_id"], token) if token is not None else None
    return Loaded(purchase, row["age_s"], sealed, row["event_seq"])


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
        final_price=Money(currency, row["captured_minor"]) if bought else None,
        seller_id=row["seller_id"] if bought else None,
        confirmation=row["order_id"] if bought else None,
    )


def recorded(row: Record) -> Recorded:
    """Read a row of ``events``."""
    body = json.loads(row["body"])
    return Recorded(row["seq"], row["happened_at"], _event(row["kind"], body))


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
        "releases": [asdict(release) for release in plan.releases],
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
        # Not in plans that were written before there was such a thing.
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
    charged = row["charged_minor"]
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
        charged=Money(currency, charged) if charged is not None else None,
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


def _event(kind: str, body: Json) -> Event:
    if kind == "step":
        minor = body.get("total_minor")
        return Step(
            StepName(body["name"]),
            body.get("seller_id"),
            Money(body["currency"], minor) if minor is not None else None,
            body.get("reason"),
        )
    if kind == "collected":
        body["misses"] = tuple(body["misses"].items())
        body["started_at"] = datetime.fromisoformat(body["started_at"])
        return Collected(**body)
    return Finished()
