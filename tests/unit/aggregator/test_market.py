"""The memory of the market: what collections teach is remembered, over restarts, and worked out from the past."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from aggregator.adapters.packed_market import UnreadableError, pack_book, unpack_book
from aggregator.app.market import Market, MarketSettings, lesson_of, rebuild
from aggregator.domain.collection import Answer, MissReason, Skipped
from aggregator.ports import Lesson, MarketStore
from aggregator.selection.columns import BookColumns, State
from aggregator.selection.statistics import Statistics, StatisticsSettings
from aggregator.selection.topics import TOPICS
from sellers.model import CallFailed, FailureKind, QuoteOutcome, Unavailable, UnavailableReason
from tests.fakes.clock import until
from tests.fakes.ended_collections import STARTED_AT, quote, record
from tests.fakes.manual_clock import ManualClock
from tests.fakes.market_store import MemoryMarketStore

NOW_S = STARTED_AT.timestamp()
SELLERS = [f"seller-{i:02d}" for i in range(30)]


def market(
    store: MarketStore | None = None,
    sellers: Sequence[str] = SELLERS,
    clock: ManualClock | None = None,
    **settings: int,
) -> Market:
    made = Market(
        Statistics(StatisticsSettings(**settings)),
        store or MemoryMarketStore(),
        lambda book_id: f"category {book_id[-1]}",
        clock or ManualClock(),
        MarketSettings(),
    )
    made.know(sellers)
    return made


def answer(seller_id: str, outcome: QuoteOutcome | Skipped) -> Answer:
    return Answer(seller_id, outcome, 0.1)


async def time_goes_on(clock: ManualClock, condition: Callable[[], bool]) -> None:
    def later() -> bool:
        clock.advance(10.0)
        return condition()

    await until(later)


def lessons(count: int, seed: int = 1) -> list[Lesson]:
    rng = Random(seed)
    made = []
    for number in range(count):
        ids = rng.sample(SELLERS, 8)
        state = np.array(rng.choices([State.NOT_CARRIED, State.NO_STOCK, State.IN_STOCK], k=8))
        totals = np.array([rng.randint(500, 5000) for _ in ids], np.int32)
        made.append(
            Lesson(
                book_id=f"book-{rng.randrange(12)}",
                at_s=NOW_S + number,
                seller_ids=ids,
                state=state.astype(np.uint8),
                total_minor=np.where(state == State.IN_STOCK, totals, 0).astype(np.int32),
                latency_s=np.full(8, 0.1, np.float32),
            )
        )
    return made


def known(of: Market, book_id: str) -> dict[str, tuple[int, int]]:
    """Give what each seller last answered: its state and its total."""
    book = of.statistics.book(book_id)
    assert book is not None
    return {
        of.rows.id_of(row): (int(state), int(total))
        for row, state, total in zip(book.rows, book.state, book.total_minor, strict=True)
    }


def test_what_a_collection_teaches() -> None:
    asked = record(
        answers=[
            answer("has", quote(total_minor=1299)),
            answer("sold-out", Unavailable(UnavailableReason.OUT_OF_STOCK)),
            answer("used-only", Unavailable(UnavailableReason.CONDITION)),
            answer("without", Unavailable(UnavailableReason.NOT_CARRIED)),
            answer("down", CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")),
            answer("spared", Skipped(MissReason.NO_BUDGET, asked=False)),
            answer("left", Skipped(MissReason.STOPPED)),
            answer(
                "ours", CallFailed(FailureKind.NO_CREDENTIAL, definitely_not_done=True, detail="")
            ),
            replace(answer("from-before", quote(total_minor=999)), cached=True),
        ]
    )
    taught = lesson_of(asked)
    assert dict(zip(taught.seller_ids, taught.state, strict=True)) == {
        "has": State.IN_STOCK,
        "sold-out": State.NO_STOCK,
        "used-only": State.NO_STOCK,
        "without": State.NOT_CARRIED,
        "down": State.FAILED,
    }
    assert taught.total_minor.tolist() == [1299, 0, 0, 0, 0]
    assert (taught.book_id, taught.at_s) == (asked.book_id, NOW_S)


async def test_what_was_learned_is_known_after_a_restart_whatever_the_rows_are_then() -> None:
    store = MemoryMarketStore()
    before = market(store)
    for lesson in lessons(40):
        before.learn(lesson)
    await before.save()
    after = market(store, [*reversed(SELLERS), "new"])
    await after.load()
    for book_id in before.statistics.books():
        await after.recall(book_id)
        assert known(after, book_id) == known(before, book_id)
    for seller_id in SELLERS:
        mine, its = after.rows[seller_id], before.rows[seller_id]
        assert after.statistics.asked[mine] == before.statistics.asked[its]
        assert after.statistics.price_mean[mine] == before.statistics.price_mean[its]
        old, new = (each.statistics.category("category 1") for each in (before, after))
        assert old is not None
        assert new is not None
        assert new.had[mine] == old.had[its]


async def test_kinds_of_books_are_known_after_a_restart_though_they_are_written_seldom() -> None:
    store, clock = MemoryMarketStore(), ManualClock()
    before = market(store, clock=clock)
    for lesson in lessons(40):
        before.learn(lesson)
    running = asyncio.create_task(before.run())
    await time_goes_on(clock, lambda: store.kept_topics is not None)
    running.cancel()
    after = market(store, [*reversed(SELLERS), "new"])
    await after.load()
    told = before.statistics.topics.posterior("category 1", np.zeros(TOPICS))
    same = after.statistics.topics.posterior("category 1", np.zeros(TOPICS))
    assert same.tolist() == told.tolist()
    rates, then = before.statistics.topics.rates(told), after.statistics.topics.rates(told)
    for seller_id in SELLERS:
        mine, its = after.rows[seller_id], before.rows[seller_id]
        assert then[mine] == pytest.approx(rates[its], rel=1e-3)
    assert len({round(float(rate), 3) for rate in then}) > 5


async def test_a_market_worked_out_from_the_past_is_that_which_learned_as_it_went() -> None:
    store = MemoryMarketStore()
    store.lessons = lessons(60)
    learned, rebuilt, seen = market(), market(store), list[int]()
    for lesson in store.lessons:
        learned.learn(lesson)
    await rebuild(rebuilt, store, "USD", seen.append)
    assert sum(seen) == 60
    for book_id in learned.statistics.books():
        assert known(rebuilt, book_id) == known(learned, book_id)
    assert rebuilt.statistics.price_mean.tolist() == learned.statistics.price_mean.tolist()
    after = market(store)
    await after.load()
    assert after.statistics.asked.tolist() == learned.statistics.asked.tolist()
    assert store.kept.keys() == learned.statistics.books()


async def test_what_a_seller_says_that_is_not_registered_teaches_nothing() -> None:
    of = market(sellers=SELLERS[:10])
    for lesson in lessons(40):
        of.learn(lesson)
    assert len(of.rows) == 10
    assert {name for book_id in of.statistics.books() for name in known(of, book_id)} == {
        *SELLERS[:10]
    }


async def test_sellers_that_come_later_are_remembered_with_the_others() -> None:
    store = MemoryMarketStore()
    of = market(store, SELLERS[:10])
    await of.save()
    of.know(SELLERS)
    for lesson in lessons(40):
        of.learn(lesson)
    await of.save()
    after = market(store, SELLERS[::-1])
    for book_id in of.statistics.books():
        await after.recall(book_id)
        assert known(after, book_id) == known(of, book_id)


async def test_without_its_store_the_market_learns_and_writes_when_it_is_back() -> None:
    store, clock = MemoryMarketStore(), ManualClock()
    of = market(store, clock=clock)
    store.reachable = False
    running = asyncio.create_task(of.run())
    for lesson in lessons(10):
        of.learn(lesson)
        await of.recall(lesson.book_id)
    await time_goes_on(clock, lambda: store.refused > 20)
    assert not store.kept
    store.reachable = True
    await time_goes_on(clock, lambda: bool(store.kept))
    assert store.kept.keys() == of.statistics.books()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_left_is_written_at_the_end() -> None:
    store = MemoryMarketStore()
    of = market(store)
    running = asyncio.create_task(of.run())
    await asyncio.sleep(0)
    for lesson in lessons(10):
        of.learn(lesson)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert store.kept.keys() == of.statistics.books()


async def test_books_that_were_let_go_before_they_were_written_do_no_harm() -> None:
    store = MemoryMarketStore()
    of = market(store, books=3)
    for lesson in lessons(40):
        of.learn(lesson)
    await of.save()
    assert store.kept.keys() == of.statistics.books()
    assert len(store.kept) == 3


@pytest.mark.parametrize("seed", range(20))
def test_a_packed_book_is_what_it_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.choice([0, 1, 2, 3, 4, 5, 60, 512]))
    most = int(rng.choice([600, 10_000, 2**31 - 1]))
    rows = np.sort(rng.choice(most, count, replace=False) if most < 2**20 else _far(rng, count))
    state = rng.integers(0, 3, count).astype(np.uint8)
    book = BookColumns(
        book_id="book",
        rows=rows.astype(np.int32),
        state=state,
        total_minor=np.where(state == State.IN_STOCK, rng.integers(1, 10_000_000, count), 0).astype(
            np.int32
        ),
        at_s=np.asarray(NOW_S - rng.integers(0, 40 * 24 * 60, count) * 60.0, np.float64),
    )
    read = unpack_book("book", pack_book(book))
    for name in ("rows", "state", "total_minor"):
        assert getattr(read, name).tolist() == getattr(book, name).tolist()
        assert getattr(read, name).dtype == getattr(book, name).dtype
    assert np.abs(read.at_s - book.at_s).max(initial=0.0) <= 30.0


def _far(rng: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.unique(rng.integers(0, 2**31 - 1, 2 * count + 1))[:count]


@pytest.mark.parametrize(
    "damaged", [b"", b"\x02" + bytes(13), b"\x01\x03" + bytes(20), pack_book(BookColumns(
        book_id="book",
        rows=np.array([1], np.int32),
        state=np.array([2], np.uint8),
        total_minor=np.array([1], np.int32),
        at_s=np.array([NOW_S]),
    ))[:-1]],
)  # fmt: skip
def test_what_cannot_be_read_says_so(damaged: bytes) -> None:
    with pytest.raises(UnreadableError):
        unpack_book("book", damaged)
