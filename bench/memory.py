"""Resident memory of an aggregator with 200 sellers connected, over 10,000 collections.

The aggregator's core with its gRPC connections, admission and cache in a real Valkey runs in a process of its own
(``python -m bench.memory URL ADDRESS...``), which asks itself for books by Zipf's law, 50 at a time, and says what it
takes after every 500 collections. Sellers are stand-ins that take batches. Flat means that the last half adds at most
5 %.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random

from aggregator.app.collect import QuoteCollector, Wish
from aggregator.domain.collection import Question
from bench.demand import ZIPF
from bench.drawing import Chart, Mark, Series
from bench.harness import OnProgress, Result, exactly
from bench.stack import replica, seller, valkey_server
from bench.standins import standins
from bench.workers import quiet
from sellers.model import Condition

TITLE = "memory over 10,000 collections"
SELLERS = 200
COLLECTIONS = 10_000
AIM_MB = 200
_AT_ONCE = 50
_EVERY = 500
_MAX_BATCH = 100
_TIME_S = 10.0
_FLAT = 1.05
_STATUS = Path("/proc/self/status")


async def measure(on_progress: OnProgress) -> list[Result]:
    """Run the aggregator; tell the part that is done."""
    points: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(standins(SELLERS))
        url = await stack.enter_async_context(valkey_server())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.memory", url, *addresses),
            stdout=asyncio.subprocess.PIPE,
        )
        stack.callback(_kill, process)
        while line := await _line(process):
            collections, megabytes = map(float, line.split())
            points.append((collections, megabytes))
            on_progress(collections / COLLECTIONS)
        if await process.wait() != 0:
            raise RuntimeError("the aggregator ended badly: see what it printed above")
    at_half = next(megabytes for collections, megabytes in points if collections >= COLLECTIONS / 2)
    last = points[-1][1]
    return [
        Result(
            name="resident memory after 10,000 collections, 200 sellers connected",
            ours=exactly(last),
            naive=None,
            ratio=None,
            unit="MB",
            aim=AIM_MB,
            absolute=True,
            kept=last <= at_half * _FLAT,
            note=f"connected {points[0][1]:.0f} MB, after half of them {at_half:.0f} MB, at the end {last:.0f} MB",
            chart=Chart(
                file="memory",
                title="Resident memory of an aggregator, 200 sellers connected",
                x="collections",
                y="MB",
                lines=(Series("ours", points),),
                mark=Mark("200 MB", AIM_MB),
            ),
        )
    ]


async def _line(process: asyncio.subprocess.Process) -> bytes:
    return await process.stdout.readline() if process.stdout is not None else b""


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


async def _aggregate(url: str, addresses: list[str]) -> None:
    sellers = [
        seller(number, max_batch_size=_MAX_BATCH, endpoint=address)
        for number, address in enumerate(addresses)
    ]
    async with replica(url, sellers) as collector:
        await _collect(collector, "the-first")
        _tell(0)
        books = ZIPF.draw(Random(4))
        done = 0

        async def keep_asking(books: Iterator[str]) -> None:
            nonlocal done
            while done < COLLECTIONS:
                done += 1
                if done % _EVERY == 0:
                    _tell(done)
                await _collect(collector, next(books))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(keep_asking(books))


async def _collect(collector: QuoteCollector, book_id: str) -> None:
    question = Question(book_id, "USD", frozenset({Condition.NEW}))
    async with collector.open(question, _TIME_S, Wish()) as collection:
        async for _ in collection.batches():
            pass


def _tell(collections: int) -> None:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    print(collections, int(line.split()[1]) / 1024, flush=True)


if __name__ == "__main__":
    quiet()
    asyncio.run(_aggregate(sys.argv[1], sys.argv[2:]))
