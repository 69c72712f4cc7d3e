"""How soon the last quote of a collection is handed on, beside the slowest healthy seller's own time.

One collection at a time over real gRPC: 200 sellers, half of which take batches, and 5 % of which never answer. Ours
hands on quotes as they come, so that the dead do not hold up the others; a gather has nothing before it has all.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import grpc

from aggregator.app.collect import QuoteCollector, Wish
from aggregator.domain.collection import Question
from bench.drawing import Chart, Mark, Series
from bench.harness import OnProgress, Result, spread
from bench.naive.collect import collect
from bench.stack import CREDENTIAL, replica, seller, valkey_server
from bench.standins import latency_s, standins
from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceStub
from sellers.model import Condition, Quote

TITLE = "time to the last quote"
SELLERS = 200
DEAD = SELLERS // 20
SCALE = 3
"""Sellers take 0.3 s on average and the slowest 1.4 s, as those of the simulations do."""

OUR_ROUNDS = 16
NAIVE_ROUNDS = 4
"""Each takes the 3 seconds that a gather waits for the dead."""
AIM = 1.10
_MAX_BATCH = 100
_WARM_UP_ROUNDS = 2
_TIME_S = 10.0

_Once = Callable[[str], Awaitable[None]]
"""Returns when it has the last quote for a book."""


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure both; tell the part that is done."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(standins(SELLERS, dead=DEAD, scale=SCALE))
        url = await stack.enter_async_context(valkey_server())
        sellers = [
            seller(number, max_batch_size=_MAX_BATCH * (number % 2), endpoint=address)
            for number, address in enumerate(addresses)
        ]
        collector = await stack.enter_async_context(replica(url, sellers))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for address in addresses
        ]
        ours, naive = _our_side(collector), _naive_side(channels)
        for number in range(_WARM_UP_ROUNDS):
            await ours(f"warm-up-{number}")
        our_ratios = [await _ratio(ours, f"ours-{number}") for number in range(OUR_ROUNDS)]
        on_progress(0.5)
        naive_ratios = [await _ratio(naive, f"naive-{number}") for number in range(NAIVE_ROUNDS)]
        on_progress(1.0)
    return [
        Result(
            name="time to the last quote, in times of the slowest healthy seller's own",
            ours=spread(our_ratios),
            naive=spread(naive_ratios),
            ratio=None,
            unit="times",
            aim=AIM,
            absolute=True,
            note=f"{DEAD} of {SELLERS} sellers never answer; naive waits 3 s for them",
            chart=Chart(
                file="last-quote",
                title="Time to the last quote, in times of the slowest healthy seller's own",
                x="% of collections, best first",
                y="times",
                lines=(
                    Series("ours", _by_rank(our_ratios)),
                    Series("naive", _by_rank(naive_ratios)),
                ),
                mark=Mark("1.10", AIM),
            ),
        )
    ]


async def _ratio(once: _Once, book_id: str) -> float:
    slowest_s = max(latency_s(number, book_id, SCALE) for number in range(DEAD, SELLERS))
    began = time.perf_counter()
    await once(book_id)
    return (time.perf_counter() - began) / slowest_s


def _our_side(collector: QuoteCollector) -> _Once:
    async def once(book_id: str) -> None:
        question = Question(book_id, "USD", frozenset({Condition.NEW}))
        quotes = 0
        async with collector.open(question, _TIME_S, Wish()) as collection:
            async for answers in collection.batches():
                quotes += sum(isinstance(answer.outcome, Quote) for answer in answers)
                if quotes == SELLERS - DEAD:
                    return
        raise RuntimeError(
            f"{quotes} of {SELLERS - DEAD} healthy sellers gave a quote: nothing can be compared"
        )

    return once


def _naive_side(channels: list[grpc.aio.Channel]) -> _Once:
    stubs = [SellerServiceStub(channel) for channel in channels]

    async def once(book_id: str) -> None:
        await collect(stubs, CREDENTIAL, book_id)

    return once


def _by_rank(values: list[float]) -> list[tuple[float, float]]:
    return [(100 * (rank + 1) / len(values), value) for rank, value in enumerate(sorted(values))]
