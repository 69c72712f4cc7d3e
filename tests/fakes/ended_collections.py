"""Collections that have ended, for tests of the history."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aggregator.domain.collection import Answer
from aggregator.domain.history import CollectionRecord
from mesh.money import Money
from sellers.model import Condition, Quote

STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)
BOOK = "9780134685991"


def quote(quote_id: str = "quote-1", total_minor: int = 2499, currency: str = "USD") -> Quote:
    """Give a quote; 400 of its total is shipping."""
    return Quote(
        quote_id=quote_id,
        price=Money(currency, total_minor - 400),
        shipping=Money(currency, 400),
        total=Money(currency, total_minor),
        condition=Condition.NEW,
        quantity=3,
        expires_at=STARTED_AT + timedelta(seconds=300),
    )


def record(
    answers: int | Sequence[Answer] = 1,
    *,
    book_id: str = BOOK,
    currency: str = "USD",
    started_at: datetime = STARTED_AT,
) -> CollectionRecord:
    """Give a collection with an id of its own; a number is that of the sellers that gave a quote."""
    if isinstance(answers, int):
        answers = [Answer(f"seller-{n}", quote(f"quote-{n}"), 0.1) for n in range(answers)]
    return CollectionRecord(
        collection_id=uuid.uuid4(),
        book_id=book_id,
        currency=currency,
        conditions=frozenset({Condition.NEW, Condition.GOOD}),
        started_at=started_at,
        elapsed_s=1.5,
        answers=answers,
    )
