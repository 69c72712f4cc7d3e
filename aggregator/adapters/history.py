"""The history of quotes in PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

import asyncpg

from aggregator.adapters.postgres import reachable
from aggregator.domain.collection import Answer, MissReason, miss_reason
from aggregator.domain.history import CollectionRecord
from mesh.money import decimals_of
from mesh.postgres import statements
from sellers.model import Condition, Quote

LONGEST_MS = 32_767
"""Stands for itself and for longer response times."""

_LETTERS: dict[Condition | MissReason, str] = {
    Condition.NEW: "n",
    Condition.LIKE_NEW: "l",
    Condition.VERY_GOOD: "v",
    Condition.GOOD: "g",
    Condition.ACCEPTABLE: "a",
    MissReason.OUT_OF_STOCK: "O",
    MissReason.NOT_CARRIED: "N",
    MissReason.CONDITION: "C",
    MissReason.CURRENCY: "M",
    MissReason.TIMED_OUT: "T",
    MissReason.UNREACHABLE: "U",
    MissReason.SELLER_ERROR: "E",
    MissReason.RATE_LIMITED: "L",
    MissReason.REFUSED: "R",
    MissReason.INVALID_ANSWER: "I",
    MissReason.STOPPED: "S",
    MissReason.CIRCUIT_OPEN: "B",
    MissReason.NO_BUDGET: "P",
    MissReason.BUSY: "Y",
    MissReason.TOO_SLOW: "W",
    MissReason.NO_CREDENTIAL: "K",
}
"""As the table ``aggregator.quote_outcome`` has them."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEPARATOR = "\x1f"
"""Not printable, so in no name of a quote."""

Row = tuple[object, ...]


class PostgresHistoryStore:
    """Implements ``HistoryStore`` on the schema ``aggregator``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._sql = statements("aggregator.adapters")

    async def write(self, records: Sequence[CollectionRecord]) -> None:
        seller_ids = {answer.seller_id for record in records for answer in record.fresh}
        async with reachable("the history of quotes"), self._pool.acquire() as connection:
            numbers = await self._numbers(connection, list(seller_ids))
            rows = [_row(record, numbers) for record in records]
            await connection.executemany(self._sql["put_collection"], rows)

    async def make_partitions(self, first_day: date, days: int) -> None:
        async with reachable("the history of quotes"):
            await self._pool.execute(self._sql["make_collection_partitions"], first_day, days)

    async def drop_partitions(self, before_day: date) -> int:
        async with reachable("the history of quotes"):
            dropped: int = await self._pool.fetchval(
                self._sql["drop_collection_partitions"], before_day
            )
        return dropped

    async def _numbers(
        self, connection: asyncpg.pool.PoolConnectionProxy, seller_ids: list[str]
    ) -> dict[str, int]:
        """Give the sellers' numbers; read each time, so that they are right also in a database that was set back."""
        known = await self._known(connection, seller_ids)
        missing = [seller_id for seller_id in seller_ids if seller_id not in known]
        if missing:
            await connection.execute(self._sql["add_seller_keys"], missing)
            known |= await self._known(connection, missing)
        return known

    async def _known(
        self, connection: asyncpg.pool.PoolConnectionProxy, seller_ids: list[str]
    ) -> dict[str, int]:
        rows = await connection.fetch(self._sql["seller_keys"], seller_ids)
        return {row["seller_id"]: row["seller_no"] for row in rows}


def _row(record: CollectionRecord, numbers: dict[str, int]) -> Row:
    """Pack a collection into the columns of ``aggregator.collection``, in their order."""
    answers = record.fresh
    quotes = [answer.outcome if isinstance(answer.outcome, Quote) else None for answer in answers]
    uuids = [
        quote.quote_id if quote and _UUID.fullmatch(quote.quote_id) else None for quote in quotes
    ]
    names = [
        quote.quote_id if quote and uuid is None else ""
        for quote, uuid in zip(quotes, uuids, strict=True)
    ]
    return (
        record.collection_id,
        record.started_at,
        round(record.elapsed_s * 1000),
        len({answer.seller_id for answer in record.answers}),
        len(record.answers) - len(answers),
        decimals_of(record.currency),
        record.book_id,
        record.currency,
        ",".join(sorted(record.conditions)),
        [numbers[answer.seller_id] for answer in answers],
        "".join(_letter(answer) for answer in answers),
        [_response_time_ms(answer) for answer in answers],
        [quote and quote.total.minor for quote in quotes],
        [quote and quote.shipping.minor for quote in quotes],
        [quote and _odd_price(quote) for quote in quotes],
        uuids if any(uuids) else None,
        _SEPARATOR.join(names) if any(names) else None,
    )


def _letter(answer: Answer) -> str:
    outcome = answer.outcome
    return _LETTERS[outcome.condition if isinstance(outcome, Quote) else miss_reason(outcome)]


def _response_time_ms(answer: Answer) -> int | None:
    if not answer.asked:
        return None
    return min(round(answer.latency_s * 1000), LONGEST_MS)


def _odd_price(quote: Quote) -> int | None:
    """Give the price where it does not follow from the total and the shipping."""
    price = quote.price.minor
    return None if price == quote.total.minor - quote.shipping.minor else price
