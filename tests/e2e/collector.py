"""An OpenTelemetry collector that keeps what it is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was sent; ids in hexadecimal."""

    span_id: str
    parent_id: str
    service: str
    name: str


@dataclass(slots=True)
class Collector:
    """Spans by the trace that they belong to."""

    endpoint: str
    traces: defaultdict[str, list[Span]] = field(default_factory=lambda: defaultdict(list))
    received: list[bytes] = field(default_factory=list)

    def saw(self, text: bytes) -> bool:
        """Say whether something was in any message, in whatever field."""
        return any(text in message for message in self.received)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector."""
    server = grpc.aio.server()
    collector = Collector(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")

    async def export(
        request: pb.ExportTraceServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExportTraceServiceResponse:
        collector.received.append(request.SerializeToString())
        for resource in request.resource_spans:
            [service] = [
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            ]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    collector.traces[span.trace_id.hex()].append(
                        Span(span.span_id.hex(), span.parent_span_id.hex(), service, span.name)
                    )
        return pb.ExportTraceServiceResponse()

    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=pb.ExportTraceServiceRequest.FromString,
        response_serializer=pb.ExportTraceServiceResponse.SerializeToString,
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"Export": method}),)
    )
    await server.start()
    yield collector
    await server.stop(None)
