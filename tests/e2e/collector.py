"""An OpenTelemetry collector that keeps what it is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.resource.v1 import resource_pb2


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
    metrics: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Names of metrics by service."""

    received: list[bytes] = field(default_factory=list)
    """Every message."""


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
            service = _service(resource.resource)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    collector.traces[span.trace_id.hex()].append(
                        Span(span.span_id.hex(), span.parent_span_id.hex(), service, span.name)
                    )
        return pb.ExportTraceServiceResponse()

    async def export_metrics(
        request: metrics_pb.ExportMetricsServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> metrics_pb.ExportMetricsServiceResponse:
        collector.received.append(request.SerializeToString())
        for resource in request.resource_metrics:
            names = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
            collector.metrics[_service(resource.resource)] |= names
        return metrics_pb.ExportMetricsServiceResponse()

    for signal, handler, requests in (
        ("trace.v1.TraceService", export, pb.ExportTraceServiceRequest),
        ("metrics.v1.MetricsService", export_metrics, metrics_pb.ExportMetricsServiceRequest),
    ):
        method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            handler,
            request_deserializer=requests.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
        service = f"opentelemetry.proto.collector.{signal}"
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Export": method}),)
        )
    await server.start()
    yield collector
    await server.stop(None)


def _service(resource: resource_pb2.Resource) -> str:
    [service] = [
        attribute.value.string_value
        for attribute in resource.attributes
        if attribute.key == "service.name"
    ]
    return service
