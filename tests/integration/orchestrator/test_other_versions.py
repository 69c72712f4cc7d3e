"""Rows that another version of this program wrote, and rows that nobody can work on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bookmesh.common.v1.quote_pb2 import Miss
from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from orchestrator import convert
from orchestrator.app.worker import WorkerSettings
from orchestrator.domain.observations import Decision, Resolve
from orchestrator.domain.purchase import Status
from orchestrator.ports import Authorized, Loaded, Unreadable
from tests.fakes.market import Market, ScriptedSeller
from tests.integration.orchestrator.conftest import CLOCK, final, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from orchestrator.domain.events import AnswerBatch
    from orchestrator.domain.purchase import Purchase
    from orchestrator.ports import Gathered
    from tests.integration.orchestrator.conftest import World

QUICK = WorkerSettings(
    poll_s=0.02,
    lease_s=6.0,
    unreadable_s=0.05,
    most_unreadable_claims=3,
    most_claims=3,
    poisonous_after_s=0.0,
)


class Broken(Market):
    """A market that cannot be asked, by a fault of ours."""

    broken = True

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        if self.broken:
            raise ZeroDivisionError
        return await super().collect(purchase, timeout_s, on_batch)


async def submitted(world: World) -> UUID:
    world.market = Market(ScriptedSeller("a", 2000))
    return (await world.purchases.submit(world.order(), 0)).request_id


@pytest.mark.parametrize("stage", ["hold", "order"])
async def test_a_purchase_of_the_first_version_is_carried_on(world: World, stage: str) -> None:
    """The plan, the attempt and the queue as 0001_purchases.sql had them, without all that came later."""
    request_id = await submitted(world)
    expires_at = CLOCK.now().replace(year=CLOCK.now().year + 1).isoformat(timespec="milliseconds")
    plan = {
        "candidates": [["b", "qb", 2500, expires_at]],
        "dearer": None,
        "tries": {"a": 1},
        "collections": 1,
        "answered": 2,
        "releases": [{"seller_id": "c", "key": f"{request_id}:c"}],
    }
    world.market = Market(
        ScriptedSeller("a", 2000, with_holds=stage == "hold"),
        ScriptedSeller("b", 2500),
        ScriptedSeller("c", None),
    )
    authorized = await world.provider.authorize(
        f"{request_id}:authorize",
        "tok_abc123",
        world.order().max_price,
        str(request_id),
        CLOCK.now(),
    )
    assert isinstance(authorized, Authorized)
    await world.pool.execute(
        "UPDATE orchestrator.payment SET state = 'authorized', provider_id = $1",
        authorized.provider_id,
    )
    await world.pool.execute(
        "INSERT INTO orchestrator.attempt (request_id, number, seller_id, key, quote_id, quoted_minor, with_hold,"
        " not_after, agreed_minor) VALUES ($1, 1, 'a', $2, 'qa', 2000, $3, now() + interval '1 minute', 2000)",
        request_id,
        f"{request_id}:a",
        stage == "hold",
    )
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET stage = $1, plan = $2, attempt_number = 1, turn = NULL, token_sealed = NULL",
        stage,
        json.dumps(plan),
    )
    async with world.working():
        assert final(await world.settled(request_id)) == (Status.PURCHASED, "a", 2000)


async def _happened(world: World, request_id: UUID, *events: tuple[str, dict[str, Any]]) -> None:
    """Have the purchase end with these events, of a kind and a body each, behind the one that it begins with."""
    for seq, (kind, body) in enumerate((*events, ("finished", {})), start=2):
        await world.pool.execute(
            "INSERT INTO orchestrator.purchase_event (request_id, seq, kind, body) VALUES ($1, $2, $3, $4)",
            request_id,
            seq,
            kind,
            json.dumps(body),
        )
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET stage = 'done', status = 'not_available', due_at = NULL"
    )


async def _watched(world: World, request_id: UUID) -> list[pb.WatchPurchaseResponse]:
    return [
        convert.watch_event(event) async for event in world.watch.watch("alice", str(request_id))
    ]


COLLECTED_FIRST = {
    "collection_id": "c1",
    "sellers": 9,
    "asked": 8,
    "answered": 7,
    "quoted": 2,
    "misses": {"timed_out": 1},
    "started_at": "2026-01-02T03:04:05+00:00",
    "elapsed_s": 1.5,
}


async def test_a_collection_of_the_first_version_is_shown_without_what_came_later(
    world: World,
) -> None:
    request_id = await submitted(world)
    await _happened(world, request_id, ("collected", COLLECTED_FIRST))
    [_submitted, collected, _result] = await _watched(world, request_id)
    assert (collected.collection.answered, collected.collection.cached) == (7, 0)
    assert not collected.collection.HasField("best_total")


async def test_of_what_a_newer_version_tells_the_known_part_is_shown(world: World) -> None:
    """One replica is newer than the other while a version is deployed; both are asked about one purchase."""
    request_id = await submitted(world)
    newer = {
        **COLLECTED_FIRST,
        "misses": {"timed_out": 1, "on_holiday": 2},
        "cached": 3,
        "best": {"currency": "USD", "minor": 1999, "rounded": True},
        "countries": ["NL"],
    }
    await _happened(
        world,
        request_id,
        ("collected", newer),
        ("step", {"name": "gift_wrapped", "paper": "red"}),
        ("step", {"name": "voided", "paper": "red"}),
    )
    [_submitted, collected, voided, result] = await _watched(world, request_id)
    assert [e.event_id for e in (collected, voided, result)] == ["2", "4", "5"]
    summary = collected.collection
    assert (summary.cached, summary.best_total.units) == (3, 19)
    assert {miss.reason: miss.count for miss in summary.misses} == {
        Miss.REASON_TIMED_OUT: 1,
        Miss.REASON_UNSPECIFIED: 2,
    }
    assert voided.step.name == pb.Step.NAME_VOIDED
    assert result.result.status == pb.Purchase.STATUS_NOT_AVAILABLE
    dossier = await world.operators.inspect(request_id)
    assert [recorded.seq for recorded in dossier.events] == [1, 2, 4, 5]


async def test_what_a_newer_version_wrote_is_left_to_its_workers(world: World) -> None:
    request_id = await submitted(world)
    await world.pool.execute("UPDATE orchestrator.purchase SET stage = 'gift_wrap'")
    async with world.store.session() as session:
        [claim] = await world.store.claim(session.owner, 10, 6.0)
        loaded = await world.store.load(claim)
        assert isinstance(loaded, Unreadable)
        assert (loaded.stage, loaded.claims) == ("gift_wrap", 1)
        assert "gift_wrap" in loaded.problem
        await world.store.leave(claim, 3600)
    world.worker_settings = QUICK
    other = await submitted(world)
    async with world.working():
        assert final(await world.settled(other)) == (Status.PURCHASED, "a", 2000)
    assert await world.stage(request_id) == "gift_wrap"
    assert (await world.operators.flags(10, "")).flags == []


@pytest.mark.parametrize("broken", ["stage = 'gift_wrap'", "plan = '[1]'"])
async def test_what_nobody_can_read_is_flagged_in_the_end_and_can_be_tried_again(
    world: World, broken: str
) -> None:
    request_id = await submitted(world)
    before = await world.pool.fetchrow("SELECT stage, plan FROM orchestrator.purchase")
    assert before is not None
    await world.pool.execute(f"UPDATE orchestrator.purchase SET {broken}")
    world.worker_settings = QUICK
    async with world.working():

        async def flagged() -> bool:
            return bool((await world.operators.flags(10, "")).flags)

        await until(flagged)
        dossier = await world.operators.inspect(request_id)
        assert (dossier.purchase, dossier.due_at) == (None, None)
        [record] = dossier.flags
        assert record.flag.invariant.value == "I7"
        await world.pool.execute(
            "UPDATE orchestrator.purchase SET stage = $1, plan = $2",
            before["stage"],
            before["plan"],
        )
        await world.operators.resolve(request_id, "ann", Resolve(Decision.RETRY, "repaired"))
        await world.reached(request_id, "done")
        assert final(await world.settled(request_id)) == (Status.PURCHASED, "a", 2000)


async def test_a_step_that_always_fails_is_flagged_and_can_be_tried_again(world: World) -> None:
    world.market = market = Broken(ScriptedSeller("a", 2000))
    request_id = (await world.purchases.submit(world.order(), 0)).request_id
    async with world.working():

        async def collecting() -> bool:
            return await world.stage(request_id) == "collect"

        await until(collecting)
    await world.pool.execute("UPDATE orchestrator.purchase SET tries = 20, due_at = now()")
    async with world.working():

        async def flagged() -> bool:
            return await world.stage(request_id) == "flagged"

        await until(flagged)
        [record] = (await world.operators.flags(10, "")).flags
        assert "ZeroDivisionError" in record.flag.detail
        market.broken = False
        await world.operators.resolve(request_id, "ann", Resolve(Decision.RETRY, "repaired"))
        await world.reached(request_id, "done")
        assert final(await world.settled(request_id)) == (Status.PURCHASED, "a", 2000)


async def test_a_purchase_that_ends_its_workers_is_flagged(world: World) -> None:
    """Workers die with it, one after the other, before any of them has committed something."""
    request_id = await submitted(world)
    world.worker_settings = QUICK

    for _ in range(QUICK.most_claims):
        async with world.store.session() as session:
            assert len(await world.store.claim(session.owner, 10, 6.0)) == 1

        async def is_free() -> bool:
            return await world.store.free_dead() == 1

        await until(is_free)
    async with world.working():

        async def flagged() -> bool:
            return await world.stage(request_id) == "flagged"

        await until(flagged)
        [record] = (await world.operators.flags(10, "")).flags
        assert "3 workers in a row" in record.flag.detail
        await world.operators.resolve(request_id, "ann", Resolve(Decision.RETRY, "repaired"))
        await world.reached(request_id, "done")
        assert final(await world.settled(request_id)) == (Status.PURCHASED, "a", 2000)


@pytest.mark.parametrize(
    ("claims", "minutes", "stage"), [(20, 1, "done"), (4, 60, "done"), (5, 3, "flagged")]
)
async def test_only_many_claims_in_vain_over_some_time_are_the_purchases_fault(
    world: World, claims: int, minutes: int, stage: str
) -> None:
    """A storm may kill twenty workers within a minute, and another two within the hour."""
    request_id = await submitted(world)
    async with world.store.session() as session:
        for _ in range(claims):
            assert len(await world.store.claim(session.owner, 10, 0.0)) == 1
    await world.pool.execute(
        "UPDATE orchestrator.purchase SET claimed_since = now() - $1 * interval '1 minute', owner = NULL",
        minutes,
    )
    async with world.working():
        await world.reached(request_id, stage)
    assert len((await world.operators.flags(10, "")).flags) == (stage == "flagged")


async def test_what_is_given_back_does_not_count_against_a_purchase(world: World) -> None:
    await submitted(world)
    async with world.store.session() as session:
        for _ in range(20):
            [claim] = await world.store.claim(session.owner, 10, 6.0)
            await world.store.give_back([claim])
        [claim] = await world.store.claim(session.owner, 10, 6.0)
        loaded = await world.store.load(claim)
    assert isinstance(loaded, Loaded)
    assert loaded.claims == 1
