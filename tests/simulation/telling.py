"""Customers' webhooks: the ways of a notifier through the seam, and the receivers, which keep what they were told."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from mesh.errors import Unavailable
from orchestrator.domain.notifications import Delivered, NotDelivered, TryOutcome, Verdict
from orchestrator.notification_ports import BegunTry, NewDelivery, OutboxMessage
from tests.simulation.faults import Fault, Kind
from tests.simulation.ours import Books, OurRow
from tests.simulation.seam import Passage, Process, Seam

T = TypeVar("T")

RECEIVER_S = 5.0
"""How long a notifier waits for a receiver's answer, in seconds."""
STORE_S = 5.0


@dataclass(slots=True)
class Receiver:
    """A customer's webhook endpoint.

    Attributes:
        busy_for: how many messages it turns away before it takes one.
        taken: the id and the body of each message that it has taken, as often as it came.

    """

    busy_for: int = 0
    taken: list[tuple[str, str]] = field(default_factory=list)

    def receive(self, message_id: str, body: str) -> TryOutcome:
        """Take a message, or turn it away."""
        if self.busy_for > 0:
            self.busy_for -= 1
            return NotDelivered("it answered 503", 503)
        self.taken.append((message_id, body))
        return Delivered(204)


class WebhooksWay:
    """The way to receivers."""

    def __init__(self, seam: Seam, process: Process, receiver: Receiver) -> None:
        self._seam = seam
        self._process = process
        self._receiver = receiver

    async def check(self, url: str) -> None:
        """Take every address."""

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> TryOutcome:
        async def receiving() -> TryOutcome:
            return self._receiver.receive(headers["webhook-id"], body)

        def failed(fault: Fault) -> TryOutcome:
            return NotDelivered(fault.value)

        passage = Passage(Kind.RECEIVER, "webhook", RECEIVER_S)
        return await self._seam.cross(self._process, passage, receiving, failed)


class NotificationsWay:
    """The way to the store of notifications, as far as a notifier uses it.

    What finds nothing to do is no crossing: a fault there changes nothing.
    """

    def __init__(self, seam: Seam, process: Process, books: Books) -> None:
        self._seam = seam
        self._process = process
        self._books = books

    async def to_spread(self, limit: int, *, with_email: bool) -> list[OutboxMessage]:
        await self._process.running()

        async def look() -> list[OutboxMessage]:
            return await self._books.notifications.to_spread(limit, with_email=with_email)

        if not await self._books.run(look):
            return []
        return await self._cross(Kind.LOOK, "to_spread", look)

    async def spread(self, message_id: UUID, deliveries: Sequence[NewDelivery]) -> None:
        await self._cross(
            Kind.COMMIT,
            "spread",
            lambda: self._books.notifications.spread(message_id, deliveries),
        )

    async def step_back(self, message_id: UUID, delay_s: float) -> None:
        await self._cross(
            Kind.COMMIT,
            "step_back",
            lambda: self._books.notifications.step_back(message_id, delay_s),
        )

    async def claim(
        self,
        *,
        room: int,
        room_troubled: int,
        per_lane: int,
        lease_s: float,
        busy: Mapping[UUID, int],
    ) -> list[BegunTry]:
        await self._process.running()
        if not await self._books.any_try_due():
            return []
        return await self._cross(
            Kind.COMMIT,
            "claim_tries",
            lambda: self._books.notifications.claim(
                room=room,
                room_troubled=room_troubled,
                per_lane=per_lane,
                lease_s=lease_s,
                busy=busy,
            ),
        )

    async def finish(self, begun: BegunTry, verdict: Verdict) -> None:
        await self._cross(
            Kind.FENCED, "finish_try", lambda: self._books.notifications.finish(begun, verdict)
        )

    async def forget(self, days: int) -> None:
        """Remove nothing: no simulation lasts that long."""

    async def _cross(self, kind: Kind, name: str, work: Callable[[], Awaitable[T]]) -> T:
        def failed(fault: Fault) -> T:
            raise Unavailable(f"the database does not answer: {fault}")

        passage = Passage(kind, name, STORE_S)
        return await self._seam.cross(self._process, passage, lambda: self._books.run(work), failed)


def not_told(receiver: Receiver, rows: Mapping[UUID, OurRow]) -> Iterator[str]:
    """Say what of I11 does not hold: everything in the outbox is told, always under the same id, in the same words."""
    expected = {
        (str(request_id), f"purchase_request.{kind}")
        for request_id, row in rows.items()
        for kind in row.outbox
    }
    told: dict[tuple[str, str], set[tuple[str, str]]] = {news: set() for news in expected}
    for message_id, text in receiver.taken:
        body = json.loads(text)
        news = body["data"]["request_id"], body["type"]
        told.setdefault(news, set()).add((message_id, text))
    for news, messages in told.items():
        if news not in expected:
            yield f"{news} was told, and is not in the outbox"
        elif not messages:
            yield f"{news} was never told"
        elif len(messages) > 1:
            yield f"{news} was told in {len(messages)} ways: {sorted(messages)}"
    ids = {message_id for message_id, _ in receiver.taken}
    if len(ids) < sum(bool(messages) for messages in told.values()):
        yield "different news came under the same id"
