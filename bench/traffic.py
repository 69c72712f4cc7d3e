"""Requests that arrive by chance at a given rate, in virtual time, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from aggregator.app.collect import QuoteCollector, Wish
from aggregator.domain.collection import Question
from aggregator.domain.stopping import Policy
from bench.market import Market
from bench.naive.service import NaiveAggregator
from bench.naive.stores import MemoryStore
from bench.simulated import SimulatedSellers
from bench.virtual_time import VirtualClock
from sellers.model import Condition, Quote

TIME_S = 10.0
"""What a request can wait, as a purchase does."""

Requester = Callable[[str], Awaitable[int | None]]
"""Asks an aggregator about a book; gives the lowest total that it saw, in minor units."""

_NEW = frozenset({Condition.NEW})


@dataclass(slots=True)
class Traffic:
    """What came of the requests that arrived after the warm-up.

    Attributes:
        right: how many saw the true best price.
        wrong: how many did not.
        waits_s: how long each took.

    """

    right: int = 0
    wrong: int = 0
    waits_s: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.right + self.wrong

    @property
    def recall(self) -> float:
        """The part that saw the true best price."""
        return self.right / self.requests if self.requests else 0.0


async def drive(
    requester: Requester,
    market: Market,
    books: Iterator[str],
    *,
    rate_per_s: float,
    warm_up_s: float,
    measured_s: float,
    seed: int,
    most_wrong: float = float("inf"),
) -> Traffic:
    """Let requests arrive (Poisson), and wait for all of them; end at once when too many were wrong."""
    rng = Random(seed)
    traffic = Traffic()
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def request(book_id: str, *, counts: bool) -> None:
        arrived = loop.time()
        best = await requester(book_id)
        if not counts:
            return
        traffic.waits_s.append(loop.time() - arrived)
        if best == market.best(book_id):
            traffic.right += 1
        else:
            traffic.wrong += 1
            if traffic.wrong > most_wrong:
                enough.set()

    tasks: set[asyncio.Task[None]] = set()
    at = began
    while not enough.is_set():
        at += rng.expovariate(rate_per_s)
        if at > began + warm_up_s + measured_s:
            break
        if at > loop.time():
            await asyncio.sleep(at - loop.time())
        task = asyncio.create_task(request(next(books), counts=at > began + warm_up_s))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if enough.is_set():
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=enough.is_set())
    return traffic


def asks_ours(collector: QuoteCollector, policy: Policy = Policy.BEST_PRICE) -> Requester:
    """Give what asks our aggregator."""
    wish = Wish(policy=policy)

    async def request(book_id: str) -> int | None:
        best: int | None = None
        async with collector.open(Question(book_id, "USD", _NEW), TIME_S, wish) as collection:
            async for answers in collection.batches():
                for answer in answers:
                    outcome = answer.outcome
                    if type(outcome) is Quote and (best is None or outcome.total.minor < best):
                        best = outcome.total.minor
        return best

    return request


def asks_naive(
    source: SimulatedSellers, market: Market, sellers: int, calls_per_minute: int
) -> Requester:
    """Give what asks the straightforward aggregator."""
    clock = VirtualClock()

    async def ask(seller: int, book_id: str, timeout_s: float) -> int | None:
        if not await source.answers(seller, timeout_s):
            raise TimeoutError
        outcome = market.outcome(seller, book_id)
        return outcome.total.minor if isinstance(outcome, Quote) else None

    naive = NaiveAggregator(MemoryStore(clock), range(sellers), ask, clock, calls_per_minute)

    async def request(book_id: str) -> int | None:
        return min((total for _, total in await naive.quotes(book_id)), default=None)

    return request
