"""From the outbox to receivers: at least once, under the same id, and none of them in the way of another."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from standardwebhooks.webhooks import Webhook

from mesh import errors, postgres
from orchestrator.domain.notifications import Delivered, DeliveryState, NotDelivered
from tests.fakes.receiver import Authority, answering, silence
from tests.integration.notifications.conftest import Scripted, World, until

if TYPE_CHECKING:
    from orchestrator.domain.notifications import TryOutcome

STATEMENTS = sorted(postgres.statements("orchestrator.adapters.notifications"))


@pytest.mark.parametrize("name", STATEMENTS)
async def test_every_statement_is_accepted_by_the_database(world: World, name: str) -> None:
    async with world.pool.acquire() as connection:
        await connection.prepare(postgres.statements("orchestrator.adapters.notifications")[name])


async def test_the_end_of_a_purchase_arrives_signed_and_as_get_has_it(
    world: World, authority: Authority
) -> None:
    async with authority.receiver() as receiver:
        _, secret = await world.notifications.create_endpoint("alice", receiver.url)
        async with world.notifying():
            request_id = await world.ended()
            await world.over()
    [request] = receiver.received
    Webhook(secret).verify(request.body, request.headers)
    body = json.loads(request.body)
    assert body["type"] == "purchase_request.final"
    assert body["timestamp"].endswith("Z")
    assert body["data"] == {
        "request_id": str(request_id),
        "status": "purchased",
        "final_price": 24.99,
        "seller_id": "s1",
        "confirmation": "order-1",
    }
    [delivery] = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert request.headers["webhook-id"] == str(delivery.message_id)
    assert delivery.request_id == request_id
    assert (delivery.state, delivery.tries, delivery.last_status) == (
        DeliveryState.DELIVERED,
        1,
        200,
    )
    assert (delivery.last_error, delivery.next_try_at) == ("", None)


async def test_all_endpoints_of_the_customer_are_told_and_nobody_elses(
    world: World, authority: Authority
) -> None:
    async with (
        authority.receiver() as one,
        authority.receiver() as two,
        authority.receiver() as bobs,
    ):
        await world.notifications.create_endpoint("alice", one.url)
        await world.notifications.create_endpoint("alice", two.url)
        await world.notifications.create_endpoint("bob", bobs.url)
        async with world.notifying():
            await world.ended("alice")
            await world.over(2)
    assert (len(one.received), len(two.received), len(bobs.received)) == (1, 1, 0)
    assert one.received[0].headers["webhook-id"] == two.received[0].headers["webhook-id"]


async def test_a_message_for_nobody_is_done_with_at_once(world: World) -> None:
    await world.ended()
    async with world.notifying():
        await until(lambda: _is_spread(world))
    assert await world.states() == []


async def test_failures_are_tried_again_under_the_same_id_with_the_same_body(
    world: World, authority: Authority
) -> None:
    statuses = iter([500, 500, 200])

    async def answer(writer: asyncio.StreamWriter) -> None:
        await answering(next(statuses))(writer)

    async with authority.receiver(answer=answer) as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)
        async with world.notifying():
            await world.ended()
            await world.over()
    assert len(receiver.received) == 3
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert len({request.body for request in receiver.received}) == 1
    [delivery] = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert (delivery.state, delivery.tries) == (DeliveryState.DELIVERED, len(receiver.received))


async def test_a_message_is_given_up_after_the_last_try_and_an_endpoint_that_never_answered_disabled(
    world: World, authority: Authority
) -> None:
    async with authority.receiver(answer=answering(500)) as receiver:
        endpoint, _ = await world.notifications.create_endpoint("alice", receiver.url)
        async with world.notifying():
            await world.ended()
            await world.over()
            assert await world.states() == [("failed", 4)]
            [dead] = await world.notifications.endpoints("alice")
            assert dead.disabled_reason is not None
            assert "three days" in dead.disabled_reason
            await world.ended()
            await until(lambda: _is_spread(world))
            assert len(receiver.received) == 4
            receiver.answer = answering(200)
            await world.notifications.enable_endpoint("alice", str(endpoint.endpoint_id))
            await world.ended()
            await world.over(2)
    assert await world.states() == [("failed", 4), ("delivered", 1)]


async def test_an_endpoint_that_answers_now_and_then_stays_enabled(
    world: World, authority: Authority
) -> None:
    async def second(url: str) -> TryOutcome:
        calls.append(url)
        if len(calls) % 4 == 0:
            return Delivered(200)
        return NotDelivered("it answered 500", 500)

    calls: list[str] = []
    await world.notifications.create_endpoint("alice", "https://receiver.test/")
    for _ in range(3):
        await world.ended()
    async with world.notifying(webhooks=Scripted(second), per_receiver=1):
        await world.over(3)
    [endpoint] = await world.notifications.endpoints("alice")
    assert endpoint.disabled_reason is None


async def test_410_disables_the_endpoint_and_gives_up_what_waits_for_it(
    world: World, authority: Authority
) -> None:
    async with authority.receiver(answer=answering(410)) as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)
        for _ in range(3):
            await world.ended()
        async with world.notifying(per_receiver=1):
            await world.over(3)
    [endpoint] = await world.notifications.endpoints("alice")
    assert endpoint.disabled_reason == "it answered 410 Gone"
    assert len(receiver.received) == 1
    deliveries = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert {delivery.state for delivery in deliveries} == {DeliveryState.FAILED}
    assert sorted(delivery.last_error for delivery in deliveries) == [
        "it answered 410",
        "the endpoint was disabled: it answered 410 Gone",
        "the endpoint was disabled: it answered 410 Gone",
    ]


async def test_a_crash_between_the_sending_and_the_commit_sends_again_under_the_same_id(
    world: World, authority: Authority
) -> None:
    """The first process dies with the answer in its hand; another takes over when its lease is over."""
    async with authority.receiver() as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)

        async def send_and_die(url: str) -> TryOutcome:
            outcome = await world.webhooks.send(url, "{}", {"webhook-id": "first"})
            assert outcome == Delivered(200)
            died.set()
            await asyncio.Event().wait()
            return outcome

        died = asyncio.Event()
        await world.ended()
        dying = world.notifier(webhooks=Scripted(send_and_die))
        task = asyncio.create_task(dying.run())
        await died.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await world.states() == [("waiting", 1)]
        await world.pool.execute("UPDATE orchestrator.delivery SET next_try_at = now()")
        async with world.notifying():
            await world.over()
    [delivery] = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert receiver.received[-1].headers["webhook-id"] == str(delivery.message_id)
    assert (len(receiver.received), delivery.tries) == (2, 2)


async def test_a_process_that_comes_back_after_its_lease_changes_nothing(world: World) -> None:
    outcomes: list[TryOutcome] = [NotDelivered("it answered 500", 500), Delivered(200)]
    frozen, thawed = asyncio.Event(), asyncio.Event()

    async def send(url: str) -> TryOutcome:
        outcome = outcomes.pop(0)
        if outcomes:
            frozen.set()
            await thawed.wait()
        return outcome

    await world.notifications.create_endpoint("alice", "https://receiver.test/")
    await world.ended()
    way = Scripted(send)
    stopped = asyncio.create_task(world.notifier(webhooks=way).run())
    await frozen.wait()
    await world.pool.execute("UPDATE orchestrator.delivery SET next_try_at = now()")
    async with world.notifying(webhooks=way):
        await world.over()
        thawed.set()
        await world.ended("nobody")
        await until(lambda: _is_spread(world))
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    assert await world.states() == [("delivered", 2)]


async def test_many_processes_make_one_delivery_of_each_message(
    world: World, authority: Authority
) -> None:
    async with authority.receiver() as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)
        for _ in range(30):
            await world.ended()
        async with world.notifying(times=3):
            await world.over(30)
    assert len(receiver.received) == 30
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 30


async def test_dead_and_slow_receivers_delay_nobody_else(
    world: World, authority: Authority
) -> None:
    """Bob's is told while all that may be sent to those who do not answer is under way."""
    async with authority.receiver(answer=silence) as slow, authority.receiver() as bobs:
        for number in range(6):
            for _ in range(2):
                await world.notifications.create_endpoint(f"c{number}", slow.url)
            for _ in range(3):
                await world.ended(f"c{number}")
        await world.pool.execute("UPDATE orchestrator.webhook_endpoint SET failures = 1")
        await world.notifications.create_endpoint("bob", bobs.url)
        async with world.notifying(concurrency=2, concurrency_troubled=3):
            await until(lambda: _true(slow.under_way == 3))
            await world.ended("bob")
            await until(lambda: _true(len(bobs.received) == 1))
    assert slow.most_at_once == 3


async def test_one_receiver_gets_so_many_at_once_and_no_more(
    world: World, authority: Authority
) -> None:
    async with authority.receiver(answer=silence) as slow, authority.receiver() as bobs:
        await world.notifications.create_endpoint("alice", slow.url)
        await world.notifications.create_endpoint("bob", bobs.url)
        for _ in range(20):
            await world.ended("alice")
        await world.ended("bob")
        async with world.notifying(per_receiver=3, concurrency=4):
            await until(lambda: _true(slow.under_way == 3 and len(bobs.received) == 1))
    assert slow.most_at_once == 3


async def test_both_secrets_sign_for_a_day_after_a_rotation_then_the_new_one_alone(
    world: World, authority: Authority
) -> None:
    async with authority.receiver() as receiver:
        endpoint, old = await world.notifications.create_endpoint("alice", receiver.url)
        new = await world.notifications.rotate_secret("alice", str(endpoint.endpoint_id))
        async with world.notifying(forget_every_s=0.0):
            await world.ended()
            await world.over()
            await world.pool.execute(
                "UPDATE orchestrator.webhook_endpoint SET previous_until = now() - interval '1 second'"
            )
            await world.ended()
            await world.over(2)
            await until(lambda: _previous_secrets(world))
    first, second = receiver.received
    for secret in (old, new):
        Webhook(secret).verify(first.body, first.headers)
    Webhook(new).verify(second.body, second.headers)
    assert len(second.headers["webhook-signature"].split()) == 1


async def test_secrets_are_unreadable_at_rest(world: World) -> None:
    _, secret = await world.notifications.create_endpoint("alice", "https://receiver.test/")
    row = await world.pool.fetchrow("SELECT * FROM orchestrator.webhook_endpoint")
    assert row is not None
    assert secret not in str(row)
    assert secret.encode() not in row["secret_sealed"]


async def test_an_endpoint_that_was_removed_gets_nothing_more(
    world: World, authority: Authority
) -> None:
    async with authority.receiver(answer=answering(500)) as receiver:
        endpoint, _ = await world.notifications.create_endpoint("alice", receiver.url)
        await world.ended()
        async with world.notifying(schedule_s=(0.0, 3600.0)):
            await until(lambda: _true(len(receiver.received) == 1))
            await until(lambda: _tried(world))
            await world.notifications.remove_endpoint("alice", str(endpoint.endpoint_id))
    [delivery] = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert (delivery.state, delivery.last_error) == (
        DeliveryState.FAILED,
        "the endpoint was removed",
    )


async def test_a_message_that_cannot_be_put_in_words_holds_up_no_other(
    world: World, authority: Authority
) -> None:
    async with authority.receiver() as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)
        bad = await world.ended()
        await world.pool.execute(
            "UPDATE orchestrator.outbox SET customer_id = 'alice', spread_after = now() - interval '1 day'"
        )
        await world.pool.execute("UPDATE orchestrator.purchase SET customer_id = 'somebody else'")
        async with world.notifying(batch=1, step_back_s=3600.0):
            good = await world.ended()
            await until(lambda: _true(len(receiver.received) == 1))
        assert json.loads(receiver.received[0].body)["data"]["request_id"] == str(good)
        await world.pool.execute("UPDATE orchestrator.purchase SET customer_id = 'alice'")
        await world.pool.execute("UPDATE orchestrator.outbox SET spread_after = now()")
        async with world.notifying():
            await world.over(2)
    assert json.loads(receiver.received[1].body)["data"]["request_id"] == str(bad)


async def test_the_log_is_kept_for_its_time_and_what_waits_stays(world: World) -> None:
    async def send(url: str) -> TryOutcome:
        return Delivered(200) if "good" in url else NotDelivered("no")

    await world.notifications.create_endpoint("alice", "https://good.test/")
    await world.notifications.create_endpoint("bob", "https://bad.test/")
    await world.ended("alice")
    await world.ended("bob")
    async with world.notifying(
        webhooks=Scripted(send), schedule_s=(0.0, 3600.0), forget_every_s=0.0
    ):
        await until(lambda: _tried(world, 2))
        assert sorted(await world.states()) == [("delivered", 1), ("waiting", 1)]
        await world.pool.execute(
            "UPDATE orchestrator.delivery SET created_at = now() - interval '31 days'"
        )
        await until(lambda: _has_states(world, [("waiting", 1)]))


async def test_a_database_that_is_gone_for_a_while_is_waited_for(
    world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authority.receiver() as receiver:
        await world.notifications.create_endpoint("alice", receiver.url)
        await world.ended()
        working = world.store.to_spread
        failures = iter([errors.Unavailable("gone"), RuntimeError("a fault of ours")])

        async def failing(limit: int, *, with_email: bool) -> object:
            if error := next(failures, None):
                raise error
            return await working(limit, with_email=with_email)

        monkeypatch.setattr(world.store, "to_spread", failing)
        async with world.notifying():
            await world.over()
    assert len(receiver.received) == 1


async def test_the_claim_looks_at_no_delivery_that_is_over(world: World) -> None:
    """With a long log, a claim reads none of it."""
    request_id = await world.ended()
    message_id = await world.tell(request_id, "alice", "refunded")
    await world.pool.execute(
        "INSERT INTO orchestrator.delivery (delivery_id, message_id, request_id, customer_id, type, lane, receiver,"
        " content, state) SELECT gen_random_uuid(), $1, $2, 'alice', 't', gen_random_uuid(), 'r', 'c', 'delivered'"
        " FROM generate_series(1, 20000)",
        message_id,
        request_id,
    )
    await world.pool.execute("ANALYZE orchestrator.delivery")
    claim = postgres.statements("orchestrator.adapters.notifications")["claim"]
    plan = await world.pool.fetch(f"EXPLAIN {claim}", 10, 10, 4, 60.0, [], [])
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on delivery" not in text


async def _true(condition: bool) -> bool:  # noqa: FBT001  a condition as `until` wants it
    return condition


async def _is_spread(world: World) -> bool:
    return not await world.pool.fetchval(
        "SELECT count(*) FROM orchestrator.outbox WHERE spread_at IS NULL"
    )


async def _previous_secrets(world: World) -> bool:
    return not await world.pool.fetchval(
        "SELECT count(previous_sealed) FROM orchestrator.webhook_endpoint"
    )


async def _tried(world: World, times: int = 1) -> bool:
    """Say whether so many deliveries have the outcome of their first try."""
    tried: int = await world.pool.fetchval(
        "SELECT count(*) FROM orchestrator.delivery WHERE last_error <> '' OR state = 'delivered'"
    )
    return tried == times


async def _has_states(world: World, states: list[tuple[str, int]]) -> bool:
    return await world.states() == states
