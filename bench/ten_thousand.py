"""The whole mesh with 10,000 simulated sellers: how long a purchase takes, and what an aggregator's memory holds.

One purchase a second, each of another book, by customers who will pay anything; 2 % of the sellers are dead, 3 % fail
every third call, 5 % take more than a second. The memory is that of an aggregator's process, told of 10,000 sellers,
that holds as much of the market as it ever does: what it knows of 2 million books beyond that is in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import asyncpg
import numpy as np

from aggregator.adapters import packed_market
from aggregator.app.market import SellerRows
from aggregator.selection.columns import BookColumns, CategoryColumns, State
from aggregator.selection.statistics import Statistics, StatisticsSettings
from bench.harness import OnProgress, Result, exactly
from bench.shop import buyers, shop
from bench.stack import seller
from bench.workers import quiet
from sellers.model import Seller
from sellers.registry import Directory

TITLE = "10,000 sellers"
SELLERS = 10_000
RATE_PER_S = 1.0
TIME_S = 30.0
P99_AIM_S = 10.0
MEMORY_AIM_MB = 400.0
_WARM_UP_S = 5.0
_HUNDRED = 100
_STATUS = "/proc/{}/status"
_USUAL = {"carries": 0.3, "max_copies": 1000, "max_batch_size": 100, "calls_per_minute": 600}
_GROUPS = {
    "usual": _USUAL | {"latency_constant_ms": 20, "latency_exponential_ms": 80},
    "atonce": _USUAL | {"supports_holds": False, "latency_constant_ms": 40},
    "slow": _USUAL | {"latency_constant_ms": 1000, "latency_exponential_ms": 500},
    "failing": _USUAL | {"error_rate": 0.3},
    "dead": _USUAL | {"dead": True},
}
_COUNTS = {"usual": 7500, "atonce": 1500, "slow": 500, "failing": 300, "dead": 200}
_KNOWN_OF_A_BOOK = 60
"""Sellers of whose answer something is known for an average book."""


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    return [
        await _purchases(lambda part: on_progress(part * 0.8)),
        await _memory(),
        _packed(),
    ]


async def _purchases(on_progress: OnProgress) -> Result:
    took_s: list[float] = []
    statuses: list[str] = []
    began = time.perf_counter()
    async with shop(_GROUPS, _COUNTS) as mesh, buyers(mesh) as there:
        ready_s = time.perf_counter() - began

        async def buy(book_id: str, *, counts: bool) -> None:
            accepted = datetime.now(UTC)
            bought = await there.final(await there.submit(book_id))
            if counts:
                took_s.append((bought.final_at - accepted).total_seconds())
                statuses.append(bought.status)

        rng, began = Random(12), time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            number = 0
            while (gone_s := time.perf_counter() - began) < _WARM_UP_S + TIME_S:
                tasks.create_task(buy(f"{number}-thousands", counts=gone_s > _WARM_UP_S))
                number += 1
                on_progress(gone_s / (_WARM_UP_S + TIME_S))
                await asyncio.sleep(rng.expovariate(RATE_PER_S))
        asked = await _asked(mesh.dsn)
        memory_mb = max(
            _resident_mb(pid) for name, pid in mesh.pids().items() if name.startswith("aggregator")
        )
    percentiles = statistics.quantiles(took_s, n=_HUNDRED, method="inclusive")
    told = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    return Result(
        name="p99 from submission to final, 10,000 sellers, 1 purchase a second",
        ours=exactly(percentiles[98]),
        naive=None,
        ratio=None,
        unit="s",
        aim=P99_AIM_S,
        absolute=True,
        kept=statuses.count("purchased") == len(statuses),
        note=(
            f"p50 {percentiles[49]:.2f} s; {told}; asked {statistics.median(asked):.0f} sellers (median), at most"
            f" {max(asked)}; the mesh was ready after {ready_s:.0f} s; aggregator {memory_mb:.0f} MB"
        ),
    )


async def _memory() -> Result:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.ten_thousand"), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError("the process ended badly: see what it printed above")
    return Result(
        name="resident memory with 10,000 sellers and all of the market that is ever held",
        ours=exactly(float(printed)),
        naive=None,
        ratio=None,
        unit="MB",
        aim=MEMORY_AIM_MB,
        absolute=True,
        note="of 2 million books those asked for last are in memory, the others in PostgreSQL",
    )


def _packed() -> Result:
    rng = np.random.default_rng(3)
    books = [_book(f"{number}", _KNOWN_OF_A_BOOK, rng) for number in range(500)]
    packed = sum(len(packed_market.pack_book(book)) for book in books)
    return Result(
        name="what is known of a book and a seller, in PostgreSQL, 60 sellers a book",
        ours=exactly(packed / (len(books) * _KNOWN_OF_A_BOOK)),
        naive=None,
        ratio=None,
        unit="bytes",
        aim=None,
        note="packed, without what a row has besides: about 100 bytes a book with its index",
    )


async def _asked(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT cardinality(seller_nos) AS asked FROM aggregator.collection"
        )
    finally:
        await connection.close()
    return [row["asked"] for row in rows]


def _resident_mb(pid: int | str) -> float:
    lines = Path(_STATUS.format(pid)).read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _book(book_id: str, sellers: int, rng: np.random.Generator) -> BookColumns:
    state = rng.choice(
        [State.NOT_CARRIED, State.NO_STOCK, State.IN_STOCK], sellers, p=[0.3, 0.1, 0.6]
    )
    totals = np.where(state == State.IN_STOCK, rng.integers(500, 5000, sellers), 0)
    return BookColumns(
        book_id=book_id,
        rows=np.sort(rng.choice(SELLERS, sellers, replace=False)).astype(np.int32),
        state=state.astype(np.uint8),
        total_minor=totals.astype(np.int32),
        at_s=np.asarray(1.8e9 - rng.integers(0, 10**6, sellers), np.float64),
    )


def _fill() -> tuple[list[Seller], Directory, SellerRows, Statistics]:
    """Hold all that an aggregator holds of 10,000 sellers and of the market, to the brim."""
    import aggregator.__main__  # noqa: F401, PLC0415  the program itself takes memory, too

    sellers = [
        seller(number, max_batch_size=100, endpoint=f"seller-{number}.example:443")
        for number in range(SELLERS)
    ]
    directory, rows = Directory(), SellerRows()
    directory.replace(sellers, 1)
    rows.add(each.seller_id for each in sellers)
    settings = StatisticsSettings()
    held = Statistics(settings, SELLERS)
    rng = np.random.default_rng(4)
    everybody = np.arange(SELLERS, dtype=np.int32)
    for number in range(settings.categories):
        weights = rng.random(SELLERS).astype(np.float32)
        held.load_category(
            CategoryColumns(
                category=str(number), at_s=1.8e9, best_weight=1.0, best_mean=0.0, rows=everybody,
                asked=weights, had=weights, price_weight=weights, price_mean=weights, apart=weights,
            )
        )  # fmt: skip
    a_book = settings.answers // settings.books
    for number in range(settings.books):
        held.load_book(_book(f"97801{number:08d}", a_book, rng))
    return sellers, directory, rows, held


if __name__ == "__main__":
    quiet()
    kept = _fill()
    print(_resident_mb("self"))
