"""Where there are too many sellers some are chosen, in phases; the answer says what that may have missed."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest

from aggregator.app.collect import Wish
from aggregator.convert import summary as to_proto
from aggregator.domain.collection import MissReason
from aggregator.domain.stopping import Policy
from aggregator.selection.selection import Phase, SelectionSettings
from bench.virtual_time import VirtualClock
from mesh import errors
from mesh.money import Money
from sellers.admission.model import Purpose
from sellers.model import Seller, Unavailable, UnavailableReason
from tests.fakes.asking import Fleet, fleet, in_virtual_time, quoted, seller

NO = Unavailable(UnavailableReason.NOT_CARRIED)
NEVER_S = 1000.0
# A phase that can save anything at all is worth it; one that cannot is not.
SETTINGS = SelectionSettings(
    phases=(Phase(4, 4.0), Phase(6, 8.0), Phase(5, 13.0)), most=15, worth=0.0, full_share=0.0
)
CONTENT = replace(SETTINGS, worth=1.0)


def sellers(count: int = 40) -> list[Seller]:
    return [seller(f"seller-{number:02d}") for number in range(count)]


def asked(mesh: Fleet) -> list[int]:
    return [int(call.seller_id.removeprefix("seller-")) for call in mesh.sellers.calls]


@in_virtual_time
async def test_who_finds_what_is_affordable_in_the_first_phase_asks_no_others() -> None:
    async with fleet(*sellers()) as mesh:
        process = await mesh.process(selection=CONTENT)
        got = await process.collect(wish=Wish(affordable_minor=2500))
        assert asked(mesh) == [0, 1, 2, 3]
    summary = got.summary
    assert got.quoted == {"seller-00", "seller-01", "seller-02", "seller-03"}
    assert got.answers.keys() == got.quoted
    assert (summary.sellers, summary.asked, summary.quoted) == (40, 4, 4)
    assert summary.misses == {MissReason.NOT_SELECTED: 36}
    assert summary.coverage is not None
    assert (summary.coverage.asked, summary.coverage.of) == (4, 40)
    assert 0.0 < summary.coverage.chance_cheaper < 1.0
    said = to_proto(summary)
    assert said.coverage.expected_saving.currency_code == "USD"
    assert [(miss.reason, miss.count) for miss in said.misses] == [(13, 36)]


@in_virtual_time
async def test_as_long_as_nothing_is_affordable_the_next_phase_begins_with_the_last_answer() -> (
    None
):
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = dict.fromkeys((s.seller_id for s in sellers()), 0.5)
        mesh.sellers.says = {"seller-12": lambda _book: quoted(900)}
        process = await mesh.process(selection=CONTENT)
        began_s = VirtualClock().monotonic()
        got = await process.collect(wish=Wish(affordable_minor=1000))
        assert asked(mesh) == list(range(15))
        moments = [round(call.at_s - began_s, 1) for call in mesh.sellers.calls]
        assert moments == [0.0] * 4 + [0.5] * 6 + [1.0] * 5
    assert round(got.elapsed_s, 1) == 1.5
    assert got.summary.best == Money("USD", 900)
    assert got.summary.misses == {MissReason.NOT_SELECTED: 25}


@in_virtual_time
async def test_the_last_resort_is_for_those_who_have_found_nothing_affordable() -> None:
    async with fleet(*sellers()) as mesh:
        process = await mesh.process(selection=SETTINGS)
        await process.collect(wish=Wish(affordable_minor=2500))
        assert asked(mesh) == list(range(10))


@in_virtual_time
async def test_who_is_slow_holds_up_a_phase_to_its_end_and_is_waited_for_in_the_next() -> None:
    async with fleet(*sellers()) as mesh:
        phases = (Phase(4, 1.0), Phase(4, 3.0))
        mesh.sellers.latency_s = {"seller-01": 2.5}
        process = await mesh.process(selection=replace(SETTINGS, phases=phases, most=8))
        began_s = VirtualClock().monotonic()
        got = await process.collect(wish=Wish(affordable_minor=1000))
        moments = [round(call.at_s - began_s, 1) for call in mesh.sellers.calls]
        assert moments == [0.0] * 4 + [1.0] * 4
    assert len(got.quoted) == 8
    assert round(got.elapsed_s, 1) == 2.5


@in_virtual_time
async def test_no_phase_is_begun_for_which_there_is_no_time() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = dict.fromkeys((s.seller_id for s in sellers()), 0.8)
        process = await mesh.process(selection=SETTINGS)
        got = await process.collect(wish=Wish(affordable_minor=1), time_left_s=1.2)
        assert len(asked(mesh)) == 4
    assert len(got.quoted) == 4


@in_virtual_time
async def test_who_runs_out_of_time_gets_what_there_is_and_what_it_has_missed() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = {"seller-02": NEVER_S}
        process = await mesh.process(selection=SETTINGS)
        got = await process.collect(wish=Wish(affordable_minor=2500), time_left_s=2.0)
    assert got.misses == {"seller-02": MissReason.TIMED_OUT}
    assert got.summary.misses == {MissReason.TIMED_OUT: 1, MissReason.NOT_SELECTED: 36}
    assert got.summary.coverage is not None


@in_virtual_time
async def test_up_to_so_many_sellers_all_are_asked() -> None:
    async with fleet(*sellers(40)) as mesh:
        process = await mesh.process(selection=SETTINGS, select_above=40)
        got = await process.collect()
        assert len(asked(mesh)) == 40
    assert got.summary.coverage is None
    assert not got.summary.misses


@in_virtual_time
async def test_nobody_has_it_after_all_phases() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.says = {s.seller_id: lambda _book: NO for s in sellers()}
        process = await mesh.process(selection=SETTINGS)
        got = await process.collect()
        assert len(asked(mesh)) == 15
    assert got.summary.answered == 15
    assert got.summary.coverage is not None
    assert got.summary.coverage.expected_saving is None
    assert not to_proto(got.summary).coverage.HasField("expected_saving")


@in_virtual_time
async def test_who_needs_all_phases_does_not_want_more_for_that() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.says = {s.seller_id: lambda _book: NO for s in sellers()}
        process = await mesh.process(selection=SETTINGS)
        for number in range(5):
            await process.collect(f"book-{number}", wish=Wish(customer_id="alice"))
        assert not process.gatherer._demand[Purpose.QUOTE].uneven


@in_virtual_time
async def test_those_who_ask_at_the_same_time_share_the_phases_and_who_will_pay_most_decides() -> (
    None
):
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = dict.fromkeys((s.seller_id for s in sellers()), 0.5)
        process = await mesh.process(selection=CONTENT)
        rich = asyncio.create_task(process.collect(wish=Wish(affordable_minor=5000)))
        poor = asyncio.create_task(process.collect(wish=Wish(affordable_minor=1000)))
        first, second = await asyncio.gather(rich, poor)
        assert asked(mesh) == [0, 1, 2, 3]
    assert first.summary.collection_id == second.summary.collection_id
    assert first.quoted == second.quoted


@in_virtual_time
async def test_who_needs_no_more_leaves_before_the_next_phase_and_calls_end_with_the_last() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = {"seller-02": NEVER_S}
        process = await mesh.process(selection=SETTINGS)
        wish = Wish(policy=Policy.FAST, affordable_minor=2500)
        got = await process.collect(wish=wish)
        assert len(asked(mesh)) <= 10
    assert got.misses["seller-02"] is MissReason.STOPPED


@in_virtual_time
async def test_what_one_aggregator_asks_another_one_knows() -> None:
    async with fleet(*sellers()) as mesh:
        mesh.sellers.latency_s = dict.fromkeys((s.seller_id for s in sellers()), 0.5)
        one, two = [await mesh.process(selection=CONTENT) for _ in range(2)]
        results = await asyncio.gather(one.collect(), two.collect())
        assert sorted(asked(mesh)) == [0, 1, 2, 3]
    assert results[0].quoted == results[1].quoted
    assert results[1].summary.coverage is not None


@in_virtual_time
async def test_who_may_not_be_called_is_not_chosen_again_for_a_moment() -> None:
    spent = [seller(f"seller-{n:02d}", calls_per_minute=1) for n in range(2)]
    async with fleet(*spent, *sellers()[2:]) as mesh:
        process = await mesh.process(selection=CONTENT)
        await process.collect("one", time_left_s=2.0)
        mesh.sellers.calls.clear()
        second = await process.collect("two", time_left_s=2.0)
        assert sorted(asked(mesh)) == [2, 3]
        mesh.sellers.calls.clear()
        await process.collect("three", time_left_s=2.0)
        assert sorted(asked(mesh)) == [2, 3, 4, 5]
    assert set(second.misses) == {"seller-00", "seller-01"}


@in_virtual_time
async def test_what_was_said_is_checked_afterwards_where_nobody_waits_for_it() -> None:
    async with fleet(*sellers()) as mesh:
        checked = replace(CONTENT, full_share=1.0)
        mesh.sellers.says = {"seller-30": lambda _book: quoted(900)}
        process = await mesh.process(selection=checked)
        got = await process.collect(wish=Wish(affordable_minor=2500))
        assert sorted(asked(mesh)) == [0, 1, 2, 3]
        assert got.summary.quoted == 4
        await asyncio.sleep(1.0)
        assert sorted(asked(mesh)) == list(range(40))
        [market] = mesh.markets
        [(_, came_true, _)] = market.calibration.dump()
        assert came_true
        await process.collect("another")
        # It is remembered who was cheaper.
        book = market.statistics.book("book")
        assert book is not None
        assert book.total_minor.min() == 900


@in_virtual_time
async def test_all_who_were_not_chosen_are_asked_for_a_check_some_at_a_time() -> None:
    count = 650
    async with fleet(*sellers(count)) as mesh:
        mesh.sellers.says = {"seller-600": lambda _book: quoted(900)}
        mesh.sellers.latency_s = {"seller-300": NEVER_S}
        process = await mesh.process(selection=replace(CONTENT, full_share=1.0))
        began, began_s = VirtualClock().now(), VirtualClock().monotonic()
        first = await process.collect(wish=Wish(affordable_minor=2500))
        # Whoever buys meanwhile is not held against what was said before.
        await process.collect("another", wish=Wish(affordable_minor=2500))
        await asyncio.sleep(30.0)
        moments = Counter(
            round(call.at_s - began_s) for call in mesh.sellers.calls if call.books == ("book",)
        )
        assert moments == {0: 104, 1: 100, 2: 100, 3: 100, 4: 100, 5: 100, 6: count - 604}
        assert {call.seller_id for call in mesh.sellers.calls if "another" in call.books} == {
            f"seller-{number:02d}" for number in range(4)
        }
        [market] = mesh.markets
        [(said, came_true, _)] = market.calibration.dump()
        assert came_true
        # Of what was said of all of them, not of a few.
        assert first.summary.coverage is not None
        stated = first.summary.coverage.chance_cheaper
        assert 1.0 / (1.0 + math.exp(-said)) == pytest.approx(stated, rel=0.01)
        book = market.statistics.book("book")
        assert book is not None
        assert book.total_minor.min() == 900
        assert len(book.rows) == count - 1
    # The history has them as they were asked.
    kept = [
        (round((part.started_at - began).total_seconds()), len(part.answers))
        for part in mesh.checked
    ]
    assert kept == [(0, 100), (1, 100), (2, 100), (3, 100), (4, 100), (5, 100), (6, count - 604)]
    assert len({part.collection_id for part in mesh.checked}) == len(kept)


@in_virtual_time
async def test_a_currency_in_which_nobody_sells() -> None:
    async with fleet() as mesh:
        process = await mesh.process(selection=SETTINGS)
        got = await process.collect()
    assert got.summary.sellers == 0


@in_virtual_time
async def test_who_refuses_to_sell_what_it_quoted_is_not_asked_any_more() -> None:
    async with fleet(*sellers()) as mesh:
        process = await mesh.process(selection=CONTENT)
        [market] = mesh.markets
        for _ in range(3):
            market.sold("seller-01", refused=True)
        market.sold("seller-02", refused=False)
        await process.collect(wish=Wish(affordable_minor=2500))
        assert asked(mesh) == [0, 2, 3, 4]
        with pytest.raises(errors.NotFound, match="nobody"):
            market.sold("nobody", refused=True)
