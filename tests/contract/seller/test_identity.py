"""Rule 1 of the contract: who calls."""

from __future__ import annotations

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from tests.contract.seller.subject import Subject, new_key

METHODS = (
    ("GetCapabilities", pb.GetCapabilitiesRequest()),
    ("GetQuote", pb.GetQuoteRequest()),
    ("BatchGetQuotes", pb.BatchGetQuotesRequest()),
    ("HoldBook", pb.HoldBookRequest()),
    ("ReleaseHold", pb.ReleaseHoldRequest()),
    ("PlaceOrder", pb.PlaceOrderRequest()),
    ("GetOrder", pb.GetOrderRequest()),
    ("CancelOrder", pb.CancelOrderRequest()),
    ("ListOrders", pb.ListOrdersRequest()),
)


@pytest.mark.parametrize(("method", "request_"), METHODS, ids=[name for name, _ in METHODS])
@pytest.mark.parametrize("credential", ["", "Bearer wrong", "Basic wrong"])
async def test_a_caller_it_does_not_know_is_unauthenticated(
    seller: Subject, method: str, request_: pb.GetQuoteRequest, credential: str
) -> None:
    metadata = (("authorization", credential),) if credential else ()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(seller.stub, method)(request_, metadata=metadata, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_order_of_an_unknown_caller_changes_nothing(seller: Subject) -> None:
    request = await seller.order_request(new_key())
    with pytest.raises(grpc.aio.AioRpcError):
        await seller.stub.PlaceOrder(request, timeout=10)
    missing = pb.GetOrderRequest(idempotency_key=request.idempotency_key)
    assert await seller.refused(seller.stub.GetOrder, missing) is grpc.StatusCode.NOT_FOUND
