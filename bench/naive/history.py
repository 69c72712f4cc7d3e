"""The straightforward history of quotes: a row for each quote, with the indexes that its readers need."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from aggregator.domain.history import CollectionRecord
from sellers.model import Quote

_COLUMNS = (
    ("quote_id", "text PRIMARY KEY"),
    ("request_id", "uuid NOT NULL"),
    ("seller_id", "text NOT NULL"),
    ("book_id", "text NOT NULL"),
    ("price", "numeric(10, 2)"),
    ("shipping", "numeric(10, 2)"),
    ("total", "numeric(10, 2)"),
    ("currency", "text NOT NULL"),
    ("available", "boolean NOT NULL"),
    ("response_time_ms", "integer NOT NULL"),
    ("error", "text"),
    ("quoted_at", "timestamptz NOT NULL"),
)
_NAMES = [name for name, _ in _COLUMNS]
_INDEXES = ("(request_id)", "(seller_id, quoted_at)", "(book_id, quoted_at)")


async def create(connection: asyncpg.Connection) -> None:
    """Make the table."""
    await connection.execute("CREATE SCHEMA naive")
    columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
    await connection.execute(f"CREATE TABLE naive.quote ({columns})")
    for index in _INDEXES:
        await connection.execute(f"CREATE INDEX ON naive.quote {index}")


async def write(connection: asyncpg.Connection, request_id: UUID, record: CollectionRecord) -> None:
    """Store the quotes of a collection."""
    rows = [
        (
            answer.outcome.quote_id,
            request_id,
            answer.seller_id,
            record.book_id,
            answer.outcome.price.decimal(),
            answer.outcome.shipping.decimal(),
            answer.outcome.total.decimal(),
            record.currency,
            True,
            round(answer.latency_s * 1000),
            None,
            record.started_at,
        )
        for answer in record.answers
        if isinstance(answer.outcome, Quote)
    ]
    await connection.copy_records_to_table(
        "quote", schema_name="naive", columns=_NAMES, records=rows
    )
