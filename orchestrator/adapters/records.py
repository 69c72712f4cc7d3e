"""Purchases in PostgreSQL, for operators to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mesh import postgres
from orchestrator.adapters import rows
from orchestrator.operator_ports import Dossier
from orchestrator.ports import Loaded

if TYPE_CHECKING:
    from uuid import UUID

    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    from orchestrator.operator_ports import FlagRecord


class PostgresPurchaseRecords:
    """Purchases in the schema ``orchestrator``, whosever they are."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        """Use a pool for statements."""
        self._pool = pool
        self._sql = postgres.statements("orchestrator.adapters")

    async def open_flags(self, after: int, limit: int) -> list[FlagRecord]:
        """Give the open flags that come after the one with this ``flag_id``, the oldest first; 0 for all."""
        with postgres.unavailable():
            found = await self._pool.fetch(self._sql["open_flags"], after, limit)
        return [rows.flag_record(row) for row in found]

    async def inspect(self, request_id: UUID) -> Dossier | None:
        """Give all that is known of a purchase, as it was at one moment."""
        with postgres.unavailable():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await self._inspect(connection, request_id)

    async def of_payment(self, provider_id: str, event_id: str) -> UUID | None:
        """Give the purchase of a payment; None when there is none, or an observation of it has this event already."""
        with postgres.unavailable():
            found: UUID | None = await self._pool.fetchval(
                self._sql["of_payment"], provider_id, event_id
            )
        return found

    async def _inspect(
        self, connection: PoolConnectionProxy[asyncpg.Record], request_id: UUID
    ) -> Dossier | None:
        async def all_of(statement: str, *args: Any) -> list[asyncpg.Record]:  # noqa: ANN401  SQL's parameters
            return await connection.fetch(self._sql[statement], request_id, *args)

        for row in await all_of("inspect"):
            [view] = await all_of("get", row["customer_id"])
            [whole] = await all_of("load", row["epoch"])
            loaded = rows.loaded(whole)
            return Dossier(
                view=rows.view(view),
                customer_id=row["customer_id"],
                stage=row["stage"],
                tries=row["tries"],
                epoch=row["epoch"],
                due_at=row["due_at"],
                purchase=loaded.purchase if isinstance(loaded, Loaded) else None,
                payment=rows.payment_record(row),
                attempts=tuple(rows.attempt_record(r) for r in await all_of("attempts_of")),
                flags=tuple(rows.flag_record(r) for r in await all_of("flags_of")),
                observations=tuple(
                    rows.observation_record(r) for r in await all_of("observations_of")
                ),
                events=tuple(rows.recorded(await all_of("events", 0))),
            )
        return None
