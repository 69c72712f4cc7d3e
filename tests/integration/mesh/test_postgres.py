"""A pool of connections to a real PostgreSQL."""

from __future__ import annotations

import asyncpg
import pytest
from structlog.testing import capture_logs

from mesh import postgres


async def test_a_pool_is_closed_although_a_connection_is_in_use(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is told to stop does, and without an error, whatever its database does."""
    monkeypatch.setattr(postgres, "_CLOSE_S", 0.05)
    pool = await postgres.open_pool(postgres_dsn, max_size=1, application_name="test")
    connection = await pool.acquire()
    with capture_logs() as logs:
        await pool.close()
    assert [line["event"] for line in logs] == ["connections to PostgreSQL were dropped"]
    with pytest.raises(asyncpg.InterfaceError):
        await connection.execute("SELECT 1")
