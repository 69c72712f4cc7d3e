"""PostgreSQL as the services use it: pools, statements kept in files, numbered migrations."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg
import structlog

from mesh import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.resources.abc import Traversable

_MIGRATIONS_LOCK = 0x626F6F6B  # one advisory lock for all migrations of a database: "book"
_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")

DOWN = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # What asyncpg says of a connection that dies between two messages of one operation.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    # Starting up, shutting down, or the statement was cancelled.
    asyncpg.OperatorInterventionError,
    # Rolled back in favour of another transaction: made again, it will do.
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
)
"""What asyncpg raises when the database does not answer; faults in our SQL are none of these."""

_RETRY_AFTER_S = 1.0
_RELEASE_S = 1.0
_CLOSE_S = 2.0
"""How long connections in use may take when a pool is closed. What was under way at its end is not waited for."""

_log = structlog.get_logger(__name__)


@contextmanager
def unavailable() -> Iterator[None]:
    """Turn what says that the database does not answer into one error. Faults in our SQL pass as they are."""
    try:
        yield
    except DOWN as error:
        msg = "the database does not answer; try again"
        raise errors.Unavailable(
            msg, reason="DATABASE_UNAVAILABLE", retry_after_s=_RETRY_AFTER_S
        ) from error


class MigrationError(Exception):
    """Migrations that do not fit the database; the message says which and what to do."""


class _Pool(asyncpg.Pool):
    """A pool that waits only a moment for a database that does not answer, to give a connection back or to end."""

    async def release(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  asyncpg has it so
    ) -> None:
        """Take a connection back; one that is not ready for the next in a moment is dropped.

        That is no error of whoever had it: what it was used for is over, or was cancelled.
        """
        # It goes on when whoever had the connection is cancelled. asyncpg sees to that too, but then nobody would hear
        # how it ended: asyncio would log errors about a database that is killed just then.
        await asyncio.shield(self._give_back(connection, timeout))

    async def _give_back(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        timeout: float | None,  # noqa: ASYNC109  as above
    ) -> None:
        try:
            await super().release(connection, timeout=_RELEASE_S if timeout is None else timeout)
        except DOWN as error:
            _log.debug("a connection to PostgreSQL was dropped", error=type(error).__name__)

    async def close(self) -> None:
        """Wait a moment for the connections that are in use, then drop what is left."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await super().close()
        except DOWN as error:
            # It has terminated itself, as it does after every error.
            _log.warning("connections to PostgreSQL were dropped", error=type(error).__name__)


class _Connection(asyncpg.Connection):
    """A connection that needs no tidying up between two uses: only statements and whole transactions go over it."""

    def get_reset_query(self) -> str:
        """Save each use the round trip that asyncpg would reset the session with."""
        return ""


async def open_pool(dsn: str, *, max_size: int, application_name: str) -> asyncpg.Pool:
    """Open a pool of connections; the caller closes it. No connection is made before one is needed.

    It connects when it is first used, so that a service can start, and say that it is not ready, before its database.
    A dead server is noticed within about 10 s by TCP keepalive; a statement may take 10 s, and closing the pool 2 s.
    What belongs to a session (``SET``, ``LISTEN``, advisory locks beyond a transaction) would be left to the next user
    of its connection: that needs a connection of its own. A transaction that was left open is rolled back.
    """
    # As ``asyncpg.create_pool`` does it.
    return await _Pool(
        dsn,
        min_size=0,
        max_size=max_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        loop=None,
        connection_class=_Connection,
        record_class=asyncpg.Record,
        command_timeout=10,
        timeout=5,
        server_settings={
            "application_name": application_name,
            "tcp_keepalives_idle": "5",
            "tcp_keepalives_interval": "2",
            "tcp_keepalives_count": "3",
            "idle_in_transaction_session_timeout": "15000",
        },
    )


def statements(package: str) -> dict[str, str]:
    """Read the ``.sql`` files beside a package: one named statement each, by file name without the ending."""
    return {
        file.name.removesuffix(".sql"): file.read_text()
        for file in resources.files(package).joinpath("sql").iterdir()
        if file.name.endswith(".sql")
    }


async def migrate(dsn: str, packages: Sequence[str]) -> list[str]:
    """Bring a database up to date and give the names of the migrations that were applied.

    Each package keeps its migrations as ``migrations/NNNN_name.sql``; they are applied in the order of their numbers,
    each in a transaction of its own, once. Safe to run from several places at once.

    Raises:
        MigrationError: if a file that was applied has been changed since, or a name is not of that form.

    """
    connection = await asyncpg.connect(dsn, timeout=10)
    applied = []
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATIONS_LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS public.migration (package text, name text, sha256 text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (package, name))"
        )
        for package in packages:
            done = {
                row["name"]: row["sha256"]
                for row in await connection.fetch(
                    "SELECT name, sha256 FROM public.migration WHERE package = $1", package
                )
            }
            for file in _migration_files(package):
                text = file.read_text()
                digest = hashlib.sha256(text.encode()).hexdigest()
                if file.name in done:
                    _check_unchanged(package, file.name, digest, done[file.name])
                    continue
                async with connection.transaction():
                    await connection.execute(text)
                    await connection.execute(
                        "INSERT INTO public.migration (package, name, sha256) VALUES ($1, $2, $3)",
                        package,
                        file.name,
                        digest,
                    )
                applied.append(f"{package}/{file.name}")
                _log.info("migrated", package=package, name=file.name)
    finally:
        await connection.close()
    return applied


def _migration_files(package: str) -> list[Traversable]:
    files = [
        file
        for file in resources.files(package).joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    for file in files:
        if not _FILE_NAME.match(file.name):
            msg = f"{package}/migrations/{file.name}: the name must be NNNN_name.sql"
            raise MigrationError(msg)
    return sorted(files, key=lambda file: file.name)


def _check_unchanged(package: str, name: str, digest: str, applied_digest: str) -> None:
    if digest != applied_digest:
        msg = (
            f"{package}/migrations/{name} was changed after it had been applied to this database: "
            "undo the change and put it into a new migration"
        )
        raise MigrationError(msg)
