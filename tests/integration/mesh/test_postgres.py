"""A pool of connections to a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc

import asyncpg
import pytest
from structlog.testing import capture_logs

from mesh import postgres
from tests.fakes.proxy import proxy
from tests.servers import PostgresServer


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


async def test_a_statement_is_all_that_goes_over_a_connection_for_it(postgres_dsn: str) -> None:
    """Tidying up after each would cost a second round trip; nothing that a pool is used for leaves anything behind."""
    async with (
        await postgres.open_pool(postgres_dsn, max_size=1, application_name="looked-at") as pool,
        await postgres.open_pool(postgres_dsn, max_size=1, application_name="looking") as other,
    ):
        await pool.execute("SELECT 'the last'")
        last = await other.fetchval(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'looked-at'"
        )
    assert last == "SELECT 'the last'"


async def test_a_transaction_that_is_left_open_is_rolled_back(postgres_dsn: str) -> None:
    """Whoever gets the connection next begins anew."""
    async with await postgres.open_pool(postgres_dsn, max_size=1, application_name="test") as pool:
        async with pool.acquire() as connection:
            await connection.transaction().start()
        async with pool.acquire() as connection:
            assert not connection.is_in_transaction()


async def test_a_statement_is_cancelled_although_the_database_hangs(
    postgres_dsn: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is told to stop does not wait until the database has heard of it."""
    monkeypatch.setattr(postgres, "_RELEASE_S", 0.05)
    monkeypatch.setattr(postgres, "_CLOSE_S", 0.05)
    async with proxy(postgres_server.port) as way:
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        pool = await postgres.open_pool(dsn, max_size=1, application_name="test")
        await pool.execute("SELECT 1")
        way.hang()
        statement = asyncio.create_task(pool.execute("SELECT 2"))
        done, _ = await asyncio.wait((statement,), timeout=0.05)
        assert not done
        statement.cancel()
        # Otherwise that takes as long as a statement may, 10 s.
        done, _ = await asyncio.wait((statement,), timeout=5)
        assert done
        assert statement.cancelled()
        await pool.close()


async def test_how_a_connection_is_given_back_is_heard_although_nobody_waits_any_more(
    postgres_dsn: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else asyncio logs "exception was never retrieved" for what was cancelled when the database went."""
    monkeypatch.setattr(postgres, "_RELEASE_S", 0.05)
    monkeypatch.setattr(postgres, "_CLOSE_S", 0.05)
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what["message"]))
    async with proxy(postgres_server.port) as way:
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        pool = await postgres.open_pool(dsn, max_size=1, application_name="test")
        await pool.execute("SELECT 1")
        way.hang()
        before = asyncio.all_tasks()
        statement = asyncio.create_task(pool.execute("SELECT 2"))
        done, _ = await asyncio.wait((statement,), timeout=0.05)
        assert not done
        while asyncio.all_tasks() - before == {statement}:
            # Once more while it waits for the connection to be given back.
            statement.cancel()
            await asyncio.sleep(0)
        statement.cancel()
        await asyncio.wait((statement,))
        assert statement.cancelled()
        if giving_back := asyncio.all_tasks() - before:
            await asyncio.wait(giving_back)
        del giving_back
        gc.collect()
        await pool.close()
    assert said == []
