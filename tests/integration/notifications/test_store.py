"""What a store of notifications does for a notifier: one suite over PostgreSQL and over the one of the simulations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from random import Random
from typing import cast
from uuid import UUID

import asyncpg
import pytest

from mesh import postgres
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.notifications.store import PostgresNotificationStore
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.domain.notifications import DEAD, GONE, DeliveryState, Verdict
from orchestrator.domain.purchase import FailureReason, Purchase, Stage, Status
from orchestrator.notification_ports import BegunTry, NewDelivery, NotificationStore, OutboxMessage
from orchestrator.ports import Commit, News, PurchaseStore, SealedToken, Submission
from sellers.model import Condition
from tests.fakes.notification_store import MemoryNotificationStore
from tests.fakes.purchase_store import MemoryPurchaseStore

CLOCK = SystemClock()
LEASE_S = 60.0
SECRET = SealedToken("k1", b"secret")
URL = "https://customer.example/hook"
DELIVERED = Verdict(DeliveryState.DELIVERED, status=204)
AGAIN_AT_ONCE = Verdict(DeliveryState.WAITING, "it answered 503", 503, next_in_s=0.0)
LATER = replace(AGAIN_AT_ONCE, next_in_s=60.0)

new_id = uuid7_factory(CLOCK, Random(5))


@dataclass
class Stores:
    """The stores of one test."""

    notifications: NotificationStore
    purchases: PurchaseStore

    async def ended(self, customer_id: str = "alice") -> UUID:
        """Have a purchase end, so that there is something to tell; give its id."""
        request_id = new_id()
        purchase = Purchase(
            request_id, customer_id, "b", Money("USD", 1), (Condition.NEW,), CLOCK.now()
        )
        token = SealedToken("k1", b"token")
        await self.purchases.submit(Submission(purchase, None, b"", token), [])
        async with self.purchases.session() as session:
            [claim] = await self.purchases.claim(session.owner, 1, LEASE_S)
            over = replace(
                purchase,
                epoch=claim.epoch,
                stage=Stage.DONE,
                status=Status.FAILED,
                failure_reason=FailureReason.CARD_DECLINED,
            )
            news = (News.FINAL,)
            await self.purchases.commit(
                Commit(over, (), due_in_s=None, keep=False, erase_token=True, news=news)
            )
        return request_id

    async def hears(self, customer_id: str = "alice") -> UUID:
        """Register an endpoint; give its id."""
        endpoint_id = new_id()
        await self.notifications.add_endpoint(endpoint_id, customer_id, URL, SECRET, 10)
        return endpoint_id

    async def to_spread(self) -> list[OutboxMessage]:
        return await self.notifications.to_spread(100, with_email=False)

    async def spread(self, message: OutboxMessage) -> None:
        """Make the deliveries of a message."""
        deliveries = [
            NewDelivery(new_id(), endpoint_id, url, "body")
            for endpoint_id, url in message.endpoints.items()
        ]
        await self.notifications.spread(message.message_id, deliveries)

    async def begin(
        self, room: int = 100, room_troubled: int = 100, per_lane: int = 100, lease_s: float = 60.0
    ) -> list[BegunTry]:
        return await self.notifications.claim(
            room=room, room_troubled=room_troubled, per_lane=per_lane, lease_s=lease_s, busy={}
        )


async def told(stores: Stores) -> BegunTry:
    """Begin the first try of a message to one endpoint."""
    await stores.hears()
    await stores.ended()
    [message] = await stores.to_spread()
    await stores.spread(message)
    [begun] = await stores.begin()
    return begun


class Suite:
    """What every store does."""

    async def test_a_message_goes_to_the_endpoints_of_its_customer(self, stores: Stores) -> None:
        first, second = await stores.hears(), await stores.hears()
        await stores.hears("bob")
        request_id = await stores.ended()
        [message] = await stores.to_spread()
        assert message.request_id == request_id
        assert message.customer_id == "alice"
        assert message.kind == "final"
        assert dict(message.endpoints) == {first: URL, second: URL}
        assert message.email is None

    async def test_a_message_is_the_same_until_it_is_spread_and_is_spread_once(
        self, stores: Stores
    ) -> None:
        await stores.hears()
        await stores.ended()
        [message] = await stores.to_spread()
        assert await stores.to_spread() == [message]
        await stores.spread(message)
        await stores.spread(message)
        assert await stores.to_spread() == []
        [begun] = await stores.begin()
        assert begun.message_id == message.message_id
        assert (begun.tries, begun.receiver, begun.content) == (1, URL, "body")
        assert (begun.enabled, begun.troubled, begun.secrets) == (True, False, (SECRET,))

    async def test_what_nobody_hears_is_done_with(self, stores: Stores) -> None:
        await stores.ended()
        assert await stores.to_spread() == []
        await stores.hears()
        assert await stores.to_spread() == []

    async def test_a_message_that_stepped_back_is_left_alone(self, stores: Stores) -> None:
        await stores.hears()
        await stores.ended()
        [message] = await stores.to_spread()
        await stores.notifications.step_back(message.message_id, 60.0)
        assert await stores.to_spread() == []
        await stores.notifications.step_back(message.message_id, -1.0)
        assert await stores.to_spread() == [message]

    async def test_a_try_that_nobody_finishes_is_made_again_after_its_lease(
        self, stores: Stores
    ) -> None:
        await stores.hears()
        await stores.ended()
        [message] = await stores.to_spread()
        await stores.spread(message)
        [lost] = await stores.begin(lease_s=0.0)
        [again] = await stores.begin(lease_s=60.0)
        assert (again.delivery_id, again.message_id, again.tries) == (
            lost.delivery_id,
            lost.message_id,
            2,
        )
        await stores.notifications.finish(lost, DELIVERED)
        await stores.notifications.finish(again, AGAIN_AT_ONCE)
        [third] = await stores.begin()
        assert (third.tries, third.troubled) == (3, True)

    async def test_what_is_delivered_is_not_tried_again(self, stores: Stores) -> None:
        begun = await told(stores)
        await stores.notifications.finish(begun, DELIVERED)
        await stores.notifications.finish(begun, AGAIN_AT_ONCE)
        assert await stores.begin() == []

    async def test_what_failed_is_tried_again_when_it_is_due(self, stores: Stores) -> None:
        begun = await told(stores)
        await stores.notifications.finish(begun, LATER)
        assert await stores.begin() == []

    async def test_each_receiver_gets_so_many_at_once_and_one_in_trouble_a_single_one(
        self, stores: Stores
    ) -> None:
        await stores.hears()
        for _ in range(4):
            await stores.ended()
        for message in await stores.to_spread():
            await stores.spread(message)
        begun = await stores.begin(per_lane=2)
        assert len(begun) == 2
        assert await stores.begin(room=0, room_troubled=0) == []
        await stores.notifications.finish(begun[0], AGAIN_AT_ONCE)
        assert await stores.begin(room_troubled=0) == []
        assert [one.troubled for one in await stores.begin()] == [True]

    @pytest.mark.parametrize(
        "verdict",
        [
            Verdict(DeliveryState.FAILED, "it answered 410", 410, gone=GONE),
            Verdict(DeliveryState.FAILED, "it answered 503", 503, dead=DEAD),
        ],
        ids=["gone", "dead"],
    )
    async def test_what_waits_for_an_endpoint_that_is_disabled_is_given_up(
        self, stores: Stores, verdict: Verdict
    ) -> None:
        await stores.hears()
        for _ in range(2):
            await stores.ended()
        for message in await stores.to_spread():
            await stores.spread(message)
        [begun] = await stores.begin(per_lane=1)
        await stores.notifications.finish(begun, verdict)
        assert await stores.begin() == []
        await stores.ended()
        assert await stores.to_spread() == []

    async def test_an_endpoint_that_has_answered_since_is_not_dead(self, stores: Stores) -> None:
        await stores.hears()
        for _ in range(2):
            await stores.ended()
        for message in await stores.to_spread():
            await stores.spread(message)
        lost, heard = await stores.begin()
        await stores.notifications.finish(heard, DELIVERED)
        dead = Verdict(DeliveryState.FAILED, "it answered 503", 503, dead=DEAD)
        await stores.notifications.finish(lost, dead)
        await stores.ended()
        assert len(await stores.to_spread()) == 1


class TestInMemory(Suite):
    @pytest.fixture
    def stores(self) -> Stores:
        """Give empty stores in memory."""
        purchases = MemoryPurchaseStore(CLOCK)
        notifications = MemoryNotificationStore(purchases, CLOCK)
        # It has what a notifier uses, and no more.
        return Stores(cast("NotificationStore", notifications), purchases)


class TestInPostgres(Suite):
    @pytest.fixture
    async def stores(self, postgres_dsn: str) -> AsyncIterator[Stores]:
        """Give empty stores in PostgreSQL."""
        pool: asyncpg.Pool[asyncpg.Record] = await postgres.open_pool(
            postgres_dsn, max_size=4, application_name="tests"
        )
        async with pool:
            yield Stores(PostgresNotificationStore(pool), PostgresPurchaseStore(pool, postgres_dsn))
