"""Measures of collections, by OpenTelemetry."""

from __future__ import annotations

from opentelemetry import metrics

from aggregator.domain.collection import MissReason, Skipped
from aggregator.domain.history import CollectionRecord
from mesh import telemetry

_meter = metrics.get_meter(__name__)
_duration_s = _meter.create_histogram(
    "bookmesh.collection.duration",
    unit="s",
    description="How long collections of quotes took",
    explicit_bucket_boundaries_advisory=telemetry.SECONDS,
)
_answers = _meter.create_counter(
    "bookmesh.collection.answers",
    unit="{answer}",
    description="Answers of sellers in collections, by whether they were known already",
)


def measure(record: CollectionRecord) -> None:
    """Take a collection into the measures: stopped is one that did not wait for every seller."""
    stopped = any(
        isinstance(answer.outcome, Skipped) and answer.outcome.reason is MissReason.STOPPED
        for answer in record.fresh
    )
    _duration_s.record(record.elapsed_s, {"bookmesh.ended": "stopped" if stopped else "complete"})
    fresh = len(record.fresh)
    _answers.add(fresh, {"bookmesh.cached": False})
    _answers.add(len(record.answers) - fresh, {"bookmesh.cached": True})
