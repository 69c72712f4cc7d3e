"""Purchases in the middle of something, for the tests of what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from mesh.money import Money
from orchestrator.domain.events import Collected
from orchestrator.domain.purchase import (
    Attempt,
    Authorization,
    AuthorizationState,
    Candidate,
    Plan,
    Purchase,
    Stage,
)
from orchestrator.domain.saga import (
    Limits,
    Moment,
    Next,
    Saga,
    SellerKind,
)
from sellers.model import Condition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLY = Moment(NOW, 1.0)
LATE = Moment(NOW, 9.5)
"""Too late to ask everybody again."""
KINDS = {
    "held": SellerKind(supports_holds=True, supports_cancel_before_order=True),
    "atomic": SellerKind(supports_holds=False, supports_cancel_before_order=True),
    "stubborn": SellerKind(supports_holds=False, supports_cancel_before_order=False),
    "careless": SellerKind(
        supports_holds=False, supports_cancel_before_order=False, honours_not_after=False
    ),
}
SAGA = Saga(Limits(), KINDS.get)


def usd(minor: int) -> Money:
    return Money("USD", minor)


def candidate(seller_id: str, minor: int, life_s: float = 60) -> Candidate:
    return Candidate(seller_id, f"quote-{seller_id}", usd(minor), NOW + timedelta(seconds=life_s))


def purchase(**changes: object) -> Purchase:
    made = Purchase(
        request_id=UUID(int=1),
        customer_id="alice",
        book_id="9780134685991",
        max_price=usd(2999),
        conditions=(Condition.NEW,),
        created_at=NOW,
        stage=Stage.COLLECT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # each test names the fields it means


def collected(*candidates: Candidate, answered: int | None = None, moment: Moment = EARLY) -> Next:
    summary = Collected(
        "c", 9, 9, len(candidates) if answered is None else answered, 0, (), NOW, 1.0
    )
    return SAGA.collected(purchase(), candidates, summary, moment)


def trying(seller_id: str, minor: int, *others: Candidate, stage: Stage) -> Purchase:
    """Give a purchase in the middle of its first try at a seller."""
    attempt = Attempt(
        number=1,
        seller_id=seller_id,
        key=f"{UUID(int=1)}:{seller_id}",
        quote_id="q",
        quoted=usd(minor),
        with_hold=KINDS[seller_id].supports_holds,
        not_after=NOW + timedelta(seconds=5),
        agreed=usd(minor),
    )
    plan = Plan(candidates=others, tries=((seller_id, 1),), collections=1, answered=5)
    return purchase(stage=stage, attempt=attempt, plan=plan)


def unpaid() -> Purchase:
    ordered = SAGA.ordered(trying("atomic", 2000, stage=Stage.ORDER), "o", usd(2000)).purchase
    return SAGA.capture_refused(ordered, "insufficient_funds").purchase


def paid_by(provider_id: str, before: Purchase) -> Purchase:
    authorization = Authorization(AuthorizationState.AUTHORIZED, provider_id)
    return replace(before, authorization=authorization)


def bought() -> Purchase:
    ordered = SAGA.ordered(trying("atomic", 2000, stage=Stage.ORDER), "o", usd(2000)).purchase
    return SAGA.captured(paid_by("auth", ordered), usd(2000)).purchase
