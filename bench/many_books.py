"""Fifty books at once over 200 sellers that take batches.

Ours is the whole way of a quote: the shared cache and admission in a real Valkey, batches, gRPC, checking each answer,
handing it on. Naive is a bare gather of one call for each book and seller, which believes what it gets; it is given as
long as it needs. Both ask the same sellers, each over connections of its own, for books that nobody has asked for.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc

from aggregator.app.collect import QuoteCollector, Wish
from aggregator.domain.collection import Question
from bench.harness import OnProgress, Result, Side, compared, take_turns
from bench.naive.collect import collect
from bench.stack import CREDENTIAL, replica, seller, valkey_server
from bench.standins import standins
from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceStub
from sellers.model import Condition

TITLE = "50 books at once"
SELLERS = 200
BOOKS = 50
MAX_BATCH = 100
ROUNDS = 7
AIM = 0.25
_WARM_UP_ROUNDS = 1
_TIME_S = 10.0
_AMPLE_S = 60.0
_PAUSE_S = 1.0
"""The gather keeps the event loop busy for seconds, in which ours hears nothing of Valkey: it finds it again in this
time."""


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure CPU; tell the part that is done."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(standins(SELLERS))
        url = await stack.enter_async_context(valkey_server())
        sellers = [
            seller(number, max_batch_size=MAX_BATCH, endpoint=address)
            for number, address in enumerate(addresses)
        ]
        collector = await stack.enter_async_context(replica(url, sellers))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for address in addresses
        ]
        our_samples, naive_samples = await take_turns(
            _our_side(collector),
            _naive_side(channels),
            ROUNDS,
            on_progress,
            warm_up_rounds=_WARM_UP_ROUNDS,
            pause_s=_PAUSE_S,
        )
    quotes = BOOKS * SELLERS
    return [
        compared(
            "CPU per quote, 50 books at once",
            [sample.cpu_s / quotes * 1e6 for sample in our_samples],
            [sample.cpu_s / quotes * 1e6 for sample in naive_samples],
            unit="µs",
            aim=AIM,
        )
    ]


def _our_side(collector: QuoteCollector) -> Side:
    async def one(book_id: str) -> int:
        question = Question(book_id, "USD", frozenset({Condition.NEW}))
        async with collector.open(question, _TIME_S, Wish()) as collection:
            async for _ in collection.batches():
                pass
        return collection.summary().quoted

    async def once(round_id: str) -> None:
        _check(sum(await asyncio.gather(*map(one, _books(round_id)))))

    return once


def _naive_side(channels: list[grpc.aio.Channel]) -> Side:
    stubs = [SellerServiceStub(channel) for channel in channels]

    async def one(book_id: str) -> int:
        answers = await collect(stubs, CREDENTIAL, book_id, timeout_s=_AMPLE_S)
        return sum(not isinstance(answer, BaseException) for answer in answers)

    async def once(round_id: str) -> None:
        _check(sum(await asyncio.gather(*map(one, _books(round_id)))))

    return once


def _books(round_id: str) -> list[str]:
    return [f"{round_id}-{number}" for number in range(BOOKS)]


def _check(quotes: int) -> None:
    if quotes != BOOKS * SELLERS:
        raise RuntimeError(f"{quotes} of {BOOKS * SELLERS} quotes came: nothing can be compared")
