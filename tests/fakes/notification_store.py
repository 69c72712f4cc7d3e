"""Notifications in memory: what ``PostgresNotificationStore`` does for a notifier, beside the purchases in memory.

The suite in ``tests/integration/notifications/test_store.py`` runs over both, so that this one cannot lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID, uuid5

from mesh.clock import Clock
from orchestrator.domain.notifications import EMAIL, DeliveryState, Verdict
from orchestrator.notification_ports import BegunTry, Endpoint, NewDelivery, OutboxMessage
from orchestrator.ports import SealedToken
from tests.fakes.purchase_store import MemoryPurchaseStore


@dataclass(slots=True)
class Hearer:
    """A webhook endpoint as it is kept."""

    endpoint: Endpoint
    customer_id: str
    secret: SealedToken
    failures: int = 0
    last_success_at: datetime | None = None
    disabled_reason: str | None = None


@dataclass(slots=True)
class Message:
    """A row of the outbox as it is kept."""

    message: OutboxMessage
    spread_after: datetime
    spread: bool = False


@dataclass(slots=True)
class Delivery:
    """A message to one receiver, as it is kept."""

    new: NewDelivery
    message_id: UUID
    created_at: datetime
    next_try_at: datetime | None
    state: DeliveryState = DeliveryState.WAITING
    tries: int = 0
    error: str = ""


@dataclass(slots=True)
class MemoryNotificationStore:
    """Implements what a notifier uses of ``NotificationStore``; customers have endpoints alone, no e-mail."""

    purchases: MemoryPurchaseStore
    clock: Clock
    hearers: dict[UUID, Hearer] = field(default_factory=dict)
    messages: dict[UUID, Message] = field(default_factory=dict)
    deliveries: dict[UUID, Delivery] = field(default_factory=dict)

    async def add_endpoint(
        self, endpoint_id: UUID, customer_id: str, url: str, secret: SealedToken, most: int
    ) -> Endpoint | None:
        """Register an endpoint; None when its customer has ``most`` already."""
        if sum(hearer.customer_id == customer_id for hearer in self.hearers.values()) >= most:
            return None
        endpoint = Endpoint(endpoint_id, url, None, self.clock.now())
        self.hearers[endpoint_id] = Hearer(endpoint, customer_id, secret)
        return endpoint

    async def to_spread(self, limit: int, *, with_email: bool) -> list[OutboxMessage]:
        """Give messages that have no deliveries yet and somebody to receive them."""
        self._take_news()
        now = self.clock.now()
        waiting = [m for m in self.messages.values() if not m.spread and m.spread_after <= now]
        for message in waiting:
            message.spread = not message.message.endpoints
        heard = [message for message in waiting if not message.spread]
        heard.sort(key=lambda message: message.spread_after)
        return [message.message for message in heard[:limit]]

    async def spread(self, message_id: UUID, deliveries: Sequence[NewDelivery]) -> None:
        """Make the deliveries of a message, once: nothing happens when somebody else has."""
        message = self.messages[message_id]
        if message.spread:
            return
        message.spread = True
        now = self.clock.now()
        for new in deliveries:
            self.deliveries[new.delivery_id] = Delivery(new, message_id, now, now)

    async def step_back(self, message_id: UUID, delay_s: float) -> None:
        """Leave a message alone for a while that could not be spread."""
        self.messages[message_id].spread_after = self.clock.now() + timedelta(seconds=delay_s)

    async def claim(
        self,
        *,
        room: int,
        room_troubled: int,
        per_lane: int,
        lease_s: float,
        busy: Mapping[UUID, int],
    ) -> list[BegunTry]:
        """Begin tries of what is due, fairly between receivers."""
        now = self.clock.now()
        left = {False: room, True: room_troubled}
        at_once = Counter(busy)
        begun = []
        for delivery in sorted(self._due(), key=_place):
            hearer = self.hearers.get(delivery.new.lane)
            troubled = hearer is not None and hearer.failures > 0
            most = 1 if troubled else per_lane
            if left[troubled] <= 0 or at_once[delivery.new.lane] >= most:
                continue
            left[troubled] -= 1
            at_once[delivery.new.lane] += 1
            delivery.tries += 1
            delivery.next_try_at = now + timedelta(seconds=lease_s)
            begun.append(_begun(delivery, hearer, troubled=troubled))
        return begun

    async def finish(self, begun: BegunTry, verdict: Verdict) -> None:
        """Say what became of a try; nothing happens when another one has begun since."""
        delivery = self.deliveries[begun.delivery_id]
        if delivery.tries != begun.tries or delivery.state is not DeliveryState.WAITING:
            return
        now = self.clock.now()
        delivery.state, delivery.error = verdict.state, verdict.error
        delivery.next_try_at = (
            None if verdict.next_in_s is None else now + timedelta(seconds=verdict.next_in_s)
        )
        hearer = self.hearers.get(begun.lane)
        if hearer is None:
            return
        heard_since = (hearer.last_success_at or delivery.created_at) > delivery.created_at
        if verdict.state is DeliveryState.DELIVERED:
            hearer.failures, hearer.last_success_at = 0, now
        else:
            hearer.failures += 1
        hearer.disabled_reason = (
            hearer.disabled_reason or verdict.gone or (None if heard_since else verdict.dead)
        )
        if hearer.disabled_reason is not None:
            for other in self.deliveries.values():
                if other.new.lane == begun.lane and other.state is DeliveryState.WAITING:
                    other.state, other.next_try_at = DeliveryState.FAILED, None
                    other.error = f"the endpoint was disabled: {hearer.disabled_reason}"

    async def forget(self, days: int) -> None:
        """Remove nothing: no simulation lasts that long."""

    # For tests

    def anything_due(self) -> bool:
        """Say whether a claim might begin a try."""
        return bool(self._due())

    def anything_waits(self) -> bool:
        """Say whether anybody has still to be told anything."""
        self._take_news()
        return any(
            message.message.endpoints and not message.spread for message in self.messages.values()
        ) or any(d.state is DeliveryState.WAITING for d in self.deliveries.values())

    def _due(self) -> list[Delivery]:
        now = self.clock.now()
        return [d for d in self.deliveries.values() if d.next_try_at and d.next_try_at <= now]

    def _take_news(self) -> None:
        """Take what workers have put into the outbox since."""
        now = self.clock.now()
        for request_id, row in self.purchases.rows.items():
            for kind in row.outbox:
                message_id = _message_id(request_id, kind.value)
                if message_id in self.messages:
                    continue
                customer_id = row.purchase.customer_id
                endpoints = {
                    endpoint_id: hearer.endpoint.url
                    for endpoint_id, hearer in sorted(self.hearers.items())
                    if hearer.customer_id == customer_id and hearer.disabled_reason is None
                }
                told = OutboxMessage(
                    message_id, request_id, customer_id, kind.value, now, endpoints, None
                )
                self.messages[message_id] = Message(told, now)


@cache
def _message_id(request_id: UUID, kind: str) -> UUID:
    return uuid5(request_id, kind)


def _place(delivery: Delivery) -> tuple[datetime, UUID]:
    assert delivery.next_try_at is not None
    return delivery.next_try_at, delivery.new.delivery_id


def _begun(delivery: Delivery, hearer: Hearer | None, *, troubled: bool) -> BegunTry:
    return BegunTry(
        delivery.new.delivery_id,
        delivery.tries,
        delivery.message_id,
        delivery.new.lane,
        delivery.new.receiver,
        delivery.new.content,
        troubled,
        hearer is not None and hearer.disabled_reason is None and delivery.new.lane != EMAIL,
        (hearer.secret,) if hearer is not None else (),
    )
