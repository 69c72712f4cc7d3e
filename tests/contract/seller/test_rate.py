"""Rule 4 of the contract: how often a seller may be called."""

from __future__ import annotations

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.grpc.errors import from_rpc
from tests.contract.seller.subject import Control, Subject


async def _refusal(seller: Subject) -> float:
    """Make a call too many; give after how many seconds the seller says to try again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await seller.call(seller.stub.GetQuote, seller.quote_request(seller.book_id))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after_s = from_rpc(caught.value).retry_after_s
    assert retry_after_s is not None
    return retry_after_s


async def test_calls_above_the_limit_are_refused_until_the_time_that_is_said(
    seller: Subject, control: Control
) -> None:
    await control.change(calls_per_minute=3)
    control.push(60)
    for _ in range(3):
        await seller.quote()
        control.push(10)
    retry_after_s = await _refusal(seller)
    assert 20 < retry_after_s <= 30
    control.push(retry_after_s - 10)
    assert await _refusal(seller) <= 10
    control.push(10)
    await seller.quote()
    assert await _refusal(seller) > 0


async def test_calls_of_all_methods_count_and_a_batch_counts_once(
    seller: Subject, control: Control
) -> None:
    await control.change(calls_per_minute=3)
    control.push(60)
    await seller.call(seller.stub.GetCapabilities, pb.GetCapabilitiesRequest())
    batch = pb.BatchGetQuotesRequest(requests=[seller.quote_request(seller.book_id)] * 3)
    await seller.call(seller.stub.BatchGetQuotes, batch)
    invalid = pb.GetQuoteRequest()
    code = await seller.refused(seller.stub.GetQuote, invalid)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    await _refusal(seller)


async def test_books_above_the_limit_are_refused(seller: Subject, control: Control) -> None:
    await control.change(quotes_per_minute=4)
    batch = pb.BatchGetQuotesRequest(requests=[seller.quote_request(seller.book_id)] * 3)
    await seller.call(seller.stub.BatchGetQuotes, batch)
    code = await seller.refused(seller.stub.BatchGetQuotes, batch)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await seller.quote()
    await _refusal(seller)
    control.push(60)
    await seller.call(seller.stub.BatchGetQuotes, batch)


async def test_a_refused_order_changes_nothing(seller: Subject, control: Control) -> None:
    request = await seller.order_request()
    control.push(60)
    request.not_after.seconds += 60
    await control.change(calls_per_minute=1)
    await seller.quote()
    code = await seller.refused(seller.stub.PlaceOrder, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await control.change(calls_per_minute=100)
    missing = pb.GetOrderRequest(idempotency_key=request.idempotency_key)
    assert await seller.refused(seller.stub.GetOrder, missing) is grpc.StatusCode.NOT_FOUND
    assert (await seller.confirmed(request)).order_id
