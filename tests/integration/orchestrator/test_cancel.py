"""A customer who does not want the book any more, at every moment of a purchase."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mesh import errors
from orchestrator.domain.events import AnswerBatch
from orchestrator.domain.purchase import Purchase, Status
from orchestrator.ports import Gathered
from sellers.model import CallFailed, FailureKind, RejectionReason
from tests.fakes.market import Market, ScriptedSeller
from tests.integration.orchestrator.conftest import until

if TYPE_CHECKING:
    from orchestrator.ports import PurchaseView
    from tests.integration.orchestrator.conftest import World


NOT_ARRIVED = CallFailed(
    FailureKind.UNREACHABLE, definitely_not_done=False, detail="connection lost"
)


async def cancelled(world: World, view: PurchaseView, wait_s: float = 0) -> PurchaseView:
    return await world.purchases.cancel("alice", str(view.request_id), wait_s)


async def test_before_any_worker_has_it(world: World) -> None:
    view = await world.purchases.submit(world.order(), 0)
    asked = await cancelled(world, view)
    assert (asked.status, asked.cancel_requested) == (Status.PENDING, True)
    async with world.working():
        assert (await world.settled(view.request_id)).status is Status.CANCELLED
    assert world.market.collections == 0
    assert (
        await world.pool.fetchval("SELECT count(*) FROM sandbox_provider.payment_authorization")
        == 0
    )


class Endless(Market):
    """A market whose collection never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.given_up = asyncio.Event()

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()
        raise AssertionError


async def test_while_quotes_are_collected_a_live_worker_stops_at_once(world: World) -> None:
    world.market = market = Endless()
    async with world.working():
        view = await world.purchases.submit(world.order(), 0)
        await market.begun.wait()
        assert (await cancelled(world, view, 10)).status is Status.CANCELLED
        await market.given_up.wait()
        await world.settled(view.request_id)


async def test_while_a_copy_is_being_held_it_is_given_back(world: World) -> None:
    async def cancel() -> None:
        await cancelled(world, view)

    world.market = Market(ScriptedSeller("a", 2000, before={"hold": cancel}))
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        assert (await world.settled(view.request_id)).status is Status.CANCELLED
    assert ("order", "a") not in world.market.log
    assert ("release", "a") in world.market.log
    steps = await world.steps(view.request_id)
    assert steps.index("cancel_requested") < steps.index("hold_released a")


@pytest.mark.parametrize("with_holds", [True, False])
async def test_the_cancel_that_is_committed_before_the_order_wins(
    world: World, *, with_holds: bool
) -> None:
    """The cancel arrives when the worker has decided to order, and before it has committed that."""
    world.market = Market(ScriptedSeller("a", 2000, with_holds=with_holds))
    view = await world.purchases.submit(world.order(), 0)
    commit = world.store.commit

    async def cancel_first(what: object) -> object:
        if what.begins_order:  # type: ignore[attr-defined]  # a Commit
            await cancelled(world, view)
        return await commit(what)  # type: ignore[arg-type]  # whatever the store is given

    world.store.commit = cancel_first  # type: ignore[assignment,method-assign]  # put in its place for this one test
    async with world.working():
        assert (await world.settled(view.request_id)).status is Status.CANCELLED
    assert ("order", "a") not in world.market.log
    assert "ordering a" not in await world.steps(view.request_id)


@pytest.mark.parametrize("with_holds", [True, False])
async def test_the_order_that_is_committed_before_the_cancel_wins(
    world: World, *, with_holds: bool
) -> None:
    refused: list[str] = []

    async def cancel() -> None:
        with pytest.raises(errors.FailedPrecondition) as caught:
            await cancelled(world, view)
        refused.append(caught.value.reason)

    world.market = Market(
        ScriptedSeller("a", 2000, with_holds=with_holds, before={"order": cancel})
    )
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        bought = await world.settled(view.request_id)
    assert (bought.status, bought.cancel_requested) == (Status.PURCHASED, True)
    assert refused == ["CANNOT_CANCEL"]


async def test_an_order_that_is_refused_after_all_is_followed_by_the_cancel_not_by_the_next_seller(
    world: World,
) -> None:
    async def cancel_and_sell_out() -> None:
        with pytest.raises(errors.FailedPrecondition):
            await cancelled(world, view)
        seller.stock = 0

    seller = ScriptedSeller("a", 2000, with_holds=False, before={"order": cancel_and_sell_out})
    world.market = Market(seller, ScriptedSeller("b", 2500))
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        assert (await world.settled(view.request_id)).status is Status.CANCELLED
    assert ("hold", "b") not in world.market.log
    rejected = RejectionReason.OUT_OF_STOCK.value
    assert await world.pool.fetchval("SELECT outcome FROM orchestrator.attempt") == rejected


async def test_an_order_that_turns_out_to_be_closed_is_followed_by_the_cancel(world: World) -> None:
    async def cancel() -> None:
        with pytest.raises(errors.FailedPrecondition):
            await cancelled(world, view)

    seller = ScriptedSeller(
        "a", 2000, script={"order": [NOT_ARRIVED, NOT_ARRIVED]}, before={"get_order": cancel}
    )
    world.market = Market(seller, ScriptedSeller("b", 2500))
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        assert (await world.settled(view.request_id)).status is Status.CANCELLED


async def test_what_has_ended_cannot_be_cancelled(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    with pytest.raises(errors.FailedPrecondition, match="it is purchased") as caught:
        await cancelled(world, view)
    assert caught.value.reason == "CANNOT_CANCEL"


async def test_a_repeated_cancel_changes_nothing(world: World) -> None:
    view = await world.purchases.submit(world.order(), 0)
    for _ in range(3):
        await cancelled(world, view)
    async with world.working():
        await world.settled(view.request_id)
    assert (await cancelled(world, view)).status is Status.CANCELLED
    assert (await world.steps(view.request_id)).count("cancel_requested") == 1


async def test_another_customers_cannot_be_cancelled(world: World) -> None:
    view = await world.purchases.submit(world.order(), 0)
    with pytest.raises(errors.NotFound):
        await world.purchases.cancel("bob", str(view.request_id), 0)
    assert not (await world.purchases.get("alice", str(view.request_id))).cancel_requested


async def test_an_authorization_that_is_cancelled_while_it_is_unknown_is_voided(
    world: World,
) -> None:
    async with world.working():
        view = await world.purchases.submit(world.order(payment_token="tok_lost_authorize"), 0)

        async def begun() -> bool:
            return bool(
                await world.pool.fetchval(
                    "SELECT count(*) FROM sandbox_provider.payment_authorization"
                )
            )

        await until(begun)
        await cancelled(world, view)
        assert (await world.settled(view.request_id)).status is Status.CANCELLED
