"""Watching: everything, in order, the same for those who come early and late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mesh import errors
from orchestrator.domain.events import AnswerBatch, Collected, Step
from orchestrator.domain.purchase import Status
from orchestrator.ports import PurchaseView
from tests.fakes.market import Market, ScriptedSeller

if TYPE_CHECKING:
    from orchestrator.app.watch import WatchEvent
    from tests.integration.orchestrator.conftest import World


async def everything(world: World, view: PurchaseView) -> list[WatchEvent]:
    return [event async for event in world.watch.watch("alice", str(view.request_id))]


def words(events: list[WatchEvent]) -> list[str]:
    names = []
    for event in events:
        match event.shown:
            case Step(name):
                names.append(name.value)
            case AnswerBatch():
                names.append("quotes")
            case Collected():
                names.append("collected")
            case PurchaseView(status=status):
                names.append(status.value)
    return names


async def test_early_and_late_see_the_same(world: World) -> None:
    world.market = Market(ScriptedSeller("a", 2000), ScriptedSeller("b", 2500))
    view = await world.purchases.submit(world.order(), 0)
    early = asyncio.create_task(everything(world, view))
    async with world.working():
        await world.settled(view.request_id)
        late = await everything(world, view)
        assert await early == late
    assert words(late) == [
        "submitted",
        "authorized",
        "collecting",
        "quotes",
        "collected",
        "holding",
        "held",
        "ordering",
        "ordered",
        "captured",
        "purchased",
    ]
    assert len({event.event_id for event in late}) == len(late)


async def test_ends_with_the_final_status_even_when_a_void_still_runs(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", None))
    events = await everything(world, view)
    assert isinstance(events[-1].shown, PurchaseView)
    assert events[-1].shown.status is Status.NOT_AVAILABLE


async def test_another_customers_purchase_cannot_be_watched(world: World) -> None:
    view = await world.purchases.submit(world.order(), 0)
    with pytest.raises(errors.NotFound):
        await anext(world.watch.watch("bob", str(view.request_id)))
