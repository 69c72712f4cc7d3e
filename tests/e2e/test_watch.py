"""Watching a purchase: live or late, from whichever replica, everybody sees the same from the start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import SELLERS, Doors, Fresh
from tests.e2e.customers import SHOULD_BE_SO_WITHIN_S, Customer, Json, all_answer, ask, final
from tests.e2e.sellers import SimulatedSellers
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def everywhere(mesh: LocalMesh, doors: Doors) -> list[Customer]:
    """Give one customer by every way into the mesh."""
    gateways = [at for name, at in mesh.replicas.items() if name.startswith("gateway")]
    assert len(gateways) == 2
    return [
        await doors.rest(),
        await doors.grpc(),
        *[await doors.grpc(address=address) for address in gateways],
    ]


async def seen(events: AsyncIterator[Json]) -> list[Json]:
    return [event async for event in events]


def kinds(events: list[Json]) -> list[str]:
    """Give the step, or the kind of event."""
    return [
        event["step"]["name"]
        if "step" in event
        else next(iter(event.keys() - {"event_id", "event_time"}))
        for event in events
    ]


async def test_live_and_late_watchers_see_the_same_by_every_way(
    mesh: LocalMesh, doors: Doors, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    await sellers.change(latency_constant_ms=150)
    watchers = await everywhere(mesh, doors)
    request_id = await ask(watchers[0], fresh("ordinary"))
    live = await asyncio.gather(*(seen(watcher.watch(request_id)) for watcher in watchers))
    late = await asyncio.gather(*(seen(watcher.watch(request_id)) for watcher in watchers))
    for events in live + late:
        assert events == live[0]
    told = kinds(live[0])
    assert [kind for kind in told if kind != "quotes"] == [
        "submitted",
        "authorized",
        "collecting",
        "collection",
        "holding",
        "held",
        "ordering",
        "ordered",
        "captured",
        "result",
    ]
    assert told.index("collecting") < told.index("quotes") < told.index("collection")
    assert len({event["event_id"] for event in live[0]}) == len(live[0])


async def test_every_seller_is_told_of_once(customer: Customer, fresh: Fresh) -> None:
    async def told() -> list[Json] | None:
        await all_answer(customer, f"unheard-of-{uuid4()}")
        # Nothing is affordable: with a quote to buy on, a seller that is slow today is not waited for.
        request_id = await ask(customer, fresh("too-dear"))
        events = await seen(customer.watch(request_id))
        # Sellers that lose answers, as other tests want it, are left alone again and again.
        return None if "circuit_open" in repr(events) else events

    events = await eventually(told, SHOULD_BE_SO_WITHIN_S)
    quotes = [q for event in events for q in event.get("quotes", {}).get("quotes", [])]
    misses = [m for event in events for m in event.get("quotes", {}).get("misses", [])]
    assert len({entry["seller_id"] for entry in quotes + misses}) == SELLERS
    assert len(quotes + misses) == SELLERS
    assert sorted((quote["seller_id"], quote["total"]) for quote in quotes) == [
        ("bravo", 34.99),
        ("delta", 36.0),
    ]
    for quote in quotes:
        assert round(quote["price"] + quote["shipping"], 2) == quote["total"]
    assert {miss["reason"] for miss in misses} == {"not_carried"}
    [collection] = [event["collection"] for event in events if "collection" in event]
    assert collection.pop("elapsed_ms") >= 0
    assert collection == {
        "sellers": SELLERS,
        "asked": SELLERS,
        "answered": SELLERS,
        "quoted": 2,
        "best_total": 34.99,
        "from_cache": 0,
    }


async def test_the_last_event_is_what_get_answers(customer: Customer, fresh: Fresh) -> None:
    request_id = await ask(customer, fresh("ordinary"))
    *_, last = await seen(customer.watch(request_id))
    assert last["result"] == await customer.get(request_id)


async def test_events_arrive_while_the_purchase_goes_on(
    customer: Customer, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    """The first quotes are there while a slow seller still keeps the collection waiting."""
    await sellers.change(["foxtrot"], latency_constant_ms=2500)

    async def still_going_on() -> bool | None:
        request_id = await ask(customer, fresh("ordinary"))
        events = customer.watch(request_id)
        while "quotes" not in await anext(events):
            pass
        before = await customer.get(request_id)
        *_, last = await seen(events)
        assert last["result"]["status"] == "purchased"
        return before["status"] == "pending" or None

    # It is over by then where the machine stands still in between.
    assert await eventually(still_going_on, SHOULD_BE_SO_WITHIN_S)


async def test_a_watcher_who_leaves_and_comes_back_finds_all_of_it(
    customer: Customer, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    await sellers.change(latency_constant_ms=100)
    request_id = await ask(customer, fresh("ordinary"))
    first = customer.watch(request_id)
    before = [await anext(first), await anext(first)]
    assert isinstance(first, AsyncIterator)
    await final(customer, request_id)
    again = await seen(customer.watch(request_id))
    assert again[:2] == before
    assert "result" in again[-1]
