"""Whom to tell, and what was told, in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh import postgres
from orchestrator.domain.notifications import (
    EMAIL_CODE_LIFE_S,
    EMAIL_CODE_TRIES,
    EMAIL_CODES_WITHIN_S,
    MOST_EMAIL_CODES,
    REMOVED,
    SWITCHED_OFF,
    DeliveryState,
)
from orchestrator.notification_ports import (
    Addresses,
    BegunTry,
    Endpoint,
    LoggedDelivery,
    MailedCode,
    OutboxMessage,
)
from orchestrator.ports import SealedToken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import asyncpg

    from orchestrator.domain.notifications import Verdict
    from orchestrator.notification_ports import NewDelivery

_SKIPPED_AT_ONCE = 1000
_FORGOTTEN_AT_ONCE = 10_000


class PostgresNotificationStore:
    """Implements ``NotificationStore`` on the schema ``orchestrator``."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        """Use a pool, which should not be that of the purchases."""
        self._pool = pool
        self._sql = postgres.statements("orchestrator.adapters.notifications")

    async def add_endpoint(
        self, endpoint_id: UUID, customer_id: str, url: str, secret: SealedToken, most: int
    ) -> Endpoint | None:
        """Register an endpoint; None when its customer has ``most`` already."""
        with postgres.unavailable():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock_endpoints"], customer_id)
                row = await connection.fetchrow(
                    self._sql["add_endpoint"],
                    endpoint_id,
                    customer_id,
                    url,
                    secret.key_id,
                    secret.sealed,
                    most,
                )
        return _endpoint(row) if row else None

    async def endpoints(self, customer_id: str) -> list[Endpoint]:
        """Give a customer's endpoints, the oldest first."""
        return [_endpoint(row) for row in await self._fetch("endpoints", customer_id)]

    async def rotate_secret(
        self, endpoint_id: UUID, customer_id: str, secret: SealedToken, overlap_s: float
    ) -> bool:
        """Give an endpoint another secret; False when this customer has none with this id."""
        return bool(
            await self._fetch(
                "rotate_secret",
                endpoint_id,
                customer_id,
                secret.key_id,
                secret.sealed,
                overlap_s,
            )
        )

    async def enable_endpoint(self, endpoint_id: UUID, customer_id: str) -> Endpoint | None:
        """Have an endpoint sent to again; None when this customer has none with this id."""
        rows = await self._fetch("enable_endpoint", endpoint_id, customer_id)
        return _endpoint(rows[0]) if rows else None

    async def remove_endpoint(self, endpoint_id: UUID, customer_id: str) -> bool:
        """Remove an endpoint and give up what waits for it; False when this customer has none with this id."""
        return bool(await self._fetch("remove_endpoint", endpoint_id, customer_id, REMOVED))

    async def begin_email(self, customer_id: str, email: str, code: MailedCode) -> bool:
        """Have an address wait for its code, instead of the one before; False when there were too many lately."""
        with postgres.unavailable():
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(self._sql["lock_codes"])
                begun = await connection.fetch(
                    self._sql["begin_email"],
                    code.code_id,
                    customer_id,
                    email,
                    code.code.key_id,
                    code.code.sealed,
                    MOST_EMAIL_CODES,
                    EMAIL_CODES_WITHIN_S,
                )
        return bool(begun)

    async def keep_email(self, customer_id: str) -> None:
        """Have no address wait for its code any more."""
        await self._fetch("keep_email", customer_id)

    async def try_code(self, customer_id: str) -> MailedCode | None:
        """Give the code that an address waits for, and count that it is compared; None when there is none in force."""
        rows = await self._fetch("try_code", customer_id, EMAIL_CODE_TRIES, EMAIL_CODE_LIFE_S)
        if not rows:
            return None
        return MailedCode(
            rows[0]["code_id"], SealedToken(rows[0]["key_id"], rows[0]["code_sealed"])
        )

    async def confirm_email(self, code_id: UUID) -> str | None:
        """Have the address of a code told by e-mail and give it; None when the code was used or superseded."""
        rows = await self._fetch("confirm_email", code_id)
        return rows[0]["email"] if rows else None

    async def remove_email(self, customer_id: str) -> None:
        """Remove the address that is told by e-mail, and give up what waits for it, or for a code."""
        await self._fetch("remove_email", customer_id, SWITCHED_OFF)

    async def email(self, customer_id: str) -> Addresses:
        """Give the address that is told by e-mail, and the one that waits for its code."""
        [row] = await self._fetch("email", customer_id, EMAIL_CODE_TRIES, EMAIL_CODE_LIFE_S)
        return Addresses(row["email"], row["unconfirmed_email"])

    async def deliveries(
        self, customer_id: str, request_id: UUID | None, before: UUID | None, limit: int
    ) -> list[LoggedDelivery]:
        """Give a customer's deliveries, of one purchase or of all, made before the one named, the newest first."""
        rows = await self._fetch("deliveries", customer_id, request_id, before, limit)
        return [_logged(row) for row in rows]

    async def to_spread(self, limit: int, *, with_email: bool) -> list[OutboxMessage]:
        """Give messages that have no deliveries yet and somebody to receive them."""
        await self._fetch("skip_unheard", with_email, _SKIPPED_AT_ONCE)
        return [_message(row) for row in await self._fetch("to_spread", limit)]

    async def spread(self, message_id: UUID, deliveries: Sequence[NewDelivery]) -> None:
        """Make the deliveries of a message, once: nothing happens when somebody else has."""
        await self._fetch(
            "spread",
            message_id,
            [delivery.delivery_id for delivery in deliveries],
            [delivery.lane for delivery in deliveries],
            [delivery.receiver for delivery in deliveries],
            [delivery.content for delivery in deliveries],
        )

    async def step_back(self, message_id: UUID, delay_s: float) -> None:
        """Leave a message alone for a while that could not be spread."""
        await self._fetch("step_back", message_id, delay_s)

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
        rows = await self._fetch(
            "claim",
            room,
            room_troubled,
            per_lane,
            lease_s,
            list(busy.keys()),
            list(busy.values()),
        )
        return [_begun(row) for row in rows]

    async def finish(self, begun: BegunTry, verdict: Verdict) -> None:
        """Say what became of a try; nothing happens when another one has begun since."""
        await self._fetch(
            "finish",
            begun.delivery_id,
            begun.tries,
            verdict.state.value,
            verdict.status,
            verdict.error,
            verdict.next_in_s,
            verdict.gone,
            verdict.dead,
        )

    async def forget(self, days: int) -> None:
        """Remove deliveries that are over and older than that, and secrets and codes that are of no use any more."""
        await self._fetch("forget", days, _FORGOTTEN_AT_ONCE, EMAIL_CODES_WITHIN_S)

    async def _fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:  # noqa: ANN401  SQL's parameters
        with postgres.unavailable():
            return await self._pool.fetch(self._sql[statement], *args)


def _endpoint(row: asyncpg.Record) -> Endpoint:
    return Endpoint(row["endpoint_id"], row["url"], row["disabled_reason"], row["created_at"])


def _message(row: asyncpg.Record) -> OutboxMessage:
    return OutboxMessage(
        message_id=row["message_id"],
        request_id=row["request_id"],
        customer_id=row["customer_id"],
        kind=row["kind"],
        created_at=row["created_at"],
        endpoints=dict(zip(row["endpoint_ids"], row["urls"], strict=True)),
        email=row["email"],
    )


def _begun(row: asyncpg.Record) -> BegunTry:
    secrets = [
        SealedToken(row[key_id], row[sealed])
        for key_id, sealed in (
            ("key_id", "secret_sealed"),
            ("previous_key_id", "previous_sealed"),
        )
        if row[sealed] is not None
    ]
    return BegunTry(
        delivery_id=row["delivery_id"],
        tries=row["tries"],
        message_id=row["message_id"],
        lane=row["lane"],
        receiver=row["receiver"],
        content=row["content"],
        troubled=row["troubled"],
        enabled=row["enabled"],
        secrets=tuple(secrets),
    )


def _logged(row: asyncpg.Record) -> LoggedDelivery:
    return LoggedDelivery(
        delivery_id=row["delivery_id"],
        message_id=row["message_id"],
        request_id=row["request_id"],
        type=row["type"],
        receiver=row["receiver"],
        state=DeliveryState(row["state"]),
        tries=row["tries"],
        last_status=row["last_status"],
        last_error=row["last_error"],
        last_try_at=row["last_try_at"],
        next_try_at=row["next_try_at"],
    )
