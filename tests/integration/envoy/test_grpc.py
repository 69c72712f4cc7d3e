"""The gRPC listener: the same calls as they are, without JSON."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from bookmesh.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from tests.integration.envoy.conftest import Edge
from tests.integration.envoy.test_rest import OTHER_SCOPES, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")


def bearer(envoy: Edge) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {envoy.token()}"),)


async def test_a_purchase_is_accepted_without_the_traces_of_rest(envoy: Edge) -> None:
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        call = customer_pb2_grpc.PurchaseServiceStub(channel).CreatePurchaseRequest(
            customer_pb2.CreatePurchaseRequestRequest(
                book_id="b", max_price=1.0, payment_token="t"
            ),
            metadata=bearer(envoy),
        )
        response = await call
        headers = dict(await call.initial_metadata())
    assert response.status == customer_pb2.PurchaseStatus.pending
    assert "x-http-status" not in headers


async def test_a_refusal_keeps_its_status_and_details(envoy: Edge) -> None:
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as declined:
            await customer_pb2_grpc.PurchaseServiceStub(channel).CreatePurchaseRequest(
                customer_pb2.CreatePurchaseRequestRequest(payment_token="tok_declined"),
                metadata=bearer(envoy),
            )
    assert of(declined.value) == ("FAILED_PRECONDITION", "CARD_DECLINED")


async def refused(
    envoy: Edge,
    authorization: str | None = None,
    request: customer_pb2.GetPurchaseRequestRequest | None = None,
) -> tuple[str, str]:
    """Make a call that the edge refuses; give its status and the reason, after a look at the form of the error."""
    before = len(envoy.calls)
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await customer_pb2_grpc.PurchaseServiceStub(channel).GetPurchaseRequest(
                request or customer_pb2.GetPurchaseRequestRequest(request_id="r1"),
                metadata=(("authorization", authorization),) if authorization else (),
                timeout=10,
            )
    assert len(envoy.calls) == before
    return of(caught.value)


def of(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    trailer = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(trailer["grpc-status-details-bin"]))
    # Libraries take details of another status or message for forged.
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "bookmesh"
    return error.code().name, info.reason


async def test_a_call_without_a_good_token_is_told_why(envoy: Edge) -> None:
    expired = f"Bearer {envoy.token(ttl=timedelta(minutes=-5))}"
    assert await refused(envoy) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    assert await refused(envoy, expired) == ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    assert await refused(envoy, "Bearer abc") == ("UNAUTHENTICATED", "TOKEN_INVALID")
    elsewhere = signed({"aud": "elsewhere"}, envoy.data.issuer_key.read_text())
    assert await refused(envoy, f"Bearer {elsewhere}") == ("UNAUTHENTICATED", "TOKEN_INVALID")


@pytest.mark.parametrize("scope", OTHER_SCOPES)
async def test_a_token_for_something_else_is_told_so(envoy: Edge, scope: str) -> None:
    token = signed({"scope": scope}, envoy.data.issuer_key.read_text())
    assert await refused(envoy, f"Bearer {token}") == ("PERMISSION_DENIED", "SCOPE_MISSING")


async def test_the_word_before_a_token_may_be_in_any_case(envoy: Edge) -> None:
    request = customer_pb2.GetPurchaseRequestRequest(request_id="r1")
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        got = await customer_pb2_grpc.PurchaseServiceStub(channel).GetPurchaseRequest(
            request, metadata=(("authorization", f"bearer {envoy.token()}"),)
        )
    assert got.request_id == "r1"


async def test_an_answer_that_is_no_http_is_unavailable(envoy: Edge) -> None:
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as garbled:
            await customer_pb2_grpc.PurchaseServiceStub(channel).CreatePurchaseRequest(
                customer_pb2.CreatePurchaseRequestRequest(payment_token="tok_garbled"),
                metadata=bearer(envoy),
            )
    assert of(garbled.value) == ("UNAVAILABLE", "UNAVAILABLE")


async def test_a_message_that_is_too_large_is_refused_as_over_rest(envoy: Edge) -> None:
    token = f"Bearer {envoy.token()}"
    for size in (65_536, 200_000, 5_000_000):
        request = customer_pb2.GetPurchaseRequestRequest(request_id="r" * size)
        assert await refused(envoy, token, request) == ("INVALID_ARGUMENT", "BODY_TOO_LARGE")


async def test_internal_services_are_not_there(envoy: Edge) -> None:
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await orchestrator_pb2_grpc.PurchaseServiceStub(channel).GetPurchase(
                orchestrator_pb2.GetPurchaseRequest(), metadata=bearer(envoy)
            )
    assert of(unknown.value) == ("UNIMPLEMENTED", "UNIMPLEMENTED")


async def test_a_call_gets_a_deadline_if_it_has_none_and_keeps_its_own(envoy: Edge) -> None:
    request = customer_pb2.GetPurchaseRequestRequest(request_id="r1")
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        stub = customer_pb2_grpc.PurchaseServiceStub(channel)
        await stub.GetPurchaseRequest(request, metadata=bearer(envoy))
        given_s = envoy.calls[-1].time_remaining_s
        await stub.GetPurchaseRequest(request, metadata=bearer(envoy), timeout=4.0)
        own_s = envoy.calls[-1].time_remaining_s
    assert given_s is not None
    assert given_s <= 5
    assert own_s is not None
    # On the wire a timeout is rounded up.
    assert own_s < 4.1


async def test_a_watch_streams_for_an_hour_at_most(envoy: Edge) -> None:
    envoy.go_on.clear()
    async with grpc.aio.insecure_channel(envoy.grpc_address) as channel:
        watch = customer_pb2_grpc.PurchaseServiceStub(channel).WatchPurchaseRequest(
            customer_pb2.WatchPurchaseRequestRequest(request_id="r1"), metadata=bearer(envoy)
        )
        events = aiter(watch)
        assert (await anext(events)).event_id == "1"
        envoy.go_on.set()
        assert [event.event_id async for event in events] == ["2"]
    remaining_s = envoy.calls[-1].time_remaining_s
    assert remaining_s is not None
    assert 3000 < remaining_s <= 3600
