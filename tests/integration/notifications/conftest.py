"""Notifiers over real PostgreSQL, with receivers on this machine."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from mesh import postgres
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from orchestrator.adapters.notifications.contents import CustomerContents, read_letter
from orchestrator.adapters.notifications.letters import Letter
from orchestrator.adapters.notifications.store import PostgresNotificationStore
from orchestrator.adapters.notifications.webhooks import HttpWebhookSender
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.adapters.vault import AesTokenVault
from orchestrator.app.notifications import Notifications
from orchestrator.app.notify import Notifier, NotifierSettings
from orchestrator.domain.notifications import Delivered, TryOutcome
from orchestrator.notification_ports import Mailer, WebhookSender
from tests.fakes.receiver import Authority, Names

CLOCK = SystemClock()
QUICK = NotifierSettings(
    poll_s=0.02, lease_s=30.0, drain_s=0.2, schedule_s=(0.0, *[0.02] * 3), step_back_s=0.2
)
"""Four tries, as good as at once."""


class World:
    """Everything of one test."""

    def __init__(
        self, dsn: str, pool: asyncpg.Pool[asyncpg.Record], keyring: Path, authority: Authority
    ) -> None:
        self.pool = pool
        self.authority = authority
        self.names = Names()
        self.vault = AesTokenVault(keyring, CLOCK)
        self.store = PostgresNotificationStore(pool)
        self.purchases = PostgresPurchaseStore(pool, dsn)
        self.new_id = uuid7_factory(CLOCK, Random())
        self.webhooks = HttpWebhookSender(self.names.resolve, authority.trusting(), loopback=True)
        self.mailer: Mailer | None = None
        self.postman = Postman()
        self.notifications = Notifications(
            self.store,
            self.vault,
            self.webhooks,
            contents=CustomerContents(),
            mailer=self.postman,
            new_id=self.new_id,
            random_bytes=os.urandom,
        )

    async def confirmed(self, customer_id: str, email: str) -> None:
        """Have a customer told at an address, as if it had been confirmed."""
        await self.pool.execute(
            "INSERT INTO orchestrator.notification_email (customer_id, email) VALUES ($1, $2)",
            customer_id,
            email,
        )

    def notifier(
        self, settings: NotifierSettings = QUICK, webhooks: WebhookSender | None = None
    ) -> Notifier:
        """Make a notifier over this world."""
        return Notifier(
            self.store,
            self.purchases,
            contents=CustomerContents(),
            webhooks=webhooks or self.webhooks,
            mailer=self.mailer,
            vault=self.vault,
            settings=settings,
            clock=CLOCK,
            rng=Random(1),
            new_id=self.new_id,
        )

    @asynccontextmanager
    async def notifying(
        self,
        *,
        times: int = 1,
        settings: NotifierSettings = QUICK,
        webhooks: WebhookSender | None = None,
        **changes: Any,  # noqa: ANN401  what the settings have
    ) -> AsyncIterator[None]:
        """Run notifiers meanwhile."""
        notifiers = [self.notifier(replace(settings, **changes), webhooks) for _ in range(times)]
        async with asyncio.TaskGroup() as tasks:
            for notifier in notifiers:
                tasks.create_task(notifier.run())
            try:
                yield
            finally:
                for notifier in notifiers:
                    await notifier.drain()

    async def ended(
        self, customer_id: str = "alice", kind: str = "final", book_id: str = "9780134685991"
    ) -> UUID:
        """Put a purchase that has ended, and the message of it, where a worker's commit puts them."""
        request_id = self.new_id()
        await self.pool.execute(
            "INSERT INTO orchestrator.purchase (request_id, customer_id, content_hmac, key_id, book_id, currency,"
            " max_price_minor, conditions, stage, status, attempt_number)"
            " VALUES ($1, $2, '', 'k1', $3, 'USD', 2999, '{new}', 'done', 'purchased', 1)",
            request_id,
            customer_id,
            book_id,
        )
        await self.pool.execute(
            "INSERT INTO orchestrator.payment (request_id, authorize_key, state, authorized_minor, captured_minor)"
            " VALUES ($1::uuid, $1::uuid::text, 'captured', 2999, 2499)",
            request_id,
        )
        await self.pool.execute(
            "INSERT INTO orchestrator.attempt (request_id, number, seller_id, key, quote_id, quoted_minor, with_hold,"
            " not_after, agreed_minor, order_id, charged_minor, outcome)"
            " VALUES ($1::uuid, 1, 's1', $1::uuid::text, 'q', 2499, false, now(), 2499, 'order-1', 2499, 'confirmed')",
            request_id,
        )
        await self.tell(request_id, customer_id, kind)
        return request_id

    async def tell(self, request_id: UUID, customer_id: str, kind: str) -> UUID:
        """Put a message of a purchase."""
        message_id: UUID = await self.pool.fetchval(
            "INSERT INTO orchestrator.outbox (request_id, customer_id, kind) VALUES ($1, $2, $3) RETURNING message_id",
            request_id,
            customer_id,
            kind,
        )
        return message_id

    async def states(self) -> list[tuple[str, int]]:
        """Give the state and the tries of all deliveries, the oldest first."""
        rows = await self.pool.fetch(
            "SELECT state, tries FROM orchestrator.delivery ORDER BY delivery_id"
        )
        return [(row["state"], row["tries"]) for row in rows]

    async def over(self, deliveries: int = 1) -> None:
        """Return when there are so many deliveries, and none waits."""

        async def is_over() -> bool:
            states = await self.states()
            return len(states) == deliveries and all(state != "waiting" for state, _ in states)

        await until(is_over)


class Postman:
    """A way to mail boxes that keeps what it is given; ``outcomes`` come before it takes something."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Letter]] = []
        self.outcomes: list[TryOutcome] = []

    async def send(self, message_id: UUID, receiver: str, content: str) -> TryOutcome:
        """Keep it."""
        if self.outcomes:
            return self.outcomes.pop(0)
        self.sent.append((receiver, read_letter(content)))
        return Delivered()

    def code(self, receiver: str) -> str:
        """Give the last code that was mailed to an address."""
        text = [letter.text for to, letter in self.sent if to == receiver][-1]
        [code] = re.findall(r"\b[0-9]{8}\b", text)
        return str(code)


class Scripted:
    """A way to endpoints that does what a test says."""

    def __init__(self, send: Callable[[str], Awaitable[TryOutcome]]) -> None:
        self._send = send

    async def check(self, url: str) -> None:
        """Take every URL."""

    async def send(self, url: str, body: str, headers: object) -> TryOutcome:
        """Do what the test says."""
        return await self._send(url)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; the test's timeout is the limit."""
    while not await condition():  # noqa: ASYNC110  it may be the database that makes it true
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def world(postgres_dsn: str, tmp_path: Path, authority: Authority) -> AsyncIterator[World]:
    """Give a world with nothing in it yet."""
    keyring = tmp_path / "keyring.json"
    key = base64.b64encode(bytes(range(32))).decode()
    keyring.write_text(json.dumps({"keys": [{"id": "k1", "key": key}]}))
    pool = await postgres.open_pool(postgres_dsn, max_size=10, application_name="tests")
    async with pool:
        yield World(postgres_dsn, pool, keyring, authority)
