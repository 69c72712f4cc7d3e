"""What a service tells of itself: spans and metrics by OpenTelemetry, and lines of JSON that carry the trace id.

Whoever has something to count asks ``opentelemetry.metrics.get_meter`` for an instrument, wherever it is: without a
collector it does nothing. Units are base units (seconds, bytes), labels have few values: never an id of a purchase.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import structlog
from opentelemetry import context, metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, WrappedLogger

from contextlib import contextmanager

_TRACEPARENT = "traceparent"
_propagator = TraceContextTextMapPropagator()


_LAST_WORDS_S = 2.0

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
"""Bounds of the buckets of histograms of times."""


class Telemetry:
    """The telemetry of this process."""

    def __init__(self, spans: TracerProvider, measured: MeterProvider | None) -> None:
        """Keep what has to be shut down; ``measured`` is None where nobody collects metrics."""
        self._spans = spans
        self._measured = measured

    def shutdown(self) -> None:
        """Send what has not been sent yet, for two seconds at most: a collector that is gone must not hold us up."""
        last_words = threading.Thread(target=self._shutdown, daemon=True)
        last_words.start()
        last_words.join(_LAST_WORDS_S)

    def _shutdown(self) -> None:
        self._spans.shutdown()
        if self._measured is not None:
            self._measured.shutdown()


def exporting(signal: str = "TRACES") -> bool:
    """Say whether the environment names a collector (``OTEL_EXPORTER_OTLP_ENDPOINT``, or that of ``signal`` alone).

    Args:
        signal: ``TRACES`` or ``METRICS``.

    """
    return any(
        os.environ.get(name)
        for name in (f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def set_up(service: str, instance: str, log_level: str) -> Telemetry:
    """Set up logs, spans and metrics for this process; the caller shuts them down at the end.

    Spans and metrics go to the collector that the environment names (OpenTelemetry's own variables; sampling by
    ``OTEL_TRACES_SAMPLER``, ``OTEL_METRIC_EXPORT_INTERVAL`` in milliseconds). Without one nothing is recorded, but
    trace ids are made and passed on, so that the logs of all services still tell which lines belong together.

    Args:
        service: name of the service (``gateway``).
        instance: name of this replica.
        log_level: the least level that is logged, ``DEBUG`` to ``ERROR``.

    """
    resource = Resource.create({SERVICE_NAME: service, SERVICE_INSTANCE_ID: instance})
    if exporting():
        # Not at the exit of the interpreter: that waits for the collector without end, after ``shutdown`` has given up.
        spans = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        spans = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    trace.set_tracer_provider(spans)
    measured = None
    if exporting("METRICS"):
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        measured = MeterProvider([reader], resource, shutdown_on_exit=False)
        metrics.set_meter_provider(measured)
    _set_up_logs(service, instance, log_level)
    return Telemetry(spans, measured)


def current_traceparent() -> str | None:
    """Give the W3C ``traceparent`` of the current span, to keep with work that goes on elsewhere; None without one."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get(_TRACEPARENT)


@contextmanager
def resumed(traceparent: str | None) -> Iterator[None]:
    """Make the span of a kept ``traceparent`` the current one."""
    carrier = {_TRACEPARENT: traceparent} if traceparent else {}
    token = context.attach(_propagator.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


def _set_up_logs(service: str, instance: str, log_level: str) -> None:
    def add_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["instance"] = instance
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event["trace_id"] = trace.format_trace_id(span.trace_id)
            event["span_id"] = trace.format_span_id(span.span_id)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_origin,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # A stream that is collected as garbage at a yield ends its span in another context than it began: harmless, loud.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level)
