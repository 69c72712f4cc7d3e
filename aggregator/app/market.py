"""The memory of the market: learns from every collection, remembers in a store, and recalls what matters for a book."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from aggregator.domain.collection import Answer, MissReason, Skipped, miss_reason
from aggregator.domain.history import CollectionRecord
from aggregator.domain.registration import not_registered
from aggregator.ports import Lesson, MarketStore, Past
from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    GeneralColumns,
    SellerColumns,
    State,
    TopicColumns,
)
from aggregator.selection.coverage import Calibration
from aggregator.selection.statistics import Answers, Statistics
from mesh import errors
from mesh.clock import Clock
from sellers.model import Quote, QuoteOutcome, Unavailable

_CALIBRATION = "calibration"
_A_BATCH = 500
"""Books that are written at once: a few milliseconds each for us and for the database."""

_LAST_WORDS_S = 2.0
_DROP_EVERY_S = 3600.0
_MANY_CATEGORIES = 128
"""So many that have changed are written at once, before the first of them is let go."""

_NO_STATE = {MissReason.OUT_OF_STOCK: State.NO_STOCK, MissReason.CONDITION: State.NO_STOCK}

ColumnsT = TypeVar("ColumnsT", BookColumns, CategoryColumns, SellerColumns, TopicColumns)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSettings:
    """How the market is remembered.

    Attributes:
        currency: the one whose prices are learned.
        write_every_s: how often what was learned of books is written.
        snapshot_every_s: how often what was learned of sellers and categories is.
        topics_every_s: how often what was learned of kinds of books is: megabytes.
        recall_s: how long a collection waits for what is remembered of its book.
        longest_backoff_s: longest pause between tries while the store cannot be reached.
        days: for how many days a book is remembered of which nothing new is learned.

    """

    currency: str = "USD"
    write_every_s: float = 5.0
    snapshot_every_s: float = 60.0
    topics_every_s: float = 600.0
    recall_s: float = 0.1
    longest_backoff_s: float = 30.0
    days: int = 90


class OnSale(Protocol):
    """Takes note of whether a seller stood by what it had quoted."""

    def __call__(self, seller_id: str, *, refused: bool) -> None:
        """Take note of it.

        Raises:
            NotFound: if the seller is not registered.

        """


class SellerRows:
    """Gives each seller a row, for good: the registry never forgets one."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []

    def __len__(self) -> int:
        """Give how many rows there are."""
        return len(self._ids)

    def __contains__(self, seller_id: str) -> bool:
        """Say whether a seller has a row."""
        return seller_id in self._rows

    def __getitem__(self, seller_id: str) -> int:
        """Give the row of a seller."""
        return self._rows[seller_id]

    def id_of(self, row: int) -> str:
        """Give the seller of a row."""
        return self._ids[row]

    def ids(self) -> Sequence[str]:
        """Give the sellers, in the order of their rows."""
        return self._ids

    def add(self, seller_ids: Iterable[str]) -> None:
        """Give a row to those that have none."""
        for seller_id in seller_ids:
            if seller_id not in self._rows:
                self._rows[seller_id] = len(self._ids)
                self._ids.append(seller_id)


class Market:
    """What is known of the market. Learning and recalling never fail: without its store it knows what it has learned.

    ``run`` must be running: it reads what was known, and writes what is new. What could not be written when there was
    too much of it is told in the log.

    Attributes:
        statistics: what was learned.
        calibration: how true what is said of coverage was.
        rows: whose the rows of the statistics are.

    """

    def __init__(
        self,
        statistics: Statistics,
        store: MarketStore,
        category_of: Callable[[str], str],
        clock: Clock,
        settings: MarketSettings,
    ) -> None:
        self.statistics = statistics
        self.calibration = Calibration()
        self.rows = SellerRows()
        self._store = store
        self._category_of = category_of
        self._clock = clock
        self._settings = settings
        self._numbering = _Numbering({}, SellerRows())
        self._books: set[str] = set()
        self._categories: set[str] = set()
        self._lost = 0
        self._known = asyncio.Event()
        self._reachable = True

    def know(self, seller_ids: Iterable[str]) -> None:
        """Know these sellers, too."""
        self.rows.add(seller_ids)
        self.statistics.reach(len(self.rows))
        self._known.set()

    def record(self, record: CollectionRecord) -> None:
        """Learn from a collection that has ended. Returns at once."""
        if record.currency == self._settings.currency:
            self.learn(lesson_of(record))

    def learn(self, lesson: Lesson) -> None:
        """Learn what sellers answered; those that are not registered are passed over."""
        places = [place for place, name in enumerate(lesson.seller_ids) if name in self.rows]
        if not places:
            return
        rows = np.array([self.rows[lesson.seller_ids[place]] for place in places], np.int32)
        answers = Answers(
            rows=rows,
            state=lesson.state[places],
            total_minor=lesson.total_minor[places],
            latency_s=lesson.latency_s[places],
        )
        category = self._category_of(lesson.book_id)
        self.statistics.learn(lesson.book_id, category, lesson.at_s, answers)

    def sold(self, seller_id: str, *, refused: bool) -> None:
        """Learn whether a seller stood by what it had quoted.

        Raises:
            NotFound: if it is not registered.

        """
        if seller_id not in self.rows:
            raise not_registered([seller_id])
        self.statistics.learn_purchase(self.rows[seller_id], refused=refused)

    async def recall(self, book_id: str) -> None:
        """Bring what is remembered of a book and its category into memory; wait no more than a moment for it."""
        book_there = self.statistics.book(book_id) is not None
        if book_there and self.statistics.category(self._category_of(book_id)) is not None:
            return
        try:
            async with asyncio.timeout(self._settings.recall_s):
                await self.recall_category(book_id)
                if not book_there:
                    await self._recall_book(book_id)
        except (TimeoutError, errors.Unavailable) as error:
            if self._reachable:
                _log.warning(
                    "what is remembered of books cannot be read",
                    detail=str(error) or "it took too long",
                )
            self._reachable = False
        else:
            self._reachable = True

    async def recall_category(self, book_id: str) -> None:
        """Bring what is remembered of a book's category into memory. Raises ``Unavailable`` if that is not possible."""
        name = self._category_of(book_id)
        if self.statistics.category(name) is not None:
            return
        await self._refresh_numbers()
        columns = await self._store.category(name)
        if columns is not None and self.statistics.category(name) is None:
            self.statistics.load_category(self._numbering.from_numbers(columns))

    async def run(self) -> None:
        """Read what was known, then write what is learned, until cancelled; then write what is left."""
        await self._known.wait()
        await self._keep_trying(self.load)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._every(self._settings.write_every_s, self._write_books))
                tasks.create_task(self._every(self._settings.snapshot_every_s, self._snapshot))
                tasks.create_task(self._every(self._settings.topics_every_s, self._write_topics))
                tasks.create_task(self._every(_DROP_EVERY_S, self._drop))
        finally:
            with suppress(TimeoutError, errors.Unavailable):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self.save()

    async def load(self) -> None:
        """Read what was learned of sellers. Raises ``Unavailable`` while that is not possible."""
        await self._refresh_numbers()
        sellers, general = await self._store.sellers(), await self._store.general()
        if sellers is not None:
            self.statistics.load_sellers(self._numbering.from_numbers(sellers))
        if general is not None:
            arrays = dict(general.arrays)
            calibration = arrays.pop(_CALIBRATION, None)
            if calibration is not None and calibration.ndim == 2 and len(calibration):  # noqa: PLR2004  rows of numbers
                self.calibration.load(calibration)
            self.statistics.load_general(GeneralColumns(at_s=general.at_s, arrays=arrays))
        topics = await self._store.topics()
        if topics is not None:
            self.statistics.load_topics(self._numbering.from_numbers(topics))
        _log.info("the market is remembered", sellers=0 if sellers is None else len(sellers.rows))

    async def save(self) -> None:
        """Write all that is new. Raises ``Unavailable`` while that is not possible."""
        await self.write()
        await self._write_topics()

    async def write(self) -> None:
        """Write what is new, but for kinds of books. Raises ``Unavailable`` while that is not possible."""
        await self._write_books()
        await self._snapshot()

    async def _write_books(self) -> None:
        self._take_changed()
        if len(self._categories) >= _MANY_CATEGORIES:
            await self._snapshot()
        if not self._books:
            return
        await self._refresh_numbers()
        while self._books:
            batch = sorted(self._books)[:_A_BATCH]
            dumped = [self.statistics.dump_book(book_id) for book_id in batch]
            there = [book for book in dumped if book is not None]
            self._lost += len(batch) - len(there)
            self._books.difference_update(batch)
            try:
                await self._store.merge_books([self._numbering.to_numbers(book) for book in there])
            except BaseException:
                # Perhaps they were written all the same; to write them again does no harm.
                self._books.update(batch)
                raise
        if self._lost:
            _log.warning(
                "books forgotten before what was learned of them was written", books=self._lost
            )
            self._lost = 0

    async def _snapshot(self) -> None:
        self._take_changed()
        await self._refresh_numbers()
        names, self._categories = self._categories, set()
        dumped = [self.statistics.dump_category(name) for name in sorted(names)]
        general = self.statistics.dump_general()
        arrays = {**general.arrays, _CALIBRATION: self.calibration.dump()}
        try:
            await self._store.put_learned(
                self._numbering.to_numbers(self.statistics.dump_sellers()),
                GeneralColumns(at_s=general.at_s, arrays=arrays),
                [self._numbering.to_numbers(each) for each in dumped if each is not None],
                self._clock.now(),
            )
        except BaseException:
            self._categories |= names
            raise

    async def _write_topics(self) -> None:
        await self._refresh_numbers()
        topics = self._numbering.to_numbers(self.statistics.dump_topics())
        await self._store.put_topics(topics, self._clock.now())

    async def _drop(self) -> None:
        await self._store.drop_books(self._clock.now() - timedelta(days=self._settings.days))

    async def _recall_book(self, book_id: str) -> None:
        await self._refresh_numbers()
        for columns in await self._store.books([book_id]):
            # Somebody may have learned of it meanwhile.
            if self.statistics.book(book_id) is None:
                self.statistics.load_book(self._numbering.from_numbers(columns))

    def _take_changed(self) -> None:
        """Note what is to be written: no more than is held, as what was let go cannot be."""
        categories, books = self.statistics.take_changed()
        self._categories |= categories
        self._books |= books
        gone = self._books - set(self.statistics.books()) if len(self._books) > _A_BATCH else set()
        self._books -= gone
        self._lost += len(gone)

    async def _refresh_numbers(self) -> None:
        """See to it that each seller's number is known."""
        if not self._numbering.knows(self.rows):
            known = SellerRows()
            known.add(self.rows.ids())
            self._numbering = _Numbering(await self._store.numbers(known.ids()), known)

    async def _every(self, pause_s: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(pause_s)
            await self._keep_trying(do)

    async def _keep_trying(self, do: Callable[[], Awaitable[None]]) -> None:
        pause_s = self._settings.write_every_s
        while True:
            try:
                await do()
            except errors.Unavailable as error:
                _log.warning("what is learned of the market cannot be kept", detail=error.message)
            except Exception:  # noqa: BLE001  whatever is wrong with the memory, collections go on
                _log.exception("the memory of the market failed in our own code")
            else:
                return
            pause_s = min(pause_s * 2, self._settings.longest_backoff_s)
            await self._clock.sleep(pause_s)


async def rebuild(
    market: Market, past: Past, currency: str, on_progress: Callable[[int], None]
) -> None:
    """Learn from all collections of the past, as if each had just ended, and write it.

    Args:
        market: one that knows nothing yet, but its sellers.
        past: the history of quotes.
        currency: the one whose prices are learned.
        on_progress: is told after each page how many collections were learned in it.

    Raises:
        Unavailable: when the store cannot be reached.

    """
    async for lessons in past.past(currency):
        for lesson in lessons:
            await market.recall_category(lesson.book_id)
            market.learn(lesson)
        await market.write()
        on_progress(len(lessons))
    await market.save()


def lesson_of(record: CollectionRecord) -> Lesson:
    """Give what a collection teaches: what was asked in it, not what was known already."""
    taught = [
        (answer, state) for answer in record.fresh if (state := _state_of(answer)) is not None
    ]
    return Lesson(
        book_id=record.book_id,
        at_s=record.started_at.timestamp(),
        seller_ids=[answer.seller_id for answer, _ in taught],
        state=np.array([state for _, state in taught], np.uint8),
        total_minor=np.array([_total_minor(answer.outcome) for answer, _ in taught], np.int32),
        latency_s=np.array([answer.latency_s for answer, _ in taught], np.float32),
    )


def answers_of(given: Sequence[Answer], rows: SellerRows) -> Answers:
    """Give answers by row, none left out: a seller that was not asked has said nothing, as one that failed."""
    states = [_state_of(answer) for answer in given]
    outcomes = [answer.outcome for answer in given]
    return Answers(
        rows=np.array([rows[answer.seller_id] for answer in given], np.int32),
        state=np.array([State.FAILED if state is None else state for state in states], np.uint8),
        total_minor=np.array([_total_minor(outcome) for outcome in outcomes], np.int32),
        latency_s=np.array([answer.latency_s for answer in given], np.float32),
    )


def _total_minor(outcome: QuoteOutcome | Skipped) -> int:
    return outcome.total.minor if isinstance(outcome, Quote) else 0


def _state_of(answer: Answer) -> State | None:
    """Say what an answer teaches; None for a seller that was not asked, or not waited for."""
    match answer.outcome:
        case Quote():
            return State.IN_STOCK
        case Unavailable():
            return _NO_STATE.get(miss_reason(answer.outcome), State.NOT_CARRIED)
        case Skipped():
            return None
        case _:
            return None if miss_reason(answer.outcome) is MissReason.NO_CREDENTIAL else State.FAILED


class _Numbering:
    """Turns rows into the numbers by which the store knows sellers, and back."""

    def __init__(self, numbers: Mapping[str, int], rows: SellerRows) -> None:
        self._number_of_row = np.array([numbers[name] for name in rows.ids()], np.int32)
        order = np.argsort(self._number_of_row)
        self._numbers, self._rows = self._number_of_row[order], order.astype(np.int32)

    def knows(self, rows: SellerRows) -> bool:
        return len(self._numbers) == len(rows)

    def to_numbers(self, columns: ColumnsT) -> ColumnsT:
        """Give columns whose rows are the sellers' numbers, ascending; of sellers that have one."""
        inside = columns.rows < len(self._number_of_row)
        numbers = np.where(inside, self._number_of_row[np.where(inside, columns.rows, 0)], -1)
        return _arranged(columns, numbers)

    def from_numbers(self, columns: ColumnsT) -> ColumnsT:
        """Give columns whose rows are our own, ascending; of sellers that we know."""
        if not len(self._numbers):
            return _arranged(columns, np.full(len(columns.rows), -1, np.int32))
        places = np.minimum(np.searchsorted(self._numbers, columns.rows), len(self._numbers) - 1)
        found = self._numbers[places] == columns.rows
        return _arranged(columns, np.where(found, self._rows[places], -1))


def _arranged(columns: ColumnsT, rows: NDArray[Any]) -> ColumnsT:
    """Give columns with other rows, ascending, without those that are -1."""
    kept = np.flatnonzero(rows >= 0)
    order = kept[np.argsort(rows[kept])]
    changed: dict[str, Any] = {
        field.name: value[order]
        for field in fields(columns)
        if isinstance(value := getattr(columns, field.name), np.ndarray)
    }
    return replace(columns, **{**changed, "rows": rows[order].astype(np.int32)})
