"""One collection alone over 200 sellers that answer one book a call.

Ours goes through the aggregator's use case and the sellers' transport, with everything that they do: the shared cache,
admission, both in a real Valkey, credentials, deadlines, checking each answer, handing on batches. Naive is a bare
gather over the generated stubs, which believes what it gets. Both ask the same sellers, each over connections of its
own, for a book that nobody has asked for before.
"""

from __future__ import annotations

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

TITLE = "one collection over 200 sellers"
SELLERS = 200
ROUNDS = 35
AIM = 1.25
_WARM_UP_ROUNDS = 3
_TIME_S = 10.0


async def measure(on_progress: OnProgress) -> list[Result]:
    """Measure time and CPU; tell the part that is done."""
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(standins(SELLERS))
        url = await stack.enter_async_context(valkey_server())
        sellers = [seller(number, endpoint=address) for number, address in enumerate(addresses)]
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
        )
    return [
        compared(
            "time of a collection",
            [sample.wall_s * 1e3 for sample in our_samples],
            [sample.wall_s * 1e3 for sample in naive_samples],
            unit="ms",
            aim=AIM,
        ),
        compared(
            "CPU per quote, one lone collection",
            [sample.cpu_s / SELLERS * 1e6 for sample in our_samples],
            [sample.cpu_s / SELLERS * 1e6 for sample in naive_samples],
            unit="µs",
            aim=AIM,
        ),
    ]


def _our_side(collector: QuoteCollector) -> Side:
    async def once(book_id: str) -> None:
        question = Question(book_id, "USD", frozenset({Condition.NEW}))
        async with collector.open(question, _TIME_S, Wish()) as collection:
            async for _ in collection.batches():
                pass
        _check(collection.summary().quoted)

    return once


def _naive_side(channels: list[grpc.aio.Channel]) -> Side:
    stubs = [SellerServiceStub(channel) for channel in channels]

    async def once(book_id: str) -> None:
        answers = await collect(stubs, CREDENTIAL, book_id)
        _check(sum(not isinstance(answer, BaseException) for answer in answers))

    return once


def _check(quotes: int) -> None:
    if quotes != SELLERS:
        raise RuntimeError(f"{quotes} of {SELLERS} sellers gave a quote: nothing can be compared")
