"""All who ask the same at the same time share one collection, in a process and in the fleet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from aggregator.app.collect import Limits, Wish
from aggregator.app.gather import Gatherer
from aggregator.app.lots import Waiting
from aggregator.domain.collection import Answer, MissReason, Question
from aggregator.domain.history import CollectionRecord
from aggregator.domain.stopping import Policy
from bench.virtual_time import VirtualClock
from sellers.admission.model import Ask, Decision, Outcome, Purpose, Reason, Wait
from sellers.model import CallFailed, FailureKind, Quote, Seller
from tests.fakes.admission import OpenAdmission
from tests.fakes.asking import Process, fails, fleet, in_virtual_time, question, quoted, seller

BROKEN = CallFailed(FailureKind.SELLER_ERROR, definitely_not_done=False, detail="")


@in_virtual_time
async def test_500_who_ask_at_once_cost_one_call_a_seller() -> None:
    async with fleet(seller("acme"), seller("beta", batch=10), seller("gamma")) as mesh:
        mesh.sellers.latency_s = {"acme": 0.1, "beta": 0.2, "gamma": 0.3}
        process = await mesh.process()
        results = await asyncio.gather(*(process.collect() for _ in range(500)))
        assert Counter(call.seller_id for call in mesh.sellers.calls) == {
            "acme": 1,
            "beta": 1,
            "gamma": 1,
        }
    assert all(result.quoted == {"acme", "beta", "gamma"} for result in results)
    assert len({result.summary.collection_id for result in results}) == 1
    assert all(result.elapsed_s < 0.4 for result in results)


@in_virtual_time
async def test_who_joins_late_gets_what_has_arrived_at_once_and_then_the_rest() -> None:
    async with fleet(seller("fast"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"fast": 0.1, "slow": 1.0}
        process = await mesh.process()
        first = asyncio.create_task(process.collect())
        await asyncio.sleep(0.5)
        late = await process.collect()
        assert [
            (round(at_s, 2), [answer.seller_id for answer in batch]) for at_s, batch in late.batches
        ] == [(0.0, ["fast"]), (0.5, ["slow"])]
        assert (await first).quoted == late.quoted == {"fast", "slow"}
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_who_joins_late_gets_no_quote_that_has_expired_meanwhile() -> None:
    records: list[CollectionRecord] = []
    async with fleet(seller("brief"), seller("lasting"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"slow": 2.5}
        mesh.sellers.says["brief"] = lambda _book: replace(
            quoted(), expires_at=VirtualClock().now() + timedelta(seconds=1)
        )
        process = await mesh.process(on_ended=records.append)
        first = asyncio.create_task(process.collect())
        await asyncio.sleep(2.0)
        late = await process.collect()
        assert late.quoted == (await first).quoted == {"brief", "lasting", "slow"}
        brief = late.answers["brief"].outcome
        assert isinstance(brief, Quote)
        assert brief.expires_at > VirtualClock().now()
        assert late.summary.misses == {}
    assert Counter(call.seller_id for call in mesh.sellers.calls) == {
        "brief": 2,
        "lasting": 1,
        "slow": 1,
    }
    [record] = records
    assert [answer.seller_id for answer in record.answers] == ["brief", "lasting", "brief", "slow"]


@in_virtual_time
async def test_what_is_old_is_not_told_to_those_who_join_a_long_collection() -> None:
    """Whoever waits for a seller's budget may keep a collection going for long."""
    async with fleet(seller("quick"), seller("scarce", calls_per_minute=5)) as mesh:
        process = await mesh.process()
        number = 0
        while "scarce" in (await process.collect(f"used-{number}", time_left_s=1.0)).quoted:
            number += 1
        mesh.sellers.latency_s = {"scarce": 100.0}
        first = asyncio.create_task(process.collect(time_left_s=100.0))
        await asyncio.sleep(59.0)
        assert len((await process.collect(time_left_s=1.0)).quoted) == 1
        assert len(mesh.sellers.calls_to("quick")) == number + 2
        await asyncio.sleep(0.5)
        assert len((await process.collect(time_left_s=1.0)).quoted) == 1
        assert len(mesh.sellers.calls_to("quick")) == number + 3
        await first


@in_virtual_time
async def test_each_waits_until_its_own_deadline() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 2.0}
        process = await mesh.process(limits=Limits(merge_margin_s=0.1))
        hasty, patient = await asyncio.gather(
            process.collect(time_left_s=0.6), process.collect(time_left_s=10)
        )
        assert (hasty.misses, round(hasty.elapsed_s, 3)) == ({"acme": MissReason.TIMED_OUT}, 0.5)
        assert (patient.quoted, round(patient.elapsed_s, 3)) == ({"acme"}, 2.0)
        assert len(mesh.sellers.calls) == 1


@in_virtual_time
async def test_what_comes_after_somebody_s_deadline_is_not_in_its_summary() -> None:
    """Though the others have it by the time that it asks for its summary."""
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 1.0}
        process = await mesh.process()
        async with process.collector.open(question(), 0.5, Wish()) as hasty:
            patient = asyncio.create_task(process.collect())
            assert [len(batch) async for batch in hasty.batches()] == [1]
            assert (await patient).quoted == {"acme"}
            assert hasty.summary().misses == {MissReason.TIMED_OUT: 1}


@in_virtual_time
async def test_who_joins_with_more_time_has_it_although_the_calls_are_under_way() -> None:
    async with fleet(seller("acme"), seller("batching", batch=10)) as mesh:
        mesh.sellers.latency_s = {"acme": 2.0, "batching": 2.0}
        process = await mesh.process()
        hasty = asyncio.create_task(process.collect(time_left_s=0.5))
        await asyncio.sleep(0.2)
        patient = await process.collect(time_left_s=10)
        assert (await hasty).quoted == set()
        assert patient.quoted == {"acme", "batching"}
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_when_one_leaves_the_others_stay_and_when_the_last_one_leaves_calls_are_cancelled() -> (
    None
):
    async with fleet(seller("fast"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"slow": 2.0}
        process = await mesh.process()
        second = asyncio.create_task(process.collect())
        await process.collect(leave_after=1)
        [slow] = mesh.sellers.calls_to("slow")
        assert slow.ended == ""
        second.cancel()
        await asyncio.wait((second,))
        assert slow.ended == "cancelled"
        # Nobody is to blame, and it may still reach the seller.
        assert process.admission.outcomes("slow") == [Outcome.OURS]


@in_virtual_time
async def test_who_comes_after_the_last_one_has_left_begins_anew() -> None:
    async with fleet(seller("fast"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"slow": 1.0}
        process = await mesh.process()
        left = await process.collect(leave_after=1)
        again = await process.collect()
        assert again.quoted == {"fast", "slow"}
        assert again.summary.collection_id != left.summary.collection_id
        # What had been answered by then is known, and not asked again.
        assert [call.seller_id for call in mesh.sellers.calls] == ["fast", "slow", "slow"]


@in_virtual_time
async def test_a_collection_that_is_over_is_not_joined_though_somebody_still_holds_it() -> None:
    async with fleet(seller("acme")) as mesh:
        process = await mesh.process()
        async with process.collector.open(question(), 100.0, Wish()) as held:
            assert [len(batch) async for batch in held.batches()] == [1]
            await asyncio.sleep(61)
            assert (await process.collect()).summary.cached == 0
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_one_collection_serves_the_strictest_policy_while_others_stop_early() -> None:
    async with fleet(seller("acme"), seller("dead")) as mesh:
        mesh.sellers.latency_s = {"dead": 60.0}
        process = await mesh.process()
        for _ in range(5):
            await process.collect(wish=Wish(fresh=True))
        mesh.sellers.calls.clear()
        hasty, strict = await asyncio.gather(
            process.collect("another", wish=Wish(policy=Policy.FAST)),
            process.collect("another", wish=Wish(policy=Policy.BEST_PRICE)),
        )
        assert hasty.misses == {"dead": MissReason.STOPPED}
        assert hasty.elapsed_s < strict.elapsed_s
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_a_second_cancellation_while_it_stops_leaves_nothing_behind() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 1.0}
        process = await mesh.process()
        waiting = asyncio.create_task(process.collect())
        await asyncio.sleep(0.1)
        waiting.cancel()
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await asyncio.wait((waiting,))
        await asyncio.sleep(0)
        assert [call.ended for call in mesh.sellers.calls] == ["cancelled"]
        other = await mesh.process()
        assert (await other.collect()).elapsed_s < 1.1, "the lead was not given up"


@in_virtual_time
async def test_two_processes_together_make_one_call_a_seller() -> None:
    async with fleet(seller("acme"), seller("beta"), seller("gamma")) as mesh:
        mesh.sellers.latency_s = {"acme": 0.1, "beta": 1.0, "gamma": 2.5}
        first, second = await mesh.process(), await mesh.process()
        results = await asyncio.gather(*(process.collect() for process in (first, second) * 20))
        assert len(mesh.sellers.calls) == 3
        assert all(result.quoted == {"acme", "beta", "gamma"} for result in results)
        followed = results[1]
        assert [round(at_s, 1) for at_s, _ in followed.batches] == [0.1, 1.0, 2.5]
        assert followed.summary.cached == 3


@in_virtual_time
async def test_a_follower_takes_over_when_the_leader_dies_and_asks_only_the_rest() -> None:
    async with fleet(seller("fast"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"fast": 0.1, "slow": 2.0}
        leader, follower = await mesh.process(), await mesh.process()
        led = asyncio.create_task(leader.collect())
        await asyncio.sleep(0)
        following = asyncio.create_task(follower.collect())
        await asyncio.sleep(0.5)
        assert [call.seller_id for call in mesh.sellers.calls] == ["fast", "slow"]
        await leader.die()
        result = await following
        assert result.quoted == {"fast", "slow"}
        assert [call.seller_id for call in mesh.sellers.calls] == ["fast", "slow", "slow"]
        assert result.elapsed_s < 4.5
        led.cancel()
        await asyncio.wait((led,))


@in_virtual_time
async def test_a_follower_takes_over_at_once_when_the_leader_s_callers_leave() -> None:
    async with fleet(seller("fast"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"fast": 0.1, "slow": 2.0}
        leader, follower = await mesh.process(), await mesh.process()
        led = asyncio.create_task(leader.collect(leave_after=1))
        await asyncio.sleep(0)
        result = await follower.collect()
        await led
        assert result.quoted == {"fast", "slow"}
        assert round(result.elapsed_s, 1) == 2.1


@in_virtual_time
async def test_what_is_known_is_not_asked_again_unless_it_must_be_fresh() -> None:
    async with fleet(seller("acme"), seller("beta")) as mesh:
        process = await mesh.process()
        await process.collect()
        known = await process.collect()
        assert known.summary.cached == 2
        assert all(answer.cached and answer.latency_s == 0 for answer in known.answers.values())
        assert len(mesh.sellers.calls) == 2
        fresh = await process.collect(wish=Wish(fresh=True))
        assert (fresh.summary.cached, fresh.summary.quoted) == (0, 2)
        assert len(mesh.sellers.calls) == 4
        # And what came of it is known now.
        mesh.sellers.says["acme"] = lambda _book: quoted(1)
        assert (await process.collect()).answers["acme"].outcome == quoted(2000)


@in_virtual_time
async def test_what_is_known_is_given_though_there_is_no_time_to_ask() -> None:
    async with fleet(seller("acme"), seller("beta")) as mesh:
        process = await mesh.process()
        await process.collect()
        known = await process.collect(time_left_s=0.1)
        assert (known.quoted, known.summary.cached) == ({"acme", "beta"}, 2)
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_who_waits_for_budget_when_time_is_over_or_others_suffice_was_not_asked() -> None:
    async with fleet(seller("ample"), seller("scarce", calls_per_minute=5)) as mesh:
        mesh.sellers.latency_s = {"ample": 0.05}
        process = await mesh.process()
        for number in range(8):
            await process.collect(f"before-{number}", time_left_s=1)
        await asyncio.sleep(50)
        mesh.sellers.calls.clear()
        stopped = await process.collect(time_left_s=20, wish=Wish(policy=Policy.FAST))
        assert stopped.misses == {"scarce": MissReason.NO_BUDGET}
        assert stopped.summary.asked == 1
        assert mesh.sellers.calls_to("scarce") == []


@in_virtual_time
async def test_the_record_says_that_a_seller_timed_out_and_since_when_it_was_asked() -> None:
    async with fleet(seller("acme"), seller("dead")) as mesh:
        mesh.sellers.latency_s = {"dead": 60.0}
        process = await mesh.process(limits=Limits(merge_margin_s=0.1))
        records: list[CollectionRecord] = []
        process.collector._on_ended = records.append
        result = await process.collect(time_left_s=1.1)
        assert result.misses == {"dead": MissReason.TIMED_OUT}
        [record] = records
        [dead] = [answer for answer in record.fresh if answer.seller_id == "dead"]
        assert isinstance(dead.outcome, CallFailed)
        assert dead.outcome.kind is FailureKind.TIMED_OUT
        assert dead.latency_s == pytest.approx(1.0)


@in_virtual_time
async def test_the_record_keeps_since_when_a_seller_was_asked_that_nobody_waited_for() -> None:
    async with fleet(seller("ample"), seller("slow"), seller("single")) as mesh:
        mesh.sellers.latency_s = {"ample": 0.1, "single": 0.1, "slow": 2.0}
        process = await mesh.process()
        records: list[CollectionRecord] = []
        process.collector._on_ended = records.append
        wish = Wish(policy=Policy.FAST)
        for number in range(12):
            await process.collect(f"before-{number}", wish=wish)
        result = await process.collect(wish=wish)
        slow = [answer for answer in records[-1].fresh if answer.seller_id == "slow"]
        assert records[-1].elapsed_s < 2
        assert result.misses == {"slow": MissReason.STOPPED}
        assert [answer.asked for answer in slow] == [True]
        assert 0 < slow[0].latency_s < 2


@in_virtual_time
async def test_who_must_have_it_fresh_does_not_join_those_who_need_not() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 1.0}
        process = await mesh.process()
        await asyncio.gather(
            *(process.collect(wish=Wish(fresh=fresh)) for fresh in (True, False, True, False))
        )
        assert len(mesh.sellers.calls) == 2


@pytest.mark.parametrize(("later_s", "calls"), [(0.05, 1), (0.5, 2)])
def test_who_must_have_it_fresh_joins_only_who_has_just_begun(later_s: float, calls: int) -> None:
    @in_virtual_time
    async def main() -> None:
        async with fleet(seller("acme")) as mesh:
            mesh.sellers.latency_s = {"acme": 1.0}
            process = await mesh.process()
            before = asyncio.create_task(process.collect(wish=Wish(fresh=True)))
            await asyncio.sleep(later_s)
            result = await process.collect(wish=Wish(fresh=True))
            assert result.quoted == (await before).quoted == {"acme"}
            assert len(mesh.sellers.calls) == calls
            assert process.collector._flights == {}

    main()


@in_virtual_time
async def test_a_failure_is_known_for_a_second() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.says["acme"] = fails(BROKEN)
        process = await mesh.process()
        await process.collect()
        await asyncio.sleep(0.9)
        assert (await process.collect()).misses == {"acme": MissReason.SELLER_ERROR}
        assert len(mesh.sellers.calls) == 1
        await asyncio.sleep(0.2)
        await process.collect()
        assert len(mesh.sellers.calls) == 2


@in_virtual_time
async def test_that_a_seller_was_not_asked_for_lack_of_time_is_not_held_against_it() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 1.0}
        process = await mesh.process()
        for number in range(3):
            await process.collect(f"book-{number}")
        hasty = await process.collect(time_left_s=0.5)
        assert hasty.misses == {"acme": MissReason.TOO_SLOW}
        assert (await process.collect()).quoted == {"acme"}


async def teach_latency(process: Process) -> None:
    """Let a process learn how long its sellers take."""
    for number in range(3):
        await process.collect(f"taught-{number}")


@in_virtual_time
async def test_who_joins_with_more_time_has_those_asked_that_were_too_slow_for_the_others() -> None:
    async with fleet(seller("fast"), seller("slow"), seller("slow-too", batch=10)) as mesh:
        mesh.sellers.latency_s = {"fast": 0.3, "slow": 1.0, "slow-too": 1.0}
        process = await mesh.process()
        await teach_latency(process)
        mesh.sellers.calls.clear()
        hasty = asyncio.create_task(process.collect(time_left_s=0.6))
        await asyncio.sleep(0.2)
        patient, also = await asyncio.gather(process.collect(), process.collect())
        assert patient.quoted == also.quoted == {"fast", "slow", "slow-too"}
        assert round(patient.elapsed_s, 1) == 1.0
        assert patient.summary.misses == {}
        # One answer of each seller for everybody, and one call to each.
        first = await hasty
        assert first.misses == {"slow": MissReason.TOO_SLOW, "slow-too": MissReason.TOO_SLOW}
        assert first.summary.misses == {MissReason.TOO_SLOW: 2}
        assert round(first.elapsed_s, 1) == 0.3, "it waits for nothing that it has an answer to"
        assert len(mesh.sellers.calls) == 3


@in_virtual_time
async def test_who_joins_with_more_time_waits_for_a_budget_that_others_could_not_wait_for() -> None:
    async with fleet(seller("slow"), seller("scarce", calls_per_minute=20)) as mesh:
        mesh.sellers.latency_s = {"slow": 2.0}
        process = await mesh.process()
        number = 0
        while (await process.collect(f"used-{number}", time_left_s=1.0)).quoted:
            number += 1
        assert 0 < len(mesh.sellers.calls_to("scarce")) < 20
        hasty = asyncio.create_task(process.collect(time_left_s=5.0))
        await asyncio.sleep(1.0)
        patient = await process.collect(time_left_s=90.0)
        assert (await hasty).misses == {"scarce": MissReason.NO_BUDGET}
        assert patient.quoted == {"slow", "scarce"}
        assert patient.elapsed_s > 10


class BusyUntil(OpenAdmission):
    """At one seller as many calls as it takes are under way, until ``at_s``."""

    at_s = 0.0

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> Sequence[Decision]:
        decisions = await super().admit(asks, purpose)
        if VirtualClock().monotonic() >= self.at_s:
            return decisions
        full = Wait(0.1, Reason.CONCURRENCY, 0)
        return [
            full if ask.limits.seller_id == "busy" else decision
            for ask, decision in zip(asks, decisions, strict=True)
        ]


@in_virtual_time
async def test_who_joins_with_more_time_waits_for_a_seller_that_was_too_busy_for_others() -> None:
    async with fleet(seller("slow"), seller("busy")) as mesh:
        mesh.sellers.latency_s = {"busy": 0.3}
        admission = BusyUntil(VirtualClock())
        process = await mesh.process(admission=admission)
        await teach_latency(process)
        mesh.sellers.latency_s["slow"] = 2.0
        admission.at_s = VirtualClock().monotonic() + 1.5
        hasty = asyncio.create_task(process.collect(time_left_s=1.0))
        await asyncio.sleep(0.8)
        patient = await process.collect()
        assert (await hasty).misses["busy"] is MissReason.BUSY
        assert patient.quoted == {"slow", "busy"}


@in_virtual_time
async def test_a_crowd_that_comes_one_by_one_does_not_have_the_same_asked_over_and_over() -> None:
    asked: Counter[str] = Counter()
    async with fleet(seller("slow"), seller("scarce", calls_per_minute=20)) as mesh:
        mesh.sellers.latency_s = {"slow": 2.0}
        process = await mesh.process()
        number = 0
        while (await process.collect(f"used-{number}", time_left_s=1.0)).quoted:
            number += 1
        process.admission.rounds.clear()
        waiting = []
        for _ in range(100):
            waiting.append(asyncio.create_task(process.collect(time_left_s=10.0)))
            await asyncio.sleep(0.015)
        results = await asyncio.gather(*waiting)
        asked.update(ask.limits.seller_id for asks in process.admission.rounds for ask in asks)
    assert all(result.quoted == {"slow"} for result in results)
    assert asked["slow"] == 1
    assert asked["scarce"] <= 3


@in_virtual_time
async def test_what_is_known_is_told_once_for_everybody_who_asks() -> None:
    """So that what is in demand can be told from what takes long."""
    told: list[tuple[set[str], set[str]]] = []

    def on_known(
        _: Question,
        sellers: Mapping[str, Seller],
        good_for_s: Mapping[str, float],
        lives_s: Mapping[str, float],
    ) -> None:
        assert good_for_s.keys() == lives_s.keys()
        told.append((set(sellers), set(good_for_s)))

    async with fleet(seller("known"), seller("slow")) as mesh:
        mesh.sellers.latency_s = {"slow": 3.0}
        leader, follower = await mesh.process(), await mesh.process(on_known=on_known)
        led = asyncio.create_task(leader.collect())
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(follower.collect()) for _ in range(50)]
        await asyncio.sleep(2.5)
        assert len(told) == 50
        waiting.append(asyncio.create_task(follower.collect()))
        results = await asyncio.gather(led, *waiting)
        assert all(result.quoted == {"known", "slow"} for result in results)
        assert len(told) == 51
        await follower.collect()
        assert len(told) == 52
    assert all(good_for_s <= sellers for sellers, good_for_s in told)
    assert told[50][1] == {"known"}
    assert told[51][1] == {"known", "slow"}


@in_virtual_time
async def test_a_crowd_of_collections_asks_side_by_side_and_lets_the_loop_have_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each seller hears of all their books in one turn of the loop, and no turn is long."""
    books, sellers = 32, [seller(f"s{number:03}", batch=100) for number in range(200)]
    turn = 0
    asked: list[tuple[int, str]] = []
    ask = Gatherer.ask

    def counted(
        self: Gatherer,
        seller: Seller,
        question: Question,
        *,
        customer_id: str,
        until_s: float,
        on_answer: Callable[[Answer], None],
        purpose: Purpose,
        fresh: bool,
    ) -> Waiting:
        asked.append((turn, seller.seller_id))
        return ask(
            self,
            seller,
            question,
            customer_id=customer_id,
            until_s=until_s,
            on_answer=on_answer,
            purpose=purpose,
            fresh=fresh,
        )

    monkeypatch.setattr(Gatherer, "ask", counted)
    async with fleet(*sellers) as mesh:
        process = await mesh.process()
        crowd = [asyncio.create_task(process.collect(f"book-{n}")) for n in range(books)]
        while len(asked) < books * len(sellers):
            await asyncio.sleep(0)
            turn += 1
        results = await asyncio.gather(*crowd)
    assert all(len(result.quoted) == len(sellers) for result in results)
    assert max(Counter(turn for turn, _ in asked).values()) <= 300
    assert len(set(asked)) == len(sellers), "a seller heard of some books in another turn"
    assert len(mesh.sellers.calls) == len(sellers)


# The second answer comes while it is gathered with what may follow, for longer than anybody waits.
GATHERING = Limits(flush_s=24 * 3600.0, merge_margin_s=0.1)
SECOND_S, NEVER_S = 1.0, 100.0


@asynccontextmanager
async def gathering() -> AsyncIterator[Process]:
    async with fleet(seller("first"), seller("second"), seller("third")) as mesh:
        mesh.sellers.latency_s = {"second": SECOND_S, "third": NEVER_S}
        yield await mesh.process(limits=GATHERING)


@in_virtual_time
async def test_answers_that_come_shortly_after_others_come_together_and_the_last_without_delay() -> (
    None
):
    names = ("first", "second", "third", "fourth")
    async with fleet(*map(seller, names)) as mesh:
        mesh.sellers.latency_s = {"first": 0.1, "second": 0.11, "third": 0.14, "fourth": 0.155}
        process = await mesh.process(limits=Limits(flush_s=0.05))
        batches = (await process.collect()).batches
    came = [(round(at_s, 3), [answer.seller_id for answer in batch]) for at_s, batch in batches]
    assert came == [(0.1, ["first"]), (0.15, ["second", "third"]), (0.155, ["fourth"])]


@in_virtual_time
async def test_what_is_being_gathered_when_time_is_over_is_given() -> None:
    async with gathering() as process:
        result = await process.collect(time_left_s=2.0)
        assert result.quoted == {"first", "second"}
        assert result.misses == {"third": MissReason.TIMED_OUT}


@in_virtual_time
async def test_what_comes_while_nobody_looks_and_time_runs_out_is_given() -> None:
    async with (
        gathering() as process,
        process.collector.open(question(), 2.0, Wish()) as collection,
    ):
        batches = collection.batches()
        await anext(batches)
        await asyncio.sleep(5.0)
        given = [
            answer.seller_id for batch in [batch async for batch in batches] for answer in batch
        ]
        assert given == ["second", "third"]
        assert collection.summary().quoted == 2


@in_virtual_time
async def test_who_joins_has_what_is_being_gathered() -> None:
    async with gathering() as process:
        others = asyncio.create_task(process.collect())
        await asyncio.sleep(2.0)
        assert (await process.collect(leave_after=1)).quoted == {"first", "second"}
        others.cancel()


@in_virtual_time
async def test_what_is_being_gathered_when_the_last_one_leaves_is_remembered() -> None:
    async with gathering() as process:
        async with process.collector.open(question(), 100.0, Wish()) as collection:
            await anext(collection.batches())
            await asyncio.sleep(2.0)
        known = (await process.collect(leave_after=1)).answers
        assert {name for name, answer in known.items() if answer.cached} == {"first", "second"}
