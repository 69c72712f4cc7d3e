"""Delivers events, signed as Stripe signs them, until they are taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from psp_sim.adapters.sqlite import SqliteLedger

_RETRY_S = 1.0
_ANSWER_WITHIN_S = 5.0

_log = structlog.get_logger(__name__)


def signature(body: str, secret: str, now: int) -> str:
    """Give the ``Stripe-Signature`` of a body sent at ``now`` (Unix seconds)."""
    digest = hmac.new(secret.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


class Webhooks:
    """Sends events to one address; those that were not taken, a status other than 2xx, again after a second."""

    def __init__(
        self,
        ledger: SqliteLedger,
        url: str,
        secret: str,
        *,
        copies: int,
        now: Callable[[], int],
    ) -> None:
        """Deliver each event ``copies`` times."""
        self._ledger = ledger
        self._url = url
        self._secret = secret
        self._copies = copies
        self._now = now
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Look for events to deliver now."""
        self._due.set()

    async def run(self) -> None:
        """Deliver for ever."""
        async with httpx.AsyncClient(timeout=_ANSWER_WITHIN_S) as client:
            while True:
                self._due.clear()
                for event_id, body in self._ledger.due_events():
                    if await self._taken(client, body):
                        self._ledger.set_delivered(event_id, delivered=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._due.wait()

    async def _taken(self, client: httpx.AsyncClient, body: str) -> bool:
        taken = True
        for _ in range(self._copies):
            headers = {
                "Content-Type": "application/json",
                "Stripe-Signature": signature(body, self._secret, self._now()),
            }
            try:
                response = await client.post(self._url, content=body, headers=headers)
            except httpx.HTTPError as error:
                _log.warning("webhook not delivered", error=type(error).__name__)
                return False
            taken = taken and response.is_success
        return taken
