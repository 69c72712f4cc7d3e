"""The keeper of capabilities: many sellers at a time, and none of them can stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Self

import pytest

from aggregator.app.capabilities import CapabilityKeeper, CapabilitySettings
from aggregator.app.registry import Registry
from bench.virtual_time import VirtualClock
from mesh.errors import Unavailable
from sellers.admission.model import Outcome
from sellers.model import CapabilitiesOutcome, Seller
from sellers.registry import Directory
from tests.fakes.admission import OpenAdmission
from tests.fakes.asking import in_virtual_time, seller
from tests.fakes.seller_store import MemorySellerStore

SETTINGS = CapabilitySettings()


class Turns:
    """Implements ``CapabilityChecks``: it is the turn of those in ``stale``.

    Attributes:
        stale: whose turn it is.
        retries: whose turn comes again, and in how many seconds.
        broken: what claiming raises, each once.

    """

    def __init__(self, stale: Sequence[str]) -> None:
        self.stale = list(stale)
        self.retries: list[tuple[str, float]] = []
        self.broken: list[Exception] = []

    async def claim(self, older_than_s: float, most: int) -> Sequence[str]:
        if self.broken:
            raise self.broken.pop()
        claimed, self.stale = self.stale[:most], self.stale[most:]
        return claimed

    async def retry(self, seller_id: str, older_than_s: float, after_s: float) -> None:
        self.retries.append((seller_id, after_s))
        if seller_id == "lost":
            raise Unavailable("PostgreSQL is gone")


class Sellers:
    """Answers after a second with what is known; raises for those that are ``broken``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.most_at_once = 0
        self._under_way = 0

    async def get_capabilities(self, seller: Seller, *, timeout_s: float) -> CapabilitiesOutcome:
        self.asked.append(seller.seller_id)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            await asyncio.sleep(1.0)
        finally:
            self._under_way -= 1
        if seller.seller_id in self.broken:
            raise self.broken[seller.seller_id]
        return seller.capabilities


class House:
    """A keeper and all around it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.turns, self.sellers = Turns(names), Sellers()
        clock, directory = VirtualClock(), Directory()
        self._store, self._names = MemorySellerStore(), names
        self.admission = OpenAdmission(clock)
        self._registry = Registry(self._store, directory, clock, lambda _snapshot: None, poll_s=1.0)
        self.keeper = CapabilityKeeper(
            self.turns,
            self.sellers,
            self.admission,
            self._registry,
            directory,
            settings=SETTINGS,
            clock=clock,
            rng=Random(1),
        )

    async def open(self) -> Self:
        """Register them."""
        await self._store.put([seller(name) for name in self._names])
        await self._registry.refresh()
        return self


@in_virtual_time
async def test_all_whose_turn_it_is_are_asked_some_at_a_time() -> None:
    names = [f"s{number}" for number in range(25)]
    house = await House(names).open()
    started_s = VirtualClock().monotonic()
    await house.keeper.check()
    assert sorted(house.sellers.asked) == sorted(names)
    assert house.sellers.most_at_once == SETTINGS.at_once
    assert VirtualClock().monotonic() - started_s == pytest.approx(3.0)
    assert house.turns.retries == []


@in_virtual_time
async def test_a_fault_with_one_seller_costs_the_others_nothing() -> None:
    house = await House(["acme", "bad", "lost", "zeta"]).open()
    house.sellers.broken = {"bad": KeyError("bug"), "lost": Unavailable("PostgreSQL is gone")}
    await house.keeper.check()
    assert sorted(house.sellers.asked) == ["acme", "bad", "lost", "zeta"]
    assert sorted(name for name, _ in house.turns.retries) == ["bad", "lost"]
    assert all(30 <= after_s <= 45 for _, after_s in house.turns.retries)


@in_virtual_time
async def test_nothing_ends_the_loop_but_cancellation() -> None:
    house = await House(["acme", "bad"]).open()
    house.sellers.broken = {"bad": KeyError("bug")}
    house.turns.broken = [Unavailable("PostgreSQL is gone"), KeyError("bug")]
    running = asyncio.create_task(house.keeper.run())
    # The third look is the first that finds anything.
    await asyncio.sleep(3 * SETTINGS.look_every_s + 0.5)
    assert sorted(house.sellers.asked) == ["acme", "bad"]
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
    assert dict(house.admission.reports) == {"acme": Outcome.OURS, "bad": Outcome.OURS}
