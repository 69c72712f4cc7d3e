from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from mesh import telemetry
from mesh.telemetry import Telemetry


class Unreachable(SpanProcessor):
    """Never gets rid of its spans."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.give_up = threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        raise NotImplementedError

    def shutdown(self) -> None:
        self.asked.set()
        self.give_up.wait()


def test_a_collector_that_is_gone_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_LAST_WORDS_S", 0.01)
    processor, provider = Unreachable(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    Telemetry(provider, None).shutdown()
    assert processor.asked.wait(10)
    assert not processor.give_up.is_set()
    processor.give_up.set()


_REGISTERED = """
import atexit
from mesh import telemetry

asked = []
atexit.register = lambda *handler: asked.append(handler)
from opentelemetry.sdk.metrics import _internal

_internal.register = atexit.register
telemetry.set_up("test", "1", "INFO")
print(len(asked))
"""


def test_nothing_is_sent_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the interpreter does at its exit has no end where no collector answers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    ran = subprocess.run(
        (sys.executable, "-c", _REGISTERED), capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "0\n"


@pytest.mark.parametrize(
    ("variable", "spans", "measured"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", True, True),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", True, False),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", False, True),
        ("OTEL_UNKNOWN", False, False),
    ],
)
def test_the_environment_says_what_is_collected(
    monkeypatch: pytest.MonkeyPatch, variable: str, *, spans: bool, measured: bool
) -> None:
    for name in ("", "_TRACES", "_METRICS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP{name}_ENDPOINT", raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert (telemetry.exporting(), telemetry.exporting("METRICS")) == (spans, measured)
