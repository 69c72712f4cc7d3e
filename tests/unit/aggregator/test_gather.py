"""Questions for one seller wait for each other, as long as its budget and their deadlines make sense."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.app.collect import Wish
from aggregator.app.lots import GatherSettings
from aggregator.domain.collection import Answer, MissReason, Skipped
from aggregator.domain.latency import BOUNDS_S
from bench.virtual_time import VirtualClock, run_virtually
from sellers.admission.admission import Admission
from sellers.admission.model import (
    AdmissionSettings,
    Allowed,
    Ask,
    Decision,
    Limits,
    Outcome,
    Purpose,
    Reason,
    Wait,
)
from sellers.model import CallFailed, Condition, FailureKind, QuoteOutcome
from tests.fakes.admission import OpenAdmission
from tests.fakes.asking import (
    Process,
    Result,
    Says,
    fails,
    fleet,
    in_virtual_time,
    question,
    quoted,
    seller,
)

WRONG = CallFailed(FailureKind.INVALID_ANSWER, definitely_not_done=False, detail="")
QUESTION = question()
ALONE = AdmissionSettings(loop_beat_s=1.0)
"""A process that is alone has 20 % of each limit for itself, and 64 % for quotes out of what is shared."""


async def ask_for(
    process: Process, count: int, *, customer_id: str = "", first: int = 0, time_left_s: float = 10
) -> list[Result]:
    """Collect for so many books at once."""
    wish = Wish(customer_id=customer_id)
    books = [f"{customer_id}-{number}" for number in range(first, first + count)]
    return await asyncio.gather(
        *(process.collect(book, wish=wish, time_left_s=time_left_s) for book in books)
    )


async def used_up(process: Process, calls: int) -> None:
    """Use up so many calls."""
    for number in range(calls):
        await process.collect(f"before-{number}")


@in_virtual_time
async def test_questions_about_different_books_travel_together() -> None:
    async with fleet(seller("acme", batch=100), seller("single")) as mesh:
        process = await mesh.process()
        results = await ask_for(process, 50)
        [call] = mesh.sellers.calls_to("acme")
        assert len(call.books) == 50
        assert len(mesh.sellers.calls_to("single")) == 50
    assert all(result.quoted == {"acme", "single"} for result in results)


@in_virtual_time
async def test_no_batch_is_larger_than_the_seller_takes() -> None:
    async with fleet(seller("acme", batch=30)) as mesh:
        process = await mesh.process()
        await ask_for(process, 100)
        assert [len(call.books) for call in mesh.sellers.calls] == [30, 30, 30, 10]
        assert {book for call in mesh.sellers.calls for book in call.books} == {
            f"-{number}" for number in range(100)
        }


@in_virtual_time
async def test_questions_in_another_currency_or_condition_do_not_travel_together() -> None:
    async with fleet(seller("acme", batch=30)) as mesh:
        process = await mesh.process()
        seen = asyncio.Semaphore(0)
        for currency in ("USD", "EUR"):
            process.gatherer.ask(
                seller("acme", batch=30),
                replace(QUESTION, currency=currency),
                customer_id="",
                until_s=2000.0,
                on_answer=lambda _: seen.release(),
            )
        for _ in range(2):
            await seen.acquire()
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_a_full_batch_does_not_wait() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        process = await mesh.process(GatherSettings(linger_s=5.0, longest_linger_s=5.0))
        results = await ask_for(process, 10)
        assert {result.elapsed_s for result in results} == {0.0}


@in_virtual_time
async def test_lots_that_have_nearly_waited_long_enough_are_admitted_with_one_that_has() -> None:
    sellers = [seller("acme", batch=10), seller("beta", batch=10)]
    for pause_s, rounds in ((0.05, 1), (0.4, 1), (0.6, 2)):
        async with fleet(*sellers) as mesh:
            process = await mesh.process(GatherSettings(linger_s=1.0))
            answers: list[Answer] = []
            for one in sellers:
                process.gatherer.ask(
                    one, QUESTION, customer_id="", until_s=2000.0, on_answer=answers.append
                )
                await asyncio.sleep(pause_s)
            await asyncio.sleep(1.0)
            assert len(answers) == len(sellers)
            assert len(process.admission.rounds) == rounds


@in_virtual_time
async def test_while_the_budget_is_plenty_a_batch_waits_for_milliseconds() -> None:
    async with fleet(seller("acme", batch=10, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        for number in range(10):
            result = await process.collect(f"book-{number}")
            assert result.elapsed_s == pytest.approx(0.003)


@in_virtual_time
async def test_the_scarcer_the_budget_the_longer_a_batch_waits() -> None:
    async with fleet(seller("acme", batch=10, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        waits = []
        for number in range(60):
            waits.append((await process.collect(f"book-{number}")).elapsed_s)
            # So that it is not as many calls as it may have at once.
            await asyncio.sleep(0.2)
        assert max(waits[:5]) < 0.01
        assert median(waits[5:15]) < median(waits[15:25]) < median(waits[-10:])
        assert 0.5 < waits[-1] <= 4.0


@in_virtual_time
async def test_a_question_that_comes_long_after_the_last_call_does_not_wait_for_others() -> None:
    """Although they came thick and fast before, and little of the budget is left."""
    async with fleet(seller("acme", batch=10, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        for number in range(40):
            await process.collect(f"book-{number}")
        await asyncio.sleep(4.0)
        assert (await process.collect("late")).elapsed_s == pytest.approx(0.003)


@in_virtual_time
async def test_who_only_compares_prices_waits_less_for_others() -> None:
    async with fleet(seller("acme", batch=10, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        wish = Wish(browsing=True)
        waits = [
            (await process.collect(f"book-{number}", wish=wish)).elapsed_s for number in range(10)
        ]
        assert 1.0 < max(waits) <= 1.5


@in_virtual_time
async def test_from_a_cold_start_on_the_budget_lasts_for_every_second_of_the_minute() -> None:
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        async with asyncio.TaskGroup() as tasks:
            asked = []
            for number in range(20 * 90):
                asked.append(tasks.create_task(process.collect(f"book-{number}")))
                await asyncio.sleep(1 / 20)
        results = [task.result() for task in asked]
        assert [result.misses for result in results if result.misses] == []
        # None had to wait for budget either: that takes longer than any batch waits for more.
        assert max(result.elapsed_s for result in results) <= 2.0


@in_virtual_time
async def test_the_budget_lasts_for_one_customer_at_three_processes_while_others_buy() -> None:
    rules = AdmissionSettings(processes=4, loop_beat_s=1.0)
    async with fleet(seller("acme", batch=100, calls_per_minute=100), rules=rules) as mesh:
        processes = [await mesh.process() for _ in range(3)]
        wish = Wish(customer_id="busy")
        buyer = Admission(mesh.ledger, VirtualClock(), rules, sellers=list, quiet=True)
        asked = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(20 * 70):
                process = processes[number % 3]
                collecting = process.collect(f"book-{number}", wish=wish, time_left_s=10.0)
                asked.append(tasks.create_task(collecting))
                await asyncio.sleep(1 / 20)
                if number % 60 == 0:
                    ask = Ask(Limits("acme", 100), timeout_s=1.0)
                    [decision] = await buyer.admit([ask], Purpose.PURCHASE)
                    assert isinstance(decision, Allowed)
                    buyer.report(decision.grant, Outcome.SUCCESS)
                    await buyer.flush()
        results = [task.result() for task in asked]
        assert [result.misses for result in results if result.misses] == []
        assert median(result.elapsed_s for result in results) < 3.0


@in_virtual_time
async def test_sellers_that_are_asked_as_seldom_are_asked_at_the_same_time() -> None:
    sellers = [seller(f"seller-{number}", batch=100, calls_per_minute=100) for number in range(5)]
    async with fleet(*sellers) as mesh:
        process = await mesh.process()
        # Each has had other calls before.
        for number, one in enumerate(sellers):
            for call in range(number):
                process.gatherer.ask(
                    one,
                    question(f"{call}"),
                    customer_id="",
                    until_s=2000.0,
                    on_answer=lambda _: None,
                )
                await asyncio.sleep(0.7)
        began_s = VirtualClock().monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(20 * 40):
                tasks.create_task(process.collect(f"book-{number}"))
                await asyncio.sleep(1 / 20)
        late = {round(call.at_s, 1) for call in mesh.sellers.calls if call.at_s > began_s + 20.0}
        asked = Counter(call.seller_id for call in mesh.sellers.calls if call.at_s > began_s + 20.0)
        assert len(late) < 1.5 * max(asked.values())


@in_virtual_time
async def test_a_demand_that_the_budget_can_bear_does_not_wait_for_company() -> None:
    """Be it that most of a minute's calls are always used up."""
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        async with asyncio.TaskGroup() as tasks:
            asked = []
            for number in range(180):
                asked.append(tasks.create_task(process.collect(f"book-{number}")))
                await asyncio.sleep(1)
        assert {round(task.result().elapsed_s, 3) for task in asked} == {0.003}


@in_virtual_time
async def test_nor_does_one_that_comes_by_chance() -> None:
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        rng = Random(1)
        async with asyncio.TaskGroup() as tasks:
            asked = []
            for number in range(100):
                asked.append(tasks.create_task(process.collect(f"book-{number}")))
                await asyncio.sleep(rng.expovariate(0.5))
        waited = [task.result().elapsed_s for task in asked if task.result().elapsed_s > 0.01]
        assert len(waited) < 10


@in_virtual_time
async def test_a_burst_after_a_rest_is_soon_seen_as_one() -> None:
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        process = await mesh.process()
        for number in range(5):
            await process.collect(f"rare-{number}")
            await asyncio.sleep(30)
        async with asyncio.TaskGroup() as tasks:
            asked = []
            for number in range(20 * 70):
                asked.append(tasks.create_task(process.collect(f"book-{number}")))
                await asyncio.sleep(1 / 20)
        assert [task.result().misses for task in asked if task.result().misses] == []
        assert max(task.result().elapsed_s for task in asked) <= 2.0


@in_virtual_time
async def test_a_share_of_its_own_that_is_ample_is_plenty() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        process = await mesh.process()
        mesh.ledger.answers = False
        waits = [(await process.collect(f"book-{number}")).elapsed_s for number in range(3)]
        assert max(waits) < 0.01


@in_virtual_time
async def test_a_seller_that_has_rested_is_asked_soon_again() -> None:
    async with fleet(seller("acme", batch=10, calls_per_minute=10)) as mesh:
        process = await mesh.process()
        await used_up(process, 12)
        await asyncio.sleep(65)
        assert (await process.collect()).elapsed_s < 0.01


@in_virtual_time
async def test_waiting_for_company_never_costs_a_question_its_deadline() -> None:
    async with fleet(seller("acme", batch=10, calls_per_minute=100)) as mesh:
        mesh.sellers.latency_s["acme"] = 0.3
        process = await mesh.process()
        await used_up(process, 62)
        result = await process.collect(time_left_s=0.8)
        assert result.quoted == {"acme"}
        [*_, last] = mesh.sellers.calls
        assert last.ended == "answered"


@in_virtual_time
async def test_a_budget_that_frees_up_in_time_is_waited_for() -> None:
    rules = replace(ALONE, window_s=2.0, warm_up_s=7.0)
    async with fleet(seller("acme", calls_per_minute=10), rules=rules) as mesh:
        process = await mesh.process()
        results = await ask_for(process, 12)
        assert all(result.quoted == {"acme"} for result in results)
        moments = [call.at_s for call in mesh.sellers.calls]
        # 7 of what is shared and 2 of its own at once, the others when these are free again.
        assert [round(at_s - moments[0]) for at_s in moments[:9]] == [0] * 9
        assert all(2 <= at_s - moments[0] <= 4.3 for at_s in moments[9:])


@in_virtual_time
async def test_a_budget_that_frees_up_too_late_is_not_waited_for() -> None:
    async with fleet(seller("acme", calls_per_minute=10)) as mesh:
        process = await mesh.process()
        results = await ask_for(process, 12)
        misses = [result for result in results if result.misses]
        assert [result.misses["acme"] for result in misses] == [MissReason.NO_BUDGET] * 3
        assert all(result.elapsed_s == 0 for result in misses)
        assert misses[0].summary.asked == 0


@in_virtual_time
async def test_who_comes_while_others_wait_for_budget_learns_soon_that_it_comes_too_late() -> None:
    async with fleet(seller("acme", calls_per_minute=10)) as mesh:
        process = await mesh.process()
        await ask_for(process, 12)
        result = await process.collect("late")
        assert result.misses == {"acme": MissReason.NO_BUDGET}
        assert result.elapsed_s <= 0.25


@in_virtual_time
async def test_a_seller_without_budget_for_so_many_books_is_asked_for_fewer() -> None:
    async with fleet(seller("acme", batch=100, quotes_per_minute=50)) as mesh:
        process = await mesh.process()
        results = await ask_for(process, 60)
        asked = sum(len(call.books) for call in mesh.sellers.calls)
        # 32 of what is shared, 10 of its own.
        assert asked == 42
        assert len(mesh.sellers.calls) <= 4
        assert Counter(len(result.quoted) for result in results) == {1: 42, 0: 18}


@in_virtual_time
async def test_a_process_without_any_share_asks_again_when_valkey_is_back() -> None:
    rules = replace(ALONE, processes=3, process_index=2)
    async with fleet(seller("acme", calls_per_minute=4), rules=rules) as mesh:
        process = await mesh.process()
        mesh.ledger.answers = False
        assert (await process.collect("first")).misses == {"acme": MissReason.NO_BUDGET}
        mesh.ledger.answers = True
        await asyncio.sleep(2)
        assert (await process.collect("second")).quoted == {"acme"}


@in_virtual_time
async def test_a_seller_that_cannot_answer_in_time_is_not_asked() -> None:
    async with fleet(seller("slow")) as mesh:
        mesh.sellers.latency_s["slow"] = 2.0
        process = await mesh.process()
        await used_up(process, 3)
        result = await process.collect(time_left_s=1.0)
        assert (result.misses, result.elapsed_s) == ({"slow": MissReason.TOO_SLOW}, 0)
        assert len(mesh.sellers.calls) == 3


@pytest.mark.parametrize(
    ("latency_s", "time_left_s"), [(2.75, 10), (2.9, 10), (1.52, 2.0), (1.12, 1.6), (2.05, 2.6)]
)
def test_a_seller_that_always_answers_in_time_is_asked(
    latency_s: float, time_left_s: float
) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(seller("steady")) as mesh:
            mesh.sellers.latency_s["steady"] = latency_s
            process = await mesh.process()
            await used_up(process, 5)
            result = await process.collect(time_left_s=time_left_s)
            assert result.quoted == {"steady"}

    main()


def test_latencies_are_told_apart_up_to_the_longest_call() -> None:
    assert GatherSettings().seller_s < BOUNDS_S[-1]


@in_virtual_time
async def test_a_seller_that_was_too_slow_is_tried_again_now_and_then() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s["acme"] = 2.0
        process = await mesh.process()
        await used_up(process, 3)
        mesh.sellers.latency_s["acme"] = 0.1
        assert (await process.collect("a", time_left_s=1.0)).misses
        await asyncio.sleep(30)
        assert (await process.collect("b", time_left_s=1.0)).quoted == {"acme"}


@in_virtual_time
async def test_a_seller_that_fails_is_not_asked_while_its_breaker_is_open() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.says["acme"] = fails(WRONG)
        process = await mesh.process()
        await ask_for(process, 12)
        await asyncio.sleep(0.1)
        result = await process.collect()
        assert (result.misses, result.elapsed_s) == ({"acme": MissReason.CIRCUIT_OPEN}, 0)
        assert (len(mesh.sellers.calls), result.summary.asked) == (12, 0)


@in_virtual_time
async def test_a_customer_with_a_thousand_questions_does_not_push_out_another_s() -> None:
    rules = replace(ALONE, window_s=2.0, warm_up_s=7.0)
    async with fleet(seller("acme", calls_per_minute=20, batch=10), rules=rules) as mesh:
        mesh.sellers.latency_s["acme"] = 0.5
        process = await mesh.process()
        crowd = asyncio.create_task(ask_for(process, 1000, customer_id="crowd"))
        await asyncio.sleep(0.1)
        [other] = await ask_for(process, 1, customer_id="other")
        assert other.quoted == {"acme"}
        others = [
            number for number, call in enumerate(mesh.sellers.calls) if "other-0" in call.books
        ]
        # At once: a part is kept for those who want little.
        assert others == [12]
        assert other.elapsed_s < 1.0
        crowd.cancel()
        await asyncio.wait((crowd,))


@pytest.mark.parametrize("batch", [0, 10])
@pytest.mark.parametrize("processes", [1, 3])
@in_virtual_time
async def test_who_comes_after_a_customer_with_hundreds_of_questions_still_has_her_answer(
    processes: int, batch: int
) -> None:
    rules = replace(ALONE, processes=processes)
    async with fleet(seller("acme", calls_per_minute=60, batch=batch), rules=rules) as mesh:
        fleet_of = [await mesh.process() for _ in range(processes)]
        crowd = asyncio.gather(
            *(
                ask_for(process, 400, customer_id="crowd", first=400 * number, time_left_s=30)
                for number, process in enumerate(fleet_of)
            )
        )
        # All that there is for the crowd is gone, and nothing frees up before a minute is over.
        await asyncio.sleep(5)
        of_crowd = len(mesh.sellers.calls)
        for number in range(8):
            [other] = await ask_for(fleet_of[number % processes], 1, customer_id=f"other-{number}")
            assert other.quoted == {"acme"}
            await asyncio.sleep(1)
        assert of_crowd >= 0.5 * 60
        assert len(mesh.sellers.calls) <= 60
        await crowd


@in_virtual_time
async def test_who_comes_after_many_customers_with_many_questions_has_her_answer_too() -> None:
    async with fleet(seller("acme", calls_per_minute=60)) as mesh:
        process = await mesh.process()
        await asyncio.gather(
            *(ask_for(process, 30, customer_id=f"crowd-{number}") for number in range(20))
        )
        [other] = await ask_for(process, 1, customer_id="other")
        assert other.quoted == {"acme"}


@in_virtual_time
async def test_while_valkey_is_gone_she_still_has_it() -> None:
    async with fleet(seller("acme", calls_per_minute=60), rules=ALONE) as mesh:
        mesh.ledger.answers = False
        process = await mesh.process()
        await ask_for(process, 50, customer_id="crowd")
        [other] = await ask_for(process, 1, customer_id="other")
        assert other.quoted == {"acme"}


@in_virtual_time
async def test_where_nobody_wants_much_nothing_is_kept() -> None:
    async with fleet(seller("acme", calls_per_minute=60), rules=ALONE) as mesh:
        process = await mesh.process()
        results = await asyncio.gather(
            *(ask_for(process, 5, customer_id=f"customer-{number}") for number in range(12))
        )
        # 39 of what is shared, 12 of its own.
        assert sum(bool(one.quoted) for result in results for one in result) == 51


class OneAtATime(OpenAdmission):
    """Lets one call pass a round."""

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> Sequence[Decision]:
        passing = await super().admit(asks[:1], purpose)
        return [*passing, *[Wait(0.1, Reason.NO_BUDGET, 0)] * (len(asks) - 1)]


@in_virtual_time
async def test_a_hundred_questions_in_one_condition_do_not_push_out_those_in_another() -> None:
    async with fleet(seller("acme")) as mesh:
        process = await mesh.process(admission=OneAtATime(VirtualClock()))
        for condition, count in ((Condition.NEW, 100), (Condition.GOOD, 3)):
            for number in range(count):
                process.gatherer.ask(
                    seller("acme"),
                    replace(question(f"{condition}-{number}"), conditions=frozenset({condition})),
                    customer_id=condition,
                    until_s=2000.0,
                    on_answer=lambda _: None,
                )
        await asyncio.sleep(2)
        books = [call.books[0].split("-")[0] for call in mesh.sellers.calls]
        assert books[:6].count(Condition.GOOD) == 3


CONDITIONS = [frozenset({one}) for one in Condition] + [frozenset(Condition)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("batch", [0, 2])
def test_a_customer_has_no_more_turns_for_asking_in_many_conditions(
    batch: int, *, together: bool
) -> None:
    """Be it that those of the other travel with hers or not."""

    @in_virtual_time
    async def main() -> None:
        acme = seller("acme", batch=batch)
        async with fleet(acme) as mesh:
            process = await mesh.process(admission=OneAtATime(VirtualClock()))

            def ask(customer_id: str, number: int, conditions: frozenset[Condition]) -> None:
                process.gatherer.ask(
                    acme,
                    replace(question(f"{customer_id}-{number}"), conditions=conditions),
                    customer_id=customer_id,
                    until_s=2000.0,
                    on_answer=lambda _: None,
                )

            for number in range(60):
                ask("many", number, CONDITIONS[number % 5])
            for number in range(4):
                ask("few", number, CONDITIONS[0 if together else 5])
            await asyncio.sleep(3)
            books = [book.split("-")[0] for call in mesh.sellers.calls for book in call.books]
            assert books[: 9 if batch == 0 else 14].count("few") == 4

    main()


@in_virtual_time
async def test_customers_have_turns() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        process = await mesh.process()
        await asyncio.gather(
            ask_for(process, 15, customer_id="many"),
            ask_for(process, 5, customer_id="few"),
        )
        [first, second] = mesh.sellers.calls
        assert Counter(book.split("-")[0] for book in first.books) == {"many": 5, "few": 5}
        assert Counter(book.split("-")[0] for book in second.books) == {"many": 10}


@pytest.mark.parametrize("steps_later", [2, 3, 10])
def test_a_book_that_another_customer_wants_too_has_its_turn_as_hers(steps_later: int) -> None:
    """Be it that she comes before it is asked, or while it waits for its turn."""

    async def main() -> None:
        async with fleet(seller("acme", batch=10)) as mesh:
            mesh.ledger.takes_s = 0.2
            process = await mesh.process()
            crowd = asyncio.create_task(ask_for(process, 100, customer_id="crowd"))
            for _ in range(steps_later):
                await asyncio.sleep(0)
            wanted = "crowd-99"
            await process.collect(wanted, wish=Wish(customer_id="other"))
            await crowd
            assert wanted in mesh.sellers.calls[0].books
            books = [book for call in mesh.sellers.calls for book in call.books]
            assert len(books) == len(set(books)) == 100

    run_virtually(main())


@in_virtual_time
async def test_who_joins_with_more_time_has_it_while_the_question_waits_for_budget() -> None:
    rules = replace(ALONE, window_s=2.0, warm_up_s=7.0)
    async with fleet(seller("acme", calls_per_minute=10), rules=rules) as mesh:
        mesh.sellers.latency_s["acme"] = 1.0
        process = await mesh.process()
        before = asyncio.create_task(ask_for(process, 9))
        await asyncio.sleep(0.5)
        # By now it is not known that the seller takes a second: for him that is too long after all.
        hasty = asyncio.create_task(process.collect(time_left_s=3.0))
        await asyncio.sleep(0.1)
        patient = await process.collect()
        assert patient.quoted == {"acme"}
        assert (await hasty).quoted == set()
        await before


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_asked_ahead_is_not_asked_twice_unless_it_must_be_fresh(*, fresh: bool) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(seller("acme")) as mesh:
            mesh.sellers.latency_s["acme"] = 2.0
            process = await mesh.process()
            ahead: list[Answer] = []
            process.gatherer.ask(
                seller("acme"),
                QUESTION,
                customer_id="",
                until_s=2000.0,
                on_answer=ahead.append,
                ahead=True,
            )
            await asyncio.sleep(0.5)
            hasty = asyncio.create_task(process.collect(time_left_s=1))
            result = await process.collect(wish=Wish(fresh=fresh))
            assert result.quoted == {"acme"}
            assert len(ahead) == 1
            assert len(mesh.sellers.calls) == (2 if fresh else 1)
            assert result.elapsed_s == pytest.approx(2.0 if fresh else 1.5, abs=0.01)
            assert (await hasty).misses == {"acme": MissReason.TIMED_OUT}
            assert (await hasty).summary.asked == 1
            await process.collect("another")
            assert len(ahead) == 1
            assert not process.gatherer._ahead

    main()


@in_virtual_time
async def test_who_has_more_time_than_what_is_asked_ahead_is_asked_for() -> None:
    rules = replace(ALONE, window_s=2.0, warm_up_s=7.0)
    acme = seller("acme", calls_per_minute=10)
    async with fleet(acme, rules=rules) as mesh:
        process = await mesh.process()
        await ask_for(process, 9)
        ahead: list[Answer] = []
        process.gatherer.ask(
            acme,
            QUESTION,
            customer_id="",
            until_s=1001.0,
            on_answer=ahead.append,
            ahead=True,
        )
        result = await process.collect()
        assert result.quoted == {"acme"}
        assert [answer.outcome for answer in ahead] == [Skipped(MissReason.NO_BUDGET, asked=False)]


@in_virtual_time
async def test_questions_that_nobody_wants_any_more_are_not_asked() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        process = await mesh.process(GatherSettings(linger_s=1.0, longest_linger_s=1.0))
        left = asyncio.create_task(process.collect("left"))
        staying = asyncio.create_task(process.collect("stays"))
        await asyncio.sleep(0.5)
        left.cancel()
        await staying
        assert [call.books for call in mesh.sellers.calls] == [("stays",)]


@in_virtual_time
async def test_a_call_goes_on_while_anybody_wants_one_of_its_books() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        mesh.sellers.latency_s["acme"] = 1.0
        process = await mesh.process()
        tasks = [asyncio.create_task(process.collect(book)) for book in ("a", "b")]
        await asyncio.sleep(0.5)
        [call] = mesh.sellers.calls
        for task in tasks:
            assert call.ended == ""
            task.cancel()
            await asyncio.wait((task,))
        assert call.ended == "cancelled"


async def leave_early(process: Process, books: int) -> None:
    """Collect for one book after the other, each time leaving after half a second."""
    for number in range(books):
        with suppress(TimeoutError):
            await asyncio.wait_for(process.collect(f"left-{number}"), 0.5)


@in_virtual_time
async def test_a_seller_that_hangs_is_found_out_although_nobody_ever_waits_for_it() -> None:
    async with fleet(seller("dead")) as mesh:
        mesh.sellers.latency_s["dead"] = math.inf
        process = await mesh.process()
        await leave_early(process, 100)
        result = await process.collect()
        assert result.misses == {"dead": MissReason.CIRCUIT_OPEN}
        outcomes = Counter(process.admission.outcomes("dead"))
        assert set(outcomes) == {Outcome.OURS, Outcome.SILENCE}
        # No more than one at a time went on, each from half a second after it began.
        timed_out = [call.at_s for call in mesh.sellers.calls if call.ended == "timed out"]
        assert all(later - at_s >= 2.5 for at_s, later in pairwise(timed_out))


@in_virtual_time
async def test_a_slow_seller_that_nobody_waits_for_is_not_blamed() -> None:
    async with fleet(seller("slow")) as mesh:
        mesh.sellers.latency_s["slow"] = 2.9
        process = await mesh.process()
        await leave_early(process, 100)
        await asyncio.sleep(3)
        outcomes = Counter(process.admission.outcomes("slow"))
        assert set(outcomes) == {Outcome.OURS, Outcome.SUCCESS}
        assert outcomes.total() == len(mesh.sellers.calls) <= 100


@in_virtual_time
async def test_a_seller_that_is_no_longer_active_is_called_no_more() -> None:
    async with fleet(seller("acme", batch=10), seller("beta", batch=10)) as mesh:
        process = await mesh.process(GatherSettings(linger_s=1.0, longest_linger_s=1.0))
        collecting = asyncio.create_task(process.collect())
        await asyncio.sleep(0.5)
        process.gatherer.retain({"beta"})
        result = await collecting
        assert (result.misses, result.quoted) == ({"acme": MissReason.STOPPED}, {"beta"})
        assert result.summary.asked == 1
        assert mesh.sellers.calls_to("acme") == []


@in_virtual_time
async def test_nor_by_a_collection_that_began_before() -> None:
    """It may have followed another process, and ask only when that one is gone."""
    async with fleet(seller("acme"), seller("beta")) as mesh:
        mesh.sellers.latency_s = {"acme": 2.0, "beta": 2.0}
        leader, follower = await mesh.process(), await mesh.process()
        leading = asyncio.create_task(leader.collect())
        await asyncio.sleep(0.1)
        following = asyncio.create_task(follower.collect())
        await asyncio.sleep(0.1)
        follower.gatherer.retain({"beta"})
        await leader.die()
        leading.cancel()
        result = await following
        assert (result.misses, result.quoted) == ({"acme": MissReason.STOPPED}, {"beta"})
        assert len(mesh.sellers.calls_to("acme")) == 1


@in_virtual_time
async def test_what_is_known_of_a_seller_is_forgotten_once_it_does_not_matter() -> None:
    async with fleet(seller("acme", batch=10), seller("beta")) as mesh:
        process = await mesh.process()
        await used_up(process, 3)
        assert {key[0] for key in process.gatherer._lots} == {"acme", "beta"}
        await asyncio.sleep(61)
        wanted = process.gatherer.ask(
            seller("beta"), QUESTION, customer_id="", until_s=2000.0, on_answer=lambda _: None
        )
        await asyncio.sleep(1)
        assert wanted.on_answer is None
        assert {key[0] for key in process.gatherer._lots} == {"beta"}
        process.outlooks.retain({"beta"})
        assert process.outlooks["acme"].usual_s() == 0
        assert process.outlooks["beta"].answered


@in_virtual_time
async def test_who_waits_for_a_call_to_end_goes_on_as_soon_as_one_has() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s["acme"] = 1.0
        process = await mesh.process()
        results = await ask_for(process, 20)
        assert all(result.quoted == {"acme"} for result in results)
        started_s = mesh.sellers.calls[0].at_s
        assert [call.at_s - started_s for call in mesh.sellers.calls] == [0.0] * 13 + [1.0] * 7
        # Not asked for all the time, in case others have ended a call.
        assert len(process.admission.rounds) < 20


@in_virtual_time
async def test_who_waits_for_a_call_of_another_process_to_end_goes_on_soon() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s["acme"] = 1.0
        first, second = await mesh.process(), await mesh.process()
        under_way = asyncio.create_task(ask_for(first, 13))
        await asyncio.sleep(0.1)
        result = await second.collect("other")
        assert result.quoted == {"acme"}
        assert result.elapsed_s <= 2.2
        await under_way


@in_virtual_time
async def test_a_seller_that_is_busy_for_too_long_was_not_asked() -> None:
    async with fleet(seller("acme")) as mesh:
        process = await mesh.process()
        # So it is thought to answer at once, and there is hope to the very end.
        await used_up(process, 3)
        mesh.sellers.latency_s["acme"] = 2.0
        under_way = asyncio.create_task(ask_for(process, 13))
        await asyncio.sleep(0.05)
        result = await process.collect(time_left_s=1.0)
        assert (result.misses, result.summary.asked) == ({"acme": MissReason.BUSY}, 0)
        assert result.elapsed_s < 1.0
        await under_way


@in_virtual_time
async def test_a_slot_for_questions_that_nobody_wants_any_more_is_given_back() -> None:
    async with fleet(seller("acme", batch=10)) as mesh:
        mesh.ledger.takes_s = 0.05
        process = await mesh.process()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.collect(), 0.03)
        await asyncio.sleep(0.1)
        assert process.admission.outcomes("acme") == [Outcome.NOT_SENT]
        assert mesh.sellers.calls == []


@in_virtual_time
async def test_a_slot_for_a_call_that_is_cancelled_before_it_begins_is_given_back() -> None:
    async with fleet(seller("acme")) as mesh:
        process = await mesh.process()
        waiting = process.gatherer.ask(
            seller("acme"), QUESTION, customer_id="", until_s=2000.0, on_answer=lambda _: None
        )
        for _ in range(100):
            if waiting.call is not None:
                break
            await asyncio.sleep(0)
        await asyncio.wait(process.gatherer.cancel([waiting]))
        assert process.admission.outcomes("acme") == [Outcome.NOT_SENT]
        assert mesh.sellers.calls == []


@pytest.mark.parametrize(
    ("wrong", "outcome"), [(1, Outcome.SUCCESS), (5, Outcome.SUCCESS), (6, Outcome.FAILURE)]
)
@in_virtual_time
async def test_wrong_items_of_a_batch_are_misses_alone_and_blame_the_call_if_they_are_most_of_it(
    wrong: int, outcome: Outcome
) -> None:
    def says(book: str) -> QuoteOutcome:
        return WRONG if int(book.removeprefix("-")) < wrong else quoted()

    async with fleet(seller("acme", batch=10)) as mesh:
        mesh.sellers.says["acme"] = says
        process = await mesh.process()
        results = await ask_for(process, 10)
        assert process.admission.outcomes("acme") == [outcome]
    assert [bool(result.quoted) for result in results] == [n >= wrong for n in range(10)]
    assert results[0].misses == {"acme": MissReason.INVALID_ANSWER}


NOT_UNDERSTOOD = CallFailed(FailureKind.NOT_UNDERSTOOD, definitely_not_done=True, detail="")


def refuses(*odd: str) -> Says:
    """Say what a seller does that refuses a whole call for one of these books."""
    return lambda book: NOT_UNDERSTOOD if book in odd else quoted()


async def collect_all(process: Process, books: Sequence[str]) -> dict[str, Result]:
    results = await asyncio.gather(*map(process.collect, books))
    return dict(zip(books, results, strict=True))


@pytest.mark.parametrize("odd", ["book-0", "book-37", "book-99"])
def test_one_book_that_a_seller_does_not_understand_costs_only_itself(odd: str) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
            mesh.sellers.says["acme"] = refuses(odd)
            process = await mesh.process()
            results = await collect_all(process, [f"book-{number}" for number in range(100)])
            assert {book for book, result in results.items() if result.misses} == {odd}
            assert results[odd].misses == {"acme": MissReason.REFUSED}
            assert results[odd].summary.asked == 1
            assert len(mesh.sellers.calls) <= 16
            assert set(process.admission.outcomes("acme")) == {Outcome.SUCCESS}
            # Nor is it asked about again at once.
            assert (await process.collect(odd)).misses == {"acme": MissReason.REFUSED}
            assert len(mesh.sellers.calls) <= 16

    main()


@in_virtual_time
async def test_books_with_an_isbn_do_not_suffer_twice_from_other_ids() -> None:
    isbns = [f"978{number:010}" for number in range(40)]
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        mesh.sellers.says["acme"] = refuses("odd-1", "odd-2")
        process = await mesh.process()
        await collect_all(process, [*isbns[:20], "odd-1"])
        assert [len(call.books) for call in mesh.sellers.calls] == [21, 20, 1]
        mesh.sellers.calls.clear()
        results = await collect_all(process, [*isbns[20:], "odd-2"])
        assert sorted(len(call.books) for call in mesh.sellers.calls) == [1, 20]
        assert {book for book, result in results.items() if result.misses} == {"odd-2"}


@in_virtual_time
async def test_a_seller_that_understands_nothing_is_not_asked_for_ever() -> None:
    async with fleet(seller("acme", batch=100, calls_per_minute=100)) as mesh:
        mesh.sellers.says["acme"] = fails(NOT_UNDERSTOOD)
        process = await mesh.process()
        for first in range(0, 1000, 100):
            results = await ask_for(process, 100, first=first)
            assert all(result.misses == {"acme": MissReason.REFUSED} for result in results)
        # Ten batches, and a fifth of a minute's calls.
        assert len(mesh.sellers.calls) <= 10 + 20
        assert {key[-1] for key in process.gatherer._lots} <= {0, 1}


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (FailureKind.SELLER_ERROR, Outcome.FAILURE),
        (FailureKind.RATE_LIMITED, Outcome.FAILURE),
        (FailureKind.INVALID_ANSWER, Outcome.FAILURE),
        (FailureKind.REFUSED, Outcome.FAILURE),
        (FailureKind.NOT_FOUND, Outcome.SUCCESS),
        (FailureKind.TIMED_OUT, Outcome.SILENCE),
        (FailureKind.UNREACHABLE, Outcome.UNREACHED),
    ],
)
@pytest.mark.parametrize("books", [1, 5])
def test_what_a_failed_call_says_of_its_seller(
    failure: FailureKind, outcome: Outcome, books: int
) -> None:
    says = fails(CallFailed(failure, definitely_not_done=False, detail=""))
    assert run_virtually(_reported(says, books)) == [outcome]


@pytest.mark.parametrize("books", [1, 5])
@pytest.mark.parametrize(
    "ours",
    [
        CallFailed(
            FailureKind.UNREACHABLE,
            definitely_not_done=False,
            detail="DNS resolution failed for acme:1",
        ),
        CallFailed(FailureKind.TIMED_OUT, definitely_not_done=True, detail="no time was left"),
        CallFailed(FailureKind.NO_CREDENTIAL, definitely_not_done=True, detail="no credential"),
    ],
)
def test_a_fault_of_ours_does_not(ours: CallFailed, books: int) -> None:
    assert run_virtually(_reported(fails(ours), books)) == [Outcome.NOT_SENT]


@in_virtual_time
async def test_a_seller_for_which_we_have_no_credential_was_not_asked() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.says["acme"] = fails(
            CallFailed(FailureKind.NO_CREDENTIAL, definitely_not_done=True, detail="")
        )
        result = await (await mesh.process()).collect()
        assert (result.misses, result.summary.asked) == ({"acme": MissReason.NO_CREDENTIAL}, 0)


async def _reported(says: Says, books: int) -> list[Outcome]:
    async with fleet(seller("acme", batch=10)) as mesh:
        mesh.sellers.says["acme"] = says
        process = await mesh.process()
        await ask_for(process, books)
        return process.admission.outcomes("acme")


@in_virtual_time
async def test_a_grant_that_has_become_void_is_given_back_and_asked_for_again() -> None:
    rules = replace(ALONE, send_within_s=0.0)
    async with fleet(seller("acme"), rules=rules) as mesh:
        process = await mesh.process()
        void = asyncio.create_task(process.collect())
        await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert set(process.admission.outcomes("acme")) == {Outcome.NOT_SENT}
        assert len(process.admission.reports) > 1
        assert mesh.sellers.calls == []
        void.cancel()
        await asyncio.wait((void,))


@st.composite
def _seller_limits(draw: st.DrawFn) -> tuple[int, int, int]:
    return (
        draw(st.sampled_from([0, 1, 3, 10])),
        draw(st.sampled_from([1, 5, 20, 1000])),
        draw(st.sampled_from([0, 5, 50])),
    )


_ASKERS = st.lists(
    st.tuples(
        st.integers(0, 6),  # book
        st.sampled_from(["a", "b", "c"]),  # customer
        st.floats(0, 3),  # arrives at
        st.floats(0.05, 6),  # time left
        st.one_of(st.none(), st.floats(0, 3)),  # leaves after
        st.booleans(),  # fresh
    ),
    max_size=30,
)


@given(
    limits=st.lists(_seller_limits(), min_size=1, max_size=3),
    askers=_ASKERS,
    latency_s=st.floats(0, 4),
    takes_s=st.sampled_from([0.0, 0.01, 0.05]),
    failing=st.integers(0, 3),
)
@settings(max_examples=60)
def test_whatever_is_asked_every_grant_is_reported_once_and_everybody_is_answered(
    limits: list[tuple[int, int, int]],
    askers: list[tuple[int, str, float, float, float | None, bool]],
    latency_s: float,
    takes_s: float,
    failing: int,
) -> None:
    sellers = [
        seller(f"s{number}", batch=batch, calls_per_minute=calls, quotes_per_minute=quotes)
        for number, (batch, calls, quotes) in enumerate(limits)
    ]

    async def main() -> None:
        async with fleet(*sellers) as mesh:
            mesh.ledger.takes_s = takes_s
            for number, one in enumerate(sellers):
                mesh.sellers.latency_s[one.seller_id] = latency_s / (number + 1)
            for one in sellers[:failing]:
                mesh.sellers.says[one.seller_id] = fails(WRONG)
            processes = [await mesh.process(), await mesh.process()]

            async def ask(
                process: Process, asker: tuple[int, str, float, float, float | None, bool]
            ) -> None:
                book, customer_id, at_s, time_left_s, leaves_s, fresh = asker
                await asyncio.sleep(at_s)
                wish = Wish(customer_id=customer_id, fresh=fresh)
                collecting = process.collect(f"book-{book}", wish=wish, time_left_s=time_left_s)
                try:
                    result = await asyncio.wait_for(collecting, leaves_s)
                except TimeoutError:
                    return
                assert set(result.answers) == {one.seller_id for one in sellers}
                assert result.elapsed_s <= time_left_s

            await asyncio.gather(
                *(ask(processes[number % 2], asker) for number, asker in enumerate(askers))
            )
            # A call that goes on although nobody waits for it takes that at most.
            await asyncio.sleep(GatherSettings().seller_s)
            for process in processes:
                assert process.collector._flights == {}
                assert all(not lot.size for lot in process.gatherer._lots.values())
                assert not process.gatherer._calls
        for call in mesh.sellers.calls:
            batch = next(s for s in sellers if s.seller_id == call.seller_id).capabilities
            assert 1 <= len(call.books) <= max(1, batch.max_batch_size)
            assert len(set(call.books)) == len(call.books)

    run_virtually(main())
