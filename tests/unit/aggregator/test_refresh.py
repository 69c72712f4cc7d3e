"""Books in demand are asked for again before what is known of them runs out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from aggregator.app.gather import Gatherer
from aggregator.app.lots import GatherSettings
from aggregator.app.refresh import Refresher, RefreshSettings
from aggregator.domain.cached import CacheSettings
from aggregator.domain.history import CollectionRecord
from aggregator.domain.outlook import Outlooks
from bench.virtual_time import VirtualClock
from mesh.ids import uuid7_factory
from tests.fakes.admission import OpenAdmission
from tests.fakes.asking import ScriptedSellers, in_virtual_time, question, seller
from tests.fakes.quote_cache import Memory, MemoryQuoteCache

SELLERS = {"acme": seller("acme"), "beta": seller("beta")}
BOOK = question("hot")
ENDING = {"acme": 5.0, "beta": 50.0}


class Process:
    """One aggregator's refresher over a cache that it may share."""

    def __init__(self, memory: Memory, sellers: ScriptedSellers) -> None:
        clock = VirtualClock()
        self.cache = MemoryQuoteCache(memory, clock, CacheSettings())
        self.gatherer = Gatherer(sellers, OpenAdmission(clock), Outlooks(), GatherSettings(), clock)
        self.records: list[CollectionRecord] = []
        self.refresher = Refresher(
            self.gatherer,
            self.cache,
            RefreshSettings(),
            clock=clock,
            new_id=uuid7_factory(clock, Random(1)),
            on_ended=self.records.append,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Refresher]:
        tasks = [
            asyncio.create_task(self.gatherer.run()),
            asyncio.create_task(self.refresher.run()),
        ]
        try:
            yield self.refresher
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def serve(
    refresher: Refresher,
    times: int,
    good_for_s: dict[str, float] | None = None,
    age_s: float = 50.0,
) -> None:
    good_for_s = good_for_s or ENDING
    lives_s = {seller_id: left_s + age_s for seller_id, left_s in good_for_s.items()}
    for _ in range(times):
        refresher.served(BOOK, SELLERS, good_for_s, lives_s)


@in_virtual_time
async def test_only_what_runs_out_soon_of_a_book_in_demand_is_asked_for_again() -> None:
    sellers = ScriptedSellers()
    process = Process(Memory(), sellers)
    async with process.running() as refresher:
        serve(refresher, 2)
        await asyncio.sleep(1)
        assert sellers.calls == [], "asked twice is not in demand"
        serve(refresher, 2)
        await asyncio.sleep(1)
        assert [call.seller_id for call in sellers.calls] == ["acme"]
        [record] = process.records
        assert [answer.seller_id for answer in record.fresh] == ["acme"]
        opened = await process.cache.open(BOOK, ["acme"])
        assert [answer.seller_id for answer in opened.answers] == ["acme"]


@in_virtual_time
async def test_demand_of_long_ago_does_not_count() -> None:
    sellers = ScriptedSellers()
    async with Process(Memory(), sellers).running() as refresher:
        serve(refresher, 2)
        await asyncio.sleep(300)
        serve(refresher, 1)
        await asyncio.sleep(1)
    assert sellers.calls == []


@in_virtual_time
async def test_a_failure_that_is_known_for_a_second_is_not_refreshed() -> None:
    sellers = ScriptedSellers()
    async with Process(Memory(), sellers).running() as refresher:
        serve(refresher, 5, {"acme": 0.9})
        await asyncio.sleep(1)
    assert sellers.calls == []


@pytest.mark.parametrize(
    ("age_s", "left_s", "calls"),
    [(1.0, 9.0, 0), (8.5, 1.5, 1), (3.9, 1.1, 0), (30.0, 9.0, 0), (50.0, 9.0, 1)],
)
def test_only_in_the_last_fifth_of_its_time_is_an_answer_asked_for_again(
    age_s: float, left_s: float, calls: int
) -> None:
    @in_virtual_time
    async def main() -> None:
        sellers = ScriptedSellers()
        async with Process(Memory(), sellers).running() as refresher:
            serve(refresher, 5, {"acme": left_s}, age_s)
            await asyncio.sleep(1)
        assert len(sellers.calls) == calls

    main()


@in_virtual_time
async def test_in_the_fleet_one_process_asks() -> None:
    sellers, memory = ScriptedSellers(), Memory()
    sellers.latency_s["acme"] = 0.5
    one, other = Process(memory, sellers), Process(memory, sellers)
    async with one.running() as first, other.running() as second:
        serve(first, 5)
        serve(second, 5)
        await asyncio.sleep(2)
    assert len(sellers.calls) == 1


@in_virtual_time
async def test_a_refresh_that_is_cancelled_gives_up_its_lead() -> None:
    sellers, memory = ScriptedSellers(), Memory()
    sellers.latency_s["acme"] = 60.0
    process = Process(memory, sellers)
    async with process.running() as refresher:
        serve(refresher, 5)
        await asyncio.sleep(0.1)
        assert len(sellers.calls) == 1
    opened = await Process(memory, sellers).cache.open(BOOK, ["acme"])
    assert opened.leading


@in_virtual_time
async def test_a_refresh_that_takes_its_time_keeps_its_lead() -> None:
    sellers, memory = ScriptedSellers(), Memory()
    sellers.latency_s["acme"] = 2.5
    process, other = Process(memory, sellers), Process(memory, sellers)
    async with process.running() as refresher:
        serve(refresher, 5)
        await asyncio.sleep(2.4)
        assert not (await other.cache.open(BOOK, ["acme"])).leading
        await asyncio.sleep(0.2)
        assert [answer.seller_id for answer in process.records[0].fresh] == ["acme"]
        assert (await other.cache.open(BOOK, ["beta"])).leading
