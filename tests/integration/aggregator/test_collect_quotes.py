"""CollectQuotes over real gRPC, with real sellers of every kind behind it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest

from aggregator.app.collect import Limits
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.common.v1 import quote_pb2
from bookmesh.seller.v1 import seller_pb2
from sellers.model import Seller
from tests.fakes.seller import (
    Behaviour,
    changed,
    fail_with,
    fake_seller,
    hangs,
    money,
    one_by_one,
    quote,
    quotes,
    registered,
    says,
)
from tests.integration.aggregator.conftest import Replica, StartReplica

BOOK = "9780134685991"
REQUEST = pb.CollectQuotesRequest(
    book_id=BOOK, currency_code="USD", conditions=[seller_pb2.CONDITION_NEW]
)
AMPLE_S = 30.0
Miss = quote_pb2.Miss


async def collect(replica: Replica, timeout_s: float = AMPLE_S) -> list[pb.CollectQuotesResponse]:
    return [part async for part in replica.quotes.CollectQuotes(REQUEST, timeout=timeout_s)]


async def run_sellers(stack: AsyncExitStack, behaviours: dict[str, Behaviour]) -> list[Seller]:
    sellers = []
    for name, behaviour in behaviours.items():
        fake = await stack.enter_async_context(
            fake_seller(GetQuote=behaviour, BatchGetQuotes=one_by_one(behaviour))
        )
        sellers.append(registered(name, fake.endpoint))
    return sellers


def unavailable(reason: seller_pb2.Unavailable.Reason.ValueType) -> Behaviour:
    return says(
        seller_pb2.GetQuoteResponse(book_id=BOOK, unavailable=seller_pb2.Unavailable(reason=reason))
    )


async def test_every_seller_comes_exactly_once_whatever_it_does(
    start_replica: StartReplica,
) -> None:
    wrong = seller_pb2.GetQuoteResponse(book_id=BOOK, quote=changed(quote(), total=money(0)))
    another_book = seller_pb2.GetQuoteResponse(book_id="another", quote=quote())
    behaviours = {
        "good": quotes(2499),
        "cheap": quotes(1999),
        "out-of-stock": unavailable(seller_pb2.Unavailable.REASON_OUT_OF_STOCK),
        "not-carried": unavailable(seller_pb2.Unavailable.REASON_NOT_CARRIED),
        "used-only": unavailable(seller_pb2.Unavailable.REASON_CONDITION),
        "euros-only": unavailable(seller_pb2.Unavailable.REASON_CURRENCY),
        "late": fail_with(grpc.StatusCode.DEADLINE_EXCEEDED),
        "down": fail_with(grpc.StatusCode.UNAVAILABLE),
        "broken": fail_with(grpc.StatusCode.INTERNAL),
        "busy": fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED),
        "closed": fail_with(grpc.StatusCode.UNAUTHENTICATED),
        "free": says(wrong),
        "confused": says(another_book),
        "html": says(b"<html>"),
        "verbose": says(b"x" * 5_000_000),
    }
    async with AsyncExitStack() as stack:
        sellers = await run_sellers(stack, behaviours)
        dead = await run_sellers(dying := AsyncExitStack(), {"dead": quotes()})
        await dying.aclose()
        stranger = replace(sellers[0], seller_id="stranger", credential_reference="unknown")
        replica = await stack.enter_async_context(
            start_replica(sellers=[*sellers, *dead, stranger])
        )
        parts = await collect(replica)

    assert parts[0].WhichOneof("part") == "started"
    assert parts[-1].WhichOneof("part") == "summary"
    batches = [part.batch for part in parts[1:-1]]
    assert {q.seller_id: q.total for batch in batches for q in batch.quotes} == {
        "good": money(2499),
        "cheap": money(1999),
    }
    misses = {miss.seller_id: miss.reason for batch in batches for miss in batch.misses}
    assert misses == {
        "out-of-stock": Miss.REASON_OUT_OF_STOCK,
        "not-carried": Miss.REASON_NOT_CARRIED,
        "used-only": Miss.REASON_CONDITION,
        "euros-only": Miss.REASON_CURRENCY,
        "late": Miss.REASON_TIMED_OUT,
        "down": Miss.REASON_SELLER_ERROR,
        "broken": Miss.REASON_SELLER_ERROR,
        "busy": Miss.REASON_RATE_LIMITED,
        "closed": Miss.REASON_REFUSED,
        "stranger": Miss.REASON_NO_CREDENTIAL,
        "free": Miss.REASON_INVALID_ANSWER,
        "confused": Miss.REASON_INVALID_ANSWER,
        "html": Miss.REASON_INVALID_ANSWER,
        "verbose": Miss.REASON_INVALID_ANSWER,
        "dead": Miss.REASON_UNREACHABLE,
    }
    assert sum(len(batch.quotes) + len(batch.misses) for batch in batches) == 17
    summary = parts[-1].summary
    assert summary.collection_id == parts[0].started.collection_id
    assert (summary.book_id, parts[0].started.sellers) == (BOOK, 17)
    assert (summary.sellers, summary.asked, summary.answered, summary.quoted) == (17, 16, 6, 2)
    assert {m.reason: m.count for m in summary.misses} == Counter(misses.values())


async def test_a_quote_comes_through_whole(start_replica: StartReplica) -> None:
    async with (
        fake_seller(GetQuote=quotes(2499)) as fake,
        start_replica(sellers=[registered("acme", fake.endpoint)]) as replica,
    ):
        parts = await collect(replica)
    [got] = [q for part in parts for q in part.batch.quotes]
    assert got.expires_at.ToDatetime(UTC) > datetime.now(UTC)
    assert got.latency.ToNanoseconds() > 0
    assert changed(got, expires_at=None, latency=None, age=None) == quote_pb2.Quote(
        seller_id="acme",
        quote_id="quote-1",
        price=money(2099),
        shipping=money(400),
        total=money(2499),
        condition=seller_pb2.CONDITION_NEW,
        quantity=3,
    )


async def test_quotes_arrive_before_the_end(start_replica: StartReplica) -> None:
    seen = asyncio.Event()

    async def last(
        request: seller_pb2.GetQuoteRequest, context: object
    ) -> seller_pb2.GetQuoteResponse:
        await seen.wait()
        return seller_pb2.GetQuoteResponse(book_id=request.book_id, quote=quote())

    async with AsyncExitStack() as stack:
        sellers = await run_sellers(stack, {"first": quotes(), "last": last})
        replica = await stack.enter_async_context(start_replica(sellers=sellers))
        order: list[str] = []
        async for part in replica.quotes.CollectQuotes(REQUEST, timeout=AMPLE_S):
            order.extend(q.seller_id for q in part.batch.quotes)
            if order:
                seen.set()
    assert order == ["first", "last"]


async def test_a_late_seller_has_timed_out_when_the_caller_s_time_is_nearly_over(
    start_replica: StartReplica,
) -> None:
    async with AsyncExitStack() as stack:
        sellers = await run_sellers(stack, {"good": quotes(), "late": hangs})
        replica = await stack.enter_async_context(
            start_replica(sellers=sellers, limits=Limits(merge_margin_s=3.0))
        )
        parts = await collect(replica, timeout_s=6.0)
    assert [q.seller_id for part in parts for q in part.batch.quotes] == ["good"]
    assert [(m.seller_id, m.reason) for part in parts for m in part.batch.misses] == [
        ("late", Miss.REASON_TIMED_OUT)
    ]
    assert parts[-1].HasField("summary")


async def test_when_the_caller_leaves_the_sellers_calls_are_cancelled(
    start_replica: StartReplica,
) -> None:
    async with (
        fake_seller(GetQuote=hangs) as fake,
        start_replica(sellers=[registered("acme", fake.endpoint)]) as replica,
    ):
        call = replica.quotes.CollectQuotes(REQUEST, timeout=AMPLE_S)
        assert isinstance(await call.read(), pb.CollectQuotesResponse)
        await fake.arrived.wait()
        call.cancel()
        await fake.cancelled.wait()


async def test_many_collections_at_once_do_not_mix(start_replica: StartReplica) -> None:
    async def priced(
        request: seller_pb2.GetQuoteRequest, context: object
    ) -> seller_pb2.GetQuoteResponse:
        return seller_pb2.GetQuoteResponse(
            book_id=request.book_id, quote=changed(quote(), quote_id=f"of-{request.book_id}")
        )

    async def ask(replica: Replica, book: str) -> set[str]:
        request = changed(REQUEST, book_id=book)
        return {
            q.quote_id
            async for part in replica.quotes.CollectQuotes(request, timeout=AMPLE_S)
            for q in part.batch.quotes
        }

    async with AsyncExitStack() as stack:
        sellers = await run_sellers(stack, dict.fromkeys(("a", "b", "c"), priced))
        replica = await stack.enter_async_context(start_replica(sellers=sellers))
        books = [f"book-{number}" for number in range(20)]
        answers = await asyncio.gather(*(ask(replica, book) for book in books))
    assert answers == [{f"of-{book}"} for book in books]


async def test_before_the_registry_has_been_read_it_is_unavailable(
    start_replica: StartReplica,
) -> None:
    async with start_replica(read=False) as replica:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(replica)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("field", "value"),
    [("book_id", ""), ("book_id", "x" * 65), ("currency_code", "usd"), ("conditions", None)],
)
async def test_a_question_that_makes_no_sense_is_refused(
    start_replica: StartReplica, field: str, value: object
) -> None:
    async with start_replica() as replica:
        call = replica.quotes.CollectQuotes(changed(REQUEST, **{field: value}))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")


async def test_it_takes_note_of_sales_that_make_sense(start_replica: StartReplica) -> None:
    async with start_replica() as replica:
        for outcome in ("OUTCOME_SOLD", "OUTCOME_REFUSED"):
            request = pb.ReportSaleRequest(
                seller_id="acme", outcome=pb.ReportSaleRequest.Outcome.Value(outcome)
            )
            await replica.quotes.ReportSale(request, timeout=AMPLE_S)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await replica.quotes.ReportSale(pb.ReportSaleRequest(seller_id="acme"), timeout=AMPLE_S)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert replica.sales == [("acme", False), ("acme", True)]
