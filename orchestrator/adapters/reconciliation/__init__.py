"""Our books for comparing, and the record of comparisons, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from mesh import postgres
from mesh.money import Money
from orchestrator.app.reconcile.model import (
    Comparison,
    Done,
    Gap,
    Mode,
    Outcome,
    Period,
    Task,
    Verdict,
)
from orchestrator.domain.purchase import AuthorizationState, Release, Status
from orchestrator.domain.reconciliation import Booked, BookedAttempt, BookedFlag

_TURN_LOCK_CLASS = 0x7265636F
"""First half of the advisory lock of the one that reconciles: "reco"; the second is 0."""

_PAGE = 500
_LONGEST_STATEMENT_S = 60.0
_BEFORE_ALL = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))

SETTLE = timedelta(minutes=5)
"""Younger purchases are not compared: everything about them is still under way."""

LONG = timedelta(days=8)
"""How far back the scheduled run of each day compares: longer than authorizations live and sellers keep their keys."""

OVERLAP = timedelta(hours=1)
"""How much of what the last run compared the next one compares again."""


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A finding as it is recorded; the columns of ``orchestrator.reconciliation_finding``."""

    number: int
    kind: str
    invariant: str
    request_id: UUID | None
    seller_id: str | None
    provider_id: str | None
    order_key: str | None
    amount: Money | None
    began_at: datetime
    detail: str
    advice: str
    done: Done
    note: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it is recorded; ``verdict`` is None until it has ended, ``begun_by`` until it has begun.

    ``waits`` says whether another run is under way, ``attended`` whether anybody is comparing just now: of those who
    were, the process may have ended.
    """

    run_id: UUID
    mode: Mode
    period: Period
    begun_by: str | None
    verdict: Verdict | None
    purchases: int
    payments: int
    orders: int
    sellers: int
    gaps: tuple[Gap, ...]
    waits: bool
    attended: bool


class PostgresReconciliation:
    """Implements ``Books`` and ``Runs`` on the schema ``orchestrator``."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> None:
        """Use a pool for statements, and ``dsn`` for the connection of whose turn it is, to the server itself."""
        self._pool = pool
        self._dsn = dsn
        self._sql = postgres.statements("orchestrator.adapters.reconciliation")

    # Our books

    async def booked(self, request_ids: Sequence[UUID]) -> dict[UUID, Booked]:
        """Give those of these purchases that there are."""
        if not request_ids:
            return {}
        found = [_booked(row) for row in await self._fetch("booked", list(request_ids))]
        return {booked.request_id: booked for booked in found}

    async def booked_under(self, keys: Sequence[str]) -> dict[str, Booked]:
        """Give the purchases that have tries under these keys, by key."""
        by_key = {row["key"]: row["request_id"] for row in await self._fetch("find_keys", keys)}
        books = await self.booked(list(set(by_key.values())))
        return {key: books[request_id] for key, request_id in by_key.items()}

    async def committed(self, since: datetime, until: datetime) -> AsyncIterator[list[Booked]]:
        """Give all purchases committed at ``since`` or later and before ``until``, page by page."""
        last = _BEFORE_ALL
        while True:
            page = [
                _booked(row) for row in await self._fetch("committed", since, until, *last, _PAGE)
            ]
            yield page
            if len(page) < _PAGE:
                return
            last = (page[-1].created_at, page[-1].request_id)

    async def open(self, until: datetime) -> AsyncIterator[list[Booked]]:
        """Give all purchases committed before ``until`` that something is left to do for, or that are flagged."""
        last = _BEFORE_ALL
        while True:
            page = [_booked(row) for row in await self._fetch("open", until, *last, _PAGE)]
            yield page
            if len(page) < _PAGE:
                return
            last = (page[-1].created_at, page[-1].request_id)

    async def busy(self, request_ids: Sequence[UUID]) -> bool:
        """Say whether a worker still has to act on what it was told of any of these purchases."""
        [row] = await self._fetch("busy", list(request_ids))
        busy: bool = row["busy"]
        return busy

    # Runs

    async def wanted(self, every_s: float) -> bool:
        """Say whether somebody asks for a run, or the last scheduled one is that long ago (never, when 0)."""
        [row] = await self._fetch("run_wanted", every_s, SETTLE.total_seconds())
        wanted: bool = row["wanted"]
        return wanted

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Hold the fleet's one turn to reconcile; False when another process has it."""
        with postgres.unavailable():
            connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=5)
        try:
            with postgres.unavailable():
                mine: bool = await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1, 0)", _TURN_LOCK_CLASS
                )
            yield mine
        finally:
            connection.terminate()

    async def begin(self, by: str, every_s: float) -> Task | None:
        """Begin the next run, as one whose process has ended before it; None when none is wanted."""
        found = await self._fetch("begin_run", by)
        if not found:
            await self._fetch(
                "schedule_run",
                every_s,
                SETTLE.total_seconds(),
                LONG.total_seconds(),
                OVERLAP.total_seconds(),
            )
            found = await self._fetch("begin_run", by)
        if not found:
            return None
        [row] = found
        period = Period(row["since"], row["until"])
        return Task(row["run_id"], row["starts"], Mode(row["mode"]), period)

    async def end(self, task: Task, verdict: Verdict, found: Comparison) -> bool:
        """Record what a run has found, for good; False when it was begun again since."""
        rows = await self._fetch(
            "end_run",
            task.run_id,
            task.starts,
            verdict.value,
            found.purchases,
            found.payments,
            found.orders,
            found.sellers,
            json.dumps([{"who": gap.who, "why": gap.why} for gap in found.gaps]),
            json.dumps([_finding_json(n, o) for n, o in enumerate(found.outcomes, start=1)]),
        )
        return bool(rows)

    # For those who ask

    async def request(self, run_id: UUID, by: str, mode: Mode, since: datetime) -> None:
        """Ask for a run, under an id that the caller chooses.

        Raises:
            ValueError: when ``since`` is so late that nothing is old enough to be compared.

        """
        try:
            await self._fetch("request_run", by, mode.value, since, SETTLE.total_seconds(), run_id)
        except asyncpg.CheckViolationError:
            msg = f"since: it must be more than {SETTLE.seconds // 60} minutes ago"
            raise ValueError(msg) from None

    async def get(self, run_id: UUID) -> RunRow | None:
        """Give a run; None when there is none of that id."""
        rows = await self._fetch("get_run", run_id, _TURN_LOCK_CLASS)
        return _run(rows[0]) if rows else None

    async def findings(self, run_id: UUID) -> list[FoundRow]:
        """Give what a run has found, in its order."""
        return [_found(row) for row in await self._fetch("get_findings", run_id)]

    async def withdraw(self, run_id: UUID) -> bool:
        """Take back a request; False when somebody has begun it."""
        return bool(await self._fetch("withdraw_run", run_id))

    async def _fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:  # noqa: ANN401  SQL's parameters
        with postgres.unavailable():
            return await self._pool.fetch(self._sql[statement], *args, timeout=_LONGEST_STATEMENT_S)


def _booked(row: asyncpg.Record) -> Booked:
    currency = row["currency"]
    return Booked(
        request_id=row["request_id"],
        created_at=row["created_at"],
        status=Status(row["status"]),
        stage=row["stage"],
        due_at=row["due_at"],
        payment=AuthorizationState(row["payment_state"]),
        provider_id=row["provider_id"],
        authorized=Money(currency, row["authorized_minor"]),
        captured=_money(currency, row["captured_minor"]),
        refunded=_money(currency, row["refunded_minor"]),
        attempts=tuple(_attempt(a, currency) for a in json.loads(row["attempts"])),
        last_attempt=row["attempt_number"],
        releases=tuple(Release(r["seller_id"], r["key"]) for r in json.loads(row["releases"])),
        flags=tuple(_flag(f, currency) for f in json.loads(row["flags"])),
    )


def _attempt(body: dict[str, Any], currency: str) -> BookedAttempt:
    return BookedAttempt(
        number=body["number"],
        seller_id=body["seller_id"],
        key=body["key"],
        begun_at=datetime.fromisoformat(body["begun_at"]),
        charged=_money(currency, body["charged_minor"]),
        outcome=body["outcome"],
    )


def _flag(body: dict[str, Any], currency: str) -> BookedFlag:
    return BookedFlag(
        number=body["number"],
        invariant=body["invariant"],
        detail=body["detail"],
        amount=_money(currency, body["amount_minor"]),
        raised_at=datetime.fromisoformat(body["raised_at"]),
    )


def _money(currency: str, minor: int | None) -> Money | None:
    return None if minor is None else Money(currency, minor)


def _run(row: asyncpg.Record) -> RunRow:
    return RunRow(
        run_id=row["run_id"],
        mode=Mode(row["mode"]),
        period=Period(row["since"], row["until"]),
        begun_by=row["begun_by"],
        verdict=Verdict(row["outcome"]) if row["outcome"] else None,
        purchases=row["purchases"] or 0,
        payments=row["payments"] or 0,
        orders=row["orders"] or 0,
        sellers=row["sellers"] or 0,
        gaps=tuple(Gap(**gap) for gap in json.loads(row["gaps"] or "[]")),
        waits=row["waits"],
        attended=row["attended"],
    )


def _found(row: asyncpg.Record) -> FoundRow:
    return FoundRow(
        number=row["number"],
        kind=row["kind"],
        invariant=row["invariant"],
        request_id=row["request_id"],
        seller_id=row["seller_id"],
        provider_id=row["provider_id"],
        order_key=row["order_key"],
        amount=_money(row["currency"], row["amount_minor"]),
        began_at=row["began_at"],
        detail=row["detail"],
        advice=row["advice"],
        done=Done(row["done"]),
        note=row["note"],
    )


def _finding_json(number: int, outcome: Outcome) -> dict[str, Any]:
    finding = outcome.finding
    return {
        "number": number,
        "kind": finding.kind.value,
        "invariant": finding.invariant,
        "request_id": str(finding.request_id) if finding.request_id else None,
        "seller_id": finding.seller_id,
        "provider_id": finding.provider_id,
        "order_key": finding.order_key,
        "amount_minor": finding.amount.minor if finding.amount else None,
        "currency": finding.amount.currency if finding.amount else None,
        "began_at": finding.began_at.isoformat(),
        "detail": finding.detail,
        "advice": finding.advice,
        "done": outcome.done.value,
        "note": outcome.note,
    }
