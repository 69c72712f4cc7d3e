"""Who compares prices gets what is known and what sellers can spare, and nobody who buys ever notices."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from aggregator.app.collect import Wish
from aggregator.domain.collection import MissReason, Question
from tests.fakes.asking import Process, fleet, in_virtual_time, seller

BROWSING = Wish(browsing=True, customer_id="browser")


async def browse_for_ever(process: Process) -> None:
    """Compare the prices of one book after the other, with nothing in between."""
    number = 0
    while True:
        number += 1
        await process.collect(f"browsed-{number}", wish=BROWSING, time_left_s=2.0)


@in_virtual_time
async def test_with_browsing_at_full_tilt_a_purchase_still_gets_all_its_quotes() -> None:
    sellers = [seller("acme", calls_per_minute=50), seller("beta", batch=10, calls_per_minute=20)]
    async with fleet(*sellers) as mesh:
        mesh.sellers.latency_s = {"acme": 0.1, "beta": 0.1}
        processes = [await mesh.process(), await mesh.process()]
        async with asyncio.TaskGroup() as tasks:
            browsers = [
                tasks.create_task(browse_for_ever(process))
                for process in processes
                for _ in range(20)
            ]
            await asyncio.sleep(30)
            for number in range(20):
                bought = await processes[number % 2].collect(f"bought-{number}", time_left_s=10.0)
                assert bought.quoted == {"acme", "beta"}
                await asyncio.sleep(1)
            for browser in browsers:
                browser.cancel()
        calls = Counter(
            (call.seller_id, book.partition("-")[0])
            for call in mesh.sellers.calls
            for book in call.books[:1]
            if call.at_s < mesh.sellers.calls[0].at_s + 60
        )
        # A fifth of what quotes may use of 50 and of 20 calls, and of the own share of each process.
        assert 0 < calls["acme", "browsed"] <= 6 + 2 * 2
        assert 0 < calls["beta", "browsed"] <= 2


@in_virtual_time
async def test_where_sellers_have_nothing_to_spare_the_answer_says_so() -> None:
    async with fleet(seller("acme", calls_per_minute=10)) as mesh:
        process = await mesh.process()
        for number in range(8):
            assert (await process.collect(f"bought-{number}")).quoted == {"acme"}
        browsed = await process.collect("browsed", wish=BROWSING, time_left_s=3.0)
        assert browsed.misses == {"acme": MissReason.NO_BUDGET}


@in_virtual_time
async def test_who_browses_gets_what_those_who_buy_have_found_out_and_how_old_it_is() -> None:
    async with fleet(seller("acme"), seller("beta")) as mesh:
        process = await mesh.process()
        await process.collect()
        await asyncio.sleep(20)
        browsed = await process.collect(wish=BROWSING)
        assert browsed.summary.cached == 2
        assert [answer.age_s for answer in browsed.answers.values()] == pytest.approx([20, 20])
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_who_buys_gets_what_those_who_browse_have_found_out() -> None:
    async with fleet(seller("acme")) as mesh:
        first, second = await mesh.process(), await mesh.process()
        await first.collect(wish=BROWSING)
        assert (await second.collect()).summary.cached == 1
        assert len(mesh.sellers.calls) == 1


@in_virtual_time
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_who_buys_does_not_wait_for_those_who_browse_for_the_same_book(
    *, elsewhere: bool
) -> None:
    async with fleet(seller("acme", calls_per_minute=10)) as mesh:
        mesh.sellers.latency_s = {"acme": 0.1}
        process = await mesh.process()
        other = await mesh.process() if elsewhere else process
        # Nothing is left for browsing, so that it waits for a slot.
        await process.collect("bought")
        browsing = asyncio.create_task(process.collect(wish=BROWSING, time_left_s=90.0))
        await asyncio.sleep(1)
        bought = await other.collect()
        assert bought.quoted == {"acme"}
        assert bought.elapsed_s == pytest.approx(0.1)
        browsing.cancel()
        await asyncio.wait((browsing,))


@in_virtual_time
async def test_browsing_makes_no_book_one_in_demand() -> None:
    """Books in demand are asked for again before what is known runs out, out of the budget of those who buy."""
    told: list[Question] = []
    async with fleet(seller("acme")) as mesh:
        process = await mesh.process(
            on_known=lambda question, _sellers, _left, _lives: told.append(question)
        )
        await process.collect("browsed", wish=BROWSING)
        await process.collect("browsed", wish=BROWSING)
        assert told == []
        await process.collect("bought")
        assert [question.book_id for question in told] == ["bought"]
