"""Several workers at one queue: claims, fences, dead and stopped workers, draining."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
import structlog

from orchestrator.app.worker import WorkerSettings
from orchestrator.domain.purchase import FailureReason, Status
from orchestrator.ports import Commit, Fenced, Loaded
from tests.fakes.market import Market, ScriptedSeller
from tests.integration.orchestrator.conftest import final, until

if TYPE_CHECKING:
    from orchestrator.ports import PurchaseView
    from tests.integration.orchestrator.conftest import World

LEASE_S = 6.0


async def submitted(world: World, customer_id: str = "alice") -> PurchaseView:
    return await world.purchases.submit(world.order(customer_id=customer_id), 0)


async def test_a_claim_is_one_workers_alone(world: World) -> None:
    await submitted(world)
    async with world.store.session() as one, world.store.session() as other:
        claims = await asyncio.gather(
            world.store.claim(one.owner, 10, LEASE_S), world.store.claim(other.owner, 10, LEASE_S)
        )
    assert sorted(len(found) for found in claims) == [0, 1]


async def test_a_worker_that_was_overtaken_changes_nothing(world: World) -> None:
    view = await submitted(world)
    async with world.store.session() as session:
        [old] = await world.store.claim(session.owner, 10, LEASE_S)
        loaded = await world.store.load(old)
        assert isinstance(loaded, Loaded)
        await world.store.give_back([old])
        [new] = await world.store.claim(session.owner, 10, LEASE_S)
        assert new.epoch == old.epoch + 1
        commit = Commit(loaded.purchase, (), due_in_s=None, keep=False, erase_token=True)
        with pytest.raises(Fenced):
            await world.store.commit(commit)
        assert await world.store.load(old) is None
        assert await world.store.renew([old], LEASE_S) == {}
        await world.store.give_back([old])
        assert await world.store.renew([new], LEASE_S) == {view.request_id: False}


async def test_being_overtaken_is_no_error(world: World) -> None:
    """A worker that finds at its commit that another has taken over leaves the purchase to that one."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    world.market = Market(ScriptedSeller("a", 2000, before={"hold": wait}))
    view = await submitted(world)
    with structlog.testing.capture_logs() as lines:
        async with world.working():
            await reached.wait()
            await world.pool.execute("UPDATE orchestrator.purchase SET epoch = epoch + 1")
            go_on.set()

            async def is_left() -> bool:
                return any(line["event"] == "another worker has taken over" for line in lines)

            await until(is_left)
    assert [line for line in lines if line["log_level"] == "error"] == []
    assert await world.stage(view.request_id) == "hold"


async def test_a_dead_workers_purchases_are_free_before_their_lease_is_over(world: World) -> None:
    await submitted(world)
    async with world.store.session() as session:
        assert len(await world.store.claim(session.owner, 10, 3600)) == 1
        assert await world.store.free_dead() == 0, "a living worker keeps what it has claimed"
    await until(lambda: _freed(world))
    async with world.store.session() as session:
        assert len(await world.store.claim(session.owner, 10, LEASE_S)) == 1


async def test_several_who_change_the_same_purchases_at_once_do_not_wait_for_each_other(
    world: World,
) -> None:
    """A worker whose session is gone, and does not know it yet, renews and gives back what its peers are freeing."""
    await asyncio.gather(*(submitted(world, f"c{i}") for i in range(200)))
    for seed in range(4):
        await world.pool.execute("UPDATE orchestrator.purchase SET due_at = now(), owner = NULL")
        async with world.store.session() as session:
            claims = await world.store.claim(session.owner, 200, 3600)
        assert len(claims) == 200

        async def is_gone() -> bool:
            return await _lock_holders(world) == []

        await until(is_gone)
        shuffled = [Random(seed + i).sample(claims, len(claims)) for i in range(4)]
        await asyncio.gather(
            world.store.renew(shuffled[0], 15),
            world.store.free_dead(),
            world.store.give_back(shuffled[1]),
            world.store.renew(shuffled[2], 15),
            world.store.free_dead(),
            world.store.give_back(shuffled[3]),
        )


async def _freed(world: World) -> bool:
    return await world.store.free_dead() == 1


async def test_a_worker_that_loses_its_connection_works_on_under_a_new_name(world: World) -> None:
    world.market = Market(ScriptedSeller("a", 2000))
    async with world.working():

        async def is_there() -> bool:
            return bool(await _lock_holders(world))

        await until(is_there)
        [first] = await _lock_holders(world)
        await world.pool.execute("SELECT pg_terminate_backend($1)", first)

        async def is_back() -> bool:
            return await _lock_holders(world) not in ([], [first])

        await until(is_back)
        view = await submitted(world)
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 2000)


async def _lock_holders(world: World) -> list[int]:
    rows = await world.pool.fetch(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 1651470187::oid"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return [row["pid"] for row in rows]


async def test_a_claim_is_fair_to_a_customer_behind_a_backlog(world: World) -> None:
    for _ in range(60):
        await submitted(world, "busy")
    for name in ("alice", "bob", "carol"):
        await submitted(world, name)
    async with world.store.session() as session:
        claims = await world.store.claim(session.owner, 10, LEASE_S)
    rows = await world.pool.fetch(
        "SELECT customer_id FROM orchestrator.purchase WHERE request_id = ANY($1)",
        [claim.request_id for claim in claims],
    )
    assert Counter(row["customer_id"] for row in rows) == {
        "busy": 7,
        "alice": 1,
        "bob": 1,
        "carol": 1,
    }


async def test_many_purchases_on_three_workers_are_each_carried_out_once(world: World) -> None:
    world.market = Market(*(ScriptedSeller(f"s{i}", 2000 + i, stock=1000) for i in range(5)))
    async with world.working(), world.working(), world.working():
        views = [await submitted(world, f"c{i % 7}") for i in range(60)]

        async def all_done() -> bool:
            open_ones = await world.pool.fetchval(
                "SELECT count(*) FROM orchestrator.purchase WHERE stage <> 'done'"
            )
            return bool(open_ones == 0)

        await until(all_done)
    assert len(world.market.live_orders()) == len(views)
    captures = await world.pool.fetch(
        "SELECT captures, captured_minor FROM sandbox_provider.payment_authorization"
    )
    assert [(row["captures"], row["captured_minor"]) for row in captures] == [(1, 2000)] * len(
        views
    )


async def test_what_a_worker_with_a_dead_session_had_is_resumed_by_another_and_its_own_commit_fenced(
    world: World,
) -> None:
    """Its connection is cut in the middle of a hold; its lease has long to go, and it knows nothing of it yet."""
    reached, resumed = asyncio.Event(), asyncio.Event()

    async def hang_the_first() -> None:
        if reached.is_set():
            resumed.set()
            return
        reached.set()
        await resumed.wait()

    world.worker_settings = WorkerSettings(poll_s=0.02, lease_s=3600)
    world.market = Market(ScriptedSeller("a", 2000, before={"hold": hang_the_first}))
    view = await submitted(world)
    async with world.working():
        await reached.wait()
        async with world.working():
            [owner] = await _owners(world)
            await world.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                " AND classid = 1651470187::oid AND objid = $1::integer::oid",
                owner,
            )
            assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 2000)
            assert resumed.is_set()
    epochs = await world.pool.fetchval("SELECT epoch FROM orchestrator.purchase")
    assert epochs == 2
    assert world.market.log.count(("order", "a")) == 1


async def _owners(world: World) -> list[int]:
    rows = await world.pool.fetch(
        "SELECT DISTINCT owner FROM orchestrator.purchase WHERE owner IS NOT NULL"
    )
    return [row["owner"] for row in rows]


async def test_a_worker_that_was_stopped_beyond_its_lease_finds_itself_fenced(
    world: World,
) -> None:
    """It stands still in the middle of an order, session and all; its lease ends; then it goes on."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def stand_still_once() -> None:
        if not reached.is_set():
            reached.set()
            await go_on.wait()

    world.market = Market(ScriptedSeller("a", 2000, before={"order": stand_still_once}))
    view = await submitted(world)
    with structlog.testing.capture_logs() as lines:
        async with world.working():
            await reached.wait()
            await world.pool.execute("UPDATE orchestrator.purchase SET due_at = now()")
            async with world.working():
                assert final(await world.settled(view.request_id)) == (
                    Status.PURCHASED,
                    "a",
                    2000,
                )
            go_on.set()

            async def is_fenced() -> bool:
                return any(line["event"] == "another worker has taken over" for line in lines)

            await until(is_fenced)
    await world.audit(view.request_id)
    captures = await world.pool.fetchval(
        "SELECT captures FROM sandbox_provider.payment_authorization"
    )
    assert captures == 1


@pytest.mark.parametrize("method", ["hold", "order"])
async def test_what_a_worker_leaves_undone_another_finishes(world: World, method: str) -> None:
    """The first worker is cancelled in the middle of a call to the seller, as if it had died there."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang_once() -> None:
        if not reached.is_set():
            reached.set()
            await never.wait()

    world.market = Market(ScriptedSeller("a", 2000, before={method: hang_once}))
    view = await submitted(world)
    first = asyncio.create_task(world.worker().run())
    await reached.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with world.working():
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 2000)


async def test_draining_finishes_the_step_and_hands_the_purchase_over(world: World) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    world.market = Market(ScriptedSeller("a", 2000, before={"hold": wait}))
    view = await submitted(world)
    async with world.working() as worker:
        await reached.wait()
        draining = asyncio.create_task(worker.drain())
        await asyncio.sleep(0)
        go_on.set()
        await draining
    assert await world.stage(view.request_id) == "order"
    assert await world.pool.fetchval("SELECT owner FROM orchestrator.purchase") is None
    async with world.working():
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 2000)
    assert world.market.log.count(("hold", "a")) == 1


async def test_a_final_status_stays_whatever_the_code_does(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    with pytest.raises(Exception, match="is final and cannot become failed"):
        await world.pool.execute(
            "UPDATE orchestrator.purchase SET status = 'failed', failure_reason = 'out_of_time'"
            " WHERE request_id = $1",
            view.request_id,
        )
    with pytest.raises(Exception, match="cannot go back"):
        await world.pool.execute("UPDATE orchestrator.purchase SET epoch = epoch - 1")


async def test_a_purchase_that_cannot_be_read_does_not_stop_the_others(world: World) -> None:
    world.market = Market(ScriptedSeller("a", 2000))
    broken = await submitted(world, "mallory")
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET plan = '[1]' WHERE request_id = $1", broken.request_id
    )
    async with world.working():
        view = await submitted(world)
        assert final(await world.settled(view.request_id)) == (Status.PURCHASED, "a", 2000)


async def test_what_waited_for_too_long_is_not_authorized(world: World) -> None:
    world.market = Market(ScriptedSeller("a", 2000))
    view = await submitted(world)
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET created_at = created_at - interval '10 minutes'"
    )
    async with world.working():
        over = await world.settled(view.request_id)
    assert (over.status, over.failure_reason) == (Status.FAILED, FailureReason.OUT_OF_TIME)
    assert await _authorizations(world) == 0


async def test_without_enough_of_a_lease_nothing_is_begun(world: World) -> None:
    """Another worker could take over before the effect is over."""
    world.market = Market(ScriptedSeller("a", 2000))
    world.worker_settings = replace(world.worker_settings, lease_s=4.0, effect_s=5.0)
    view = await submitted(world)
    async with world.working():

        async def is_claimed() -> bool:
            return bool(await world.pool.fetchval("SELECT epoch FROM orchestrator.purchase"))

        await until(is_claimed)
    assert await world.stage(view.request_id) == "authorize"
    assert await _authorizations(world) == 0


async def _authorizations(world: World) -> int:
    count: int = await world.pool.fetchval(
        "SELECT count(*) FROM sandbox_provider.payment_authorization"
    )
    return count


async def test_an_order_that_is_taken_over_late_is_not_sent(world: World) -> None:
    """A seller that does not heed not_after would sell when nobody waits for it any more."""
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    seller = ScriptedSeller("a", 2000, with_holds=False, before={"order": hang})
    world.market = Market(seller)
    patient = world.worker_settings
    world.worker_settings = replace(patient, drain_s=0.0)
    view = await submitted(world)
    async with world.working():
        await reached.wait()
    assert await world.stage(view.request_id) == "order"
    await world.pool.execute(
        "UPDATE orchestrator.attempt SET not_after = now() - interval '1 minute'"
    )
    seller.before, seller.stock = {}, 0
    world.worker_settings = patient
    async with world.working():
        over = await world.settled(view.request_id)
    assert over.status is not Status.PURCHASED
    assert world.market.log.count(("order", "a")) == 1
    assert ("cancel", "a") in world.market.log
