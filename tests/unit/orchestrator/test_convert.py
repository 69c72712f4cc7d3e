"""The orchestrator's contract to and from its domain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from google.type import money_pb2

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.common.v1 import quote_pb2
from mesh.money import Money
from orchestrator import convert
from orchestrator.app.watch import WatchEvent
from orchestrator.domain.events import AnswerBatch, Coverage

ONLY_IN_A_NEWER_VERSION = quote_pb2.Miss.Reason.ValueType(99)


def test_a_reason_that_only_a_newer_aggregator_knows_does_not_spoil_a_collection() -> None:
    """A newer aggregator answers an older orchestrator while a version is deployed."""
    misses = [quote_pb2.MissCount(reason=ONLY_IN_A_NEWER_VERSION, count=2)]
    summary = convert.collected(quote_pb2.CollectionSummary(answered=7, misses=misses))
    assert (summary.answered, summary.misses) == (7, (("unspecified", 2),))


def test_batches_of_a_collection_are_shown_together_as_they_came() -> None:
    """Those who watch get what the aggregator has told, whatever it is."""
    came = [
        aggregator_pb2.AnswerBatch(
            quotes=[quote_pb2.Quote(seller_id="a", quantity=2)],
            misses=[quote_pb2.Miss(seller_id="b", reason=ONLY_IN_A_NEWER_VERSION)],
        ),
        aggregator_pb2.AnswerBatch(quotes=[quote_pb2.Quote(seller_id="c")]),
    ]
    joined = AnswerBatch.joined(convert.answer_batch("c-1", batch) for batch in came)
    shown = convert.watch_event(WatchEvent("1-1", datetime(2026, 1, 1, tzinfo=UTC), joined)).quotes
    assert shown.collection_id == "c-1"
    assert [quote.seller_id for quote in shown.quotes] == ["a", "c"]
    assert shown.quotes[0] == came[0].quotes[0]
    assert list(shown.misses) == list(came[0].misses)


def test_what_a_collection_may_have_missed_is_handed_on() -> None:
    summary = quote_pb2.CollectionSummary(
        coverage=quote_pb2.Coverage(
            asked=150,
            of=10_000,
            chance_cheaper=0.02,
            expected_saving=money_pb2.Money(currency_code="USD", units=1, nanos=400_000_000),
        )
    )
    read = convert.collected(summary)
    assert read.coverage == Coverage(150, 10_000, 0.02, Money("USD", 140))
    assert convert._summary(read).coverage == summary.coverage
    summary.coverage.ClearField("expected_saving")
    read = convert.collected(summary)
    assert read.coverage == Coverage(150, 10_000, 0.02, None)
    assert convert._summary(read).coverage == summary.coverage
    assert convert.collected(quote_pb2.CollectionSummary()).coverage is None
    assert not convert._summary(replace(read, coverage=None)).HasField("coverage")
