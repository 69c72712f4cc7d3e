"""All who ask the same at the same time share one collection, in a process and in the fleet."""

from __future__ import annotations

import asyncio
from collections import Counter

from aggregator.app.collect import Limits, Wish
from aggregator.domain.collection import MissReason
from aggregator.domain.stopping import Policy
from sellers.admission.model import Outcome
from sellers.model import CallFailed, FailureKind
from tests.fakes.asking import fails, fleet, in_virtual_time, question, quoted, seller

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
async def test_who_must_have_it_fresh_does_not_join_those_who_need_not() -> None:
    async with fleet(seller("acme")) as mesh:
        mesh.sellers.latency_s = {"acme": 1.0}
        process = await mesh.process()
        await asyncio.gather(
            *(process.collect(wish=Wish(fresh=fresh)) for fresh in (True, False, True, False))
        )
        assert len(mesh.sellers.calls) == 2


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
