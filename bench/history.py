"""What the history of quotes takes on disk: tables, indexes and what is stored out of line, after a vacuum.

Collections of 200 sellers, each with a quote, for books that are asked about a few times. What a quote takes depends on
the sellers' names for their quotes, which do not compress when they are random: three kinds of them. Naive is a row for
each quote. Both are stored in one database, with the same quotes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg

from aggregator.adapters.history import PostgresHistoryStore
from aggregator.domain.collection import Answer
from aggregator.domain.history import CollectionRecord
from bench.harness import Result, compared
from bench.naive import history as naive
from bench.stack import database, postgres_server
from mesh.money import Money
from mesh.postgres import open_pool
from sellers.model import Condition, Quote

TITLE = "history on disk"
SELLERS = 200
COLLECTIONS = 500
BOOKS = 200
ROUNDS = 2
AIM = 60
_BATCH = 25
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_SHIPPING_MINOR = (0, 199, 299, 399, 499, 599)
_BASE_32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

_OURS = """
SELECT sum(pg_total_relation_size(oid))::bigint
FROM pg_class
WHERE relnamespace = 'aggregator'::regnamespace AND relkind = 'r' AND relname ~ '^(collection_\\d+|seller_key)$'
"""
_NAIVE = "SELECT pg_total_relation_size('naive.quote')"


@dataclass(frozen=True, slots=True)
class Names:
    """How sellers name their quotes."""

    what: str
    make: Callable[[Random], str]


UUIDS = Names("UUIDs", lambda rng: str(UUID(int=rng.getrandbits(128), version=4)))
ULIDS = Names("ULIDs", lambda rng: "".join(rng.choices(_BASE_32, k=26)))
PREFIXED = Names("UUIDs after a prefix", lambda rng: f"Q-{UUIDS.make(rng)}")


async def measure(on_progress: Callable[[float], None]) -> list[Result]:
    """Measure both kinds of names; tell the part that is done."""
    results = []
    kinds = (UUIDS, ULIDS, PREFIXED)
    async with postgres_server() as port:
        for kind, names in enumerate(kinds):
            ours: list[float] = []
            straightforward: list[float] = []
            for number in range(ROUNDS):
                records = collections(Random(number), names, COLLECTIONS)
                dsn = await database(port, f"bench_{kind}_{number}")
                quotes = SELLERS * len(records)
                ours.append(await ours_on_disk(dsn, records) / quotes)
                straightforward.append(await _naive_on_disk(dsn, records) / quotes)
                on_progress((kind * ROUNDS + number + 1) / (len(kinds) * ROUNDS))
            results.append(
                compared(
                    f"history on disk, quote ids are {names.what}",
                    ours,
                    straightforward,
                    unit="bytes a quote",
                    aim=AIM,
                    absolute=True,
                )
            )
    return results


def collections(rng: Random, names: Names, count: int) -> list[CollectionRecord]:
    """Make collections of one day in which every seller has a quote."""
    books = [str(rng.randrange(9780000000000, 9790000000000)) for _ in range(BOOKS)]
    step = timedelta(days=1) / count
    return [
        _collection(rng, names, rng.choice(books), _BEGIN + number * step)
        for number in range(count)
    ]


async def ours_on_disk(dsn: str, records: Sequence[CollectionRecord]) -> int:
    """Store collections in a migrated database; give the bytes that the history takes then."""
    async with await open_pool(dsn, max_size=1, application_name="bench") as pool:
        store = PostgresHistoryStore(pool)
        await store.make_partitions(_BEGIN.date(), 1)
        for first in range(0, len(records), _BATCH):
            await store.write(records[first : first + _BATCH])
        await pool.execute("VACUUM ANALYZE")
        size: int = await pool.fetchval(_OURS)
        return size


async def _naive_on_disk(dsn: str, records: Sequence[CollectionRecord]) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        await naive.create(connection)
        for record in records:
            await naive.write(connection, record.collection_id, record)
        await connection.execute("VACUUM ANALYZE")
        size: int = await connection.fetchval(_NAIVE)
        return size
    finally:
        await connection.close()


def _collection(rng: Random, names: Names, book_id: str, started_at: datetime) -> CollectionRecord:
    level = rng.lognormvariate(7.6, 0.6)
    return CollectionRecord(
        collection_id=_uuid7(rng, started_at),
        book_id=book_id,
        currency="USD",
        conditions=frozenset({Condition.NEW}),
        started_at=started_at,
        elapsed_s=rng.uniform(1, 3),
        answers=[_answer(rng, names, number, level, started_at) for number in range(SELLERS)],
    )


def _uuid7(rng: Random, moment: datetime) -> UUID:
    """Make an id as the aggregator's are: the time comes first."""
    unix_ms = int(moment.timestamp() * 1000)
    rest = 0x7 << 76 | rng.getrandbits(12) << 64 | 0b10 << 62 | rng.getrandbits(62)
    return UUID(int=unix_ms << 80 | rest)


def _answer(rng: Random, names: Names, number: int, level: float, started_at: datetime) -> Answer:
    price = max(100, round(level * rng.lognormvariate(0, 0.15)))
    shipping = rng.choice(_SHIPPING_MINOR)
    quote = Quote(
        quote_id=names.make(rng),
        price=Money("USD", price),
        shipping=Money("USD", shipping),
        total=Money("USD", price + shipping),
        condition=Condition.NEW,
        quantity=rng.randint(1, 20),
        expires_at=started_at + timedelta(seconds=600),
    )
    return Answer(f"bookseller-{number:03}", quote, min(3.0, 0.05 + rng.expovariate(4)))
