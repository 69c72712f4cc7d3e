"""The memory of the market without a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from aggregator.ports import Lesson
from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    GeneralColumns,
    SellerColumns,
    TopicColumns,
)
from mesh import errors


class MemoryMarketStore:
    """Implements ``MarketStore`` and ``Past``.

    Attributes:
        reachable: whether it answers.
        refused: how often it did not.
        lessons: the past.
        kept: what is remembered of books; the last word on each.
        kept_topics: what is remembered of kinds of books.

    """

    def __init__(self) -> None:
        self.reachable = True
        self.refused = 0
        self.lessons: list[Lesson] = []
        self.kept: dict[str, BookColumns] = {}
        self._numbers: dict[str, int] = {}
        self._sellers: SellerColumns | None = None
        self._general: GeneralColumns | None = None
        self.kept_topics: TopicColumns | None = None
        self._categories: dict[str, CategoryColumns] = {}

    async def numbers(self, seller_ids: Sequence[str]) -> dict[str, int]:
        self._check()
        for seller_id in seller_ids:
            self._numbers.setdefault(seller_id, 100 + len(self._numbers))
        return {seller_id: self._numbers[seller_id] for seller_id in seller_ids}

    async def books(self, book_ids: Sequence[str]) -> list[BookColumns]:
        self._check()
        return [self.kept[book_id] for book_id in book_ids if book_id in self.kept]

    async def merge_books(self, books: Sequence[BookColumns]) -> None:
        self._check()
        self.kept |= {book.book_id: book for book in books}

    async def sellers(self) -> SellerColumns | None:
        self._check()
        return self._sellers

    async def general(self) -> GeneralColumns | None:
        self._check()
        return self._general

    async def category(self, name: str) -> CategoryColumns | None:
        self._check()
        return self._categories.get(name)

    async def put_learned(
        self,
        sellers: SellerColumns,
        general: GeneralColumns,
        categories: Sequence[CategoryColumns],
        now: datetime,
    ) -> None:
        self._check()
        self._sellers, self._general = sellers, general
        self._categories |= {columns.category: columns for columns in categories}

    async def topics(self) -> TopicColumns | None:
        self._check()
        return self.kept_topics

    async def put_topics(self, topics: TopicColumns, now: datetime) -> None:
        self._check()
        self.kept_topics = topics

    async def drop_books(self, before: datetime) -> None:
        self._check()
        self.kept = {
            book_id: book
            for book_id, book in self.kept.items()
            if book.at_s.max() >= before.timestamp()
        }

    async def count_past(self) -> int:
        self._check()
        return len(self.lessons)

    async def past(self, currency: str) -> AsyncIterator[Sequence[Lesson]]:
        self._check()
        for begin in range(0, len(self.lessons), 10):
            yield self.lessons[begin : begin + 10]

    def _check(self) -> None:
        if not self.reachable:
            self.refused += 1
            raise errors.Unavailable("the test says so")
