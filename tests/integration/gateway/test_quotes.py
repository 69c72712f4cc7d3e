"""Comparing prices: the aggregator's answers in the customer's form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from protovalidate import Validator

from bookmesh.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc
from bookmesh.common.v1 import quote_pb2 as common_pb
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.seller.v1 import seller_pb2
from gateway.adapters import quotes
from gateway.adapters.quotes import GrpcQuotes
from gateway.callers import Callers
from gateway.limits import Limits
from gateway.quote_servicer import QuoteServicer
from mesh import convert, errors
from mesh.grpc.channel import open_channel
from mesh.grpc.errors import from_rpc
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.money import Money
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import FileKeys
from tests.fakes.events import EventReader
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer

Context = grpc.aio.ServicerContext[Any, Any]


def quote(seller_id: str, minor: int, age_s: float = 0.0) -> common_pb.Quote:
    total = convert.money_to_proto(Money("USD", minor))
    return common_pb.Quote(
        seller_id=seller_id,
        total=total,
        price=total,
        shipping=convert.money_to_proto(Money("USD", 0)),
        condition=seller_pb2.CONDITION_NEW,
        age=convert.duration(age_s),
    )


class Aggregator(aggregator_pb2_grpc.QuoteServiceServicer):
    """Answers two batches and a summary, or breaks off in between."""

    def __init__(self) -> None:
        self.asked: list[aggregator_pb2.CollectQuotesRequest] = []
        self.metadata: dict[str, str] = {}
        self.time_left_s = 0.0
        self.breaks_off = False

    async def CollectQuotes(
        self, request: aggregator_pb2.CollectQuotesRequest, context: Context
    ) -> AsyncIterator[aggregator_pb2.CollectQuotesResponse]:
        self.asked.append(request)
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.time_left_s = context.time_remaining()
        started = aggregator_pb2.CollectionStarted(collection_id="c", sellers=4)
        yield aggregator_pb2.CollectQuotesResponse(started=started)
        known = [quote("beta", 2600, 12.5), quote("acme", 2599, 3.0)]
        yield aggregator_pb2.CollectQuotesResponse(batch=aggregator_pb2.AnswerBatch(quotes=known))
        if self.breaks_off:
            raise errors.Unavailable("gone", retry_after_s=1.0)
        misses = [common_pb.Miss(seller_id="late", reason=common_pb.Miss.REASON_TIMED_OUT)]
        yield aggregator_pb2.CollectQuotesResponse(
            batch=aggregator_pb2.AnswerBatch(quotes=[quote("gamma", 1999)], misses=misses)
        )
        yield aggregator_pb2.CollectQuotesResponse(
            summary=common_pb.CollectionSummary(
                sellers=4,
                asked=4,
                answered=3,
                quoted=3,
                cached=2,
                best_total=convert.money_to_proto(Money("USD", 1999)),
            )
        )

    async def ReportSale(
        self, request: aggregator_pb2.ReportSaleRequest, context: Context
    ) -> aggregator_pb2.ReportSaleResponse:
        raise AssertionError("a gateway sells nothing")


def interceptor() -> ServiceInterceptor:
    return ServiceInterceptor(Validator(), default_timeout_s=12.0, unbounded=(), only="bookmesh.")


@pytest.fixture
def aggregator() -> Aggregator:
    return Aggregator()


@pytest.fixture
async def stub(
    aggregator: Aggregator, issuer: Issuer
) -> AsyncIterator[customer_pb2_grpc.QuoteServiceAsyncStub]:
    async with AsyncExitStack() as stack:
        behind = grpc.aio.server(interceptors=[interceptor()])
        aggregator_pb2_grpc.add_QuoteServiceServicer_to_server(aggregator, behind)
        health_servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, behind)
        await health_servicer.set(quotes.SERVICE, health_pb2.HealthCheckResponse.SERVING)
        behind_port = behind.add_insecure_port("127.0.0.1:0")
        await behind.start()
        stack.push_async_callback(behind.stop, None)
        channel = await stack.enter_async_context(
            open_channel(
                f"ipv4:127.0.0.1:{behind_port}", quotes.SERVICE, routed_by=quotes.BOOK_ID_HEADER
            )
        )
        servicer = QuoteServicer(
            Callers(
                JwtIdentities(FileKeys(issuer.file), issuer=ISSUER, audience=AUDIENCE),
                Limits(calls=9, streams=9, all_streams=9),
            ),
            GrpcQuotes(aggregator_pb2_grpc.QuoteServiceStub(channel)),
            default_currency="USD",
        )
        server = grpc.aio.server(interceptors=[interceptor()])
        customer_pb2_grpc.add_QuoteServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        customers = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield customer_pb2_grpc.QuoteServiceStub(customers)


@pytest.fixture
def alice(issuer: Issuer) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {issuer.token('alice')}"),)


BOOK = "isbn-978-0134685991"
LONG_MS = 10_000
"""So long that no slow machine ends a comparison."""
SUMMARY = {
    "sellers": 4,
    "asked": 4,
    "answered": 3,
    "quoted": 3,
    "best_total": 19.99,
    "elapsed_ms": 0,
    "from_cache": 2,
}


def shown(message: Message) -> dict[str, Any]:
    answer: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return answer


async def test_prices_are_listed_from_the_lowest_with_their_age(
    stub: customer_pb2_grpc.QuoteServiceAsyncStub,
    aggregator: Aggregator,
    alice: tuple[tuple[str, str], ...],
) -> None:
    request = pb.ListQuotesRequest(book_id=BOOK, max_wait_ms=LONG_MS)
    answer = shown(await stub.ListQuotes(request, metadata=alice))
    assert (answer["book_id"], answer["currency_code"]) == ("9780134685991", "USD")
    assert [(one["seller_id"], one["total"], one["age_ms"]) for one in answer["quotes"]] == [
        ("gamma", 19.99, 0),
        ("acme", 25.99, 3000),
        ("beta", 26.0, 12500),
    ]
    assert answer["summary"] == SUMMARY
    [asked] = aggregator.asked
    assert (asked.customer_id, asked.purpose) == ("alice", aggregator_pb2.PURPOSE_BROWSE)
    assert aggregator.metadata["book-id"] == "9780134685991"
    # Not the 12 s that the call has.
    assert aggregator.time_left_s < 10.5


async def test_only_the_cheapest_are_listed_where_so_many_are_wanted(
    stub: customer_pb2_grpc.QuoteServiceAsyncStub, alice: tuple[tuple[str, str], ...]
) -> None:
    request = pb.ListQuotesRequest(book_id=BOOK, max_wait_ms=LONG_MS, max_quotes=1)
    answer = await stub.ListQuotes(request, metadata=alice)
    assert [one.seller_id for one in answer.quotes] == ["gamma"]
    assert answer.summary.quoted == 3


async def test_prices_stream_as_they_arrive_and_as_server_sent_events(
    stub: customer_pb2_grpc.QuoteServiceAsyncStub, alice: tuple[tuple[str, str], ...]
) -> None:
    stream = stub.StreamQuotes(
        pb.StreamQuotesRequest(book_id=BOOK, max_wait_ms=LONG_MS), metadata=alice
    )
    lines = [shown(response) async for response in stream]
    known, new, end = lines
    assert [one["seller_id"] for one in known["quotes"]["quotes"]] == ["acme", "beta"]
    assert [one["seller_id"] for one in new["quotes"]["quotes"]] == ["gamma"]
    assert [one["reason"] for one in new["quotes"]["misses"]] == ["timed_out"]
    assert end == {"summary": SUMMARY}
    reader = EventReader()
    events = stub.StreamQuotesEvents(
        pb.StreamQuotesEventsRequest(book_id=BOOK, max_wait_ms=LONG_MS), metadata=alice
    )
    async for body in events:
        reader.feed(body.data.decode())
    assert [(event.name, event.event_id) for event in reader.events] == [
        ("quotes", "1"),
        ("quotes", "2"),
        ("summary", "3"),
        ("end", "end"),
    ]
    assert [event.data for event in reader.events[:-1]] == lines


async def test_who_comes_back_after_the_end_is_told_to_stay_away(
    stub: customer_pb2_grpc.QuoteServiceAsyncStub,
    aggregator: Aggregator,
    alice: tuple[tuple[str, str], ...],
) -> None:
    call = stub.StreamQuotesEvents(
        pb.StreamQuotesEventsRequest(book_id=BOOK, max_wait_ms=LONG_MS),
        metadata=(*alice, ("last-event-id", "end")),
    )
    assert [body async for body in call] == []
    assert dict(await call.initial_metadata())["x-http-status"] == "204"
    assert aggregator.asked == []


async def test_an_aggregator_that_breaks_off_is_told_in_the_stream_over_rest(
    stub: customer_pb2_grpc.QuoteServiceAsyncStub,
    aggregator: Aggregator,
    alice: tuple[tuple[str, str], ...],
) -> None:
    aggregator.breaks_off = True
    by_rest = (*alice, ("x-envoy-original-method", "GET"))
    stream = stub.StreamQuotes(
        pb.StreamQuotesRequest(book_id=BOOK, max_wait_ms=LONG_MS), metadata=by_rest
    )
    *_, last = [response async for response in stream]
    assert last.error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    for call in (
        stub.ListQuotes(pb.ListQuotesRequest(book_id=BOOK, max_wait_ms=LONG_MS), metadata=alice),
        stub.StreamQuotes(pb.StreamQuotesRequest(book_id="other"), metadata=()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call if isinstance(call, grpc.aio.UnaryUnaryCall) else call.read())
        assert isinstance(from_rpc(caught.value), errors.Unavailable | errors.Unauthenticated)
