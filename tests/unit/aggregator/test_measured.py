"""Collections are measured by how they ended and by what was known already."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from aggregator.adapters import measured
from aggregator.domain.collection import Answer, MissReason, Skipped
from aggregator.domain.history import CollectionRecord
from sellers.model import Condition, Unavailable, UnavailableReason
from tests.fakes.measures import Measures

NO = Unavailable(UnavailableReason.OUT_OF_STOCK)
STOPPED = Skipped(MissReason.STOPPED)


def ended(*answers: Answer) -> CollectionRecord:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return CollectionRecord(
        UUID(int=1), "book", "USD", frozenset(Condition), now, 1.5, answers=answers
    )


def test_a_collection_is_counted_once_and_each_of_its_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measures = Measures()
    monkeypatch.setattr(measured, "_duration_s", measures.meter.create_histogram("duration"))
    monkeypatch.setattr(measured, "_answers", measures.meter.create_counter("answers"))
    known = Answer("a", NO, 0.1, cached=True)
    measured.measure(ended(known, Answer("b", NO, 0.1)))
    measured.measure(ended(Answer("a", NO, 0.1), Answer("b", STOPPED, 0.1)))
    assert measures.seen() == {
        ("duration", "complete"): 1,
        ("duration", "stopped"): 1,
        ("answers", True): 1,
        ("answers", False): 3,
    }
