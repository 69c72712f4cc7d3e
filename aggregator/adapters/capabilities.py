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

    async def claim(self, older_than_s: float, most: int) -> list[str]:
        async with reachable("the registry"):
            rows = await self._pool.fetch(self._claim, older_than_s, most)
        return [row["seller_id"] for row in rows]
