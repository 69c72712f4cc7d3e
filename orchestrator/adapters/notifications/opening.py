"""Opens all that notifications need, apart from what purchases need: neither can use up what the other has."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from mesh import postgres
from mesh.ids import uuid7_factory
from orchestrator.adapters.notifications.contents import CustomerContents
from orchestrator.adapters.notifications.mail import MailServer, SmtpMailer
from orchestrator.adapters.notifications.store import PostgresNotificationStore
from orchestrator.adapters.notifications.webhooks import (
    HttpWebhookSender,
    system_resolver,
    tls_context,
)
from orchestrator.app.notifications import Notifications
from orchestrator.app.notify import Notifier, NotifierSettings

if TYPE_CHECKING:
    from mesh.clock import Clock
    from orchestrator.ports import PurchaseStore, TokenVault
    from orchestrator.settings import Settings

_CONNECTIONS = 4
_CHECKS = 16
"""Names that may be resolved at once for customers who register their endpoints."""


@dataclass(frozen=True, slots=True)
class OpenNotifications:
    """What customers may do with notifications, and what sends them."""

    notifications: Notifications
    notifier: Notifier


@asynccontextmanager
async def open_notifications(
    settings: Settings, purchases: PurchaseStore, vault: TokenVault, clock: Clock, rng: Random
) -> AsyncIterator[OpenNotifications]:
    """Open a pool and a resolver of their own, and put everything together."""
    sending = NotifierSettings(
        concurrency=settings.webhook_concurrency,
        concurrency_troubled=max(1, settings.webhook_concurrency // 4),
        keep_days=settings.delivery_days,
    )
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            await postgres.open_pool(
                settings.database_url.get_secret_value(),
                max_size=_CONNECTIONS,
                application_name="orchestrator-notifications",
            )
        )
        resolve = await stack.enter_async_context(
            system_resolver(sending.concurrency + sending.concurrency_troubled + _CHECKS)
        )
        store = PostgresNotificationStore(pool)
        webhooks = HttpWebhookSender(
            resolve, tls_context(settings.webhook_ca_file), loopback=settings.webhook_loopback
        )
        mailer = SmtpMailer(_mail_server(settings), clock) if settings.smtp_host else None
        contents = CustomerContents()
        new_id = uuid7_factory(clock, rng)
        yield OpenNotifications(
            Notifications(
                store,
                vault,
                webhooks,
                contents=contents,
                mailer=mailer,
                new_id=new_id,
                random_bytes=os.urandom,
            ),
            Notifier(
                store,
                purchases,
                contents=contents,
                webhooks=webhooks,
                mailer=mailer,
                vault=vault,
                settings=sending,
                clock=clock,
                rng=rng,
                new_id=new_id,
            ),
        )


def _mail_server(settings: Settings) -> MailServer:
    password = settings.smtp_password
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        sender=settings.smtp_from,
        user=settings.smtp_user or None,
        password=password.get_secret_value() if password else None,
    )
