"""The audit of a chaos run: right books pass, and each thing that must not be is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.books import (
    Attempt,
    Authorization,
    Books,
    Event,
    Flag,
    Hold,
    Message,
    Order,
    Purchase,
    audit,
    totals,
)
from tests.chaos.customers import Told
from tests.chaos.wishes import Wish

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BOUGHT, REFUSED = "bought", "refused"


def _told(request_id: str, **answer: object) -> Told:
    body = {"book_id": "book", "max_price": 20.0, "payment_token": "tok"}
    wish = Wish("alice", f"key-{request_id}", body, 2_000, watches=False)
    final = {"request_id": request_id, **answer}
    return Told(wish, {request_id}, answers=[final, dict(final)])


def _events(request_id: str) -> list[Event]:
    kinds = ["step", "step", "finished"]
    return [
        Event(request_id=request_id, seq=seq, happened_at=NOON, kind=kind, body="{}")
        for seq, kind in enumerate(kinds, start=1)
    ]


PURCHASE = Purchase(
    request_id=BOUGHT,
    customer_id="alice",
    idempotency_key=f"key-{BOUGHT}",
    max_price_minor=2_000,
    status="purchased",
    failure_reason=None,
    stage="done",
    has_token=False,
    payment_state="captured",
    authorized_minor=2_000,
    captured_minor=1_500,
    provider_id="auth-1",
    attempt_number=2,
)
NOT_BOUGHT = replace(
    PURCHASE,
    request_id=REFUSED,
    idempotency_key=f"key-{REFUSED}",
    status="price_not_met",
    payment_state="voided",
    captured_minor=None,
    provider_id="auth-2",
    attempt_number=1,
)
REJECTED = Attempt(
    request_id=BOUGHT,
    number=1,
    seller_id="bravo",
    key=f"{BOUGHT}:bravo",
    with_hold=True,
    agreed_minor=1_500,
    order_id=None,
    charged_minor=None,
    outcome="out_of_stock",
)
ATTEMPT = replace(
    REJECTED,
    number=2,
    seller_id="alpha",
    key=f"{BOUGHT}:alpha",
    order_id="B-1",
    charged_minor=1_500,
    outcome="confirmed",
)
TRIED = replace(REJECTED, request_id=REFUSED, key=f"{REFUSED}:bravo", outcome="cancelled")
CAPTURED = Authorization(
    authorization_id="auth-1",
    reference=BOUGHT,
    state="captured",
    authorized_minor=2_000,
    captured_minor=1_500,
    captures=1,
)
VOIDED = replace(
    CAPTURED,
    authorization_id="auth-2",
    reference=REFUSED,
    state="voided",
    captured_minor=0,
    captures=0,
)
ORDER = Order(
    seller_id="alpha",
    key=f"{BOUGHT}:alpha",
    state="confirmed",
    total_minor=1_500,
    order_id="B-1",
    created_at=NOON + timedelta(seconds=2),
    updated_at=NOON + timedelta(seconds=2),
)
CANCELLED = replace(
    ORDER,
    seller_id="bravo",
    key=f"{REFUSED}:bravo",
    state="cancelled",
    total_minor=None,
    order_id="",
    created_at=NOON,
    updated_at=NOON + timedelta(seconds=1),
)
ORDERED = Hold(seller_id="alpha", key=f"{BOUGHT}:alpha", state="ordered")
RELEASED = Hold(seller_id="bravo", key=f"{BOUGHT}:bravo", state="released")

FLAG = Flag(request_id=BOUGHT, invariant="I9", detail="a hold", raised=True)

SECOND = replace(REJECTED, outcome="confirmed", order_id="B-2", charged_minor=900)
SECOND_ORDER = replace(CANCELLED, key=f"{BOUGHT}:bravo", updated_at=NOON + timedelta(seconds=5))


def _final(request_id: str) -> Message:
    return Message(request_id=request_id, kind="final")


def _books() -> Books:
    return Books(
        told=[
            _told(
                BOUGHT,
                status="purchased",
                final_price=15.0,
                seller_id="alpha",
                confirmation="B-1",
            ),
            _told(REFUSED, status="price_not_met"),
        ],
        purchases=[PURCHASE, NOT_BOUGHT],
        attempts=[REJECTED, ATTEMPT, TRIED],
        events=[*_events(BOUGHT), *_events(REFUSED)],
        flags=[],
        outbox=[_final(BOUGHT), _final(REFUSED)],
        authorizations=[CAPTURED, VOIDED],
        orders=[ORDER, CANCELLED],
        holds=[ORDERED, RELEASED],
    )


def test_right_books_pass() -> None:
    assert audit(_books()) == []
    assert totals(_books()).apart == 0


def _purchase(**changes: object) -> Callable[[Books], Books]:
    return lambda books: replace(books, purchases=[replace(PURCHASE, **changes), NOT_BOUGHT])  # type: ignore[arg-type]  # the tests name the fields


def _payment(**changes: object) -> Callable[[Books], Books]:
    return lambda books: replace(books, authorizations=[replace(CAPTURED, **changes), VOIDED])  # type: ignore[arg-type]  # the tests name the fields


def _order(**changes: object) -> Callable[[Books], Books]:
    return lambda books: replace(books, orders=[replace(ORDER, **changes), CANCELLED])  # type: ignore[arg-type]  # the tests name the fields


def _other_answer(books: Books) -> Books:
    books.told[0].answers[1]["status"] = "failed"
    return books


def _two_ids(books: Books) -> Books:
    books.told[0].request_ids.add("zzz")
    return books


def _never_answered(books: Books) -> Books:
    books.told[0].answers.clear()
    return books


def _never_accepted(books: Books) -> Books:
    books.told[0].request_ids.clear()
    return books


@pytest.mark.parametrize(
    ("spoil", "rules"),
    [
        (_never_accepted, {"lost"}),
        (lambda books: replace(books, purchases=[NOT_BOUGHT]), {"lost", "stray"}),
        (_two_ids, {"double", "lost"}),
        (lambda books: replace(books, purchases=[*books.purchases, PURCHASE]), {"double"}),
        (lambda books: replace(books, told=books.told[:1]), {"stray"}),
        (
            lambda books: replace(books, orders=[*books.orders, replace(ORDER, key="x:alpha")]),
            {"stray"},
        ),
        (lambda books: replace(books, holds=[replace(RELEASED, seller_id="zulu")]), {"stray"}),
        (
            lambda books: replace(
                books, authorizations=[*books.authorizations, replace(VOIDED, reference="x")]
            ),
            {"stray"},
        ),
        (_other_answer, {"answer"}),
        (_never_answered, {"answer"}),
        (
            _order(state="cancelled", total_minor=None, order_id=""),
            {"answer", "I1", "I3", "I8", "I12"},
        ),
        (
            lambda books: replace(
                books, orders=[ORDER, SECOND_ORDER], attempts=[SECOND, ATTEMPT, TRIED]
            ),
            {"I2"},
        ),
        (_payment(captures=2), {"I3", "I8", "I10"}),
        (_payment(captured_minor=1_501), {"I3", "I12"}),
        (_payment(authorized_minor=2_001), {"I3"}),
        (
            lambda books: replace(
                books, attempts=[REJECTED, replace(ATTEMPT, agreed_minor=1_400), TRIED]
            ),
            {"I3"},
        ),
        (_payment(state="authorized", captured_minor=0, captures=0), {"I8", "I9", "I12"}),
        (_payment(state="voided"), {"I10", "I12"}),
        (_purchase(authorized_minor=2_001), {"I3"}),
        (_purchase(captured_minor=1_499), {"I12"}),
        (_purchase(stage="void"), {"I7"}),
        (_purchase(stage="flagged"), {"I7"}),
        (lambda books: replace(books, flags=[FLAG]), {"I7"}),
        (
            lambda books: replace(_purchase(stage="flagged")(books), flags=[FLAG]),
            {"I7"},
        ),
        (lambda books: replace(books, outbox=books.outbox[1:]), {"I11"}),
        (lambda books: replace(books, outbox=[*books.outbox, _final(BOUGHT)]), {"I11"}),
        (_purchase(has_token=True), {"I7"}),
        (_purchase(status="failed"), {"answer", "I8"}),
        (_purchase(status="pending"), {"answer", "I4", "I7", "I8", "I11"}),
        (_purchase(attempt_number=1), {"I12"}),
        (lambda books: replace(books, events=books.events[1:]), {"I4"}),
        (lambda books: replace(books, events=[*books.events[:2], *books.events[3:]]), {"I4"}),
        (
            lambda books: replace(books, holds=[ORDERED, replace(RELEASED, state="held")]),
            {"I9"},
        ),
    ],
)
def test_what_must_not_be_is_found(spoil: Callable[[Books], Books], rules: set[str]) -> None:
    assert {violation.rule for violation in audit(spoil(_books()))} == rules


def test_a_flag_is_right_where_a_charge_is_refused_for_a_book_that_is_not_taken_back() -> None:
    books = _purchase(
        stage="flagged", status="pending", payment_state="authorized", captured_minor=None
    )(_books())
    books.told[0].answers.clear()
    reserved = replace(CAPTURED, state="authorized", captured_minor=0, captures=0)
    refused = replace(books.events[1], body='{"name": "capture_refused"}')
    books = replace(
        books,
        authorizations=[reserved, VOIDED],
        events=[books.events[0], refused, *books.events[3:]],
        flags=[FLAG],
        outbox=books.outbox[1:],
    )
    assert audit(books) == []


def test_ledgers_that_differ_are_apart() -> None:
    assert totals(_payment(captured_minor=1_501)(_books())).apart == 1
    assert totals(_order(total_minor=1_000)(_books())).apart == 500


def test_what_a_seller_has_sold_in_a_flagged_purchase_is_not_paid() -> None:
    books = _purchase(stage="flagged", status="pending", captured_minor=None)(_books())
    books.told[0].answers.clear()
    books = replace(books, authorizations=[VOIDED])
    assert totals(books).apart == 0
