from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import structlog
from google.api import httpbody_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from protovalidate import Validator

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc as pb_grpc
from mesh import errors
from mesh.errors import FieldViolation
from mesh.grpc import deadline
from mesh.grpc import interceptor as interceptor_module
from mesh.grpc.errors import from_rpc
from mesh.grpc.interceptor import ServiceInterceptor

SERVICE = "bookmesh.customer.v1.PurchaseService"
Context = grpc.aio.ServicerContext[Any, Any]


class Servicer(pb_grpc.PurchaseServiceServicer):
    """Does what the test says; by default answers with the deadline that it was given."""

    def __init__(self) -> None:
        self.act: Callable[[], Awaitable[object]] = self.note_deadline
        self.remaining_s: float | None = None

    async def note_deadline(self) -> None:
        self.remaining_s = deadline.remaining()

    async def CreatePurchaseRequest(
        self, request: pb.CreatePurchaseRequestRequest, context: Context
    ) -> pb.CreatePurchaseRequestResponse:
        await self.act()
        return pb.CreatePurchaseRequestResponse(request_id="made")

    async def GetPurchaseRequest(
        self, request: pb.GetPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        raise NotImplementedError

    async def ListPurchaseRequests(
        self, request: pb.ListPurchaseRequestsRequest, context: Context
    ) -> pb.ListPurchaseRequestsResponse:
        raise NotImplementedError

    async def CancelPurchaseRequest(
        self, request: pb.CancelPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        raise NotImplementedError

    async def AcceptOffer(
        self, request: pb.AcceptOfferRequest, context: Context
    ) -> pb.AcceptOfferResponse:
        raise NotImplementedError

    async def WatchPurchaseRequest(
        self, request: pb.WatchPurchaseRequestRequest, context: Context
    ) -> AsyncIterator[pb.WatchPurchaseRequestResponse]:
        yield pb.WatchPurchaseRequestResponse(event_id="1")
        await self.act()
        yield pb.WatchPurchaseRequestResponse(event_id="2")

    async def WatchPurchaseRequestEvents(
        self, request: pb.WatchPurchaseRequestEventsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=b":\n\n")


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def interceptor() -> ServiceInterceptor:
    return ServiceInterceptor(
        Validator(),
        default_timeout_s=7.0,
        unbounded=[f"/{SERVICE}/WatchPurchaseRequest"],
        only="bookmesh.",
    )


@pytest.fixture
async def channel(
    servicer: Servicer, interceptor: ServiceInterceptor
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[interceptor])
    pb_grpc.add_PurchaseServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> pb_grpc.PurchaseServiceAsyncStub:
    return pb_grpc.PurchaseServiceStub(channel)


GOOD = pb.CreatePurchaseRequestRequest(book_id="b", max_price=1.5, payment_token="tok")


async def test_a_request_that_breaks_its_rules_names_every_field(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    request = pb.CreatePurchaseRequestRequest(
        book_id="b" * 65,
        max_price=-1,
        conditions=[pb.BookCondition.new, pb.BookCondition.unspecified],
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreatePurchaseRequest(request)
    error = from_rpc(caught.value)
    assert type(error) is errors.InvalidArgument
    assert [violation.field for violation in error.fields] == [
        "book_id",
        "max_price",
        "payment_token",
        "conditions[1]",
    ]
    for violation in error.fields:
        assert violation.description
        assert f"{violation.field}: {violation.description}" in error.message
    assert servicer.remaining_s is None


@pytest.mark.parametrize("method", ["CreatePurchaseRequest", "WatchPurchaseRequest"])
async def test_what_is_no_message_is_refused(channel: grpc.aio.Channel, method: str) -> None:
    open_call: Any = channel.unary_stream(f"/{SERVICE}/{method}")
    call = open_call(b"\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert type(from_rpc(caught.value)) is errors.InvalidArgument


async def test_a_stream_is_refused_by_its_rules_too(
    stub: pb_grpc.PurchaseServiceAsyncStub,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.WatchPurchaseRequest(pb.WatchPurchaseRequestRequest()).read()
    assert [violation.field for violation in from_rpc(caught.value).fields] == ["request_id"]


async def test_a_call_without_a_deadline_gets_the_default(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    await stub.CreatePurchaseRequest(GOOD)
    assert servicer.remaining_s is not None
    assert 0 < servicer.remaining_s <= 7.0


async def test_a_call_keeps_the_deadline_that_it_came_with(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    await stub.CreatePurchaseRequest(GOOD, timeout=50)
    assert servicer.remaining_s is not None
    # gRPC rounds it up on the wire.
    assert 7.0 < servicer.remaining_s < 51


async def test_an_unbounded_method_has_no_deadline_unless_it_came_with_one(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    request = pb.WatchPurchaseRequestRequest(request_id="r")
    assert [event.event_id async for event in stub.WatchPurchaseRequest(request)] == ["1", "2"]
    assert servicer.remaining_s is None
    assert len([event async for event in stub.WatchPurchaseRequest(request, timeout=50)]) == 2
    assert servicer.remaining_s is not None


ERROR = errors.FailedPrecondition(
    "the card was declined",
    reason="CARD_DECLINED",
    metadata={"request_id": "r"},
    fields=(FieldViolation("payment_token", "was declined"),),
    retry_after_s=1.5,
)


async def test_an_error_reaches_the_caller_with_its_details(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    async def fail() -> None:
        raise ERROR

    servicer.act = fail
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreatePurchaseRequest(GOOD)
    back = from_rpc(caught.value)
    assert type(back) is type(ERROR)
    assert vars(back) == vars(ERROR)


async def test_an_error_in_a_stream_follows_what_was_sent(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    async def fail() -> None:
        raise ERROR

    servicer.act = fail
    call = stub.WatchPurchaseRequest(pb.WatchPurchaseRequestRequest(request_id="r"))
    assert await call.read() == pb.WatchPurchaseRequestResponse(event_id="1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert from_rpc(caught.value).reason == "CARD_DECLINED"


async def test_an_unknown_exception_is_logged_and_tells_the_caller_nothing(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer
) -> None:
    async def fail() -> None:
        msg = "secret tok_abc"
        raise RuntimeError(msg)

    servicer.act = fail
    with structlog.testing.capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreatePurchaseRequest(GOOD)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "something of ours went wrong; it has been logged"
    assert b"tok_abc" not in b"".join(
        value if isinstance(value, bytes) else value.encode()
        for _, value in caught.value.trailing_metadata()
    )
    assert [line["event"] for line in logs] == ["rpc failed"]


async def test_a_call_that_is_not_done_in_time_says_so(
    channel: grpc.aio.Channel, servicer: Servicer
) -> None:
    """The server's own limit ends the call, here that of a client that keeps waiting."""
    interceptor = ServiceInterceptor(
        Validator(), default_timeout_s=0.05, unbounded=(), only="bookmesh."
    )
    server = grpc.aio.server(interceptors=[interceptor])
    pb_grpc.add_PurchaseServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    servicer.act = asyncio.Event().wait
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as impatient:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.PurchaseServiceStub(impatient).CreatePurchaseRequest(GOOD)
    await server.stop(None)
    assert isinstance(from_rpc(caught.value), errors.DeadlineExceeded)
    assert "not done in the time" in from_rpc(caught.value).message


async def test_health_is_left_alone(channel: grpc.aio.Channel) -> None:
    """No rules, no deadline, no translation: an unknown service stays a bare NOT_FOUND."""
    check: grpc.aio.UnaryUnaryMultiCallable[
        health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    ] = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    answer = await check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "grpc-status-details-bin" not in dict(caught.value.trailing_metadata())


async def test_open_ended_calls_can_be_handed_over_and_others_go_on(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer, interceptor: ServiceInterceptor
) -> None:
    go_on = asyncio.Event()
    servicer.act = go_on.wait
    watch = stub.WatchPurchaseRequest(pb.WatchPurchaseRequestRequest(request_id="r"))
    await watch.read()
    create = asyncio.ensure_future(stub.CreatePurchaseRequest(GOOD))
    interceptor.end_unbounded()
    later = stub.WatchPurchaseRequest(pb.WatchPurchaseRequestRequest(request_id="r"))
    for call in (watch, later):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        error = from_rpc(caught.value)
        assert (type(error), error.reason) == (errors.Unavailable, "DRAINING")
    go_on.set()
    assert (await create).request_id == "made"


async def test_every_call_is_measured_by_how_it_ends(
    stub: pb_grpc.PurchaseServiceAsyncStub, servicer: Servicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    monkeypatch.setattr(interceptor_module, "_duration_s", meter.create_histogram("duration"))

    async def refuse() -> None:
        raise errors.NotFound("nothing there")

    await stub.CreatePurchaseRequest(GOOD)
    async for _ in stub.WatchPurchaseRequest(pb.WatchPurchaseRequestRequest(request_id="r")):
        pass
    servicer.act = refuse
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.CreatePurchaseRequest(GOOD)
    data = reader.get_metrics_data()
    assert data is not None
    [point_of] = [
        metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    seen = {
        (str(attributes["rpc.method"]), str(attributes["rpc.response.status_code"]))
        for point in point_of
        if (attributes := point.attributes) is not None
    }
    assert seen == {
        (f"{SERVICE}/CreatePurchaseRequest", "OK"),
        (f"{SERVICE}/CreatePurchaseRequest", "NOT_FOUND"),
        (f"{SERVICE}/WatchPurchaseRequest", "OK"),
    }
