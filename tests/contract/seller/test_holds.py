"""HoldBook and ReleaseHold, with the rule of idempotency."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.convert import money_from_proto, seconds
from tests.contract.seller.subject import Control, Subject, in_seconds, new_key

Released = pb.ReleaseHoldResponse
Reason = pb.Rejection


async def test_a_hold_sets_a_copy_aside_for_a_time(holding_seller: Subject) -> None:
    hold = await holding_seller.hold()
    assert money_from_proto(hold.total).minor > 0
    assert seconds(hold.valid_for) > 0


async def test_a_held_copy_is_not_for_sale_and_comes_back_with_its_release(
    holding_seller: Subject, control: Control
) -> None:
    before = (await holding_seller.quote()).quantity
    key = new_key()
    await holding_seller.hold(key)
    assert (await holding_seller.quote()).quantity == before - 1
    await holding_seller.release(key)
    assert (await holding_seller.quote()).quantity == before


async def test_the_same_hold_again_gets_the_first_answer(holding_seller: Subject) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    first = await holding_seller.try_to_hold(request)
    assert await holding_seller.try_to_hold(request) == first


async def test_the_first_answer_outlives_the_hold(
    holding_seller: Subject, control: Control
) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    first = await holding_seller.try_to_hold(request)
    control.push(86_400)
    assert await holding_seller.try_to_hold(request) == first


async def test_a_key_that_held_something_else_already_exists(holding_seller: Subject) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    await holding_seller.try_to_hold(request)
    for change in (
        pb.HoldBookRequest(book_id="another-book"),
        pb.HoldBookRequest(quote_id="another-quote"),
        pb.HoldBookRequest(not_after=in_seconds(7_200)),
    ):
        other = pb.HoldBookRequest()
        other.CopyFrom(request)
        other.MergeFrom(change)
        code = await holding_seller.refused(holding_seller.stub.HoldBook, other)
        assert code is grpc.StatusCode.ALREADY_EXISTS, change


async def test_a_rejection_uses_its_key_up(holding_seller: Subject) -> None:
    request = holding_seller.hold_request("no-such-quote")
    first = await holding_seller.try_to_hold(request)
    assert first.rejected.reason == Reason.REASON_QUOTE_EXPIRED
    assert await holding_seller.try_to_hold(request) == first
    request.quote_id = (await holding_seller.quote()).quote_id
    code = await holding_seller.refused(holding_seller.stub.HoldBook, request)
    assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_quote_of_another_book_does_not_hold_this_one(holding_seller: Subject) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    request.book_id = "9780132350884"
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_QUOTE_EXPIRED


async def test_an_expired_quote_is_rejected_with_the_price_of_now(
    holding_seller: Subject, control: Control
) -> None:
    quote = await holding_seller.quote()
    control.push(seconds(quote.valid_for) + 1)
    request = holding_seller.hold_request(quote.quote_id)
    request.not_after.CopyFrom(in_seconds(86_400))
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_QUOTE_EXPIRED
    again = holding_seller.hold_request(response.rejected.updated_quote.quote_id)
    again.not_after.CopyFrom(request.not_after)
    held = await holding_seller.try_to_hold(again)
    assert held.WhichOneof("outcome") == "hold"


async def test_nothing_is_held_after_not_after(holding_seller: Subject) -> None:
    if not holding_seller.capabilities.honours_not_after:
        pytest.skip("this seller takes no heed of not_after")
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    request.not_after.CopyFrom(in_seconds(-60))
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_PAST_NOT_AFTER


async def test_a_hold_can_cost_more_or_less_than_the_quote(
    holding_seller: Subject, control: Control
) -> None:
    quoted = money_from_proto((await holding_seller.quote()).total).minor
    await control.change(reprice_rate=1, reprice_by=0.1)
    assert money_from_proto((await holding_seller.hold()).total).minor == round(quoted * 1.1)
    await control.change(reprice_by=-0.1)
    assert money_from_proto((await holding_seller.hold()).total).minor == round(quoted * 0.9)


async def test_a_copy_that_is_gone_is_not_held(holding_seller: Subject, control: Control) -> None:
    await control.change(sold_out_rate=1)
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_OUT_OF_STOCK


async def test_no_more_copies_are_held_than_there_are(
    holding_seller: Subject, control: Control
) -> None:
    quote = await holding_seller.quote()
    for _ in range(quote.quantity):
        await holding_seller.hold()
    request = holding_seller.hold_request(quote.quote_id)
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_OUT_OF_STOCK
    nothing_left = holding_seller.quote_request(holding_seller.book_id)
    answer = await holding_seller.call(holding_seller.stub.GetQuote, nothing_left)
    assert answer.unavailable.reason in {
        pb.Unavailable.REASON_OUT_OF_STOCK,
        pb.Unavailable.REASON_CONDITION,
    }


async def test_a_hold_ends_by_itself(holding_seller: Subject, control: Control) -> None:
    before = (await holding_seller.quote()).quantity
    request = await holding_seller.order_request()
    control.push(3_600)
    request.not_after.CopyFrom(in_seconds(86_400))
    response = await holding_seller.place(request)
    assert response.rejected.reason == Reason.REASON_HOLD_EXPIRED
    assert (await holding_seller.quote()).quantity == before


async def test_a_hold_whose_key_is_being_worked_on_is_aborted(
    holding_seller: Subject, control: Control
) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    await control.change(latency_constant_ms=30_000)
    first = asyncio.create_task(holding_seller.try_to_hold(request))
    await control.working()
    code = await holding_seller.refused(holding_seller.stub.HoldBook, request)
    assert code is grpc.StatusCode.ABORTED
    control.push(30)
    assert (await first).WhichOneof("outcome") == "hold"


async def test_a_release_is_safe_to_repeat(holding_seller: Subject) -> None:
    key = new_key()
    await holding_seller.hold(key)
    assert await holding_seller.release(key) == Released.RESULT_RELEASED
    assert await holding_seller.release(key) == Released.RESULT_RELEASED


async def test_an_early_release_closes_the_key_for_good(holding_seller: Subject) -> None:
    request = holding_seller.hold_request((await holding_seller.quote()).quote_id)
    key = request.idempotency_key
    assert await holding_seller.release(key) == Released.RESULT_CLOSED
    response = await holding_seller.try_to_hold(request)
    assert response.rejected.reason == Reason.REASON_KEY_CLOSED
    assert await holding_seller.try_to_hold(request) == response
    assert await holding_seller.release(key) == Released.RESULT_CLOSED


async def test_a_release_overtakes_a_hold_that_is_being_worked_on(
    holding_seller: Subject, control: Control
) -> None:
    quote = await holding_seller.quote()
    request = holding_seller.hold_request(quote.quote_id)
    await control.change(latency_constant_ms=30_000)
    first = asyncio.create_task(holding_seller.try_to_hold(request))
    await control.working()
    await control.change(latency_constant_ms=0)
    assert await holding_seller.release(request.idempotency_key) == Released.RESULT_CLOSED
    control.push(30)
    assert (await first).rejected.reason == Reason.REASON_KEY_CLOSED
    assert (await holding_seller.quote()).quantity == quote.quantity


async def test_a_release_of_a_rejected_hold_finds_nothing(holding_seller: Subject) -> None:
    request = holding_seller.hold_request("no-such-quote")
    await holding_seller.try_to_hold(request)
    assert await holding_seller.release(request.idempotency_key) == Released.RESULT_CLOSED


async def test_a_release_of_an_ended_hold_finds_nothing(
    holding_seller: Subject, control: Control
) -> None:
    key = new_key()
    await holding_seller.hold(key)
    control.push(3_600)
    assert await holding_seller.release(key) == Released.RESULT_CLOSED


async def test_a_released_hold_cannot_be_ordered_from(holding_seller: Subject) -> None:
    key = new_key()
    hold = await holding_seller.hold(key)
    request = await holding_seller.order_request()
    request.hold_id = hold.hold_id
    await holding_seller.release(key)
    response = await holding_seller.place(request)
    assert response.rejected.reason == Reason.REASON_HOLD_EXPIRED


async def test_a_release_after_the_order_leaves_the_order(holding_seller: Subject) -> None:
    key = new_key()
    hold = await holding_seller.hold(key)
    request = await holding_seller.order_request()
    request.hold_id = hold.hold_id
    request.max_total.CopyFrom(hold.total)
    confirmed = await holding_seller.confirmed(request)
    assert await holding_seller.release(key) == Released.RESULT_ORDERED
    order = await holding_seller.order(request.idempotency_key)
    assert order.confirmed == confirmed


@pytest.mark.parametrize("method", ["HoldBook", "ReleaseHold"])
async def test_a_seller_without_holds_does_not_have_the_methods(
    atomic_seller: Subject, method: str
) -> None:
    request = (
        atomic_seller.hold_request("any-quote")
        if method == "HoldBook"
        else pb.ReleaseHoldRequest(idempotency_key=new_key())
    )
    code = await atomic_seller.refused(getattr(atomic_seller.stub, method), request)
    assert code is grpc.StatusCode.UNIMPLEMENTED
