"""Events of the payment provider, passed on to an orchestrator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from protovalidate import Validator

from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc as internal_grpc
from gateway.adapters.payment_events import GrpcPaymentEvents
from gateway.payment_event_servicer import PaymentEventServicer
from mesh import errors
from mesh.grpc.errors import from_rpc
from mesh.grpc.interceptor import ServiceInterceptor

EVENT = httpbody_pb2.HttpBody(content_type="application/json", data=b'{"id": "evt_1"}')


class Ear(internal_grpc.PaymentEventServiceServicer):
    """An orchestrator that believes one signature."""

    def __init__(self) -> None:
        self.asked: list[internal.ReceivePaymentEventRequest] = []

    async def ReceivePaymentEvent(
        self,
        request: internal.ReceivePaymentEventRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> internal.ReceivePaymentEventResponse:
        self.asked.append(request)
        if request.signature != "good":
            raise errors.InvalidArgument("not the provider's", reason="SIGNATURE_INVALID")
        return internal.ReceivePaymentEventResponse()


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
async def stub(ear: Ear) -> AsyncIterator[customer_pb2_grpc.PaymentEventServiceAsyncStub]:
    """Give the provider's stub of a gateway."""
    async with AsyncExitStack() as stack:

        async def opened(server: grpc.aio.Server) -> grpc.aio.Channel:
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))

        def server() -> grpc.aio.Server:
            interceptor = ServiceInterceptor(
                Validator(), default_timeout_s=10.0, unbounded=(), only="bookmesh."
            )
            return grpc.aio.server(interceptors=[interceptor])

        orchestrator, gateway = server(), server()
        internal_grpc.add_PaymentEventServiceServicer_to_server(ear, orchestrator)
        events = GrpcPaymentEvents(
            internal_grpc.PaymentEventServiceStub(await opened(orchestrator))
        )
        customer_pb2_grpc.add_PaymentEventServiceServicer_to_server(
            PaymentEventServicer(events), gateway
        )
        yield customer_pb2_grpc.PaymentEventServiceStub(await opened(gateway))


async def test_an_event_is_passed_on_byte_by_byte(
    stub: customer_pb2_grpc.PaymentEventServiceAsyncStub, ear: Ear
) -> None:
    await stub.ReceivePaymentEvent(EVENT, metadata=(("stripe-signature", "good"),))
    assert ear.asked == [internal.ReceivePaymentEventRequest(payload=EVENT.data, signature="good")]


@pytest.mark.parametrize(
    ("signatures", "asked"),
    [([], 0), (["good", "good"], 0), (["forged"], 1)],
    ids=["none", "two", "forged"],
)
async def test_an_event_without_its_proof_is_refused(
    stub: customer_pb2_grpc.PaymentEventServiceAsyncStub,
    ear: Ear,
    signatures: list[str],
    asked: int,
) -> None:
    metadata = tuple(("stripe-signature", signature) for signature in signatures)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ReceivePaymentEvent(EVENT, metadata=metadata)
    error = from_rpc(caught.value)
    assert (type(error), error.reason) == (errors.InvalidArgument, "SIGNATURE_INVALID")
    assert len(ear.asked) == asked
