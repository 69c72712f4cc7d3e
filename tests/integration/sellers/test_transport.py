"""Calls to sellers over real gRPC: what they do, or what the network does, is a value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert
from mesh.clock import SystemClock
from mesh.money import Money
from sellers import transport as transport_module
from sellers.connections import MAX_ANSWER_BYTES, MAX_METADATA_BYTES
from sellers.credentials import Credentials
from sellers.model import (
    CallFailed,
    Capabilities,
    Closed,
    Condition,
    Confirmed,
    FailureKind,
    Held,
    HoldRef,
    OrderNotFound,
    OrderPage,
    Quote,
    QuoteOutcome,
    QuoteRef,
    Released,
    Seller,
    SellerState,
    Unavailable,
    UnavailableReason,
)
from sellers.transport import SellerTransport
from tests.fakes.measures import Measures
from tests.fakes.seller import (
    changed,
    fail_with,
    fake_seller,
    hangs,
    money,
    quote,
    quotes,
    registered,
    says,
)

BOOK = "9780134685991"
LONG_S = 30.0
SHORT_S = 1.0


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[SellerTransport]:
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    clock = SystemClock()
    async with SellerTransport(
        Credentials(tmp_path / "credentials.json", clock), clock
    ) as transport:
        yield transport


async def ask(
    transport: SellerTransport, seller: Seller, *, timeout_s: float = LONG_S
) -> QuoteOutcome:
    return await transport.get_quote(
        seller, BOOK, "USD", frozenset({Condition.NEW, Condition.LIKE_NEW}), timeout_s=timeout_s
    )


async def test_a_quote(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=quotes(2499)) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint))
    assert isinstance(outcome, Quote)
    assert outcome.total == Money("USD", 2499)
    [(_, request, metadata)] = fake.requests
    assert request == pb.GetQuoteRequest(
        book_id=BOOK, currency_code="USD", conditions=[pb.CONDITION_NEW, pb.CONDITION_LIKE_NEW]
    )
    assert metadata["authorization"] == "Bearer s3cr3t"


NO_EFFECT = True
UNKNOWN = False
STATUSES = [
    (grpc.StatusCode.INVALID_ARGUMENT, FailureKind.NOT_UNDERSTOOD, NO_EFFECT),
    (grpc.StatusCode.UNAUTHENTICATED, FailureKind.REFUSED, NO_EFFECT),
    (grpc.StatusCode.PERMISSION_DENIED, FailureKind.REFUSED, NO_EFFECT),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, FailureKind.RATE_LIMITED, NO_EFFECT),
    (grpc.StatusCode.NOT_FOUND, FailureKind.NOT_FOUND, NO_EFFECT),
    (grpc.StatusCode.ALREADY_EXISTS, FailureKind.KEY_MISMATCH, NO_EFFECT),
    (grpc.StatusCode.UNIMPLEMENTED, FailureKind.REFUSED, UNKNOWN),
    (grpc.StatusCode.ABORTED, FailureKind.IN_FLIGHT, UNKNOWN),
    (grpc.StatusCode.UNAVAILABLE, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.DEADLINE_EXCEEDED, FailureKind.TIMED_OUT, UNKNOWN),
    (grpc.StatusCode.CANCELLED, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.FAILED_PRECONDITION, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.OUT_OF_RANGE, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.INTERNAL, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.UNKNOWN, FailureKind.SELLER_ERROR, UNKNOWN),
    (grpc.StatusCode.DATA_LOSS, FailureKind.SELLER_ERROR, UNKNOWN),
]


@pytest.mark.parametrize(("status", "kind", "definitely_not_done"), STATUSES)
async def test_only_the_statuses_that_promise_it_say_that_nothing_was_done(
    transport: SellerTransport,
    status: grpc.StatusCode,
    kind: FailureKind,
    definitely_not_done: bool,  # noqa: FBT001  a column of the table
) -> None:
    async with fake_seller(PlaceOrder=fail_with(status, "because")) as fake:
        outcome = await place(transport, registered("acme", fake.endpoint))
    assert outcome == CallFailed(kind, definitely_not_done, "because")


async def place(transport: SellerTransport, seller: Seller, *, timeout_s: float = LONG_S) -> object:
    return await transport.place_order(
        seller,
        "request:acme",
        source=HoldRef("hold-1"),
        book_id=BOOK,
        buyer_reference="request",
        delivery_reference="",
        max_total=Money("USD", 2599),
        not_after=datetime.now(UTC) + timedelta(seconds=10),
        timeout_s=timeout_s,
    )


async def test_no_answer_in_time_is_unknown(transport: SellerTransport) -> None:
    async with fake_seller(PlaceOrder=hangs) as fake:
        outcome = await place(transport, registered("acme", fake.endpoint), timeout_s=SHORT_S)
        while not fake.arrived.is_set():
            # The machine is so slow that not even the call arrived in time.
            outcome = await place(transport, registered("acme", fake.endpoint), timeout_s=SHORT_S)
        assert isinstance(outcome, CallFailed)
        assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.TIMED_OUT, False)
        await fake.cancelled.wait()


async def test_a_call_without_time_is_not_sent(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=quotes()) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint), timeout_s=0)
        assert isinstance(outcome, CallFailed)
        assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.TIMED_OUT, True)
        assert fake.requests == []


async def test_without_a_credential_the_call_is_not_sent(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=quotes()) as fake:
        seller = replace(registered("acme", fake.endpoint), credential_reference="nobody")
        outcome = await ask(transport, seller)
        assert isinstance(outcome, CallFailed)
        assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.NO_CREDENTIAL, True)
        assert fake.requests == []


async def test_a_seller_that_does_not_find_a_book_does_not_carry_it(
    transport: SellerTransport,
) -> None:
    unknown = fail_with(grpc.StatusCode.NOT_FOUND, "no such book")
    async with fake_seller(GetQuote=unknown) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint))
    assert outcome == Unavailable(UnavailableReason.NOT_CARRIED)


async def test_nobody_listens(transport: SellerTransport) -> None:
    async with fake_seller() as fake:
        endpoint = fake.endpoint
    outcome = await place(transport, registered("acme", endpoint))
    assert isinstance(outcome, CallFailed)
    # That no connection was made now does not tell what an earlier try did, nor is the text proof of anything.
    assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.UNREACHABLE, False)


async def test_tls_is_spoken_to_a_seller_with_roots(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=quotes()) as fake:
        seller = replace(registered("acme", fake.endpoint), tls_roots="system")
        outcome = await ask(transport, seller)
        assert isinstance(outcome, CallFailed)
        assert outcome.kind is FailureKind.UNREACHABLE
        assert fake.requests == []


async def test_cancellation_reaches_the_seller(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=hangs) as fake:
        call = asyncio.create_task(ask(transport, registered("acme", fake.endpoint)))
        await fake.arrived.wait()
        call.cancel()
        await fake.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


def status_details(*details: bytes) -> tuple[str, bytes]:
    status = status_pb2.Status(
        code=8,
        details=[
            any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=detail)
            for detail in details
        ],
    )
    return ("grpc-status-details-bin", status.SerializeToString())


def retry_info(seconds: int) -> bytes:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)).SerializeToString()


@pytest.mark.parametrize(
    ("trailer", "expected"),
    [
        (status_details(retry_info(7)), 7.0),
        (status_details(retry_info(-7)), 0.0),
        (status_details(retry_info(10**12)), 3600.0),
        (status_details(b"\xff\xff"), None),
        (status_details(), None),
        (("grpc-status-details-bin", b"\xff\xff"), None),
    ],
    ids=["7 s", "negative", "for ever", "malformed delay", "without", "malformed"],
)
async def test_how_long_a_seller_wants_to_be_left_alone(
    transport: SellerTransport, trailer: tuple[str, bytes], expected: float | None
) -> None:
    limited = fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", trailer)
    async with fake_seller(GetQuote=limited) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint))
    assert outcome == CallFailed(
        FailureKind.RATE_LIMITED,
        definitely_not_done=True,
        detail="slow down",
        retry_after_s=expected,
    )


async def test_that_a_seller_is_called_too_often_is_told(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    clock, told = SystemClock(), list[tuple[str, float | None]]()
    trailers = [status_details(retry_info(7)), status_details()]
    async with SellerTransport(
        Credentials(tmp_path / "credentials.json", clock),
        clock,
        on_rate_limited=lambda seller, after_s: told.append((seller.seller_id, after_s)),
    ) as transport:
        for trailer in trailers:
            limited = fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", trailer)
            async with fake_seller(GetQuote=limited) as fake:
                await ask(transport, registered("acme", fake.endpoint))
    assert told == [("acme", 7.0), ("acme", None)]


async def test_an_answer_that_is_too_long_is_invalid_and_its_effect_unknown(
    transport: SellerTransport,
) -> None:
    async with fake_seller(PlaceOrder=says(b"\x0a" * (MAX_ANSWER_BYTES + 1))) as fake:
        outcome = await place(transport, registered("acme", fake.endpoint))
    assert isinstance(outcome, CallFailed)
    assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.INVALID_ANSWER, False)


async def test_a_bomb_of_metadata_is_an_invalid_answer(transport: SellerTransport) -> None:
    bomb = tuple((f"x-{i}", "x" * MAX_METADATA_BYTES) for i in range(4))
    async with fake_seller(
        PlaceOrder=fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "", *bomb)
    ) as fake:
        outcome = await place(transport, registered("acme", fake.endpoint))
    assert isinstance(outcome, CallFailed)
    assert (outcome.kind, outcome.definitely_not_done) == (FailureKind.INVALID_ANSWER, False)


async def test_the_words_of_a_seller_are_bounded_and_printable(transport: SellerTransport) -> None:
    async with fake_seller(
        GetQuote=fail_with(grpc.StatusCode.INTERNAL, "\x1b[31m" + "x" * 5000)
    ) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint))
    assert isinstance(outcome, CallFailed)
    assert outcome.detail.isprintable()
    assert len(outcome.detail) == 200


async def test_what_is_not_protobuf_is_an_invalid_answer(transport: SellerTransport) -> None:
    async with fake_seller(GetQuote=says(b"<html>")) as fake:
        outcome = await ask(transport, registered("acme", fake.endpoint))
    assert isinstance(outcome, CallFailed)
    assert outcome.kind is FailureKind.INVALID_ANSWER


async def test_a_batch_has_an_outcome_for_each_book(transport: SellerTransport) -> None:
    answer = pb.BatchGetQuotesResponse(
        responses=[
            pb.GetQuoteResponse(book_id="a", quote=quote()),
            pb.GetQuoteResponse(book_id="b", quote=changed(quote(), quantity=-1)),
        ]
    )
    async with fake_seller(BatchGetQuotes=says(answer)) as fake:
        outcome = await transport.batch_get_quotes(
            registered("acme", fake.endpoint),
            ["a", "b"],
            "USD",
            frozenset({Condition.NEW}),
            timeout_s=LONG_S,
        )
    assert isinstance(outcome, tuple)
    good, bad = outcome
    assert isinstance(good, Quote)
    assert isinstance(bad, CallFailed)
    assert bad.kind is FailureKind.INVALID_ANSWER


async def test_a_purchase_from_hold_to_order(transport: SellerTransport) -> None:
    hold = pb.Hold(
        hold_id="hold-1",
        total=money(2599),
        expires_at=convert.timestamp(datetime.now(UTC)),
        valid_for=convert.duration(60),
    )
    order = pb.OrderConfirmed(order_id="order-1", total=money(2599))
    async with fake_seller(
        HoldBook=says(pb.HoldBookResponse(hold=hold)),
        PlaceOrder=says(pb.PlaceOrderResponse(confirmed=order)),
        ReleaseHold=says(pb.ReleaseHoldResponse(result=pb.ReleaseHoldResponse.RESULT_ORDERED)),
    ) as fake:
        seller = registered("acme", fake.endpoint)
        not_after = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        held = await transport.hold_book(
            seller,
            "request:acme",
            quote_id="quote-1",
            book_id=BOOK,
            currency="USD",
            not_after=not_after,
            timeout_s=LONG_S,
        )
        assert isinstance(held, Held)
        assert held.total == Money("USD", 2599)
        placed = await place(transport, seller)
        released = await transport.release_hold(seller, "request:acme", timeout_s=LONG_S)
    assert placed == Confirmed("order-1", Money("USD", 2599))
    assert released is Released.ORDERED
    requests = [request for _, request, _ in fake.requests]
    assert requests[0] == pb.HoldBookRequest(
        idempotency_key="request:acme",
        quote_id="quote-1",
        book_id=BOOK,
        not_after=convert.timestamp(not_after),
    )
    assert isinstance(requests[1], pb.PlaceOrderRequest)
    assert requests[1].hold_id == "hold-1"
    assert requests[1].max_total == money(2599)
    assert requests[2] == pb.ReleaseHoldRequest(idempotency_key="request:acme")


async def test_an_order_straight_from_a_quote(transport: SellerTransport) -> None:
    order = pb.OrderConfirmed(order_id="order-1", total=money(2499))
    async with fake_seller(PlaceOrder=says(pb.PlaceOrderResponse(confirmed=order))) as fake:
        outcome = await transport.place_order(
            registered("acme", fake.endpoint),
            "request:acme",
            source=QuoteRef("quote-1"),
            book_id=BOOK,
            buyer_reference="request",
            delivery_reference="address-1",
            max_total=Money("USD", 2499),
            not_after=datetime.now(UTC),
            timeout_s=LONG_S,
        )
    assert outcome == Confirmed("order-1", Money("USD", 2499))
    [(_, request, _)] = fake.requests
    assert isinstance(request, pb.PlaceOrderRequest)
    assert (request.WhichOneof("source"), request.quote_id) == ("quote_id", "quote-1")
    assert request.delivery_reference == "address-1"


async def test_an_order_that_nobody_knows_is_a_value(transport: SellerTransport) -> None:
    unknown = fail_with(grpc.StatusCode.NOT_FOUND, "who?")
    async with fake_seller(GetOrder=unknown, CancelOrder=unknown) as fake:
        seller = registered("acme", fake.endpoint)
        assert await transport.get_order(seller, "k", timeout_s=LONG_S) == OrderNotFound()
        assert await transport.cancel_order(seller, "k", timeout_s=LONG_S) == OrderNotFound()


async def test_orders_are_found_cancelled_and_listed(transport: SellerTransport) -> None:
    order = pb.Order(
        idempotency_key="k",
        closed=pb.OrderClosed(),
        update_time=convert.timestamp(datetime.now(UTC)),
    )
    async with fake_seller(
        GetOrder=says(pb.GetOrderResponse(order=order)),
        CancelOrder=says(pb.CancelOrderResponse(result=pb.CancelOrderResponse.RESULT_CLOSED)),
        ListOrders=says(pb.ListOrdersResponse(orders=[order])),
    ) as fake:
        seller = registered("acme", fake.endpoint)
        assert await transport.get_order(seller, "k", timeout_s=LONG_S) == Closed()
        assert await transport.cancel_order(seller, "k", timeout_s=LONG_S) == Closed()
        page = await transport.list_orders(
            seller, updated_from=datetime.now(UTC), page_size=10, page_token="", timeout_s=LONG_S
        )
    assert isinstance(page, OrderPage)
    assert [(item.key, item.state) for item in page.orders] == [("k", Closed())]


async def test_capabilities(transport: SellerTransport) -> None:
    answer = pb.GetCapabilitiesResponse(
        capabilities=pb.Capabilities(
            currency_codes=["USD"],
            calls_per_minute=100,
            min_quote_life=Duration(seconds=60),
            key_retention=Duration(seconds=7 * 24 * 3600),
            contract_versions=["v1"],
        )
    )
    async with fake_seller(GetCapabilities=says(answer)) as fake:
        outcome = await transport.get_capabilities(
            registered("acme", fake.endpoint), timeout_s=LONG_S
        )
    assert isinstance(outcome, Capabilities)
    assert outcome.currencies == ("USD",)


async def test_a_seller_that_goes_loses_its_channel_once_its_calls_have_ended(
    transport: SellerTransport,
) -> None:
    go_on = asyncio.Event()

    async def slow(request: pb.GetQuoteRequest, context: object) -> pb.GetQuoteResponse:
        await go_on.wait()
        return pb.GetQuoteResponse(book_id=request.book_id, quote=quote())

    async with fake_seller(GetQuote=slow) as fake:
        seller = registered("acme", fake.endpoint)
        under_way = asyncio.create_task(ask(transport, seller))
        await fake.arrived.wait()
        transport.retain([replace(seller, state=SellerState.DISABLED)])
        assert len(transport._connections) == 0
        go_on.set()
        assert isinstance(await under_way, Quote)
        # Should it come back, it gets a new channel.
        transport.retain([seller])
        assert isinstance(await ask(transport, seller), Quote)


async def test_draining_sellers_and_those_at_the_same_address_keep_their_channel(
    transport: SellerTransport,
) -> None:
    async with fake_seller(GetQuote=quotes()) as fake:
        seller = registered("acme", fake.endpoint)
        await ask(transport, seller)
        link = transport._connections.link(seller)
        transport.retain([replace(seller, state=SellerState.DRAINING)])
        transport.retain([registered("beta", fake.endpoint)])
        assert transport._connections.link(seller) is link


async def test_calls_are_counted_by_how_they_end(
    transport: SellerTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = Measures()
    monkeypatch.setattr(transport_module, "_calls", measures.meter.create_counter("calls"))
    async with fake_seller(GetQuote=fail_with(grpc.StatusCode.INTERNAL)) as fake:
        await ask(transport, registered("acme", fake.endpoint))
    async with fake_seller(GetQuote=fail_with(grpc.StatusCode.NOT_FOUND)) as fake:
        await ask(transport, registered("acme", fake.endpoint))
    assert measures.seen() == {
        ("calls", "seller_error", "GetQuote"): 1,
        ("calls", "not_found", "GetQuote"): 1,
    }
