"""Spans of the edge, sent to a collector if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.envoy.conftest import PATH, MakeEdge

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Collector:
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: asyncio.Queue[Span] = asyncio.Queue()
        self.address = ""

    async def export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put_nowait(span)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest_asyncio.fixture(loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        made.export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": method}),)
    )
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield made
    await server.stop(None)


async def test_a_trace_begins_at_the_edge_and_does_not_keep_the_query(
    make_edge: MakeEdge, collector: Collector
) -> None:
    envoy = await make_edge(otlp_endpoint=f"http://{collector.address}")
    async with envoy.client() as client:
        # Envoy sends spans five at a time, or after five seconds; a call has two, the first maybe more.
        for _ in range(3):
            await client.get(f"{PATH}?page_token=tok_secret")
    # Not the first, for which the keys for tokens may have to be fetched too.
    _, trace_id, _, flags = envoy.calls[1].metadata["traceparent"].split("-")
    assert flags == "01"
    spans: list[Span] = []
    while [span.trace_id.hex() for span in spans].count(trace_id) < 2:
        spans.append(await collector.spans.get())
    assert "tok_secret" not in repr(spans)
    attributes = {a.key: a.value.string_value for span in spans for a in span.attributes}
    assert attributes["url.path"] == PATH


async def test_without_a_collector_a_call_still_has_a_trace_id(make_edge: MakeEdge) -> None:
    envoy = await make_edge()
    async with envoy.client() as client:
        await client.get(PATH)
    _, trace_id, _, flags = envoy.calls[-1].metadata["traceparent"].split("-")
    assert int(trace_id, 16)
    assert flags == "00"
