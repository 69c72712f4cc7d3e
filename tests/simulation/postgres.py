"""The same simulation over real PostgreSQL: the virtual time stands still while its input and output are in flight.

The database tells virtual time too: a schema that comes before ``pg_catalog`` has a ``now()`` of its own.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar, cast
from uuid import UUID

import asyncpg

from mesh.money import Money
from mesh.postgres import migrate, open_pool
from orchestrator.adapters.notifications.store import PostgresNotificationStore
from orchestrator.adapters.postgres import (
    WORKER_LOCK_CLASS,
    PostgresPurchaseStore,
    PostgresSession,
)
from orchestrator.adapters.records import PostgresPurchaseRecords
from orchestrator.adapters.rows import _attempt
from orchestrator.domain.flags import Flag, Invariant
from orchestrator.notification_ports import NotificationStore
from orchestrator.operator_ports import PurchaseRecords
from orchestrator.ports import Claim, Loaded, PurchaseStore, WorkerSession
from tests.simulation.faults import Schedule
from tests.simulation.loop import LoopClock
from tests.simulation.ours import OurRow
from tests.simulation.scenarios import Scenario
from tests.simulation.world import REAL, Outcome, Parts, World

T = TypeVar("T")

MakeStore = Callable[["asyncpg.Pool[asyncpg.Record]", str], PostgresPurchaseStore]

_VIRTUAL_TIME = """
CREATE SCHEMA virtual;
CREATE TABLE virtual.clock (moment timestamptz NOT NULL);
INSERT INTO virtual.clock VALUES (pg_catalog.now());
CREATE FUNCTION virtual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM virtual.clock';
CREATE FUNCTION virtual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT moment FROM virtual.clock';
"""
_SEARCH_PATH = "virtual, pg_catalog, public"
_REAL_S = 1.0


class _Standing(selectors.DefaultSelector):
    """Passes the time instead of waiting for it, unless something real is in flight."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 1000.0
        self.in_flight = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.in_flight:
            return super().select(0 if timeout == 0 else _REAL_S)
        if timeout is None:
            raise RuntimeError("nothing will ever happen again in this virtual time")
        self.elapsed_s += max(timeout, 0.0)
        return super().select(0)


class StandingLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time, which stands still while something real is in flight."""

    def __init__(self) -> None:
        self.passing = _Standing()
        super().__init__(self.passing)

    def time(self) -> float:
        return self.passing.elapsed_s


class _Session:
    """A worker's session: its connection holds the lock; that it ends, the simulation says."""

    def __init__(self, inner: PostgresSession) -> None:
        self.owner = inner.owner
        self.inner = inner
        self.ended = asyncio.Event()

    async def lost(self) -> None:
        """Return when the session was ended."""
        await self.ended.wait()


class PostgresBooks:
    """Books in PostgreSQL, one operation at a time."""

    def __init__(
        self, inner: PostgresPurchaseStore, pool: asyncpg.Pool[asyncpg.Record], loop: StandingLoop
    ) -> None:
        self._inner = inner
        self._pool = pool
        self._loop = loop
        self._clock = LoopClock(loop)
        self._told: datetime | None = None
        self._alone = asyncio.Lock()
        self._sessions: dict[int, _Session] = {}

    @property
    def store(self) -> PurchaseStore:
        return cast("PurchaseStore", _WithSessions(self._inner, self))

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something at the database, alone, to its end, in no time."""

        async def alone() -> T:
            async with self._alone:
                self._loop.passing.in_flight += 1
                try:
                    await self._tell_the_time()
                    return await work()
                finally:
                    self._loop.passing.in_flight -= 1

        task = asyncio.ensure_future(alone())
        # Who asked may be gone when it fails.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _tell_the_time(self) -> None:
        now = self._clock.now()
        if now != self._told:
            await self._pool.execute("UPDATE virtual.clock SET moment = $1", now)
            self._told = now

    async def rows(self) -> dict[UUID, OurRow]:
        """Give all purchases, within ``run``."""
        found = await self._pool.fetch("SELECT request_id, epoch FROM orchestrator.purchase")
        return {row["request_id"]: await self._row(Claim(*row)) for row in found}

    async def end_session(self, owner: int) -> None:
        """End a session, and wait until the server has noticed."""
        session = self._sessions.pop(owner, None)
        if session is None:
            return
        session.ended.set()

        async def end_it() -> None:
            session.inner._connection.terminate()
            while await self._pool.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::integer::oid"
                " AND objid = $2::integer::oid",
                WORKER_LOCK_CLASS,
                owner,
            ):
                pass

        await self.run(end_it)

    async def wear_out(self, owner: int, claims: int) -> None:
        await self.run(
            lambda: self._pool.execute(
                "UPDATE orchestrator.purchase SET claims = $2, claimed_since = now() - interval '1 day'"
                " WHERE owner = $1",
                owner,
                claims,
            )
        )

    def has_claims(self, owner: int | None) -> bool:
        """Say that it may: who wants to know runs over memory."""
        return True

    async def anything_due(self) -> bool:
        return await self._any("SELECT FROM orchestrator.purchase WHERE due_at <= now()")

    async def anything_left(self) -> bool:
        return await self._any(
            "SELECT FROM orchestrator.purchase WHERE owner IS NOT NULL AND due_at IS NOT NULL"
            " AND owner <> ALL ($1::integer[])",
            list(self._sessions),
        )

    async def next_due(self) -> datetime | None:
        due: datetime | None = await self._pool.fetchval(
            "SELECT min(due_at) FROM orchestrator.purchase"
        )
        return due

    @property
    def notifications(self) -> NotificationStore:
        return PostgresNotificationStore(self._pool)

    async def any_try_due(self) -> bool:
        return await self._any("SELECT FROM orchestrator.delivery WHERE next_try_at <= now()")

    async def anything_to_tell(self) -> bool:
        return await self._any(
            "SELECT FROM orchestrator.delivery WHERE state = 'waiting' UNION ALL"
            " SELECT FROM orchestrator.outbox JOIN orchestrator.webhook_endpoint USING (customer_id)"
            " WHERE spread_at IS NULL AND disabled_reason IS NULL"
        )

    @property
    def records(self) -> PurchaseRecords:
        return PostgresPurchaseRecords(self._pool)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WorkerSession]:
        """Open a worker's session."""
        opened = self._inner.session()
        session = _Session(await self.run(opened.__aenter__))
        self._sessions[session.owner] = session
        try:
            yield session
        finally:
            self._sessions.pop(session.owner, None)
            session.inner._connection.terminate()

    async def _any(self, query: str, *args: object) -> bool:
        return await self.run(lambda: self._pool.fetchval(f"SELECT EXISTS ({query})", *args))

    async def _row(self, claim: Claim) -> OurRow:
        loaded = await self._inner.load(claim)
        assert isinstance(loaded, Loaded)
        purchase = loaded.purchase
        currency = purchase.max_price.currency
        attempts = await self._pool.fetch(
            "SELECT * FROM orchestrator.attempt WHERE request_id = $1", claim.request_id
        )
        flags = await self._pool.fetch(
            "SELECT * FROM orchestrator.flag WHERE request_id = $1 AND resolved_at IS NULL",
            claim.request_id,
        )
        news = await self._pool.fetch(
            "SELECT kind FROM orchestrator.outbox WHERE request_id = $1", claim.request_id
        )
        return OurRow(
            purchase,
            {row["number"]: _attempt(row, currency) for row in attempts},
            tuple(await self._inner.events(claim.request_id, 0)),
            loaded.token is not None,
            tuple(_flag(row, currency) for row in flags),
            tuple(row["kind"] for row in news),
        )


class _WithSessions:
    """A store whose sessions are those of the books."""

    def __init__(self, inner: PostgresPurchaseStore, books: PostgresBooks) -> None:
        self._inner = inner
        self.session = books.session

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


async def prepare(dsn: str) -> None:
    """Give an empty database the schemas that are needed, and virtual time."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_VIRTUAL_TIME)
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET search_path = {_SEARCH_PATH}')
    finally:
        await connection.close()
    await migrate(dsn, ("orchestrator",))


def simulate_in_postgres(
    scenario: Scenario,
    schedule: Schedule,
    dsn: str,
    parts: Parts = REAL,
    make_store: MakeStore = PostgresPurchaseStore,
) -> Outcome:
    """Run a scenario under a schedule in a prepared database, which is emptied first."""
    loop = StandingLoop()

    async def main() -> Outcome:
        loop.passing.in_flight += 1
        pool = await open_pool(dsn, max_size=2, application_name="simulation")
        await pool.execute("TRUNCATE orchestrator.purchase, orchestrator.webhook_endpoint CASCADE")
        loop.passing.in_flight -= 1
        try:
            books = PostgresBooks(make_store(pool, dsn), pool, loop)
            return await World(scenario, schedule, parts, books).run()
        finally:
            pool.terminate()

    try:
        return loop.run_until_complete(main())
    finally:
        _end(loop)


def _end(loop: StandingLoop) -> None:
    """End a loop with all that is still running in it: after the judgement nothing counts any more."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def _flag(row: asyncpg.Record, currency: str) -> Flag:
    minor = row["amount_minor"]
    amount = Money(currency, minor) if minor is not None else None
    return Flag(Invariant(row["invariant"]), row["detail"], row["advice"], amount)
