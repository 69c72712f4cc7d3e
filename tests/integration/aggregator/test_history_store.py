"""The history of quotes: one suite over the store in PostgreSQL and over the fake, then what only PostgreSQL has."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import pytest

from aggregator.adapters.history import LONGEST_MS, PostgresHistoryStore
from aggregator.domain.collection import Answer, MissReason, Skipped
from aggregator.domain.history import CollectionRecord
from aggregator.ports import HistoryStore
from bench import history as bench
from mesh import errors
from mesh.clock import SystemClock
from mesh.money import Money
from mesh.postgres import open_pool
from sellers.model import CallFailed, Condition, FailureKind, Unavailable, UnavailableReason
from tests.fakes.ended_collections import BOOK, STARTED_AT, quote, record
from tests.fakes.history_store import MemoryHistoryStore
from tests.fakes.proxy import proxy
from tests.servers import PostgresServer

TODAY = STARTED_AT.date()
DOCUMENTATION = Path(__file__).parents[3] / "docs" / "history.md"
ID_ONE = UUID("0198c0de-0000-7000-8000-000000000001")
ID_TWO = UUID("0198c0de-0000-7000-8000-000000000000")
StoredIds = Callable[[], Awaitable[set[UUID]]]


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(postgres_dsn, max_size=4, application_name="test") as pool:
        yield pool


@pytest.fixture(params=["memory", "postgres"])
def any_store(request: pytest.FixtureRequest, pool: asyncpg.Pool) -> tuple[HistoryStore, StoredIds]:
    """Give a store and what reads the ids of the collections in it."""
    memory = MemoryHistoryStore()

    async def ids_in_memory() -> set[UUID]:
        return {each.collection_id for each in memory.stored()}

    async def ids_in_postgres() -> set[UUID]:
        rows = await pool.fetch("SELECT collection_id FROM aggregator.collection")
        return {row["collection_id"] for row in rows}

    if request.param == "memory":
        return memory, ids_in_memory
    return PostgresHistoryStore(pool), ids_in_postgres


@pytest.fixture
async def store(pool: asyncpg.Pool) -> PostgresHistoryStore:
    """Give a store with a partition for today."""
    store = PostgresHistoryStore(pool)
    await store.make_partitions(TODAY, 1)
    return store


def ids(*records: CollectionRecord) -> set[UUID]:
    return {each.collection_id for each in records}


async def test_a_collection_is_stored_once_however_often_it_is_written(
    any_store: tuple[HistoryStore, StoredIds],
) -> None:
    store, stored = any_store
    await store.make_partitions(TODAY, 1)
    one, two, three = record(3), record(0), record(2)
    await store.write([one, two])
    await store.write([two, three, replace(one, elapsed_s=9.0)])
    assert await stored() == ids(one, two, three)


async def test_of_a_write_all_is_stored_or_nothing(
    any_store: tuple[HistoryStore, StoredIds],
) -> None:
    store, stored = any_store
    await store.make_partitions(TODAY, 1)
    with pytest.raises((asyncpg.DataError, ValueError)):
        await store.write([record(2), record(2, book_id="no\0text"), record(2)])
    assert await stored() == set()


async def test_a_day_without_partition_is_refused_and_takes_collections_once_it_has_one(
    any_store: tuple[HistoryStore, StoredIds],
) -> None:
    store, stored = any_store
    last_moment = record(started_at=STARTED_AT + timedelta(days=1, microseconds=-1))
    tomorrow = record(started_at=STARTED_AT + timedelta(days=1))
    await store.make_partitions(TODAY, 1)
    await store.write([last_moment])
    with pytest.raises((asyncpg.CheckViolationError, LookupError)):
        await store.write([tomorrow])
    await store.make_partitions(TODAY, 2)
    await store.write([tomorrow])
    assert await stored() == ids(last_moment, tomorrow)


async def test_days_before_one_are_forgotten(any_store: tuple[HistoryStore, StoredIds]) -> None:
    store, stored = any_store
    await store.make_partitions(TODAY - timedelta(days=40), 41)
    records = [record(started_at=STARTED_AT - timedelta(days=ago)) for ago in range(41)]
    await store.write(records)
    assert await store.drop_partitions(TODAY - timedelta(days=30)) == 10
    assert await stored() == ids(*records[:31])
    assert await store.drop_partitions(TODAY - timedelta(days=30)) == 0


async def test_every_kind_of_answer_is_read_back_by_the_view(
    store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    kinds = {
        FailureKind.TIMED_OUT: "timed_out",
        FailureKind.UNREACHABLE: "unreachable",
        FailureKind.SELLER_ERROR: "seller_error",
        FailureKind.RATE_LIMITED: "rate_limited",
        FailureKind.REFUSED: "refused",
        FailureKind.NOT_UNDERSTOOD: "refused",
        FailureKind.INVALID_ANSWER: "invalid_answer",
        FailureKind.IN_FLIGHT: "seller_error",
        FailureKind.KEY_MISMATCH: "seller_error",
        FailureKind.NOT_FOUND: "seller_error",
    }
    no_price: dict[str, tuple[CallFailed | Unavailable, bool | None, str]] = {
        **{f"failed-{kind}": (failed(kind), None, error) for kind, error in kinds.items()},
        **{
            f"no-{reason}": (Unavailable(reason), False, reason.value)
            for reason in UnavailableReason
        },
    }
    not_asked: dict[str, tuple[CallFailed | Skipped, str]] = {
        "skipped-stopped": (Skipped(MissReason.STOPPED, asked=False), "stopped"),
        "no-credential": (failed(FailureKind.NO_CREDENTIAL), "no_credential"),
        **{
            f"skipped-{reason}": (Skipped(reason), reason.value)
            for reason in (
                MissReason.CIRCUIT_OPEN,
                MissReason.NO_BUDGET,
                MissReason.BUSY,
                MissReason.TOO_SLOW,
            )
        },
    }
    odd = replace(quote("odd", 3000), price=Money("USD", 1))
    free = replace(quote("free", 1999), price=Money("USD", 1999), shipping=Money("USD", 0))
    uuid = "0189f7c4-0000-7000-8000-00000000abcd"
    prices = {
        **{f"condition-{each}": replace(quote(), condition=each) for each in Condition},
        "odd": odd,
        "free": free,
        "uuid": quote(uuid),
        "upper": quote(uuid.upper()),
        "unicode": quote("Angebot ☃ \N{POUND SIGN}'\"{},\\"),
        "long": quote("x" * 128),
        "dear": quote("dear", 10_000_000),
    }
    answers = [
        *(Answer(name, outcome, 1.25) for name, (outcome, _, _) in no_price.items()),
        *(Answer(name, outcome, 0.7) for name, (outcome, _) in not_asked.items()),
        Answer("left", Skipped(MissReason.STOPPED), 1.25),
        *(Answer(name, price, 0.0304) for name, price in prices.items()),
        Answer("slow", failed(FailureKind.TIMED_OUT), 40.0),
        Answer("known", quote("known"), 0.0, cached=True),
    ]
    assert len(answers) == 35
    Random(1).shuffle(answers)
    given = record(answers)
    await store.write([given])

    rows = {
        row.pop("seller_id"): row
        for row in map(dict, await pool.fetch("SELECT * FROM aggregator.quote_history"))
    }
    of_all = {
        "collection_id": given.collection_id,
        "book_id": BOOK,
        "currency": "USD",
        "started_at": STARTED_AT,
    }
    nothing = dict.fromkeys(("quote_id", "price", "shipping", "total", "condition"))
    expected: dict[str, dict[str, object]] = {}
    asked = {name: (available, error) for name, (_, available, error) in no_price.items()}
    for name, (available, error) in {**asked, "left": (None, "stopped")}.items():
        expected[name] = {
            **nothing,
            "available": available,
            "response_time_ms": 1250,
            "error": error,
            "quoted_at": STARTED_AT + timedelta(seconds=1.25),
        }
    for name, (_, error) in not_asked.items():
        expected[name] = {
            **nothing,
            "available": None,
            "response_time_ms": None,
            "error": error,
            "quoted_at": STARTED_AT,
        }
    for name, price in prices.items():
        expected[name] = {
            "quote_id": price.quote_id,
            "price": price.price.decimal(),
            "shipping": price.shipping.decimal(),
            "total": price.total.decimal(),
            "condition": price.condition.value,
            "available": True,
            "response_time_ms": 30,
            "error": None,
            "quoted_at": STARTED_AT + timedelta(seconds=0.030),
        }
    expected["slow"] = {
        **expected[f"failed-{FailureKind.TIMED_OUT}"],
        "response_time_ms": LONGEST_MS,
        "quoted_at": STARTED_AT + timedelta(milliseconds=LONGEST_MS),
    }
    assert rows == {name: of_all | row for name, row in expected.items()}


def failed(kind: FailureKind) -> CallFailed:
    return CallFailed(kind, definitely_not_done=False, detail="")


@pytest.mark.parametrize(
    ("currency", "shown"), [("USD", "24.99"), ("JPY", "2499"), ("KWD", "2.499")]
)
async def test_amounts_have_the_decimals_of_their_currency(
    store: PostgresHistoryStore, pool: asyncpg.Pool, currency: str, shown: str
) -> None:
    answer = Answer("acme", quote(total_minor=2499, currency=currency), 0.1)
    await store.write([record([answer], currency=currency)])
    row = await pool.fetchrow("SELECT total, total::text AS shown FROM aggregator.quote_history")
    assert row is not None
    assert (row["total"], row["shown"]) == (Decimal(shown), shown)


async def test_a_collection_in_which_all_was_known_has_no_quotes_but_can_be_found(
    store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    known = record([replace(answer, cached=True) for answer in record(3).answers])
    await store.write([known])
    row = await pool.fetchrow(
        "SELECT sellers, cached, elapsed_ms, conditions FROM aggregator.collection"
        " WHERE collection_id = $1",
        known.collection_id,
    )
    assert row is not None
    assert tuple(row) == (3, 3, 1500, "good,new")
    assert await pool.fetch("SELECT quote_id FROM aggregator.quote_history") == []


async def test_a_seller_keeps_its_number_whoever_writes_first(
    postgres_dsn: str, store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    def of(sellers: Sequence[int]) -> CollectionRecord:
        return record([Answer(f"s-{number}", quote(f"q-{number}"), 0.1) for number in sellers])

    rng = Random(1)
    records = [of(rng.sample(range(60), 40)) for _ in range(40)]
    async with await open_pool(postgres_dsn, max_size=8, application_name="test") as many:
        stores = [PostgresHistoryStore(many) for _ in range(8)]
        await asyncio.gather(
            *(stores[number % 8].write([each]) for number, each in enumerate(records))
        )
    rows = await pool.fetch(
        "SELECT collection_id, seller_id, quote_id FROM aggregator.quote_history"
    )
    assert sorted(map(tuple, rows)) == sorted(
        (each.collection_id, answer.seller_id, answer.seller_id.replace("s", "q"))
        for each in records
        for answer in each.answers
    )


async def test_replicas_that_make_the_same_partitions_do_not_mind(pool: asyncpg.Pool) -> None:
    stores = [PostgresHistoryStore(pool) for _ in range(4)]
    await asyncio.gather(*(each.make_partitions(TODAY, 5) for each in stores))
    await stores[0].write([record(started_at=STARTED_AT + timedelta(days=4))])
    dropped = await asyncio.gather(
        *(each.drop_partitions(TODAY + timedelta(days=2)) for each in stores)
    )
    assert sorted(dropped) == [0, 0, 0, 2]


async def test_partitions_begin_at_midnight_utc_wherever_the_client_is(
    postgres_dsn: str,
) -> None:
    async with asyncpg.create_pool(
        postgres_dsn, min_size=0, max_size=1, server_settings={"timezone": "Asia/Tokyo"}
    ) as pool:
        store = PostgresHistoryStore(pool)
        await store.make_partitions(date(2026, 1, 1), 1)
        await store.write([record(started_at=datetime(2026, 1, 1, 23, 59, tzinfo=UTC))])


async def test_who_reads_is_in_nobody_s_way_save_for_dropping(
    store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    await store.make_partitions(TODAY - timedelta(days=1), 1)
    async with pool.acquire() as reader:
        async with reader.transaction():
            await reader.fetch("SELECT quote_id FROM aggregator.quote_history")
            await store.write([record()])
            await store.make_partitions(TODAY, 3)
            with pytest.raises(errors.Unavailable) as caught:
                await store.drop_partitions(TODAY)
            assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)
        assert await store.drop_partitions(TODAY) == 1


async def test_a_book_s_history_is_found_by_its_index_in_the_days_that_matter(
    store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    await store.make_partitions(TODAY - timedelta(days=5), 5)
    days = [STARTED_AT - timedelta(days=ago) for ago in range(6)]
    await store.write(
        [record(2, book_id=f"book-{n}", started_at=day) for n in range(300) for day in days]
    )
    await pool.execute("ANALYZE")
    lines = await pool.fetch(
        "EXPLAIN SELECT seller_id, total, quoted_at FROM aggregator.quote_history"
        " WHERE book_id = 'book-7' AND started_at >= '2025-12-31' AND started_at < '2026-01-01'"
    )
    plan = "\n".join(line["QUERY PLAN"] for line in lines)
    assert set(re.findall(r"on (collection_\d+)", plan)) == {"collection_20251231"}
    assert "Index Cond: ((book_id = 'book-7'::text)" in plan


async def test_the_queries_of_the_documentation_can_be_run(
    store: PostgresHistoryStore, pool: asyncpg.Pool
) -> None:
    # Far from midnight, which parts days.
    now = SystemClock().now().replace(hour=12, minute=0)
    await store.make_partitions(now.date(), 1)
    known = Answer("late", quote("of another collection"), 0.0, cached=True)
    first = record([Answer("late", quote("first"), 0.2)], started_at=now - timedelta(seconds=40))
    other = replace(first, conditions=frozenset({Condition.ACCEPTABLE}), collection_id=ID_ONE)
    latest = replace(record([*record(2).answers, known], started_at=now), collection_id=ID_TWO)
    await store.write([first, other, latest])
    queries = re.findall(r"```sql\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    days, sellers, seen = [await pool.fetch(query) for query in queries]
    assert [tuple(row)[1:] for row in days] == [(Decimal("24.99"), 3)]
    assert {tuple(row) for row in sellers} == {
        ("late", 2, Decimal(0), 200, 200),
        ("seller-0", 1, Decimal(0), 100, 100),
        ("seller-1", 1, Decimal(0), 100, 100),
    }
    assert [(row["seller_id"], row["quote_id"]) for row in seen] == [
        ("late", "first"),
        ("seller-0", "quote-0"),
        ("seller-1", "quote-1"),
    ]


async def test_a_database_that_is_gone_is_unavailable_and_comes_back(
    postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    async with proxy(postgres_server.port) as way:
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        async with await open_pool(dsn, max_size=2, application_name="test") as pool:
            store = PostgresHistoryStore(pool)
            await store.make_partitions(TODAY, 1)
            await way.cut()
            for _ in range(2):
                with pytest.raises(errors.Unavailable):
                    await store.write([record()])
                with pytest.raises(errors.Unavailable):
                    await store.drop_partitions(TODAY)
            await way.restore()
            await store.write([record()])


async def test_a_quote_takes_at_most_60_bytes_on_disk(postgres_dsn: str) -> None:
    records = bench.collections(Random(1), bench.ULIDS, 100)
    size = await bench.ours_on_disk(postgres_dsn, records)
    assert size / (100 * bench.SELLERS) <= bench.AIM
