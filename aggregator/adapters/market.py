"""What is remembered of the market, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import numpy as np
import structlog
from numpy.typing import NDArray

from aggregator.adapters import packed_market
from aggregator.adapters.packed_market import UnreadableError
from aggregator.adapters.postgres import reachable
from aggregator.ports import Lesson
from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    GeneralColumns,
    SellerColumns,
    State,
    TopicColumns,
)
from mesh.postgres import statements

MOST_SELLERS_A_BOOK = 512
"""Of so many sellers the last answer about a book is kept: the newest ones."""

_SELLERS, _GENERAL, _TOPICS, _CATEGORY = "sellers", "general", "topics", "category "
_PAGE = 500
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0)

_STATES = {
    **dict.fromkeys("nlvga", State.IN_STOCK),
    "O": State.NO_STOCK,
    "C": State.NO_STOCK,
    "N": State.NOT_CARRIED,
    "M": State.NOT_CARRIED,
    **dict.fromkeys("TUELRI", State.FAILED),
}
"""What the letters of the history teach; the others are of sellers that were not asked."""

ColumnsT = TypeVar("ColumnsT", SellerColumns, CategoryColumns, GeneralColumns, TopicColumns)

_log = structlog.get_logger(__name__)


class PostgresMarketStore:
    """Implements ``MarketStore`` on the schema ``aggregator``. What it cannot read it tells the log, and forgets."""

    def __init__(self, pool: asyncpg.Pool, process: int) -> None:
        """Remember what is learned of sellers as that of one process."""
        self._pool = pool
        self._process = process
        self._sql = statements("aggregator.adapters")

    async def numbers(self, seller_ids: Sequence[str]) -> dict[str, int]:
        async with reachable("the market"), self._pool.acquire() as connection:
            ids = list(seller_ids)
            rows = await connection.fetch(self._sql["seller_keys"], ids)
            if len(rows) < len(ids):
                known = {row["seller_id"] for row in rows}
                missing = [seller_id for seller_id in ids if seller_id not in known]
                await connection.execute(self._sql["add_seller_keys"], missing)
                rows = await connection.fetch(self._sql["seller_keys"], ids)
        return {row["seller_id"]: row["seller_no"] for row in rows}

    async def books(self, book_ids: Sequence[str]) -> list[BookColumns]:
        async with reachable("the market"):
            rows = await self._pool.fetch(self._sql["market_books"], list(book_ids))
        return _books(rows)

    async def merge_books(self, books: Sequence[BookColumns]) -> None:
        new = sorted(books, key=lambda book: book.book_id)
        async with (
            reachable("the market"),
            self._pool.acquire() as connection,
            connection.transaction(),
        ):
            ids = [book.book_id for book in new]
            rows = await connection.fetch(self._sql["lock_market_books"], ids)
            known = {book.book_id: book for book in _books(rows)}
            merged = [_merged(known.get(book.book_id), book) for book in new]
            await connection.execute(
                self._sql["put_market_books"],
                ids,
                [datetime.fromtimestamp(book.at_s.max(initial=0.0), UTC) for book in merged],
                [len(book.rows) for book in merged],
                [packed_market.pack_book(book) for book in merged],
            )

    async def sellers(self) -> SellerColumns | None:
        return await self._learned(_SELLERS, lambda arrays: SellerColumns(**_values(arrays)))

    async def general(self) -> GeneralColumns | None:
        def read(arrays: dict[str, NDArray[Any]]) -> GeneralColumns:
            return GeneralColumns(at_s=float(arrays.pop("at_s")), arrays=arrays)

        return await self._learned(_GENERAL, read)

    async def category(self, name: str) -> CategoryColumns | None:
        return await self._learned(
            _CATEGORY + name, lambda arrays: CategoryColumns(**_values(arrays))
        )

    async def put_learned(
        self,
        sellers: SellerColumns,
        general: GeneralColumns,
        categories: Sequence[CategoryColumns],
        now: datetime,
    ) -> None:
        learned = {
            _SELLERS: _arrays(sellers),
            _GENERAL: {**general.arrays, "at_s": np.array(general.at_s)},
            **{_CATEGORY + columns.category: _arrays(columns) for columns in categories},
        }
        packed = [packed_market.pack_arrays(arrays) for arrays in learned.values()]
        async with reachable("the market"):
            await self._pool.execute(
                self._sql["put_market_learned"], self._process, list(learned), packed, now
            )

    async def topics(self) -> TopicColumns | None:
        return await self._learned(_TOPICS, _topics)

    async def put_topics(self, topics: TopicColumns, now: datetime) -> None:
        packed = packed_market.pack_arrays(_topic_arrays(topics))
        async with reachable("the market"):
            await self._pool.execute(
                self._sql["put_market_learned"], self._process, [_TOPICS], [packed], now
            )

    async def drop_books(self, before: datetime) -> None:
        async with reachable("the market"):
            await self._pool.execute(self._sql["drop_market_books"], before)

    async def forget(self) -> None:
        """Forget everything."""
        async with reachable("the market"):
            await self._pool.execute(self._sql["forget_market"])

    async def count_past(self) -> int:
        """Give how many collections are in the history of quotes."""
        async with reachable("the history of quotes"):
            count: int = await self._pool.fetchval(self._sql["count_collections"])
        return count

    async def past(self, currency: str) -> AsyncIterator[Sequence[Lesson]]:
        """Give what the history of quotes teaches, the oldest first; a page each, of what is in one currency."""
        async with reachable("the history of quotes"):
            keys = await self._pool.fetch(self._sql["seller_key_ids"])
        ids = {row["seller_no"]: row["seller_id"] for row in keys}
        last: tuple[datetime, UUID] = _BEFORE_ALL
        while True:
            async with reachable("the history of quotes"):
                rows = await self._pool.fetch(self._sql["past_collections"], *last, _PAGE)
            yield [_lesson(row, ids) for row in rows if row["currency"] == currency]
            if len(rows) < _PAGE:
                return
            last = rows[-1]["started_at"], rows[-1]["collection_id"]

    async def _learned(
        self, name: str, read: Callable[[dict[str, NDArray[Any]]], ColumnsT]
    ) -> ColumnsT | None:
        async with reachable("the market"):
            packed = await self._pool.fetchval(self._sql["market_learned"], self._process, name)
        if packed is None:
            return None
        try:
            return read(packed_market.unpack_arrays(packed))
        except (UnreadableError, TypeError, KeyError) as error:
            _log.warning("what was learned is not of this version: forgotten", error=str(error))
            return None


def _books(rows: Iterable[asyncpg.Record]) -> list[BookColumns]:
    books = []
    for row in rows:
        try:
            books.append(packed_market.unpack_book(row["book_id"], row["answers"]))
        except UnreadableError as error:
            _log.warning("what was learned is not of this version: forgotten", error=str(error))
    return books


def _merged(known: BookColumns | None, new: BookColumns) -> BookColumns:
    """Give the last answer of each seller, the newest of them where there are too many."""
    if known is None:
        return new
    rows = np.concatenate([known.rows, new.rows])
    at_s = np.concatenate([known.at_s, new.at_s])
    # By seller and time: the last one of each seller stays.
    order = np.lexsort((np.arange(len(rows)) >= len(known.rows), at_s, rows))
    last = order[np.diff(rows[order], append=-1) != 0]
    if len(last) > MOST_SELLERS_A_BOOK:
        newest = np.argsort(-at_s[last], kind="stable")[:MOST_SELLERS_A_BOOK]
        last = last[np.sort(newest)]
    return BookColumns(
        book_id=new.book_id,
        rows=rows[last],
        state=np.concatenate([known.state, new.state])[last],
        total_minor=np.concatenate([known.total_minor, new.total_minor])[last],
        at_s=at_s[last],
    )


def _arrays(columns: SellerColumns | CategoryColumns) -> dict[str, NDArray[Any]]:
    return {field.name: np.asarray(getattr(columns, field.name)) for field in fields(columns)}


def _values(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Give what ``_arrays`` was given: what is no array was kept as one without dimensions."""
    return {name: array if array.ndim else array.item() for name, array in arrays.items()}


def _topic_arrays(columns: TopicColumns) -> dict[str, NDArray[Any]]:
    """Give arrays; those by seller and topic, which have hundreds of thousands of places, to three digits."""
    arrays = {
        field.name: value.astype(np.float16) if value.ndim > 1 else value
        for field in fields(columns)
        if isinstance(value := getattr(columns, field.name), np.ndarray)
    }
    mixtures = columns.mixtures
    return arrays | {
        "categories": np.array(list(mixtures), np.str_),
        "mixtures": np.array(list(mixtures.values()), np.float64),
    }


def _topics(arrays: dict[str, NDArray[Any]]) -> TopicColumns:
    names = arrays.pop("categories").tolist()
    mixtures = dict(zip(names, arrays.pop("mixtures"), strict=True))
    by_seller: dict[str, Any] = {
        name: array.astype(np.float32) if array.ndim > 1 else array
        for name, array in arrays.items()
    }
    return TopicColumns(mixtures=mixtures, **by_seller)


def _lesson(row: asyncpg.Record, ids: dict[int, str]) -> Lesson:
    answers = [
        (ids[number], _STATES[letter], total or 0, time_ms)
        for number, letter, time_ms, total in zip(
            row["seller_nos"], row["outcomes"], row["response_times_ms"], row["totals"], strict=True
        )
        if letter in _STATES
    ]
    return Lesson(
        book_id=row["book_id"],
        at_s=row["started_at"].timestamp(),
        seller_ids=[answer[0] for answer in answers],
        state=np.array([answer[1] for answer in answers], np.uint8),
        total_minor=np.array([answer[2] for answer in answers], np.int32),
        latency_s=np.array(
            [np.nan if answer[3] is None else answer[3] / 1000 for answer in answers], np.float32
        ),
    )
