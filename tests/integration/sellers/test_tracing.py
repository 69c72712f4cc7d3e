"""Calls to sellers are spans when spans are exported, and cost nothing otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from mesh.clock import SystemClock
from sellers.credentials import Credentials
from sellers.model import Condition
from sellers.transport import SellerTransport
from tests.fakes.seller import FakeSeller, fail_with, fake_seller, quotes, registered

COLLECTOR = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    return Credentials(tmp_path / "credentials.json", SystemClock())


async def ask(transport: SellerTransport, fake: FakeSeller) -> None:
    await transport.get_quote(
        registered("acme", fake.endpoint),
        "9780134685991",
        "USD",
        frozenset({Condition.NEW}),
        timeout_s=30,
    )


async def test_each_call_is_a_span_whose_trace_reaches_the_seller(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COLLECTOR, "http://127.0.0.1:1")
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    async with (
        fake_seller(GetQuote=quotes()) as good,
        fake_seller(GetQuote=fail_with(grpc.StatusCode.INTERNAL, "no")) as bad,
        SellerTransport(credentials, SystemClock()) as transport,
    ):
        transport._tracer = tracer
        with tracer.start_as_current_span("collection") as parent:
            await ask(transport, good)
            await ask(transport, bad)
    succeeded, failed, _ = exporter.get_finished_spans()
    assert (succeeded.name, succeeded.kind) == (
        "bookmesh.seller.v1.SellerService/GetQuote",
        SpanKind.CLIENT,
    )
    assert succeeded.parent == parent.get_span_context()
    assert succeeded.attributes is not None
    assert succeeded.attributes["bookmesh.seller_id"] == "acme"
    assert failed.attributes is not None
    assert failed.attributes["rpc.grpc.status_code"] == 13
    assert failed.status.status_code is StatusCode.ERROR
    assert succeeded.context is not None
    [(_, _, metadata)] = good.requests
    trace_id = format_trace_id(succeeded.context.trace_id)
    span_id = format_span_id(succeeded.context.span_id)
    assert str(metadata["traceparent"]).startswith(f"00-{trace_id}-{span_id}-")


async def test_without_a_collector_no_trace_is_shown_to_sellers(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(COLLECTOR, raising=False)
    async with (
        fake_seller(GetQuote=quotes()) as fake,
        SellerTransport(credentials, SystemClock()) as transport,
    ):
        with TracerProvider().get_tracer("test").start_as_current_span("collection"):
            await ask(transport, fake)
    [(_, _, metadata)] = fake.requests
    assert "traceparent" not in metadata
