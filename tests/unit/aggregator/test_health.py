"""The health of sellers: what the fleet knows, what this replica has learned, and when that has changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.app.health import HealthObserver
from aggregator.domain.health import Health, latencies_s
from aggregator.domain.outlook import Outlook, Outlooks
from mesh import errors
from sellers.admission.model import BreakerState, SellerHealth
from sellers.model import SellerState, Unavailable, UnavailableReason
from sellers.registry import Directory
from tests.fakes.fleet_health import ScriptedHealth, well
from tests.fakes.seller import registered

NAMES = ("acme", "beta", "zeta")
ACME, BETA, ZETA = (registered(name, f"{name}:1") for name in NAMES)
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
NO = Unavailable(UnavailableReason.OUT_OF_STOCK)


class World:
    """A replica with three sellers."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.directory.replace([ZETA, BETA, ACME], 1)
        self.fleet = ScriptedHealth()
        self.outlooks = Outlooks()
        self.observer = HealthObserver(
            self.directory, self.fleet, self.outlooks, look_every_s=0.001
        )

    def watched(self, *names: str) -> aclosing[AsyncGenerator[list[Health], None]]:
        return aclosing(self.observer.watch(names))


@pytest.fixture
def world() -> World:
    return World()


def ids(found: list[Health]) -> list[str]:
    return [health.seller_id for health in found]


async def test_without_names_all_that_are_not_disabled_come_in_the_order_of_their_ids(
    world: World,
) -> None:
    world.directory.apply([replace(BETA, state=SellerState.DISABLED)], 2)
    world.directory.apply([replace(ZETA, state=SellerState.DRAINING)], 3)
    found = await world.observer.get([])
    assert [(health.seller_id, health.state) for health in found] == [
        ("acme", SellerState.ACTIVE),
        ("zeta", SellerState.DRAINING),
    ]


async def test_named_sellers_come_whatever_their_state_each_with_its_own_health(
    world: World,
) -> None:
    world.directory.apply([replace(BETA, state=SellerState.DISABLED)], 2)
    world.fleet.of["beta"] = replace(well("beta"), judged=10, failed=3)
    found = await world.observer.get(["zeta", "beta"])
    assert [(health.seller_id, health.calls.failed) for health in found] == [
        ("beta", 3),
        ("zeta", 0),
    ]


async def test_unknown_sellers_are_named(world: World) -> None:
    with pytest.raises(errors.NotFound, match=r"not registered: nobody, other$"):
        await world.observer.get(["other", "acme", "nobody"])
    async with world.watched("nobody") as watch:
        with pytest.raises(errors.NotFound):
            await anext(watch)


async def test_before_the_registry_has_been_read_nothing_is_known() -> None:
    observer = HealthObserver(Directory(), ScriptedHealth(), Outlooks(), look_every_s=1.0)
    with pytest.raises(errors.Unavailable):
        await observer.get([])


async def test_latencies_are_those_that_this_replica_has_learned(world: World) -> None:
    for latency_s in [0.1] * 80 + [1.0] * 15:
        world.outlooks.learn_latency("acme", NO, latency_s)
    acme, beta = await world.observer.get(["acme", "beta"])
    p50, p90, _ = acme.latencies_s
    assert p50 is not None
    assert p90 is not None
    assert 0.05 < p50 < p90 < 1.5
    assert beta.latencies_s == (None, None, None)


def test_a_quantile_that_nobody_has_seen_is_none() -> None:
    outlooks = Outlooks()
    for _ in range(60):
        outlooks.learn_latency("acme", NO, 0.1)
        outlooks.learn_unanswered("acme", 10.0)
    low, *high = latencies_s(outlooks["acme"])
    assert low is None or low > 0
    assert high == [None, None]
    assert latencies_s(Outlook()) == (None, None, None)


async def test_a_watcher_sees_all_then_those_that_have_changed(world: World) -> None:
    async with world.watched() as watch:
        assert ids(await anext(watch)) == ["acme", "beta", "zeta"]
        world.fleet.of["beta"] = replace(well("beta"), in_flight=1)
        assert ids(await anext(watch)) == ["beta"]
        world.outlooks.learn_latency("acme", NO, 0.1)
        assert ids(await anext(watch)) == ["acme"]
        world.fleet.of["beta"] = well("beta")
        world.fleet.of["zeta"] = replace(well("zeta"), calls_left=0)
        assert ids(await anext(watch)) == ["beta", "zeta"]


async def test_a_watcher_learns_of_new_sellers_and_once_of_those_that_are_disabled(
    world: World,
) -> None:
    async with world.watched() as watch:
        await anext(watch)
        world.directory.apply([registered("new", "new:1")], 2)
        assert ids(await anext(watch)) == ["new"]
        world.directory.apply([replace(BETA, state=SellerState.DISABLED)], 3)
        [beta] = await anext(watch)
        assert (beta.seller_id, beta.state) == ("beta", SellerState.DISABLED)
        world.directory.apply([replace(ACME, state=SellerState.DRAINING)], 4)
        assert ids(await anext(watch)) == ["acme"]


async def test_a_watcher_of_one_seller_sees_no_other(world: World) -> None:
    async with world.watched("acme") as watch:
        assert ids(await anext(watch)) == ["acme"]
        world.fleet.of["beta"] = replace(well("beta"), in_flight=1)
        world.fleet.of["acme"] = replace(well("acme"), in_flight=1)
        assert ids(await anext(watch)) == ["acme"]


def test_an_open_breaker_is_the_same_while_its_time_goes_on() -> None:
    opened = replace(well("acme"), breaker=BreakerState.OPEN, open_since=OPENED, retry_after_s=29.5)
    before = Health("acme", SellerState.ACTIVE, opened, (None, None, None))
    jitter = timedelta(milliseconds=3)

    def changed(calls: SellerHealth) -> bool:
        return replace(before, calls=calls).differs(before)

    later = replace(opened, open_since=OPENED + jitter, retry_after_s=28.5)
    assert not changed(later)
    assert changed(replace(later, judged=1))
    assert changed(replace(opened, breaker=BreakerState.HALF_OPEN))
    assert changed(replace(opened, open_since=OPENED + timedelta(seconds=31)))
    assert changed(replace(opened, open_since=None, breaker=BreakerState.CLOSED))
    assert before.differs(None)


async def test_watches_end_when_the_replica_drains(world: World) -> None:
    async with world.watched() as watch:
        await anext(watch)
        world.observer.close()
        assert await anext(watch, None) is None


async def test_all_come_page_by_page(world: World) -> None:
    pages = list[list[str]]()
    after, more = "", True
    while more:
        found, after = await world.observer.page([], 2, after)
        pages.append(ids(found))
        more = bool(after)
    assert pages == [["acme", "beta"], ["zeta"]]
    assert (await world.observer.page(["zeta", "acme"], 2, ""))[1] == ""
    found, after = await world.observer.page(["zeta", "acme"], 1, "acme")
    assert (ids(found), after) == (["zeta"], "")
    with pytest.raises(errors.NotFound, match="nobody"):
        await world.observer.page(["nobody"], 2, "")
