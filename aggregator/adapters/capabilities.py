"""When sellers were asked what they can do, in PostgreSQL."""

from __future__ import annotations

import asyncpg

from aggregator.adapters.postgres import reachable
from mesh.postgres import statements


class PostgresCapabilityChecks:
    """Implements ``CapabilityChecks`` beside the registry."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._claim = statements("aggregator.adapters")["claim_capability_checks"]
        self._retry = statements("aggregator.adapters")["retry_capability_check"]

    async def claim(self, older_than_s: float, most: int) -> list[str]:
        async with reachable("the registry"):
            rows = await self._pool.fetch(self._claim, older_than_s, most)
        return [row["seller_id"] for row in rows]

    async def retry(self, seller_id: str, older_than_s: float, after_s: float) -> None:
        async with reachable("the registry"):
            await self._pool.execute(self._retry, seller_id, older_than_s - after_s)
