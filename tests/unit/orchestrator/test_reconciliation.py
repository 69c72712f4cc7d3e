"""Each kind of difference is found where it is, and a world that agrees has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest

from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.domain.purchase import AuthorizationState, Release, Status
from orchestrator.domain.reconciliation import (
    Booked,
    BookedAttempt,
    BookedFlag,
    Bounds,
    Finding,
    Kind,
    Remedy,
    TheirOrder,
    TheirPayment,
    TheirState,
    certainly_ours,
    made_at,
    missing_payment_findings,
    order_findings,
    own_findings,
    payment_findings,
    stray_order_findings,
    stray_payment_findings,
)
from sellers.model import (
    Cancelled,
    Closed,
    Confirmed,
    OrderNotFound,
    Pending,
    Rejected,
    RejectionReason,
)
from tests.fakes.manual_clock import ManualClock

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
THEN = NOW - timedelta(hours=3)
BOUNDS = Bounds()


def usd(minor: int) -> Money:
    return Money("USD", minor)


REQUEST = UUID(int=int(THEN.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | 99)
KEY = f"{REQUEST}:a"
ATTEMPT = BookedAttempt(1, "a", KEY, THEN, usd(2000), "confirmed")
OTHER = BookedAttempt(1, "b", f"{REQUEST}:b", THEN, None, "out_of_stock")
BOUGHT = Booked(
    REQUEST,
    THEN,
    Status.PURCHASED,
    "done",
    None,
    AuthorizationState.CAPTURED,
    "auth_1",
    usd(2999),
    captured=usd(2000),
    attempts=(OTHER, replace(ATTEMPT, number=2)),
    last_attempt=2,
)
FAILED = replace(
    BOUGHT,
    status=Status.FAILED,
    payment=AuthorizationState.VOIDED,
    captured=None,
    attempts=(OTHER,),
    last_attempt=1,
)
UNDER_WAY = replace(
    BOUGHT,
    status=Status.PENDING,
    stage="capture",
    due_at=NOW + timedelta(seconds=5),
    payment=AuthorizationState.AUTHORIZED,
    captured=None,
    created_at=NOW - timedelta(minutes=6),
)
FLAG = BookedFlag(1, "I8", "the provider refuses the refund", usd(2000), NOW - timedelta(hours=1))
CHARGED = TheirPayment(
    "auth_1", str(REQUEST), TheirState.CAPTURED, usd(2999), usd(2000), usd(0), THEN
)
RELEASED = replace(CHARGED, state=TheirState.VOIDED, captured=usd(0))
RESERVED = replace(CHARGED, state=TheirState.AUTHORIZED, captured=usd(0))
SOLD = TheirOrder("a", KEY, Confirmed("o1", usd(2000)), str(REQUEST), THEN)


def only(findings: Iterator[Finding]) -> tuple[Kind, Remedy, Money | None] | None:
    found = list(findings)
    assert len(found) <= 1
    return (found[0].kind, found[0].remedy, found[0].amount) if found else None


# A clean world


@pytest.mark.parametrize(
    ("booked", "payment"),
    [
        (BOUGHT, CHARGED),
        (FAILED, RELEASED),
        (FAILED, replace(RELEASED, state=TheirState.DECLINED)),
        (UNDER_WAY, RESERVED),
        (UNDER_WAY, CHARGED),
        (replace(BOUGHT, refunded=usd(2000)), replace(CHARGED, refunded=usd(2000))),
        (FAILED, replace(CHARGED, refunded=usd(2000))),
    ],
)
def test_payments_that_agree(booked: Booked, payment: TheirPayment) -> None:
    assert only(payment_findings(booked, payment)) is None


@pytest.mark.parametrize(
    ("booked", "order"),
    [
        (BOUGHT, SOLD),
        (UNDER_WAY, SOLD),
        (BOUGHT, TheirOrder("b", OTHER.key, Rejected(RejectionReason.OUT_OF_STOCK, None))),
        (FAILED, TheirOrder("b", OTHER.key, Closed())),
        (replace(BOUGHT, refunded=usd(2000)), replace(SOLD, state=Cancelled())),
    ],
)
def test_orders_that_agree(booked: Booked, order: TheirOrder) -> None:
    assert only(order_findings(booked, order)) is None


@pytest.mark.parametrize("booked", [BOUGHT, FAILED, UNDER_WAY])
def test_books_that_agree_with_themselves(booked: Booked) -> None:
    assert only(own_findings(booked, NOW, BOUNDS)) is None


# The provider


@pytest.mark.parametrize(
    ("booked", "payment", "kind", "remedy", "minor"),
    [
        (FAILED, RESERVED, Kind.AUTHORIZATION_LEFT, Remedy.LOOK_AT_PAYMENT, 2999),
        (FAILED, CHARGED, Kind.CAPTURED_THERE_ONLY, Remedy.LOOK_AT_PAYMENT, 2000),
        (BOUGHT, RESERVED, Kind.CAPTURED_HERE_ONLY, Remedy.LOOK_AT_PAYMENT, 2000),
        (BOUGHT, RELEASED, Kind.CAPTURED_HERE_ONLY, Remedy.LOOK_AT_PAYMENT, 2000),
        (
            replace(FAILED, payment=AuthorizationState.AUTHORIZED),
            RELEASED,
            Kind.VOIDED_THERE_ONLY,
            Remedy.LOOK_AT_PAYMENT,
            2999,
        ),
        (
            BOUGHT,
            replace(CHARGED, captured=usd(2500)),
            Kind.OTHER_AMOUNT_CAPTURED,
            Remedy.DECIDE,
            500,
        ),
        (
            FAILED,
            replace(RESERVED, authorized=usd(9999)),
            Kind.OTHER_AMOUNT_AUTHORIZED,
            Remedy.DECIDE,
            9999,
        ),
        (
            BOUGHT,
            replace(CHARGED, refunded=usd(300)),
            Kind.OTHER_AMOUNT_REFUNDED,
            Remedy.LOOK_AT_PAYMENT,
            300,
        ),
        (
            BOUGHT,
            replace(RESERVED, provider_id="auth_2"),
            Kind.SECOND_AUTHORIZATION,
            Remedy.VOID,
            2999,
        ),
        (
            UNDER_WAY,
            replace(CHARGED, provider_id="auth_2"),
            Kind.SECOND_CAPTURE,
            Remedy.DECIDE,
            2000,
        ),
        (
            replace(FAILED, flags=(FLAG,)),
            CHARGED,
            Kind.CAPTURED_THERE_ONLY,
            Remedy.DECIDE,
            2000,
        ),
    ],
)
def test_payments_that_differ(
    booked: Booked, payment: TheirPayment, kind: Kind, remedy: Remedy, minor: int
) -> None:
    assert only(payment_findings(booked, payment)) == (kind, remedy, usd(minor))


def test_a_payment_that_the_provider_does_not_know() -> None:
    assert only(missing_payment_findings(BOUGHT)) == (
        Kind.PAYMENT_MISSING,
        Remedy.LOOK_AT_PAYMENT,
        usd(2000),
    )
    assert only(missing_payment_findings(FAILED)) is None, "nothing is reserved or charged"
    assert only(missing_payment_findings(UNDER_WAY)) is None


@pytest.mark.parametrize(
    ("payment", "kind", "remedy"),
    [
        (RESERVED, Kind.STRAY_AUTHORIZATION, Remedy.VOID),
        (CHARGED, Kind.STRAY_CAPTURE, Remedy.DECIDE),
        (replace(RESERVED, reference="shop-17"), Kind.STRAY_AUTHORIZATION, Remedy.DECIDE),
        (replace(RESERVED, reference=None), Kind.STRAY_AUTHORIZATION, Remedy.DECIDE),
    ],
)
def test_payments_of_no_purchase(payment: TheirPayment, kind: Kind, remedy: Remedy) -> None:
    found = only(stray_payment_findings(payment))
    assert found is not None
    assert found[:2] == (kind, remedy)


@pytest.mark.parametrize("payment", [RELEASED, replace(CHARGED, refunded=usd(2000))])
def test_a_payment_of_no_purchase_that_came_to_nothing_is_no_finding(payment: TheirPayment) -> None:
    assert only(stray_payment_findings(payment)) is None


# The sellers


@pytest.mark.parametrize(
    ("booked", "order", "kind", "remedy", "minor"),
    [
        (BOUGHT, replace(SOLD, state=Cancelled()), Kind.ORDER_CANCELLED, "look_at_order", 2000),
        (BOUGHT, replace(SOLD, state=Closed()), Kind.ORDER_CANCELLED, "look_at_order", 2000),
        (BOUGHT, replace(SOLD, state=OrderNotFound()), Kind.ORDER_MISSING, "look_at_order", 2000),
        (BOUGHT, replace(SOLD, state=Pending(1.0)), Kind.ORDER_MISSING, "look_at_order", 2000),
        (
            BOUGHT,
            replace(SOLD, state=Confirmed("o1", usd(2100))),
            Kind.OTHER_AMOUNT_ORDERED,
            "decide",
            100,
        ),
        (
            BOUGHT,
            TheirOrder("b", OTHER.key, Confirmed("o2", usd(1900))),
            Kind.SECOND_ORDER,
            "look_at_order",
            1900,
        ),
        (
            FAILED,
            TheirOrder("b", OTHER.key, Confirmed("o2", usd(1900))),
            Kind.ORDER_LEFT,
            "look_at_order",
            1900,
        ),
        (FAILED, TheirOrder("b", OTHER.key, Pending(1.0)), Kind.ORDER_LEFT, "look_at_order", None),
        (replace(BOUGHT, refunded=usd(2000)), SOLD, Kind.ORDER_LEFT, "look_at_order", 2000),
        (
            FAILED,
            TheirOrder("c", f"{REQUEST}:c", Confirmed("o3", usd(1800))),
            Kind.STRAY_ORDER,
            "cancel",
            1800,
        ),
        (
            replace(BOUGHT, flags=(FLAG,)),
            replace(SOLD, state=Cancelled()),
            Kind.ORDER_CANCELLED,
            "decide",
            2000,
        ),
    ],
)
def test_orders_that_differ(
    booked: Booked, order: TheirOrder, kind: Kind, remedy: str, minor: int | None
) -> None:
    amount = None if minor is None else usd(minor)
    assert only(order_findings(booked, order)) == (kind, Remedy(remedy), amount)


@pytest.mark.parametrize(
    ("order", "kind", "remedy"),
    [
        (SOLD, Kind.STRAY_ORDER, Remedy.CANCEL),
        (replace(SOLD, key=f"{KEY}:2"), Kind.STRAY_ORDER, Remedy.CANCEL),
        (replace(SOLD, seller_id="b"), Kind.UNKNOWN_ORDER, Remedy.DECIDE),
        (replace(SOLD, key="shop-17"), Kind.UNKNOWN_ORDER, Remedy.DECIDE),
        (replace(SOLD, reference="somebody"), Kind.UNKNOWN_ORDER, Remedy.DECIDE),
    ],
)
def test_orders_of_no_purchase(order: TheirOrder, kind: Kind, remedy: Remedy) -> None:
    assert only(stray_order_findings(order, NOW)) == (kind, remedy, usd(2000))


def test_an_order_of_no_purchase_that_does_not_stand_is_no_finding() -> None:
    assert only(stray_order_findings(replace(SOLD, state=Cancelled()), NOW)) is None


# Our books alone


@pytest.mark.parametrize(
    ("booked", "kind"),
    [
        (replace(BOUGHT, flags=(FLAG,)), Kind.OPEN_FLAG),
        (replace(UNDER_WAY, due_at=NOW - timedelta(minutes=3)), Kind.OVERDUE),
        (replace(UNDER_WAY, created_at=THEN), Kind.UNFINISHED),
        (replace(BOUGHT, releases=(Release("b", OTHER.key),)), Kind.HOLD_LEFT),
        (replace(BOUGHT, captured=None), Kind.BOOKS_BROKEN),
        (replace(BOUGHT, captured=usd(1999)), Kind.BOOKS_BROKEN),
        (replace(BOUGHT, last_attempt=None), Kind.BOOKS_BROKEN),
        (replace(FAILED, captured=usd(2000)), Kind.BOOKS_BROKEN),
        (replace(BOUGHT, status=Status.PENDING), Kind.BOOKS_BROKEN),
        (replace(FAILED, stage="flagged"), Kind.BOOKS_BROKEN),
    ],
)
def test_purchases_that_are_wrong_by_themselves(booked: Booked, kind: Kind) -> None:
    found = only(own_findings(booked, NOW, BOUNDS))
    assert found is not None
    assert found[0] is kind


def test_a_flag_is_found_with_its_amount_and_invariant() -> None:
    [found] = own_findings(replace(BOUGHT, flags=(FLAG,)), NOW, BOUNDS)
    assert (found.invariant, found.amount, found.began_at) == ("I8", usd(2000), FLAG.raised_at)


def test_a_purchase_whose_offer_lasts_is_not_taken_for_unfinished() -> None:
    offered = replace(FAILED, status=Status.PRICE_NOT_MET, stage="offer", due_at=NOW)
    assert only(own_findings(offered, NOW, BOUNDS)) is None


# What may be taken back


def test_the_time_of_a_purchase_is_read_from_its_id() -> None:
    clock = ManualClock()
    made = made_at(uuid7_factory(clock, Random(1))())
    assert made is not None
    assert abs(made - clock.now()) < timedelta(milliseconds=2)
    assert made_at(UUID("11111111-1111-4111-8111-111111111111")) is None


def test_only_old_strays_of_ids_that_we_make_may_be_taken_back() -> None:
    [stray] = stray_order_findings(SOLD, NOW)
    assert certainly_ours(stray, NOW, BOUNDS)
    assert not certainly_ours(replace(stray, began_at=NOW), NOW, BOUNDS), "it may be under way"
    assert not certainly_ours(stray, THEN + timedelta(minutes=59), BOUNDS)
    random_id = UUID("11111111-1111-4111-8111-111111111111")
    assert not certainly_ours(replace(stray, request_id=random_id), NOW, BOUNDS)
    assert not certainly_ours(replace(stray, remedy=Remedy.DECIDE), NOW, BOUNDS)


def test_every_kind_has_words_for_it() -> None:
    for kind in Kind:
        assert Finding(kind, Remedy.DECIDE, None, NOW, "").advice
