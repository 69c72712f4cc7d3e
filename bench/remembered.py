"""The memory of the market at size: what millions of books take on disk, and how long it takes to recall one of them.

Of each book the last answers of some sellers out of 10,000 are known, of 60 on average. Here are 100,000 books
(``BOOKS=...`` in the environment for another number). Then a history of quotes is read again, as ``bookmesh market
rebuild`` does it, with room in memory for some of its books only: what the process takes does not grow with it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import asyncpg
import numpy as np

from aggregator.adapters import packed_market
from aggregator.adapters.history import PostgresHistoryStore
from aggregator.adapters.market import PostgresMarketStore
from aggregator.app.market import Market, MarketSettings, rebuild
from aggregator.selection.categories import category_of
from aggregator.selection.columns import BookColumns, State
from aggregator.selection.statistics import Statistics, StatisticsSettings
from bench.harness import OnProgress, Result, exactly
from bench.history import ULIDS, collections
from bench.stack import database, postgres_server
from mesh.clock import SystemClock
from mesh.postgres import open_pool

TITLE = "the memory of the market"
BOOKS = 100_000
SELLERS = 10_000
KNOWN_OF_A_BOOK = 60
RECALLS = 1_000
COLLECTIONS = 1_000
HELD = 500
RECALL_AIM_MS = 100.0
GROWTH_AIM_MB = 20.0
_BATCH = 5_000
_PARTS = 4
"""Of each part the books are others."""

_KINDS = 50
"""So many books are made up; what is asked about is how many there are, not how different."""

_VACUUM_S = 600.0
"""Of two million books it takes longer than any statement may that serves somebody."""

_SIZE = "SELECT pg_total_relation_size('aggregator.market_book')"
_STATUS = Path("/proc/self/status")


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure it all; tell the part that is done."""
    books = int(os.environ.get("BOOKS", BOOKS))
    async with postgres_server() as port:
        dsn = await database(port, "bench_remembered")
        async with await open_pool(dsn, max_size=4, application_name="bench") as pool:
            store = PostgresMarketStore(pool, process=0)
            names = [f"seller-{number}" for number in range(SELLERS)]
            await store.numbers(names)
            bytes_a_book = await _fill(pool, books, lambda part: on_progress(part * 0.6))
            recalls_ms = await _recall(_market(store, names), books)
            on_progress(0.7)
            history = PostgresHistoryStore(pool)
            a_second, first_mb, whole_mb = await _rebuild(history, store)
    return [
        Result(
            name=f"disk for what is known of a book, {books:,} books, {KNOWN_OF_A_BOOK} sellers each",
            ours=exactly(bytes_a_book),
            naive=None,
            ratio=None,
            unit="bytes",
            aim=None,
            note=f"table and index; {bytes_a_book * books / 2**20:,.0f} MB",
        ),
        Result(
            name="to recall a book that is not in memory, p99",
            ours=exactly(statistics.quantiles(recalls_ms, n=100)[98]),
            naive=None,
            ratio=None,
            unit="ms",
            aim=RECALL_AIM_MS,
            absolute=True,
            note=(
                f"median {statistics.median(recalls_ms):.1f} ms; after {RECALL_AIM_MS:.0f} ms a collection begins"
                " without it"
            ),
        ),
        Result(
            name="memory that rebuilding from twice as long a history takes more",
            ours=exactly(whole_mb - first_mb),
            naive=None,
            ratio=None,
            unit="MB",
            aim=GROWTH_AIM_MB,
            absolute=True,
            note=f"{a_second:,.0f} collections of 200 sellers a second, all written",
        ),
    ]


def _market(store: PostgresMarketStore, names: list[str], books: int = 20_000) -> Market:
    """Give a market that knows its sellers and nothing else."""
    market = Market(
        Statistics(StatisticsSettings(books=books), len(names)),
        store,
        category_of,
        SystemClock(),
        MarketSettings(recall_s=10.0),
    )
    market.know(names)
    return market


async def _fill(pool: asyncpg.Pool, books: int, on_progress: OnProgress) -> float:
    """Store so many books; give the bytes that each takes."""
    rng = np.random.default_rng(1)
    kinds = [packed_market.pack_book(_book(rng)) for _ in range(_KINDS)]
    now = datetime.now(UTC)
    columns = ["book_id", "changed_at", "sellers", "answers"]
    for first in range(0, books, _BATCH):
        rows: Iterator[tuple[str, datetime, int, bytes]] = (
            (_id(number), now, KNOWN_OF_A_BOOK, kinds[number % _KINDS])
            for number in range(first, min(first + _BATCH, books))
        )
        await pool.copy_records_to_table(
            "market_book", schema_name="aggregator", columns=columns, records=rows
        )
        on_progress(first / books)
    await pool.execute("VACUUM ANALYZE aggregator.market_book", timeout=_VACUUM_S)
    size: int = await pool.fetchval(_SIZE)
    return size / books


async def _recall(market: Market, books: int) -> list[float]:
    """Recall books at random; give how long each took, in milliseconds."""
    rng, took_ms = Random(2), []
    for number in rng.sample(range(books), RECALLS):
        began = time.perf_counter()
        await market.recall(_id(number))
        took_ms.append((time.perf_counter() - began) * 1e3)
        if market.statistics.book(_id(number)) is None:
            raise RuntimeError(f"{_id(number)} was stored, and is not recalled")
    return took_ms


async def _rebuild(
    history: PostgresHistoryStore, store: PostgresMarketStore
) -> tuple[float, float, float]:
    """Rebuild twice, then from twice as much; give collections a second, and what memory takes after each in MB."""
    rng, names = Random(3), [f"{number:03}" for number in range(200)]
    took_s, memory_mb = 0.0, []
    for round_ in range(2):
        for part in range(_PARTS):
            records = collections(rng, ULIDS, COLLECTIONS // _PARTS)
            if round_ == part == 0:
                await history.make_partitions(records[0].started_at.date(), 1)
            for first in range(0, len(records), 25):
                await history.write(records[first : first + 25])
        market = _market(store, [f"bookseller-{name}" for name in names], books=HELD)
        began = time.perf_counter()
        await rebuild(market, store, "USD", lambda _learned: None)
        took_s = time.perf_counter() - began
        memory_mb.append(_resident_mb())
        del market
    return 2 * COLLECTIONS / took_s, memory_mb[0], memory_mb[1]


def _book(rng: np.random.Generator) -> BookColumns:
    states = [State.NOT_CARRIED, State.NO_STOCK, State.IN_STOCK]
    state = rng.choice(states, KNOWN_OF_A_BOOK, p=[0.3, 0.1, 0.6])
    totals = np.where(state == State.IN_STOCK, rng.integers(500, 5000, KNOWN_OF_A_BOOK), 0)
    return BookColumns(
        book_id="",
        rows=np.sort(rng.choice(SELLERS, KNOWN_OF_A_BOOK, replace=False)).astype(np.int32),
        state=state.astype(np.uint8),
        total_minor=totals.astype(np.int32),
        at_s=np.asarray(1.8e9 - rng.integers(0, 10**6, KNOWN_OF_A_BOOK), np.float64),
    )


def _id(number: int) -> str:
    return f"978{number:010d}"


def _resident_mb() -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024
