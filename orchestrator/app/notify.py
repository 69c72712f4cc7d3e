"""The notifier: turns what is to be told into deliveries and makes them, at least once, under the same id.

It only reads purchases. Nothing that happens here, or at a receiver, can change one or hold one up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from opentelemetry import metrics

from mesh.errors import Unavailable
from orchestrator.domain.notifications import (
    EMAIL,
    REMOVED,
    SCHEDULE_S,
    NotDelivered,
    TryOutcome,
    Undeliverable,
    judge,
    signed_headers,
)
from orchestrator.notification_ports import NewDelivery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from mesh.clock import Clock
    from mesh.ids import NewId
    from orchestrator.notification_ports import (
        BegunTry,
        Contents,
        Mailer,
        NotificationStore,
        OutboxMessage,
        WebhookSender,
    )
    from orchestrator.ports import PurchaseStore, TokenVault

_log = structlog.get_logger(__name__)

_tries = metrics.get_meter(__name__).create_counter(
    "bookmesh.notification.tries",
    unit="{try}",
    description="Tries to tell a customer, by channel and by where the delivery then stands.",
)


@dataclass(frozen=True, slots=True)
class NotifierSettings:
    """How a notifier works; times in seconds."""

    concurrency: int = 64
    """Tries under way at once to receivers whose last try did not fail."""
    concurrency_troubled: int = 16
    """Tries under way at once to receivers whose last try failed, one each: these never take from the others."""
    per_receiver: int = 4
    """Tries under way at once to one receiver, of all e-mail likewise."""
    lease_s: float = 60.0
    """After how long a try that nobody finished is taken for lost; above the longest that a try can take."""
    poll_s: float = 1.0
    """The longest that due work waits."""
    batch: int = 100
    """Messages turned into deliveries at once."""
    step_back_s: float = 60.0
    """For how long a message that could not be turned into deliveries is left alone."""
    keep_days: int = 30
    """How long the log of deliveries is kept."""
    forget_every_s: float = 600.0
    """How often what is older is removed."""
    drain_s: float = 2.0
    """How long tries under way may take when the notifier is told to stop."""
    schedule_s: Sequence[float] = SCHEDULE_S
    """How long after the last try each is made."""


class Notifier:
    """Tells customers, until it is told to drain.

    Several run at once, in several processes: a message is spread by whoever is first, a try is made by whoever
    began it. One that dies in the middle of a try leaves it to the others, who begin the next when the lease is over:
    the receiver may then get the message twice, under the same id.
    """

    def __init__(
        self,
        store: NotificationStore,
        purchases: PurchaseStore,
        *,
        contents: Contents,
        webhooks: WebhookSender,
        mailer: Mailer | None,
        vault: TokenVault,
        settings: NotifierSettings,
        clock: Clock,
        rng: Random,
        new_id: NewId,
    ) -> None:
        """Keep what is needed; ``run`` starts the work. Without a ``mailer`` no e-mail is sent."""
        self._store = store
        self._purchases = purchases
        self._contents = contents
        self._webhooks = webhooks
        self._mailer = mailer
        self._vault = vault
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._new_id = new_id
        self._busy: Counter[tuple[UUID, bool]] = Counter()
        self._tries: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._draining = False
        self._forgot_at_s: float | None = None

    async def run(self) -> None:
        """Work until ``drain``; whatever is wrong with database, receivers or messages is logged, never raised."""
        try:
            while not self._draining:
                try:
                    await self._work()
                except Unavailable as error:
                    _log.warning("the database does not answer; trying again", error=error.message)
                except Exception:  # noqa: BLE001  purchases are made in this process too: they go on
                    _log.exception("notifications are held up by a fault of ours")
                await self._pause()
        finally:
            for task in self._tries:
                task.cancel()
            await asyncio.gather(*self._tries, return_exceptions=True)

    async def drain(self) -> None:
        """Begin no more tries, and give those under way a moment; the rest is tried again by others."""
        self._draining = True
        self._wake.set()
        if self._tries:
            await asyncio.wait(self._tries, timeout=self._settings.drain_s)

    async def _work(self) -> None:
        await self._spread()
        await self._begin()
        now_s = self._clock.monotonic()
        if self._forgot_at_s is None or now_s - self._forgot_at_s >= self._settings.forget_every_s:
            self._forgot_at_s = now_s
            await self._store.forget(self._settings.keep_days)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.poll_s * self._rng.uniform(0.75, 1.0)):
                await self._wake.wait()
        self._wake.clear()

    async def _spread(self) -> None:
        while not self._draining:
            messages = await self._store.to_spread(
                self._settings.batch, with_email=self._mailer is not None
            )
            for message in messages:
                try:
                    await self._store.spread(message.message_id, await self._deliveries(message))
                except Unavailable:
                    raise
                except Exception:  # noqa: BLE001  one message that cannot be put in words holds up no other
                    _log.exception("cannot be told", request_id=str(message.request_id))
                    await self._store.step_back(message.message_id, self._settings.step_back_s)
            if len(messages) < self._settings.batch:
                return

    async def _deliveries(self, message: OutboxMessage) -> list[NewDelivery]:
        view = await self._purchases.get(message.request_id, message.customer_id)
        if view is None:
            msg = f"the outbox tells of purchase {message.request_id}, which its customer does not have"
            raise LookupError(msg)
        deliveries = []
        if message.endpoints:
            body = self._contents.webhook(view, message.kind, message.created_at)
            deliveries = [
                NewDelivery(self._new_id(), endpoint_id, url, body)
                for endpoint_id, url in message.endpoints.items()
            ]
        if message.email is not None and self._mailer is not None:
            letter = self._contents.email(view, message.kind)
            deliveries.append(NewDelivery(self._new_id(), EMAIL, message.email, letter))
        return deliveries

    async def _begin(self) -> None:
        """Begin as many tries as there is room for."""
        settings = self._settings
        troubled = sum(count for (_, troubled), count in self._busy.items() if troubled)
        room = settings.concurrency - (self._busy.total() - troubled)
        room_troubled = settings.concurrency_troubled - troubled
        if self._draining or (room <= 0 and room_troubled <= 0):
            return
        busy = Counter[UUID]()
        for (lane, _), count in self._busy.items():
            busy[lane] += count
        if self._mailer is None:
            busy[EMAIL] = settings.per_receiver
        begun = await self._store.claim(
            room=room,
            room_troubled=room_troubled,
            per_lane=settings.per_receiver,
            lease_s=settings.lease_s,
            busy=busy,
        )
        for one in begun:
            self._busy[one.lane, one.troubled] += 1
            task = asyncio.create_task(self._try(one))
            self._tries.add(task)
            task.add_done_callback(self._tries.discard)

    async def _try(self, begun: BegunTry) -> None:
        try:
            outcome = await self._send(begun)
            verdict = judge(outcome, begun.tries, self._rng, self._settings.schedule_s)
            await self._store.finish(begun, verdict)
            channel = "email" if begun.lane == EMAIL else "webhook"
            _tries.add(1, {"channel": channel, "state": verdict.state.value})
            _log.info(
                "notified" if not verdict.error else "not notified",
                delivery_id=str(begun.delivery_id),
                message_id=str(begun.message_id),
                tries=begun.tries,
                state=verdict.state.value,
                error=verdict.error,
            )
        except Unavailable as error:
            _log.warning(
                "the outcome of a try was not kept: it will be made again",
                delivery_id=str(begun.delivery_id),
                error=error.message,
            )
        except Exception:  # noqa: BLE001  a fault of ours: the lease ends, and it is tried again
            _log.exception("a try broke off", delivery_id=str(begun.delivery_id))
        finally:
            key = begun.lane, begun.troubled
            self._busy[key] -= 1
            if not self._busy[key]:
                del self._busy[key]
            self._wake.set()

    async def _send(self, begun: BegunTry) -> TryOutcome:
        if begun.lane == EMAIL:
            if self._mailer is None:
                return NotDelivered("no e-mail is sent here at the moment")
            return await self._mailer.send(begun.message_id, begun.receiver, begun.content)
        if not begun.enabled:
            return Undeliverable(REMOVED)
        try:
            secrets = [self._vault.open(secret, begun.lane) for secret in begun.secrets]
        except KeyError:
            _log.exception("the keyring has lost the key of a webhook's secret")
            return NotDelivered("its secret cannot be read any more: rotate it")
        headers = signed_headers(str(begun.message_id), self._clock.now(), begun.content, secrets)
        return await self._webhooks.send(begun.receiver, begun.content, headers)
