"""What customers read in their e-mail, and find in a webhook."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from mesh.money import Money
from orchestrator.adapters.notifications.contents import CustomerContents, read_letter
from orchestrator.domain.purchase import FailureReason, Offer, Status
from orchestrator.ports import PurchaseView

if TYPE_CHECKING:
    from orchestrator.adapters.notifications.letters import Letter

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PENDING = PurchaseView(
    request_id=UUID("01980000-0000-7000-8000-000000000001"),
    status=Status.PENDING,
    book_id="9780134685991",
    max_price=Money("USD", 2999),
    created_at=NOON,
    settled=True,
)
BOUGHT = replace(
    PENDING,
    status=Status.PURCHASED,
    final_price=Money("USD", 2499),
    seller_id="s1",
    confirmation="order-1",
)


def letter(view: PurchaseView, kind: str = "final") -> Letter:
    return read_letter(CustomerContents().email(view, kind))


@pytest.mark.parametrize(
    ("view", "subject", "sentence"),
    [
        (
            BOUGHT,
            "Bought: book 9780134685991 for $24.99",
            "Your card was charged $24.99, all in.",
        ),
        (
            replace(
                PENDING,
                status=Status.PRICE_NOT_MET,
                offer=Offer(Money("USD", 3499), "s2", NOON),
            ),
            "Not bought: book 9780134685991 costs more than your limit",
            "Best price ($34.99) exceeds your max ($29.99). Nothing was charged.",
        ),
        (
            replace(PENDING, status=Status.NOT_AVAILABLE),
            "Not bought: nobody has book 9780134685991",
            "No sellers had this book in stock at the time of request. Nothing was charged.",
        ),
        (
            replace(PENDING, status=Status.FAILED, failure_reason=FailureReason.CARD_DECLINED),
            "Not bought: book 9780134685991",
            "The card was declined; nothing was charged. Try another card.",
        ),
        (
            replace(PENDING, status=Status.CANCELLED),
            "Cancelled: book 9780134685991",
            "You cancelled this request in time; nothing was charged.",
        ),
    ],
    ids=["purchased", "price not met", "not available", "failed", "cancelled"],
)
def test_a_letter_says_the_outcome_in_its_subject_and_in_a_sentence(
    view: PurchaseView, subject: str, sentence: str
) -> None:
    written = letter(view)
    assert written.subject == subject
    for part in (written.text, written.html):
        assert sentence in part
        assert str(view.request_id) in part


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (Status.PURCHASED, "The book will not come: your card gets all of it back."),
        (
            Status.NOT_AVAILABLE,
            "Nothing was bought, and yet it was charged: your card gets all of it back.",
        ),
    ],
)
def test_a_refund_says_how_much_and_why(status: Status, sentence: str) -> None:
    """What somebody charged by hand for a purchase that bought nothing is given back too: no seller took that back."""
    refunded = replace(BOUGHT, status=status, refunded=Money("USD", 2499))
    written = letter(refunded, "refunded")
    assert written.subject == "Refunded: $24.99 for book 9780134685991"
    assert sentence in written.text


def test_what_others_wrote_is_one_line_and_no_html() -> None:
    written = letter(replace(BOUGHT, book_id="a\r\nBcc: b\u202e", seller_id="<script>x</script>"))
    assert "\n" not in written.subject
    assert "\r" not in written.subject
    assert "\u202e" not in written.text
    assert "<script>" not in written.html
    assert "&lt;script&gt;" in written.html


def test_the_body_of_a_webhook_is_one_object_in_utc() -> None:
    happened_at = NOON.astimezone(timezone(timedelta(hours=9)))
    body: dict[str, Any] = json.loads(CustomerContents().webhook(BOUGHT, "final", happened_at))
    assert list(body) == ["type", "timestamp", "data"]
    assert body["timestamp"] == "2026-01-01T12:00:00.000Z"
    assert body["data"]["final_price"] == 24.99
