"""ListOrders: what reconciliation compares with."""

from __future__ import annotations

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.convert import from_timestamp
from tests.contract.seller.subject import Control, Subject, new_key


async def test_pages_give_every_order_once_oldest_update_first(seller: Subject) -> None:
    keys = [(await seller.buy()).idempotency_key for _ in range(3)]
    since = (await seller.order(keys[0])).update_time
    await seller.cancel(keys[0])
    request = pb.ListOrdersRequest(update_time_from=since, page_size=2)
    orders: list[pb.Order] = []
    while True:
        page = await seller.call(seller.stub.ListOrders, request)
        assert len(page.orders) <= 2
        orders.extend(page.orders)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    listed = [order.idempotency_key for order in orders]
    assert sorted(key for key in listed if key in keys) == sorted(keys)
    assert len(listed) == len(set(listed))
    times = [from_timestamp(order.update_time) for order in orders]
    assert times == sorted(times)


async def test_an_order_is_listed_as_it_is_found(seller: Subject) -> None:
    order = await seller.order((await seller.buy()).idempotency_key)
    request = pb.ListOrdersRequest(update_time_from=order.update_time, page_size=1_000)
    assert order in (await seller.call(seller.stub.ListOrders, request)).orders


async def test_only_what_changed_since_is_listed(seller: Subject) -> None:
    first = (await seller.buy()).idempotency_key
    second = await seller.order((await seller.buy()).idempotency_key)
    request = pb.ListOrdersRequest(update_time_from=second.update_time)
    response = await seller.call(seller.stub.ListOrders, request)
    listed = [order.idempotency_key for order in response.orders]
    assert second.idempotency_key in listed
    assert first not in listed


async def test_closed_keys_are_listed_too(seller: Subject) -> None:
    if not seller.capabilities.supports_cancel_before_order:
        pytest.skip("this seller does not close keys")
    key = new_key()
    await seller.cancel(key)
    since = (await seller.order(key)).update_time
    request = pb.ListOrdersRequest(update_time_from=since)
    response = await seller.call(seller.stub.ListOrders, request)
    (order,) = [order for order in response.orders if order.idempotency_key == key]
    assert order.WhichOneof("state") == "closed"


async def test_a_pending_order_is_listed_again_once_it_is_decided(
    seller: Subject, control: Control
) -> None:
    await control.change(pending_rate=1, pending_s=20)
    request = await seller.order_request()
    key = request.idempotency_key
    await seller.place(request)
    control.push(20)
    await control.change(pending_rate=0)
    later = await seller.order((await seller.buy()).idempotency_key)
    response = await seller.call(seller.stub.ListOrders, pb.ListOrdersRequest())
    states = {order.idempotency_key: order.WhichOneof("state") for order in response.orders}
    assert states == {key: "confirmed", later.idempotency_key: "confirmed"}


@pytest.mark.parametrize(
    "wrong",
    [pb.ListOrdersRequest(page_size=1_001), pb.ListOrdersRequest(page_token="not one of yours")],
    ids=["page size", "page token"],
)
async def test_a_page_that_was_never_offered_is_invalid(
    seller: Subject, wrong: pb.ListOrdersRequest
) -> None:
    code = await seller.refused(seller.stub.ListOrders, wrong)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
