"""Accepting an offer: a new purchase at the offered price, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mesh import errors
from mesh.money import Money
from orchestrator.app.purchases import Acceptance
from orchestrator.domain.observations import PaymentChanged
from orchestrator.domain.purchase import Status
from tests.fakes.market import Market, ScriptedSeller
from tests.integration.orchestrator.conftest import PATIENT, final, until

if TYPE_CHECKING:
    from orchestrator.ports import PurchaseView
    from tests.integration.orchestrator.conftest import World


def acceptance(world: World, view: PurchaseView, token: str = "") -> Acceptance:
    return Acceptance("alice", str(view.request_id), world.new_id(), token)


async def offered(world: World) -> PurchaseView:
    """Give a purchase that ended with an offer of 34.99."""
    view = await world.buy(ScriptedSeller("a", 3499))
    assert view.status is Status.PRICE_NOT_MET
    return view


async def test_buys_at_the_offered_price_with_the_first_token(world: World) -> None:
    first = await offered(world)
    async with world.working():
        view = await world.purchases.accept_offer(acceptance(world, first), 2)
        assert view.accepted_offer_of == first.request_id
        assert view.max_price == Money("USD", 3499)
        bought = await world.settled(view.request_id)
    assert final(bought) == (Status.PURCHASED, "a", 3499)
    again = await world.purchases.get("alice", str(first.request_id))
    assert again.offer_accepted_by == view.request_id
    assert again.status is Status.PRICE_NOT_MET


async def test_a_token_of_its_own_is_used_for_it(world: World) -> None:
    first = await offered(world)
    async with world.working():
        view = await world.purchases.accept_offer(acceptance(world, first, "tok_decline"), 30)
    assert view.status is Status.FAILED


async def test_a_look_at_the_payment_meanwhile_leaves_the_offer_as_it_is(world: World) -> None:
    """The provider tells of each void: the first token is still there when the offer is accepted."""
    first = await offered(world)
    assert await world.store.observe(first.request_id, "provider", PaymentChanged("event"))
    async with world.working():

        async def looked() -> bool:
            dossier = await world.operators.inspect(first.request_id)
            return all(o.consumed for o in dossier.observations) and dossier.stage == "offer"

        await until(looked)
        view = await world.purchases.accept_offer(acceptance(world, first), 2)
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 3499)


async def test_two_at_once_are_one_purchase(world: World) -> None:
    first = await offered(world)
    views = await asyncio.gather(
        *(world.purchases.accept_offer(acceptance(world, first), 0) for _ in range(10))
    )
    assert len({view.request_id for view in views}) == 1
    assert await world.pool.fetchval("SELECT count(*) FROM orchestrator.purchase") == 2
    async with world.working():
        await world.settled(views[0].request_id)


async def test_accepting_again_gives_the_same_even_when_the_offer_is_over(world: World) -> None:
    first = await offered(world)
    view = await world.purchases.accept_offer(acceptance(world, first), 0)
    await expire(world)
    again = await world.purchases.accept_offer(acceptance(world, first), 0)
    assert again.request_id == view.request_id


async def test_an_offer_that_is_over_cannot_be_accepted(world: World) -> None:
    first = await offered(world)
    await expire(world)
    with pytest.raises(errors.FailedPrecondition) as caught:
        await world.purchases.accept_offer(acceptance(world, first), 0)
    assert caught.value.reason == "OFFER_EXPIRED"


async def test_without_an_offer_there_is_nothing_to_accept(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    with pytest.raises(errors.FailedPrecondition) as caught:
        await world.purchases.accept_offer(acceptance(world, view), 0)
    assert caught.value.reason == "NO_OFFER"


async def test_another_customers_offer_does_not_exist(world: World) -> None:
    first = await offered(world)
    with pytest.raises(errors.NotFound):
        await world.purchases.accept_offer(
            Acceptance("bob", str(first.request_id), world.new_id(), "tok_x"), 0
        )


async def test_a_provider_that_takes_a_token_once_wants_another(world: World) -> None:
    world.provider.reusable_tokens = False
    world.purchases = world.new_purchases()
    first = await world.buy(ScriptedSeller("a", 3499))
    assert await world.stage(first.request_id) == "done"
    with pytest.raises(errors.FailedPrecondition) as caught:
        await world.purchases.accept_offer(acceptance(world, first), 0)
    assert caught.value.reason == "PAYMENT_TOKEN_REQUIRED"
    view = await world.purchases.accept_offer(acceptance(world, first, "tok_second"), 0)
    assert view.accepted_offer_of == first.request_id


async def test_the_token_is_erased_when_the_offer_ends(world: World) -> None:
    world.limits = replace(PATIENT, offer_life_s=0.3)
    world.market = Market(ScriptedSeller("a", 3499))
    async with world.working():
        view = await world.purchases.submit(world.order(), 0)
        await world.reached(view.request_id, "done")
        await world.audit(view.request_id)


async def expire(world: World) -> None:
    """Let the offer be over."""
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET offer = offer || jsonb_build_object('expires_at', now() - $1::interval)"
        " WHERE offer IS NOT NULL",
        timedelta(seconds=1),
    )
