"""Purchases from submission to their end, for each way in which the world may answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mesh.money import Money
from orchestrator.domain.purchase import FailureReason, Status
from sellers.model import CallFailed, Condition, FailureKind, Quote, Rejected, RejectionReason
from tests.fakes.market import LOST, UNREACHED, Market, ScriptedSeller
from tests.integration.orchestrator.conftest import CLOCK, PATIENT, final

if TYPE_CHECKING:
    from tests.integration.orchestrator.conftest import World

NOT_ARRIVED = CallFailed(
    FailureKind.UNREACHABLE, definitely_not_done=False, detail="connection lost"
)


@pytest.mark.parametrize("with_holds", [True, False])
async def test_buys_from_the_cheapest_and_charges_its_total(
    world: World, *, with_holds: bool
) -> None:
    view = await world.buy(
        ScriptedSeller("dear", 2900, with_holds=with_holds),
        ScriptedSeller("cheap", 2499, with_holds=with_holds),
        ScriptedSeller("too-dear", 5000, with_holds=with_holds),
    )
    assert final(view) == (Status.PURCHASED, "cheap", 2499)
    assert view.confirmation is not None


async def test_records_every_step_in_order(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2499))
    assert await world.steps(view.request_id) == [
        "submitted",
        "authorized",
        "collecting",
        "collected",
        "holding a",
        "held a",
        "ordering a",
        "ordered a",
        "captured",
        "finished",
    ]


async def test_too_dear_is_price_not_met_with_an_offer(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 3999), ScriptedSeller("b", 3499))
    assert view.status is Status.PRICE_NOT_MET
    assert view.offer is not None
    assert (view.offer.seller_id, view.offer.total) == ("b", Money("USD", 3499))


async def test_nobody_has_it_is_not_available(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", None), silent=1)
    assert view.status is Status.NOT_AVAILABLE


@pytest.mark.parametrize("sellers", [[], [ScriptedSeller("a", None)]], ids=["none", "too few"])
async def test_too_few_answers_are_a_failure_and_not_not_available(
    world: World, sellers: list[ScriptedSeller]
) -> None:
    view = await world.buy(*sellers, silent=3)
    assert (view.status, view.failure_reason) == (Status.FAILED, FailureReason.NO_SELLER_ANSWERED)


@pytest.mark.parametrize("with_holds", [True, False])
async def test_sold_out_at_the_cheapest_goes_to_the_next(world: World, *, with_holds: bool) -> None:
    async def sell_out() -> None:
        seller.stock = 0

    method = "hold" if with_holds else "order"
    seller = ScriptedSeller("a", 2000, with_holds=with_holds, before={method: sell_out})
    view = await world.buy(seller, ScriptedSeller("b", 2500, with_holds=with_holds))
    assert final(view) == (Status.PURCHASED, "b", 2500)


async def test_sold_out_everywhere_collects_once_more_then_tells_the_truth(world: World) -> None:
    async def sell_out() -> None:
        seller.stock = 0

    seller = ScriptedSeller("a", 2000, before={"hold": sell_out})
    view = await world.buy(seller, ScriptedSeller("b", 3499))
    assert view.status is Status.PRICE_NOT_MET
    assert world.market.collections == 2


async def test_a_hold_that_costs_more_is_bought_when_it_is_still_the_best(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000, hold_minor=2400), ScriptedSeller("b", 2500))
    assert final(view) == (Status.PURCHASED, "a", 2400)


async def test_a_hold_that_costs_more_than_another_quote_is_released_for_it(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000, hold_minor=2700), ScriptedSeller("b", 2500))
    assert final(view) == (Status.PURCHASED, "b", 2500)
    assert ("release", "a") in world.market.log


async def test_a_hold_above_max_price_becomes_the_offer(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000, hold_minor=3100))
    assert view.status is Status.PRICE_NOT_MET
    assert view.offer is not None
    assert view.offer.total == Money("USD", 3100)


async def test_a_hold_whose_answer_is_lost_is_released_before_the_next_seller(world: World) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, script={"hold": [LOST]}), ScriptedSeller("b", 2500)
    )
    assert final(view) == (Status.PURCHASED, "b", 2500)
    steps = await world.steps(view.request_id)
    assert steps.index("hold_released a") < steps.index("holding b")


async def test_a_release_without_an_answer_is_repeated_after_the_purchase(world: World) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, script={"hold": [LOST], "release": [NOT_ARRIVED, NOT_ARRIVED]}),
        ScriptedSeller("b", 2500),
    )
    assert final(view) == (Status.PURCHASED, "b", 2500)
    assert world.market.log.count(("release", "a")) == 3


@pytest.mark.parametrize("with_holds", [True, False])
async def test_an_order_whose_answer_is_lost_is_found_under_its_key(
    world: World, *, with_holds: bool
) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, with_holds=with_holds, script={"order": [LOST]}),
        ScriptedSeller("b", 2500),
    )
    assert final(view) == (Status.PURCHASED, "a", 2000)
    assert ("order", "b") not in world.market.log


@pytest.mark.parametrize("with_holds", [True, False])
async def test_an_order_that_stays_unknown_is_closed_before_the_next_seller(
    world: World, *, with_holds: bool
) -> None:
    view = await world.buy(
        ScriptedSeller(
            "a", 2000, with_holds=with_holds, script={"order": [NOT_ARRIVED, NOT_ARRIVED]}
        ),
        ScriptedSeller("b", 2500),
    )
    assert final(view) == (Status.PURCHASED, "b", 2500)
    log = world.market.log
    assert log.index(("cancel", "a")) < log.index(("hold", "b"))


async def test_an_order_whose_answer_is_lost_twice_is_found_by_asking(world: World) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, script={"order": [LOST, LOST]}), ScriptedSeller("b", 2500)
    )
    assert final(view) == (Status.PURCHASED, "a", 2000)
    assert ("cancel", "a") not in world.market.log


async def test_an_order_that_cannot_be_found_out_is_cancelled_not_bought_twice(
    world: World,
) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, script={"order": [LOST, LOST], "get_order": [NOT_ARRIVED]}),
        ScriptedSeller("b", 2500),
    )
    assert final(view) == (Status.PURCHASED, "b", 2500)


async def test_an_order_that_cannot_be_cancelled_any_more_is_ours(world: World) -> None:
    view = await world.buy(
        ScriptedSeller(
            "a",
            2000,
            cancels=False,
            script={"order": [LOST, LOST], "get_order": [NOT_ARRIVED]},
        ),
        ScriptedSeller("b", 2500),
    )
    assert final(view) == (Status.PURCHASED, "a", 2000)


async def test_a_seller_that_certainly_did_nothing_is_passed_over_at_once(world: World) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, script={"hold": [UNREACHED]}), ScriptedSeller("b", 2500)
    )
    assert final(view) == (Status.PURCHASED, "b", 2500)
    assert ("release", "a") not in world.market.log


@pytest.mark.parametrize("method", ["hold", "order"])
async def test_a_call_that_the_seller_is_still_working_on_is_asked_for_again(
    world: World, method: str
) -> None:
    busy = CallFailed(FailureKind.IN_FLIGHT, definitely_not_done=False, detail="in flight")
    view = await world.buy(
        ScriptedSeller("a", 2000, script={method: [busy, busy]}), ScriptedSeller("b", 2500)
    )
    assert final(view) == (Status.PURCHASED, "a", 2000)
    assert world.market.log.count((method, "a")) == 3


async def test_a_pending_order_is_awaited(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000, pending_polls=3))
    assert final(view) == (Status.PURCHASED, "a", 2000)


async def test_a_price_in_another_currency_is_nobodys_price(world: World) -> None:
    """The seller refuses an order and, asked for it, offers the copy for 1,500 yen: as cents, 15 dollars."""
    yen = Money("JPY", 1500)
    life = CLOCK.now() + timedelta(minutes=1)
    updated = Quote("yen", yen, Money("JPY", 0), yen, Condition.NEW, 1, life)
    seller = ScriptedSeller("a", 2000, with_holds=False)
    seller.script = {
        "order": [NOT_ARRIVED, NOT_ARRIVED],
        "get_order": [Rejected(RejectionReason.OUT_OF_STOCK, updated)],
    }
    view = await world.buy(seller, ScriptedSeller("b", 2500))
    assert final(view) == (Status.PURCHASED, "b", 2500)
    assert world.market.log.count(("order", "a")) == 2


async def test_a_quote_that_has_expired_is_asked_for_again(world: World) -> None:
    seller = ScriptedSeller("a", 2000, quote_life_s=0.5)

    async def live_longer() -> None:
        seller.quote_life_s = 60

    view = await world.buy(
        ScriptedSeller(
            "first", 1500, stock=1, before={"hold": live_longer}, script={"hold": [LOST]}
        ),
        seller,
        ScriptedSeller("b", 2500),
    )
    assert ("requote", "a") in world.market.log
    assert final(view) == (Status.PURCHASED, "a", 2000)


async def test_a_quote_of_the_shortest_life_is_bought_on_right_after_asking_again(
    world: World,
) -> None:
    world.limits = replace(PATIENT, quote_margin_s=60.0)
    view = await world.buy(ScriptedSeller("a", 2000, quote_life_s=55), ScriptedSeller("b", 2500))
    assert world.market.log.count(("requote", "a")) == 1
    assert final(view) == (Status.PURCHASED, "a", 2000)


async def test_a_seller_whose_quotes_are_expired_when_given_is_passed_over(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000, quote_life_s=-1), ScriptedSeller("b", 2500))
    assert world.market.log.count(("requote", "a")) == 1
    assert final(view) == (Status.PURCHASED, "b", 2500)


async def test_an_order_is_not_sent_once_its_time_is_over(world: World) -> None:
    """A worker dies before it sends the order; the next one comes when the seller must not sell any more."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def die() -> None:
        if not reached.is_set():
            reached.set()
            await never.wait()

    seller = ScriptedSeller(
        "a", 2000, with_holds=False, closes_unknown_keys=False, before={"order": die}
    )
    world.market = Market(seller, ScriptedSeller("b", 2500))
    view = await world.purchases.submit(world.order(), 0)
    first = asyncio.create_task(world.worker().run())
    await reached.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await world.pool.execute(
        "UPDATE orchestrator.attempt SET not_after = now() - interval '1 minute'"
    )
    async with world.working():
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "b", 2500)
    assert world.market.log.count(("order", "a")) == 1


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_decline", FailureReason.CARD_DECLINED),
        ("tok_action_required", FailureReason.ACTION_REQUIRED),
        ("tok_invalid", FailureReason.PAYMENT_TOKEN_INVALID),
        ("not-a-token", FailureReason.PAYMENT_TOKEN_INVALID),
    ],
)
async def test_a_refused_card_fails_before_any_seller_is_asked(
    world: World, token: str, reason: FailureReason
) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token=token)
    assert (view.status, view.failure_reason) == (Status.FAILED, reason)
    assert world.market.collections == 0


@pytest.mark.parametrize("token", ["tok_lost_authorize", "tok_lost_capture", "tok_slow"])
async def test_a_lost_or_late_answer_of_the_provider_charges_once(world: World, token: str) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token=token)
    assert final(view) == (Status.PURCHASED, "a", 2000)


async def test_a_decline_after_the_answer_fails_the_purchase(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_slow_decline")
    assert view.failure_reason is FailureReason.CARD_DECLINED


async def test_a_lost_void_is_repeated(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", None), payment_token="tok_lost_void")
    assert view.status is Status.NOT_AVAILABLE


async def test_a_refused_capture_cancels_the_order(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_capture_fails")
    assert (view.status, view.failure_reason) == (Status.FAILED, FailureReason.CAPTURE_REFUSED)


async def test_a_refused_capture_of_an_order_that_stands_is_for_an_operator(world: World) -> None:
    view = await world.buy(
        ScriptedSeller("a", 2000, cancels=False),
        payment_token="tok_capture_fails",
    )
    assert await world.stage(view.request_id) == "flagged"
    assert view.status is Status.PENDING
