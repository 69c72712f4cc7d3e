"""The memory of the market in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import timedelta

import asyncpg
import numpy as np
import pytest

from aggregator.adapters.history import PostgresHistoryStore
from aggregator.adapters.market import MOST_SELLERS_A_BOOK, PostgresMarketStore
from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.app.market import Market, MarketSettings, lesson_of, rebuild
from aggregator.domain.collection import Answer, MissReason, Skipped
from aggregator.domain.history import CollectionRecord
from aggregator.selection.columns import (
    BookColumns,
    CategoryColumns,
    GeneralColumns,
    SellerColumns,
    State,
)
from aggregator.selection.statistics import Answers, Statistics, StatisticsSettings
from mesh.clock import SystemClock
from mesh.postgres import open_pool
from sellers.model import CallFailed, FailureKind, Unavailable, UnavailableReason
from tests.fakes.ended_collections import STARTED_AT, quote, record
from tests.fakes.seller import registered

NOW_S = STARTED_AT.timestamp()
DOWN = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")
SOLD_OUT = Unavailable(UnavailableReason.OUT_OF_STOCK)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(postgres_dsn, max_size=4, application_name="test") as pool:
        yield pool


def book(sellers: dict[int, tuple[State, int, float]], book_id: str = "book") -> BookColumns:
    """Give what sellers answered: by number the state, the total, and when."""
    numbers = sorted(sellers)
    return BookColumns(
        book_id=book_id,
        rows=np.array(numbers, np.int32),
        state=np.array([sellers[number][0] for number in numbers], np.uint8),
        total_minor=np.array([sellers[number][1] for number in numbers], np.int32),
        at_s=np.array([sellers[number][2] for number in numbers], np.float64),
    )


def said(columns: BookColumns) -> dict[int, tuple[int, int]]:
    return {
        int(number): (int(state), int(total))
        for number, state, total in zip(
            columns.rows, columns.state, columns.total_minor, strict=True
        )
    }


async def test_of_each_seller_the_newest_answer_stays_whoever_writes(pool: asyncpg.Pool) -> None:
    one, two = PostgresMarketStore(pool, 0), PostgresMarketStore(pool, 1)
    old = {1: (State.IN_STOCK, 900, NOW_S), 2: (State.IN_STOCK, 950, NOW_S + 600)}
    new = {2: (State.NO_STOCK, 0, NOW_S), 3: (State.NOT_CARRIED, 0, NOW_S + 600)}
    other = {7: (State.IN_STOCK, 10_000_000, NOW_S)}
    await one.merge_books([book(old), book(other, "other")])
    await two.merge_books([book(new)])
    [merged] = await one.books(["book", "unknown"])
    assert said(merged) == {1: (2, 900), 2: (2, 950), 3: (0, 0)}
    await two.merge_books([book({1: (State.NO_STOCK, 0, NOW_S + 60)})])
    [merged] = await one.books(["book"])
    assert said(merged)[1] == (1, 0)
    [untouched] = await two.books(["other"])
    assert said(untouched) == {7: (2, 10_000_000)}


async def test_of_one_book_only_so_many_answers_are_kept(pool: asyncpg.Pool) -> None:
    store = PostgresMarketStore(pool, 0)
    await store.merge_books([book({n: (State.IN_STOCK, n + 1, NOW_S) for n in range(500)})])
    later = {n: (State.IN_STOCK, n, NOW_S + 600) for n in range(600, 700)}
    await store.merge_books([book(later)])
    [merged] = await store.books(["book"])
    assert len(merged.rows) == MOST_SELLERS_A_BOOK
    assert {n: (int(State.IN_STOCK), n) for n in later}.items() <= said(merged).items()


async def test_books_of_which_nothing_new_is_learned_are_forgotten(pool: asyncpg.Pool) -> None:
    store = PostgresMarketStore(pool, 0)
    old = book({1: (State.IN_STOCK, 900, NOW_S)}, "old")
    new = book({1: (State.IN_STOCK, 900, NOW_S + 86_400)}, "new")
    await store.merge_books([old, new])
    await store.drop_books(STARTED_AT + timedelta(hours=1))
    assert [each.book_id for each in await store.books(["old", "new"])] == ["new"]


def learned(asked: float) -> tuple[SellerColumns, GeneralColumns, CategoryColumns]:
    rows, one = np.array([3, 9], np.int32), np.array([asked, 1.5], np.float32)
    return (
        SellerColumns(
            rows=rows, asked=one, had=one, price_weight=one, price_mean=one, price_square=one,
            calls=one, failed=one, latency_s=one, bought=one, refused=one,
        ),
        GeneralColumns(at_s=NOW_S, arrays={"scalars": np.array([asked, 2.0])}),
        CategoryColumns(
            category="books", at_s=NOW_S, best_weight=asked, best_mean=-0.1, rows=rows,
            asked=one, had=one, price_weight=one, price_mean=one, apart=one,
        ),
    )  # fmt: skip


async def test_a_process_finds_what_it_has_learned_itself_and_a_new_one_what_the_last_one_has(
    pool: asyncpg.Pool,
) -> None:
    stores = [PostgresMarketStore(pool, process) for process in range(3)]
    assert await stores[0].sellers() is None
    assert await stores[0].category("books") is None
    for process, store in enumerate(stores[:2]):
        sellers, general, category = learned(asked=process + 10.0)
        await store.put_learned(
            sellers, general, [category], STARTED_AT + timedelta(seconds=process)
        )
    for store, expected in zip(stores, (10.0, 11.0, 11.0), strict=True):
        sellers_now, general_now = await store.sellers(), await store.general()
        category_now = await store.category("books")
        assert sellers_now is not None
        assert general_now is not None
        assert category_now is not None
        assert sellers_now.rows.tolist() == [3, 9]
        assert sellers_now.asked.tolist() == [expected, 1.5]
        assert general_now.arrays["scalars"].tolist() == [expected, 2.0]
        assert (category_now.category, category_now.best_weight) == ("books", expected)
        assert category_now.had.tolist() == [expected, 1.5]


async def test_kinds_of_books_are_remembered_to_three_digits(pool: asyncpg.Pool) -> None:
    store = PostgresMarketStore(pool, 0)
    assert await store.topics() is None
    known = Statistics(StatisticsSettings(), sellers=12)
    rows = np.arange(12, dtype=np.int32)
    state = np.where(rows % 3 == 0, State.IN_STOCK, State.NOT_CARRIED).astype(np.uint8)
    totals = np.where(rows % 3 == 0, 1000 + rows, 0).astype(np.int32)
    answers = Answers(rows=rows, state=state, total_minor=totals, latency_s=np.ones(12, np.float32))
    known.learn("1", "novels", NOW_S, answers)
    known.learn("2", "Kochbücher", NOW_S, answers)
    topics = known.dump_topics()
    await store.put_topics(topics, STARTED_AT)
    kept = await store.topics()
    assert kept is not None
    assert kept.mixtures.keys() == topics.mixtures.keys() == {"novels", "Kochbücher"}
    for category, mixture in topics.mixtures.items():
        assert kept.mixtures[category].tolist() == mixture.tolist()
    for field in fields(topics):
        if field.name != "mixtures":
            there, before = getattr(kept, field.name), getattr(topics, field.name)
            assert there.dtype == before.dtype
            assert there == pytest.approx(before, rel=1e-3, abs=1e-4), field.name


async def test_what_another_version_wrote_is_as_if_nothing_were_known(pool: asyncpg.Pool) -> None:
    store = PostgresMarketStore(pool, 0)
    sellers, general, category = learned(asked=1.0)
    await store.put_learned(sellers, general, [category], STARTED_AT)
    await store.put_topics(Statistics(StatisticsSettings(), sellers=2).dump_topics(), STARTED_AT)
    await store.merge_books([book({1: (State.IN_STOCK, 900, NOW_S)})])
    await pool.execute(r"UPDATE aggregator.market_learned SET columns = '\x00'")
    await pool.execute(r"UPDATE aggregator.market_book SET answers = '\x63'")
    assert await store.sellers() is None
    assert await store.general() is None
    assert await store.topics() is None
    assert await store.category("books") is None
    assert not await store.books(["book"])
    await store.merge_books([book({1: (State.IN_STOCK, 800, NOW_S)})])
    [again] = await store.books(["book"])
    assert said(again) == {1: (2, 800)}


async def test_a_market_is_worked_out_from_the_history_of_quotes(pool: asyncpg.Pool) -> None:
    ids = [f"seller-{i}" for i in range(6)]
    history = PostgresHistoryStore(pool)
    await history.make_partitions(STARTED_AT.date(), 2)
    records: list[CollectionRecord] = []
    for number in range(30):
        answers = [
            Answer(ids[0], quote(total_minor=1000 + number), 0.1),
            Answer(ids[1], SOLD_OUT if number % 2 else quote(total_minor=900), 0.2),
            Answer(ids[2], Unavailable(UnavailableReason.NOT_CARRIED), 0.1),
            Answer(ids[3], DOWN, 3.0),
            Answer(ids[4], Skipped(MissReason.NO_BUDGET, asked=False), 0.0),
        ]
        started_at = STARTED_AT + timedelta(minutes=number)
        records.append(record(answers, book_id=f"book-{number % 7}", started_at=started_at))
    records.append(record([Answer(ids[5], quote(currency="EUR"), 0.1)], currency="EUR"))
    await history.write(records)

    store = PostgresMarketStore(pool, 0)
    seen: list[int] = []
    markets = [
        Market(
            Statistics(StatisticsSettings()),
            store,
            lambda _book_id: "books",
            SystemClock(),
            MarketSettings(),
        )
        for _ in range(2)
    ]
    for market in markets:
        market.know(ids)
    rebuilt, fed = markets
    await rebuild(rebuilt, store, "USD", seen.append)
    assert sum(seen) == 30
    assert await store.count_past() == 31
    for one in records:
        fed.record(one)
    assert rebuilt.statistics.asked.tolist() == fed.statistics.asked.tolist()
    assert rebuilt.statistics.failed.tolist() == fed.statistics.failed.tolist()
    np.testing.assert_allclose(rebuilt.statistics.latency_s, fed.statistics.latency_s, rtol=1e-5)
    numbers = await store.numbers(ids)
    [kept] = await store.books(["book-1"])
    assert said(kept) == {
        numbers[ids[0]]: (State.IN_STOCK, 1029),
        numbers[ids[1]]: (State.NO_STOCK, 0),
        numbers[ids[2]]: (State.NOT_CARRIED, 0),
    }
    assert lesson_of(records[-2]).seller_ids == ids[:4]
    await store.forget()
    assert await store.sellers() is None
    assert not await store.books(["book-1"])


async def test_the_command_learns_from_the_history_and_says_what_is_remembered(
    pool: asyncpg.Pool, postgres_dsn: str
) -> None:
    await PostgresSellerStore(pool).put([registered(f"seller-{i}", f"host:{i}") for i in range(3)])
    history = PostgresHistoryStore(pool)
    await history.make_partitions(STARTED_AT.date(), 1)
    await history.write([record(3, book_id=f"book-{number % 4}") for number in range(12)])
    code, printed = await _market("rebuild", postgres_dsn)
    assert (code, printed) == (
        0,
        "learned from 12 collections of 4 books; restart the aggregators\n",
    )
    code, printed = await _market("status", postgres_dsn, "-o", "json")
    found = json.loads(printed)
    assert (code, found["books"], found["answers"]) == (0, 4, 12)
    sellers = await PostgresMarketStore(pool, 5).sellers()
    assert sellers is not None
    assert len(sellers.rows) == 3


async def _market(name: str, dsn: str, *more: str) -> tuple[int | None, str]:
    """Run ``bookmesh market``; give its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "market", name, "--database-url", dsn, *more),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()
