"""The ledger in one SQLite file. Every change is one transaction; what is committed survives a kill of the process."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from psp_sim.domain.model import Failure, Intent, Refund, Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_sql = {
    file.name.removesuffix(".sql"): file.read_text()
    for file in resources.files("psp_sim.adapters").joinpath("sql").iterdir()
}


class LedgerError(Exception):
    """A ledger that cannot be opened; the message says which and why."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that is kept under an idempotency key, and of which request."""

    fingerprint: str
    status: int
    body: str


class SqliteLedger:
    """Keeps payments, kept answers, events and the clock in ``psp.sqlite3`` of a folder, which it locks for itself."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger, making it if there is none.

        Raises:
            LedgerError: if it cannot be opened, or another process has it open.

        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "psp.sqlite3"
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_sql["schema"])
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{path}: {error} (is another simulator using it?)") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep all that is written in the block, or nothing when it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything."""
        for table in ("refund", "intent", "idempotency_key", "event", "clock"):
            self._connection.execute(_sql[f"clear_{table}"])

    def write_intent(self, intent: Intent) -> None:
        """Keep an intent, new or changed."""
        failure = intent.failure
        self._write(
            "write_intent",
            intent_id=intent.intent_id,
            created=intent.created,
            amount=intent.amount,
            currency=intent.currency,
            card=intent.card,
            metadata=json.dumps(dict(intent.metadata)),
            status=intent.status.value,
            charge_id=intent.charge_id,
            capture_before=intent.capture_before,
            captured=intent.captured,
            failure_code=failure.code if failure else None,
            decline_code=failure.decline_code if failure else None,
            cancellation_reason=intent.cancellation_reason,
        )

    def intent(self, intent_id: str) -> Intent | None:
        """Give one intent."""
        rows = self._read("read_intent", intent_id=intent_id)
        return _intent(rows[0]) if rows else None

    def intents(self, since: int, until: int, after: str | None, limit: int) -> list[Intent]:
        """Give intents made in a time, newest first, those older than the one named."""
        rows = self._read("list_intents", since=since, until=until, after=after, limit=limit)
        return [_intent(row) for row in rows]

    def write_refund(self, refund: Refund) -> None:
        """Keep a new refund."""
        self._write(
            "write_refund",
            refund_id=refund.refund_id,
            intent_id=refund.intent_id,
            created=refund.created,
            amount=refund.amount,
            status=refund.status,
            metadata=json.dumps(dict(refund.metadata)),
        )

    def refunds(self, intent_id: str) -> list[Refund]:
        """Give the refunds of an intent, newest first."""
        return [
            Refund(
                refund_id=row["refund_id"],
                intent_id=row["intent_id"],
                created=row["created"],
                amount=row["amount"],
                status=row["status"],
                metadata=json.loads(row["metadata"]),
            )
            for row in self._read("list_refunds", intent_id=intent_id)
        ]

    def keep_answer(self, key: str, answer: KeptAnswer, now: int) -> None:
        """Keep the first answer under a key."""
        self._write(
            "keep_answer",
            key=key,
            fingerprint=answer.fingerprint,
            status=answer.status,
            body=answer.body,
            created=now,
        )

    def kept_answer(self, key: str, since: int) -> KeptAnswer | None:
        """Give the answer that was kept under a key since then."""
        rows = self._read("read_answer", key=key, since=since)
        return KeptAnswer(*rows[0]) if rows else None

    def write_event(self, event_id: str, body: str) -> None:
        """Keep an event that is to be delivered."""
        self._write("write_event", event_id=event_id, body=body)

    def event(self, event_id: str) -> str | None:
        """Give one event."""
        rows = self._read("read_event", event_id=event_id)
        return rows[0]["body"] if rows else None

    def due_events(self) -> list[tuple[str, str]]:
        """Give ids and bodies of events that are to be delivered, oldest first."""
        return [(row["event_id"], row["body"]) for row in self._read("due_events")]

    def set_delivered(self, event_id: str, *, delivered: bool) -> None:
        """Say whether an event was delivered."""
        self._write("set_delivered", event_id=event_id, delivered=int(delivered))

    def ahead_s(self) -> int:
        """Say how far the clock was set forward, in seconds."""
        rows = self._connection.execute("SELECT ahead_s FROM clock").fetchall()
        return rows[0]["ahead_s"] if rows else 0

    def set_ahead_s(self, ahead_s: int) -> None:
        """Keep how far the clock was set forward, in seconds."""
        with self.transaction():
            self._connection.execute("DELETE FROM clock")
            self._connection.execute("INSERT INTO clock (ahead_s) VALUES (?)", (ahead_s,))

    def _write(self, statement: str, **values: str | int | None) -> None:
        self._connection.execute(_sql[statement], values)

    def _read(self, statement: str, **values: str | int | None) -> list[Any]:
        return self._connection.execute(_sql[statement], values).fetchall()


def _intent(row: sqlite3.Row) -> Intent:
    return Intent(
        intent_id=row["intent_id"],
        created=row["created"],
        amount=row["amount"],
        currency=row["currency"],
        card=row["card"],
        metadata=json.loads(row["metadata"]),
        status=Status(row["status"]),
        charge_id=row["charge_id"],
        capture_before=row["capture_before"],
        captured=row["captured"],
        failure=Failure(row["failure_code"], row["decline_code"]) if row["failure_code"] else None,
        cancellation_reason=row["cancellation_reason"],
    )
