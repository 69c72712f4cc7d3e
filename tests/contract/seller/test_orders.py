"""PlaceOrder, GetOrder and CancelOrder, with the rule of idempotency."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.type.money_pb2 import Money

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.convert import from_timestamp, money_from_proto, seconds
from tests.contract.seller.subject import Control, Subject, in_seconds, less, new_key

Reason = pb.Rejection
Cancelled = pb.CancelOrderResponse


async def test_an_order_is_confirmed_for_at_most_max_total(seller: Subject) -> None:
    request = await seller.order_request()
    confirmed = await seller.confirmed(request)
    assert confirmed.order_id
    total, most = money_from_proto(confirmed.total), money_from_proto(request.max_total)
    assert total.currency == most.currency
    assert 0 < total.minor <= most.minor


async def test_an_order_takes_one_copy(seller: Subject, control: Control) -> None:
    before = (await seller.quote()).quantity
    request = await seller.buy()
    assert (await seller.quote()).quantity == before - 1
    await seller.place(request)
    assert (await seller.quote()).quantity == before - 1


async def test_the_same_order_again_gets_the_first_answer(seller: Subject) -> None:
    request = await seller.order_request()
    first = await seller.place(request)
    assert await seller.place(request) == first


async def test_the_first_answer_is_given_long_after_not_after(
    seller: Subject, control: Control
) -> None:
    request = await seller.order_request()
    first = await seller.place(request)
    control.push(7 * 86_400)
    assert await seller.place(request) == first


@pytest.mark.parametrize(
    "change",
    [
        pb.PlaceOrderRequest(book_id="another-book"),
        pb.PlaceOrderRequest(buyer_reference="another-buyer"),
        pb.PlaceOrderRequest(delivery_reference="another-address"),
        pb.PlaceOrderRequest(max_total=Money(units=1)),
        pb.PlaceOrderRequest(not_after=in_seconds(7_200)),
    ],
    ids=["book", "buyer", "delivery", "max_total", "not_after"],
)
async def test_a_key_that_ordered_something_else_already_exists(
    seller: Subject, change: pb.PlaceOrderRequest
) -> None:
    request = await seller.buy()
    before = await seller.order(request.idempotency_key)
    request.MergeFrom(change)
    code = await seller.refused(seller.stub.PlaceOrder, request)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert await seller.order(request.idempotency_key) == before


async def test_a_key_that_ordered_from_another_source_already_exists(seller: Subject) -> None:
    request = await seller.buy()
    other = await seller.order_request(request.idempotency_key)
    other.not_after.CopyFrom(request.not_after)
    code = await seller.refused(seller.stub.PlaceOrder, other)
    assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_holds_and_orders_have_keys_of_their_own(holding_seller: Subject) -> None:
    key = new_key()
    hold = await holding_seller.hold(key)
    request = await holding_seller.order_request(key)
    request.hold_id = hold.hold_id
    request.max_total.CopyFrom(hold.total)
    assert (await holding_seller.confirmed(request)).order_id


async def test_more_than_max_total_is_never_charged(seller: Subject) -> None:
    request = await seller.order_request()
    dear = pb.PlaceOrderRequest()
    dear.CopyFrom(request)
    dear.max_total.CopyFrom(less(request.max_total))
    response = await seller.place(dear)
    assert response.rejected.reason == Reason.REASON_PRICE_CHANGED
    # A rejection is an answer: it uses its key up, and has no side effects.
    code = await seller.refused(seller.stub.PlaceOrder, request)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    request.idempotency_key = new_key()
    assert (await seller.confirmed(request)).order_id


async def test_an_order_that_costs_more_than_was_quoted_says_the_new_price(
    atomic_seller: Subject, control: Control
) -> None:
    await control.change(reprice_rate=1, reprice_by=0.2)
    request = await atomic_seller.order_request()
    response = await atomic_seller.place(request)
    assert response.rejected.reason == Reason.REASON_PRICE_CHANGED
    quoted = money_from_proto(request.max_total).minor
    updated = response.rejected.updated_quote
    assert money_from_proto(updated.total).minor == round(quoted * 1.2)
    await control.change(reprice_rate=0)
    again = await atomic_seller.order_request()
    again.quote_id = updated.quote_id
    again.max_total.CopyFrom(updated.total)
    assert (await atomic_seller.place(again)).confirmed.total == updated.total


async def test_a_seller_may_be_told_to_ignore_max_total(
    atomic_seller: Subject, control: Control
) -> None:
    await control.change(reprice_rate=1, reprice_by=0.2, heeds_max_total=False)
    request = await atomic_seller.order_request()
    quoted = money_from_proto(request.max_total).minor
    response = await atomic_seller.place(request)
    assert money_from_proto(response.confirmed.total).minor == round(quoted * 1.2)


async def test_an_order_that_costs_less_than_was_quoted_is_confirmed_for_less(
    seller: Subject, control: Control
) -> None:
    await control.change(reprice_rate=1, reprice_by=-0.2)
    quoted = money_from_proto((await seller.quote()).total).minor
    response = await seller.place(await seller.order_request())
    assert money_from_proto(response.confirmed.total).minor == round(quoted * 0.8)


async def test_nothing_is_bought_after_not_after(seller: Subject) -> None:
    if not seller.capabilities.honours_not_after:
        pytest.skip("this seller takes no heed of not_after")
    request = await seller.order_request()
    request.not_after.CopyFrom(in_seconds(-60))
    response = await seller.place(request)
    assert response.rejected.reason == Reason.REASON_PAST_NOT_AFTER


async def test_nothing_is_bought_from_what_was_never_given(seller: Subject) -> None:
    request = await seller.order_request()
    if seller.capabilities.supports_holds:
        request.hold_id = "no-such-hold"
        reason = Reason.REASON_HOLD_EXPIRED
    else:
        request.quote_id = "no-such-quote"
        reason = Reason.REASON_QUOTE_EXPIRED
    response = await seller.place(request)
    assert response.rejected.reason == reason
    order = await seller.order(request.idempotency_key)
    assert order.rejected.reason == reason


async def test_a_hold_is_ordered_from_once(holding_seller: Subject) -> None:
    request = await holding_seller.buy()
    request.idempotency_key = new_key()
    response = await holding_seller.place(request)
    assert response.rejected.reason == Reason.REASON_HOLD_EXPIRED


async def test_a_quote_serves_several_orders(atomic_seller: Subject) -> None:
    request = await atomic_seller.buy()
    request.idempotency_key = new_key()
    assert (await atomic_seller.confirmed(request)).order_id


async def test_a_copy_that_is_gone_is_not_sold(atomic_seller: Subject, control: Control) -> None:
    request = await atomic_seller.order_request()
    for _ in range((await atomic_seller.quote()).quantity):
        await atomic_seller.buy()
    response = await atomic_seller.place(request)
    assert response.rejected.reason == Reason.REASON_OUT_OF_STOCK


async def test_a_seller_can_refuse_for_reasons_of_its_own(
    atomic_seller: Subject, control: Control
) -> None:
    await control.change(refused_rate=1)
    response = await atomic_seller.place(await atomic_seller.order_request())
    assert response.rejected.reason == Reason.REASON_REFUSED


async def test_an_order_whose_key_is_being_worked_on_is_aborted(
    seller: Subject, control: Control
) -> None:
    request = await seller.order_request()
    await control.change(latency_constant_ms=30_000)
    first = asyncio.create_task(seller.place(request))
    await control.working()
    assert await seller.refused(seller.stub.PlaceOrder, request) is grpc.StatusCode.ABORTED
    other = pb.PlaceOrderRequest()
    other.CopyFrom(request)
    other.buyer_reference = "another"
    code = await seller.refused(seller.stub.PlaceOrder, other)
    assert code is grpc.StatusCode.ALREADY_EXISTS
    control.push(30)
    assert (await first).WhichOneof("outcome") == "confirmed"


@pytest.mark.parametrize(
    "wrong",
    [
        pb.PlaceOrderRequest(idempotency_key="k" * 201),
        pb.PlaceOrderRequest(buyer_reference="b" * 65),
        pb.PlaceOrderRequest(max_total=Money(units=-1)),
        pb.PlaceOrderRequest(max_total=Money(nanos=1)),
    ],
    ids=["long key", "long buyer", "negative", "finer than the currency"],
)
async def test_an_order_that_breaks_the_rules_is_invalid_and_leaves_its_key_free(
    seller: Subject, wrong: pb.PlaceOrderRequest
) -> None:
    request = await seller.order_request()
    invalid = pb.PlaceOrderRequest()
    invalid.CopyFrom(request)
    invalid.MergeFrom(wrong)
    if wrong.max_total.units:
        invalid.max_total.units = -1
    code = await seller.refused(seller.stub.PlaceOrder, invalid)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await seller.confirmed(request)).order_id


async def test_an_order_needs_its_source_its_limit_and_its_time(seller: Subject) -> None:
    for field in ("source", "max_total", "not_after", "book_id", "buyer_reference"):
        request = await seller.order_request()
        request.ClearField(field)
        code = await seller.refused(seller.stub.PlaceOrder, request)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, field


async def test_an_order_is_found_by_the_callers_key(seller: Subject) -> None:
    request = await seller.order_request()
    confirmed = await seller.confirmed(request)
    order = await seller.order(request.idempotency_key)
    assert order.idempotency_key == request.idempotency_key
    assert order.buyer_reference == request.buyer_reference
    assert order.book_id == request.book_id
    assert order.confirmed == confirmed
    assert from_timestamp(order.create_time) <= from_timestamp(order.update_time)


async def test_an_order_that_never_arrived_is_not_found(seller: Subject) -> None:
    request = pb.GetOrderRequest(idempotency_key=new_key())
    assert await seller.refused(seller.stub.GetOrder, request) is grpc.StatusCode.NOT_FOUND


async def test_an_order_that_is_being_worked_on_is_not_found_yet(
    seller: Subject, control: Control
) -> None:
    request = await seller.order_request()
    await control.change(latency_constant_ms=30_000)
    first = asyncio.create_task(seller.place(request))
    await control.working()
    await control.change(latency_constant_ms=0)
    missing = pb.GetOrderRequest(idempotency_key=request.idempotency_key)
    assert await seller.refused(seller.stub.GetOrder, missing) is grpc.StatusCode.NOT_FOUND
    control.push(30)
    placed = await first
    assert (await seller.order(request.idempotency_key)).confirmed == placed.confirmed


async def test_a_pending_order_is_confirmed_later(seller: Subject, control: Control) -> None:
    await control.change(pending_rate=1, pending_s=20)
    request = await seller.order_request()
    placed = await seller.place(request)
    assert seconds(placed.pending.retry_after) > 0
    pending = await seller.order(request.idempotency_key)
    assert pending.WhichOneof("state") == "pending"
    control.push(20)
    decided = await seller.order(request.idempotency_key)
    assert decided.confirmed.order_id
    assert from_timestamp(decided.update_time) > from_timestamp(pending.update_time)
    assert await seller.place(request) == placed


async def test_a_pending_order_can_be_rejected_and_gives_its_copy_back(
    seller: Subject, control: Control
) -> None:
    before = (await seller.quote()).quantity
    await control.change(pending_rate=1, pending_s=20, pending_rejected_rate=1)
    request = await seller.order_request()
    await seller.place(request)
    assert (await seller.quote()).quantity == before - 1
    control.push(20)
    order = await seller.order(request.idempotency_key)
    assert order.rejected.reason == Reason.REASON_OUT_OF_STOCK
    assert (await seller.quote()).quantity == before


async def test_a_cancel_before_the_order_closes_the_key_for_good(seller: Subject) -> None:
    if not seller.capabilities.supports_cancel_before_order:
        pytest.skip("this seller does not close keys")
    request = await seller.order_request()
    key = request.idempotency_key
    closed = await seller.cancel(key)
    assert closed.result == Cancelled.RESULT_CLOSED
    response = await seller.place(request)
    assert response.rejected.reason == Reason.REASON_KEY_CLOSED
    assert await seller.place(request) == response
    assert (await seller.order(key)).WhichOneof("state") == "closed"
    assert await seller.cancel(key) == closed


async def test_a_cancel_overtakes_an_order_that_is_being_worked_on(
    seller: Subject, control: Control
) -> None:
    request = await seller.order_request()
    await control.change(latency_constant_ms=30_000)
    first = asyncio.create_task(seller.place(request))
    await control.working()
    await control.change(latency_constant_ms=0)
    closed = await seller.cancel(request.idempotency_key)
    assert closed.result == Cancelled.RESULT_CLOSED
    control.push(30)
    assert (await first).rejected.reason == Reason.REASON_KEY_CLOSED
    assert (await seller.order(request.idempotency_key)).WhichOneof("state") == "closed"


async def test_a_seller_that_closes_no_keys_knows_no_order_to_cancel(
    seller: Subject, control: Control
) -> None:
    await control.change(supports_cancel_before_order=False)
    request = await seller.order_request()
    missing = pb.CancelOrderRequest(idempotency_key=request.idempotency_key)
    assert await seller.refused(seller.stub.CancelOrder, missing) is grpc.StatusCode.NOT_FOUND
    assert (await seller.confirmed(request)).order_id


async def test_a_cancel_of_an_order_says_what_became_of_it(seller: Subject) -> None:
    key = (await seller.buy()).idempotency_key
    before = await seller.order(key)
    response = await seller.cancel(key)
    after = await seller.order(key)
    if response.result == Cancelled.RESULT_TOO_LATE:
        assert response.order == before
    else:
        assert response.result == Cancelled.RESULT_CANCELLED
        assert after.WhichOneof("state") == "cancelled"
        assert after.cancelled.order_id == before.confirmed.order_id
        assert from_timestamp(after.update_time) > from_timestamp(before.update_time)
    assert after == response.order
    assert await seller.cancel(key) == response


async def test_a_cancelled_order_gives_its_copy_back_and_stays_cancelled(
    seller: Subject, control: Control
) -> None:
    before = (await seller.quote()).quantity
    request = await seller.order_request()
    first = await seller.place(request)
    await seller.cancel(request.idempotency_key)
    assert (await seller.quote()).quantity == before
    assert await seller.place(request) == first
    order = await seller.order(request.idempotency_key)
    assert order.WhichOneof("state") == "cancelled"
    assert (await seller.quote()).quantity == before


async def test_a_pending_order_can_be_cancelled(seller: Subject, control: Control) -> None:
    await control.change(pending_rate=1, pending_s=20)
    request = await seller.order_request()
    key = request.idempotency_key
    await seller.place(request)
    assert (await seller.cancel(key)).result == Cancelled.RESULT_CANCELLED
    control.push(20)
    assert (await seller.order(key)).WhichOneof("state") == "cancelled"


async def test_an_order_can_be_too_late_to_cancel_and_then_stands(
    seller: Subject, control: Control
) -> None:
    await control.change(too_late_rate=1, pending_rate=1, pending_s=20)
    request = await seller.order_request()
    key = request.idempotency_key
    await seller.place(request)
    first = await seller.cancel(key)
    assert first.result == Cancelled.RESULT_TOO_LATE
    assert first.order.WhichOneof("state") == "pending"
    await control.change(too_late_rate=0)
    control.push(20)
    again = await seller.cancel(key)
    assert again.result == Cancelled.RESULT_TOO_LATE
    assert again.order.WhichOneof("state") == "confirmed"


async def test_an_order_that_will_be_rejected_is_never_too_late_to_cancel(
    seller: Subject, control: Control
) -> None:
    await control.change(too_late_rate=1, pending_rate=1, pending_rejected_rate=1)
    request = await seller.order_request()
    await seller.place(request)
    response = await seller.cancel(request.idempotency_key)
    assert response.result == Cancelled.RESULT_CANCELLED


async def test_a_cancel_of_a_rejected_order_finds_it_closed(seller: Subject) -> None:
    request = await seller.order_request()
    request.max_total.CopyFrom(less(request.max_total))
    first = await seller.place(request)
    response = await seller.cancel(request.idempotency_key)
    assert response.result == Cancelled.RESULT_CLOSED
    assert await seller.place(request) == first
