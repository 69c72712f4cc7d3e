"""Five hundred requests at once for one book, spread over three replicas that share a real Valkey.

All replicas run in this process, each with its own connections, core and memory; the sellers are in it too, and count
their calls. The leader is the first request that has all answers. Naive is three straightforward aggregators over the
same Valkey.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from redis.asyncio import BlockingConnectionPool, Redis

from aggregator.app.collect import QuoteCollector, Wish
from aggregator.domain.collection import Question
from bench.drawing import Chart, Mark, Series
from bench.harness import OnProgress, Result, spread
from bench.market import Market
from bench.naive.service import NaiveAggregator
from bench.naive.stores import ValkeyStore
from bench.stack import NO_LIMIT, replica, seller, valkey_server
from bench.standins import latency_s
from mesh.clock import SystemClock
from sellers.model import BatchOutcome, Condition, Quote, QuoteOutcome, Seller

TITLE = "500 requests at once for one book"
SELLERS = 200
REPLICAS = 3
REQUESTS = 500
ROUNDS = 7
CALLS_AIM = 1
LAG_AIM_MS = 50
_TIME_S = 10.0
_CONNECTIONS = 50

_Request = Callable[[str], Awaitable[None]]


class _CountingSellers:
    """Implements ``QuoteSource`` in real time, each seller as slow as a stand-in; counts calls by seller and book."""

    def __init__(self, market: Market) -> None:
        self.calls: Counter[tuple[int, str]] = Counter()
        self._market = market

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,  # noqa: ARG002  all ask the same
        conditions: frozenset[Condition],  # noqa: ARG002  likewise
        *,
        timeout_s: float,  # noqa: ARG002  no seller is so slow
    ) -> QuoteOutcome:
        return await self.answer(int(seller.seller_id), book_id)

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        raise NotImplementedError("there is one book: nothing to put together")

    async def answer(self, number: int, book_id: str) -> QuoteOutcome:
        self.calls[number, book_id] += 1
        await asyncio.sleep(latency_s(number, book_id))
        return self._market.outcome(number, book_id)


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    ours: list[list[float]] = []
    naive: list[list[float]] = []
    our_sellers, naive_sellers = (
        _CountingSellers(Market(SELLERS)),
        _CountingSellers(Market(SELLERS)),
    )
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(valkey_server())
        sellers = [seller(number) for number in range(SELLERS)]
        collectors = [
            await stack.enter_async_context(
                replica(url, sellers, our_sellers, number=number, of=REPLICAS)
            )
            for number in range(REPLICAS)
        ]
        our_requests = [_asks_ours(collector) for collector in collectors]
        naive_requests = []
        for _ in range(REPLICAS):
            pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=None)
            client = await stack.enter_async_context(Redis.from_pool(pool))
            naive_requests.append(_asks_naive(client, naive_sellers))
        for number in range(ROUNDS + 1):
            # The first round warms up.
            ours.append(await _crowd(our_requests, f"book-{number}"))
            naive.append(await _crowd(naive_requests, f"book-{number}"))
            on_progress((number + 1) / (ROUNDS + 1))
    our_lags, naive_lags = _lags_ms(ours[1:]), _lags_ms(naive[1:])
    return [
        Result(
            name="calls to each seller for 500 requests at once, 3 replicas",
            ours=spread(_most_calls(our_sellers)),
            naive=spread(_most_calls(naive_sellers)),
            ratio=None,
            unit="calls",
            aim=CALLS_AIM,
            absolute=True,
            kept=max(our_sellers.calls.values()) == 1,
        ),
        Result(
            name="last waiter after the leader, 500 requests at once, 3 replicas",
            ours=spread(our_lags),
            naive=spread(naive_lags),
            ratio=spread([a / b for a, b in zip(our_lags, naive_lags, strict=True)]),
            unit="ms",
            aim=LAG_AIM_MS,
            absolute=True,
            chart=Chart(
                file="one-book",
                title="500 requests at once for one book, over 3 replicas: who waits for how long after the leader",
                x="request, in the order of their ends",
                y="ms after the leader",
                lines=(
                    Series("ours", _after_leader(ours[-1])),
                    Series("naive, polls a lock", _after_leader(naive[-1])),
                ),
                mark=Mark("50 ms", LAG_AIM_MS),
            ),
        ),
    ]


async def _crowd(replicas: Sequence[_Request], book_id: str) -> list[float]:
    """Let all requests come at once; give when each of them ended, in order."""
    loop = asyncio.get_running_loop()

    async def one(request: _Request) -> float:
        await request(book_id)
        return loop.time()

    ends = await asyncio.gather(*(one(replicas[i % len(replicas)]) for i in range(REQUESTS)))
    return sorted(ends)


def _asks_ours(collector: QuoteCollector) -> _Request:
    async def request(book_id: str) -> None:
        question = Question(book_id, "USD", frozenset({Condition.NEW}))
        async with collector.open(question, _TIME_S, Wish()) as collection:
            async for _ in collection.batches():
                pass
        summary = collection.summary()
        if summary.answered != SELLERS:
            raise RuntimeError(
                f"{summary.answered} of {SELLERS} sellers answered: {summary.misses}"
            )

    return request


def _asks_naive(client: Redis, sellers: _CountingSellers) -> _Request:
    async def ask(number: int, book_id: str, timeout_s: float) -> int | None:
        async with asyncio.timeout(timeout_s):
            outcome = await sellers.answer(number, book_id)
        return outcome.total.minor if isinstance(outcome, Quote) else None

    naive = NaiveAggregator(ValkeyStore(client), range(SELLERS), ask, SystemClock(), NO_LIMIT)

    async def request(book_id: str) -> None:
        await naive.quotes(book_id)

    return request


def _most_calls(sellers: _CountingSellers) -> list[float]:
    """Give for each book the most calls that one seller got for it."""
    most: Counter[str] = Counter()
    for (_, book_id), calls in sellers.calls.items():
        most[book_id] = max(most[book_id], calls)
    return [float(calls) for calls in most.values()]


def _lags_ms(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [(ends[-1] - ends[0]) * 1000 for ends in rounds]


def _after_leader(ends: Sequence[float]) -> list[tuple[float, float]]:
    return [(number + 1, (end - ends[0]) * 1000) for number, end in enumerate(ends)]
