"""Purchases in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from mesh import postgres
from orchestrator.adapters import rows
from orchestrator.domain.events import Step, StepName
from orchestrator.domain.purchase import Status
from orchestrator.ports import CancelledFirst, Claim, Committed, Fenced, Submitted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from uuid import UUID

    from orchestrator.domain.events import Event
    from orchestrator.domain.flags import Flag
    from orchestrator.domain.observations import Told
    from orchestrator.ports import (
        Commit,
        Loaded,
        Offered,
        Place,
        PurchaseView,
        Recorded,
        Submission,
        Unreadable,
        Wanted,
    )

WORKER_LOCK_CLASS = 0x626F6F6B
"""First half of the advisory locks that workers hold: "book". The second is the worker's name."""

_SPACING_S = 10.0
"""How far apart in the queue the purchases of one customer are: who has submitted 50,000 at once takes a turn every so
often while others wait, and all turns while nobody does."""

_DEAD_AT_ONCE = 5
"""How many workers in a row may die with a purchase before it is left alone for a while."""

_LONGEST_LEFT_ALONE_S = 30.0

_SESSION_CHECK_S = 1.0


class PostgresSession:
    """A worker's own connection, which holds its advisory lock."""

    def __init__(self, owner: int, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Take an open connection that holds the lock of ``owner``."""
        self.owner = owner
        self._connection = connection
        self._closed = asyncio.Event()
        connection.add_termination_listener(lambda _connection: self._closed.set())

    async def lost(self) -> None:
        """Return when the connection is gone, or does not answer any more."""
        while not self._closed.is_set():
            try:
                async with asyncio.timeout(_SESSION_CHECK_S):
                    await self._closed.wait()
            except TimeoutError:
                if not await self._answers():
                    return

    async def _answers(self) -> bool:
        try:
            await self._connection.fetchval("SELECT 1", timeout=5)
        except (asyncpg.PostgresError, *postgres.DOWN):
            return False
        return True


class PostgresPurchaseStore:
    """Purchases in the schema ``orchestrator``. One statement, so one transaction, an operation."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> None:
        """Use a pool for statements, and ``dsn`` for the connections of workers, which must go to the server itself."""
        self._pool = pool
        self._dsn = dsn
        self._sql = postgres.statements("orchestrator.adapters")

    async def submit(self, submission: Submission, events: Sequence[Event]) -> bool:
        """Commit a new purchase that is due at once; False when its id or the customer's key is taken.

        Also False when it accepts an offer that was accepted before.
        """
        purchase = submission.purchase
        kinds, bodies = rows.event_columns(events)
        row = await self._fetchrow(
            "submit",
            purchase.request_id,
            purchase.customer_id,
            submission.idempotency_key,
            submission.content_hmac,
            submission.token.key_id,
            submission.token.sealed,
            purchase.book_id,
            purchase.max_price.currency,
            purchase.max_price.minor,
            [condition.value for condition in purchase.conditions],
            purchase.traceparent,
            purchase.stage.value,
            kinds,
            bodies,
            purchase.accepted_offer_of,
            _SPACING_S,
        )
        return row is not None

    async def find_submitted(
        self, request_id: UUID, customer_id: str, idempotency_key: str | None
    ) -> Submitted | None:
        """Give the customer's purchase with this key, else the one with this id."""
        row = await self._fetchrow("find_submitted", request_id, customer_id, idempotency_key)
        return Submitted(row["request_id"], row["content_hmac"], row["key_id"]) if row else None

    async def request_cancel(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Note that the customer wants a purchase cancelled; give it as it then is, None when there is none."""
        [_kind], [body] = rows.event_columns([Step(StepName.CANCEL_REQUESTED)])
        await self._fetch("request_cancel", request_id, customer_id, body)
        return await self.get(request_id, customer_id)

    async def observe(self, request_id: UUID, by: str, what: Told) -> bool:
        """Note what somebody tells of a purchase, also of one that is over; False when there is none."""
        return await self._fetchrow("observe", request_id, *rows.told_columns(what), by) is not None

    async def claim(self, owner: int, room: int, lease_s: float) -> list[Claim]:
        """Take at most ``room`` due purchases for a worker."""
        found = await self._fetch("claim", owner, room, lease_s)
        return [Claim(row["request_id"], row["epoch"]) for row in found]

    async def load(self, claim: Claim) -> Loaded | Unreadable | None:
        """Give a claimed purchase; None when the claim does not hold any more."""
        row = await self._fetchrow("load", claim.request_id, claim.epoch)
        return rows.loaded(row) if row else None

    async def commit(self, commit: Commit) -> Committed:
        """Commit all of it.

        Raises:
            Fenced: when the claim does not hold any more; then nothing was changed.
            CancelledFirst: when it begins an order and the customer has asked to cancel; then nothing was changed.

        """
        purchase, settled = commit.purchase, commit.settled
        kinds, bodies = rows.event_columns(commit.events)
        authorization = purchase.authorization
        attempts = [a for a in (commit.ended, purchase.attempt) if a is not None]
        row = await self._fetchrow(
            "commit",
            purchase.request_id,
            purchase.epoch,
            purchase.stage.value,
            purchase.resume.value if purchase.resume else None,
            purchase.tries,
            purchase.status.value,
            purchase.failure_reason.value if purchase.failure_reason else None,
            json.dumps(rows.offer_json(purchase.offer)) if purchase.offer else None,
            None if commit.same_plan else json.dumps(rows.plan_json(purchase.plan)),
            commit.due_in_s,
            commit.keep,
            commit.erase_token,
            commit.begins_order,
            commit.observed,
            authorization.state.value,
            authorization.provider_id,
            authorization.capture_before,
            authorization.captured.minor if authorization.captured else None,
            authorization.refunded.minor if authorization.refunded else None,
            json.dumps([rows.attempt_json(attempt) for attempt in attempts]),
            kinds,
            bodies,
            json.dumps([rows.flag_json(flag) for flag in commit.flags]),
            settled.by if settled else None,
            settled.how if settled else None,
            [news.value for news in commit.news],
        )
        if row is None:
            if commit.begins_order and await self._fetchrow(
                "cancelled_first", purchase.request_id, purchase.epoch
            ):
                raise CancelledFirst(str(purchase.request_id))
            raise Fenced(str(purchase.request_id))
        return Committed(row["event_seq"], row["cancel_requested"], row["observations_wait"])

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> dict[UUID, bool]:
        """Lengthen the leases of these claims; give those that still hold, each with whether it is to be cancelled."""
        found = await self._fetch("renew", *_columns(claims), lease_s)
        return {row["request_id"]: row["cancel_requested"] for row in found}

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others take these purchases at once, as if they had not been claimed."""
        await self._fetch("give_back", *_columns(claims))

    async def leave(self, claim: Claim, delay_s: float) -> None:
        """Let others take a purchase after a while; the claim counts as one without a commit."""
        await self._fetch("leave", claim.request_id, claim.epoch, delay_s)

    async def set_aside(self, claim: Claim, flag: Flag) -> None:
        """Leave a purchase that cannot be read as it is, with a flag, until somebody tells something of it."""
        await self._fetch(
            "set_aside",
            claim.request_id,
            claim.epoch,
            flag.invariant.value,
            flag.detail,
            flag.advice,
        )

    async def free_dead(self) -> int:
        """End the leases of workers whose session is gone; give the number of purchases that were freed."""
        return len(
            await self._fetch("free_dead", WORKER_LOCK_CLASS, _DEAD_AT_ONCE, _LONGEST_LEFT_ALONE_S)
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresSession]:
        """Open a worker's session, which ends by itself when the process or its connection dies."""
        with postgres.unavailable():
            connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=5)
        try:
            with postgres.unavailable():
                owner: int = await connection.fetchval(self._sql["next_worker_id"])
                await connection.execute(
                    "SELECT pg_advisory_lock($1, $2)", WORKER_LOCK_CLASS, owner
                )
            yield PostgresSession(owner, connection)
        finally:
            connection.terminate()

    async def get(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Give a customer's purchase."""
        row = await self._fetchrow("get", request_id, customer_id)
        return rows.view(row) if row else None

    async def offered(self, request_id: UUID, customer_id: str) -> Offered | None:
        """Give what accepting the offer of a customer's purchase needs."""
        row = await self._fetchrow("offered", request_id, customer_id)
        return rows.offered(row) if row else None

    async def page(
        self, customer_id: str, wanted: Wanted, behind: Place | None, limit: int
    ) -> list[PurchaseView]:
        """Give those of a customer's purchases that are wanted, newest first; those behind a place, if there is one."""
        args = (
            customer_id,
            [status.value for status in wanted.statuses or Status],
            wanted.created_after,
            wanted.created_before,
            behind.created_at if behind else None,
            behind.request_id if behind else None,
            limit,
        )
        if wanted.book_id is None:
            found = await self._fetch("list", *args)
        else:
            found = await self._fetch("list_of_book", *args, wanted.book_id)
        return [rows.view(row) for row in found]

    async def events(self, request_id: UUID, after: int) -> list[Recorded]:
        """Give what happened in a purchase after the event of that number."""
        return rows.recorded(await self._fetch("events", request_id, after))

    async def ping(self) -> bool:
        """Say whether the database answers."""
        with postgres.unavailable():
            answer: int = await self._pool.fetchval("SELECT 1")
            return answer == 1

    async def _fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:  # noqa: ANN401  SQL's parameters
        with postgres.unavailable():
            return await self._pool.fetch(self._sql[statement], *args)

    async def _fetchrow(self, statement: str, *args: Any) -> asyncpg.Record | None:  # noqa: ANN401  SQL's parameters
        with postgres.unavailable():
            return await self._pool.fetchrow(self._sql[statement], *args)


def _columns(claims: Sequence[Claim]) -> tuple[list[UUID], list[int]]:
    return [claim.request_id for claim in claims], [claim.epoch for claim in claims]
