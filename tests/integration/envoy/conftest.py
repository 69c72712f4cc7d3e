"""A real Envoy with the configuration of every deployment, before stand-ins for the gateways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
import yaml
from google.api import httpbody_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from deploy.local import edge
from deploy.local.certificates import (
    certificates,
    ensure_certificates,
    ensure_shown_to_customers,
)
from deploy.local.child import Child
from deploy.local.data import DataFolder
from deploy.local.keys import ensure_keys, sign_token
from deploy.local.options import HOST, inherited_environment
from deploy.local.ports import Ports
from deploy.local.services import address
from mesh import errors
from mesh.clock import SystemClock
from mesh.errors import FieldViolation
from mesh.grpc import tls
from mesh.grpc.errors import abort, status_of

SERVICE = "bookmesh.customer.v1.PurchaseService"
Context = grpc.aio.ServicerContext[Any, Any]
PATH = "/api/v1/purchase-requests"
CLIENT_S = 30.0


@dataclass(slots=True)
class Call:
    """A call as it arrived at a gateway."""

    request: Message
    metadata: dict[str, str]
    time_remaining_s: float | None
    gateway: int


class Gateway(customer_pb2_grpc.PurchaseServiceServicer):
    """Answers as a gateway would; the payment token or the request id chooses how."""

    def __init__(self, number: int, calls: list[Call], go_on: asyncio.Event) -> None:
        self.number = number
        self.calls = calls
        self.go_on = go_on

    async def CreatePurchaseRequest(
        self,
        request: customer_pb2.CreatePurchaseRequestRequest,
        context: Context,
    ) -> customer_pb2.CreatePurchaseRequestResponse:
        self._record(request, context)
        if request.payment_token == "tok_declined":
            await context.send_initial_metadata((("x-http-status", "402"),))
            await _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "CARD_DECLINED")
        if request.payment_token == "tok_garbled":
            # A header that HTTP/2 does not have.
            await context.send_initial_metadata((("connection", "close"),))
        if request.payment_token == "tok_wrong":
            await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        if request.payment_token == "tok_wrong_field":
            violation = FieldViolation("max_price", 'is "reason":"" and ,"metadata":{}')
            await abort(context, errors.InvalidArgument("wrong", fields=(violation,)))
        location = f"{PATH}/r1"
        await context.send_initial_metadata((("x-http-status", "202"), ("location", location)))
        if request.payment_token == "tok_cut_off":
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        return customer_pb2.CreatePurchaseRequestResponse(
            request_id="r1", status=customer_pb2.PurchaseStatus.pending, status_url=location
        )

    async def CancelPurchaseRequest(
        self, request: customer_pb2.CancelPurchaseRequestRequest, context: Context
    ) -> customer_pb2.PurchaseRequest:
        self._record(request, context)
        return customer_pb2.PurchaseRequest(
            request_id=request.request_id,
            status=customer_pb2.PurchaseStatus.cancelled,
            cancel_requested=True,
        )

    async def AcceptOffer(
        self, request: customer_pb2.AcceptOfferRequest, context: Context
    ) -> customer_pb2.AcceptOfferResponse:
        self._record(request, context)
        location = f"{PATH}/r2"
        await context.send_initial_metadata((("x-http-status", "202"), ("location", location)))
        return customer_pb2.AcceptOfferResponse(
            request_id="r2", status=customer_pb2.PurchaseStatus.pending, status_url=location
        )

    async def GetPurchaseRequest(
        self, request: customer_pb2.GetPurchaseRequestRequest, context: Context
    ) -> customer_pb2.PurchaseRequest:
        self._record(request, context)
        if request.request_id == "unknown":
            await _abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return customer_pb2.PurchaseRequest(
            request_id=request.request_id,
            status=customer_pb2.PurchaseStatus.purchased,
            final_price=24.99,
        )

    async def ListPurchaseRequests(
        self, request: customer_pb2.ListPurchaseRequestsRequest, context: Context
    ) -> customer_pb2.ListPurchaseRequestsResponse:
        self._record(request, context)
        return customer_pb2.ListPurchaseRequestsResponse(next_page_token="next")

    async def WatchPurchaseRequest(
        self, request: customer_pb2.WatchPurchaseRequestRequest, context: Context
    ) -> AsyncIterator[customer_pb2.WatchPurchaseRequestResponse]:
        self._record(request, context)
        if request.request_id == "unknown":
            await _abort(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        yield customer_pb2.WatchPurchaseRequestResponse(event_id="1")
        if request.request_id == "broken":
            where = {"last_event_id": "1"}
            broken = errors.Unavailable("try again", metadata=where, retry_after_s=1.0)
            yield customer_pb2.WatchPurchaseRequestResponse(error=status_of(broken))
            return
        await self.go_on.wait()
        yield customer_pb2.WatchPurchaseRequestResponse(event_id="2")

    async def WatchPurchaseRequestEvents(
        self, request: customer_pb2.WatchPurchaseRequestEventsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        self._record(request, context)
        async for body in _events(context, self.go_on):
            yield body

    def _record(self, request: Message, context: Context) -> None:
        self.calls.append(_call(request, context, self.number))


class Comparer(customer_pb2_grpc.QuoteServiceServicer):
    """Compares prices of one seller."""

    def __init__(self, number: int, calls: list[Call], go_on: asyncio.Event) -> None:
        self.number = number
        self.calls = calls
        self.go_on = go_on

    async def ListQuotes(
        self, request: customer_pb2.ListQuotesRequest, context: Context
    ) -> customer_pb2.ListQuotesResponse:
        self.calls.append(_call(request, context, self.number))
        return customer_pb2.ListQuotesResponse(book_id=request.book_id)

    async def StreamQuotes(
        self, request: customer_pb2.StreamQuotesRequest, context: Context
    ) -> AsyncIterator[customer_pb2.StreamQuotesResponse]:
        self.calls.append(_call(request, context, self.number))
        yield customer_pb2.StreamQuotesResponse(summary=customer_pb2.Collection(sellers=1))

    async def StreamQuotesEvents(
        self, request: customer_pb2.StreamQuotesEventsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        self.calls.append(_call(request, context, self.number))
        async for body in _events(context, self.go_on):
            yield body


async def _events(context: Context, go_on: asyncio.Event) -> AsyncIterator[httpbody_pb2.HttpBody]:
    if ("last-event-id", "end") in (context.invocation_metadata() or ()):
        await context.send_initial_metadata((("x-http-status", "204"),))
        return
    yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=b"id: 1\ndata: {}\n\n")
    await go_on.wait()
    yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=b"id: 2\ndata: {}\n\n")


def _call(request: Message, context: Context, number: int) -> Call:
    metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
    return Call(request, metadata, context.time_remaining(), number)


async def _abort(context: Context, code: grpc.StatusCode, reason: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.ErrorInfo(reason=reason, domain="bookmesh", metadata={"request_id": "r1"})
    )
    number: tuple[int, str] = code.value
    status = status_pb2.Status(code=number[0], message="the gateway says why", details=[detail])
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, status.message, trailer)


class Ear(customer_pb2_grpc.PaymentEventServiceServicer):
    """Takes events of the payment provider."""

    def __init__(self, number: int, calls: list[Call]) -> None:
        self.number = number
        self.calls = calls

    async def ReceivePaymentEvent(
        self, request: httpbody_pb2.HttpBody, context: Context
    ) -> customer_pb2.ReceivePaymentEventResponse:
        self.calls.append(_call(request, context, self.number))
        return customer_pb2.ReceivePaymentEventResponse()


@dataclass(slots=True)
class Edge:
    """A running Envoy and the gateways behind it."""

    data: DataFolder
    rest_url: str
    grpc_address: str
    calls: list[Call] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    gateways: list[grpc.aio.Server] = field(default_factory=list)

    def token(self, customer: str = "alice", ttl: timedelta = timedelta(minutes=5)) -> str:
        return sign_token(self.data, customer, SystemClock().now(), ttl)

    def client(self, **how: Any) -> httpx.AsyncClient:  # noqa: ANN401  httpx takes much
        """Make a client of the REST API with a good token."""
        headers = {"authorization": f"Bearer {self.token()}"}
        told = {"timeout": CLIENT_S, **how}
        return httpx.AsyncClient(base_url=self.rest_url, headers=headers, trust_env=False, **told)

    async def log_lines(
        self, found: Callable[[dict[str, object]], bool]
    ) -> list[dict[str, object]]:
        """Wait for lines of the access log; give them."""
        while True:
            text = self.data.log(edge.NAME).read_text()
            lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
            if chosen := [line for line in lines if found(line)]:
                return chosen
            await asyncio.sleep(0.05)


MakeEdge = Callable[..., Awaitable[Edge]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make_edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MakeEdge]:
    """Make an Envoy and two gateways, with TLS for customers or without; further settings of the edge as arguments."""
    clock = SystemClock()
    children: list[Child] = []
    servers: list[grpc.aio.Server] = []
    with Ports(tmp_path_factory.mktemp("ports") / "ports.json") as ports:

        async def make(*, tls_for_customers: bool = False, **settings: object) -> Edge:
            data = DataFolder(Path(tmp_path_factory.mktemp("edge")))
            data.prepare()
            ensure_keys(data)
            ensure_certificates(data, clock.now())
            ensure_shown_to_customers(data, clock.now(), tls=tls_for_customers)
            shown = certificates(data, "gateway")
            http_port, grpc_port, admin_port, jwks_port, *gateway_ports = (
                ports.take(str(number)) for number in range(6)
            )
            scheme = "https" if tls_for_customers else "http"
            made = Edge(data, f"{scheme}://{address(http_port)}", address(grpc_port))
            for number, port in enumerate(gateway_ports):
                server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
                customer_pb2_grpc.add_PurchaseServiceServicer_to_server(
                    Gateway(number, made.calls, made.go_on), server
                )
                customer_pb2_grpc.add_QuoteServiceServicer_to_server(
                    Comparer(number, made.calls, made.go_on), server
                )
                customer_pb2_grpc.add_PaymentEventServiceServicer_to_server(
                    Ear(number, made.calls), server
                )
                health_servicer = health.aio.HealthServicer()
                health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
                await health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
                server.add_secure_port(address(port), tls.server_credentials(shown))
                await server.start()
                servers.append(server)
                made.gateways.append(server)
            told = edge.settings(
                data,
                {},
                http_port=http_port,
                grpc_port=grpc_port,
                admin_port=admin_port,
                jwks_port=jwks_port,
                gateways=[f"{HOST}:{port}" for port in gateway_ports],
                tls=tls_for_customers,
            ).model_copy(update=settings)
            program = edge.program(data, told, inherited_environment(), clock)
            _be_patient(data.envoy_config)
            child = Child(program, clock, report=print)
            children.append(child)
            await child.start()
            return made

        yield make
        for child in children:
            await child.stop()
        for server in servers:
            await server.stop(None)


def _be_patient(config: Path) -> None:
    """Have Envoy take no stand-in for lost that is late with its health: it shares a process with its test."""
    written = yaml.safe_load(config.read_text())
    for cluster in written["static_resources"]["clusters"]:
        for check in cluster.get("health_checks", ()):
            check["timeout"] = "30s"
    config.write_text(yaml.safe_dump(written))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def envoy(make_edge: MakeEdge) -> Edge:
    """Give an Envoy that the tests of a module share."""
    return await make_edge()
