"""The orchestrator's contract to and from its domain."""

from __future__ import annotations

from bookmesh.common.v1 import quote_pb2
from orchestrator import convert

ONLY_IN_A_NEWER_VERSION = quote_pb2.Miss.Reason.ValueType(99)


def test_a_reason_that_only_a_newer_aggregator_knows_does_not_spoil_a_collection() -> None:
    """A newer aggregator answers an older orchestrator while a version is deployed."""
    misses = [quote_pb2.MissCount(reason=ONLY_IN_A_NEWER_VERSION, count=2)]
    summary = convert.collected(quote_pb2.CollectionSummary(answered=7, misses=misses))
    assert (summary.answered, summary.misses) == (7, (("unspecified", 2),))
    miss = quote_pb2.Miss(seller_id="a", reason=ONLY_IN_A_NEWER_VERSION)
    assert convert.answer_batch("c", [], [miss]).misses[0].reason == "unspecified"
