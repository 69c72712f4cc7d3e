"""The client library: keys, retries, resumed watches, deadlines and errors, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import grpc
import pytest
import trustme

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc as pb_grpc
from bookmesh_client import (
    BookmeshError,
    Client,
    InvalidArgument,
    NotFound,
    NotPossible,
    PaymentRefused,
    PurchaseStatus,
    TooMany,
    Unauthorized,
    Unavailable,
)
from mesh import errors
from mesh.errors import FieldViolation, MeshError
from tests.fakes.front import REQUEST_ID, TOKEN, Front, ended, fronted
from tests.fakes.proxy import proxy


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with fronted() as front:
        yield front


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    async with Client(front.address, TOKEN) as client:
        yield client


async def test_buys_and_waits_for_the_outcome(front: Front, client: Client) -> None:
    purchase = await client.buy(
        "978-0134685991",
        max_price=Decimal("29.99"),
        payment_token="tok_x",
        conditions=["new", "like_new"],
    )
    assert (purchase.status, purchase.final_price) == (PurchaseStatus.purchased, 24.99)
    assert front.asked[0] == pb.CreatePurchaseRequestRequest(
        book_id="978-0134685991",
        max_price=29.99,
        payment_token="tok_x",
        conditions=[pb.BookCondition.new, pb.BookCondition.like_new],
    )


async def test_a_submission_is_repeated_under_one_key_of_its_own(
    front: Front, client: Client
) -> None:
    front.errors = [errors.Unavailable("one"), errors.Unavailable("two")]
    await client.submit("x", max_price=1, payment_token="tok_x")
    await client.submit("x", max_price=1, payment_token="tok_x", idempotency_key=None)
    keys = [metadata["idempotency-key"] for metadata in front.metadata]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len(keys[0]) >= 20


async def test_a_key_of_the_callers_is_used(front: Front, client: Client) -> None:
    await client.submit("x", max_price=1, payment_token="tok_x", idempotency_key="mine")
    assert front.metadata[0]["idempotency-key"] == "mine"


async def test_what_was_refused_is_not_repeated(front: Front, client: Client) -> None:
    front.errors = [errors.ResourceExhausted("slowly", retry_after_s=2.5)]
    with pytest.raises(TooMany) as caught:
        await client.get(REQUEST_ID)
    assert caught.value.retry_after_s == 2.5
    assert len(front.asked) == 1


async def test_a_watch_that_is_cut_off_goes_on_where_it_was(front: Front, client: Client) -> None:
    front.cuts = 2
    events = [event.event_id async for event in client.watch(REQUEST_ID)]
    assert events == ["1", "2", "3", "4"]
    assert len(front.asked) == 3


async def test_a_watch_of_nothing_is_refused_at_once(front: Front, client: Client) -> None:
    front.errors = [errors.NotFound("no such request", reason="PURCHASE_REQUEST_NOT_FOUND")]
    with pytest.raises(NotFound):
        await anext(client.watch(REQUEST_ID))
    assert len(front.asked) == 1


async def test_waiting_ends_in_time_with_how_it_stands(front: Front, client: Client) -> None:
    front.open_end = True
    front.purchase = ended(PurchaseStatus.pending)
    purchase = await client.wait(REQUEST_ID, within_s=0.2)
    assert purchase.status == PurchaseStatus.pending


async def test_a_refused_card_is_an_outcome_of_buying(front: Front, client: Client) -> None:
    refused = errors.FailedPrecondition(
        "declined", reason="CARD_DECLINED", metadata={"request_id": REQUEST_ID}
    )
    front.errors = [refused, refused]
    with pytest.raises(PaymentRefused) as caught:
        await client.submit("x", max_price=1, payment_token="tok_x")
    assert (caught.value.reason, caught.value.request_id) == ("CARD_DECLINED", REQUEST_ID)
    front.purchase = ended(PurchaseStatus.failed, "card_declined")
    purchase = await client.buy("x", max_price=1, payment_token="tok_x")
    assert purchase.reason == pb.FailureReason.card_declined


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NotFound("x", reason="PURCHASE_REQUEST_NOT_FOUND"), NotFound),
        (errors.FailedPrecondition("x", reason="OFFER_EXPIRED"), NotPossible),
        (errors.AlreadyExists("x", reason="IDEMPOTENCY_KEY_REUSED"), NotPossible),
        (errors.PermissionDenied("x", reason="SCOPE_MISSING"), Unauthorized),
        (errors.Internal("x"), BookmeshError),
    ],
)
async def test_errors_have_a_kind_and_a_reason(
    front: Front, client: Client, error: MeshError, kind: type[BookmeshError]
) -> None:
    front.errors = [error]
    with pytest.raises(kind) as caught:
        await client.get(REQUEST_ID)
    assert type(caught.value) is kind
    assert caught.value.reason == error.reason
    assert str(caught.value) == "x"


async def test_an_error_names_the_fields_that_were_wrong(front: Front, client: Client) -> None:
    front.errors = [
        errors.InvalidArgument("wrong", fields=(FieldViolation("book_id", "has no digits"),))
    ]
    with pytest.raises(InvalidArgument) as caught:
        await client.submit("x", max_price=1, payment_token="tok_x")
    assert caught.value.fields == {"book_id": "has no digits"}


async def test_a_token_that_is_not_good_is_told_so(front: Front) -> None:
    async with Client(front.address, "another") as client:
        with pytest.raises(Unauthorized) as caught:
            await client.get(REQUEST_ID)
    assert caught.value.reason == "TOKEN_INVALID"


async def test_a_token_from_a_file_may_have_its_line_break(front: Front) -> None:
    async with Client(front.address, f"{TOKEN}\n") as client:
        assert (await client.get(REQUEST_ID)).request_id == REQUEST_ID


async def test_what_cannot_be_sent_is_refused_before(front: Front, client: Client) -> None:
    async with Client(front.address, "one\ntwo") as other:
        with pytest.raises(Unauthorized):
            await other.get(REQUEST_ID)
    with pytest.raises(InvalidArgument) as key:
        await client.submit("b", max_price=1, payment_token="tok_x", idempotency_key="k\u00e9y")
    with pytest.raises(InvalidArgument) as customer:
        await client.acting_for("jos\u00e9").get(REQUEST_ID)
    assert set(key.value.fields) == {"idempotency-key"}
    assert set(customer.value.fields) == {"on-behalf-of"}
    assert front.asked == []


async def test_a_call_has_a_deadline(front: Front) -> None:
    front.silent = True
    async with Client(front.address, TOKEN, timeout_s=0.2) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get(REQUEST_ID)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_connection_over_a_long_way_is_made_at_the_first_try(front: Front) -> None:
    async with proxy(int(front.address.rpartition(":")[2])) as slow:
        slow.hang()
        async with Client(f"127.0.0.1:{slow.port}", TOKEN) as client:
            asking = asyncio.create_task(client.get(REQUEST_ID))
            await asyncio.wait({asking}, timeout=1.0)
            slow.go_on()
            assert (await asking).request_id == REQUEST_ID
            assert slow.taken == 1


async def test_nobody_at_home_is_an_error_of_ours() -> None:
    async with Client("127.0.0.1:1", TOKEN) as client:
        with pytest.raises(Unavailable):
            await client.get(REQUEST_ID)


async def test_a_list_goes_through_all_pages(front: Front, client: Client) -> None:
    since = datetime(2026, 11, 1, tzinfo=UTC)
    found = [
        purchase.request_id
        async for purchase in client.list(statuses=["purchased"], created_after=since, page_size=2)
    ]
    assert found == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    [first, *_] = front.asked
    assert isinstance(first, pb.ListPurchaseRequestsRequest)
    assert list(first.statuses) == [PurchaseStatus.purchased]
    assert first.created_after.ToDatetime(UTC) == since


async def test_prices_are_compared_at_once_or_as_they_come(client: Client) -> None:
    quotes = (await client.quotes("9780134685991")).quotes
    assert [quote.seller_id for quote in quotes] == ["alpha"]
    events = [event async for event in client.stream_quotes("9780134685991")]
    assert events[0].quotes.quotes[0].total == 24.99
    assert events[-1].HasField("summary")


async def test_a_service_acts_for_a_customer_and_a_token_may_be_fresh_each_time(
    front: Front,
) -> None:
    tokens = iter([TOKEN, TOKEN])
    async with Client(front.address, lambda: next(tokens)) as client:
        await client.acting_for("alice").cancel(REQUEST_ID)
        await client.get(REQUEST_ID)
    assert front.metadata[0]["on-behalf-of"] == "alice"
    assert "on-behalf-of" not in front.metadata[1]


async def test_tls_with_roots_of_ones_own() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("api.bookmesh.example")
    key, chain = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    server = grpc.aio.server()
    pb_grpc.add_PurchaseServiceServicer_to_server(Front(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    roots = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    address, name = f"https://127.0.0.1:{port}", "api.bookmesh.example"
    async with Client(address, TOKEN, credentials=roots, server_name=name) as client:
        assert (await client.get(REQUEST_ID)).seller_id == "alpha"
    async with Client(address, TOKEN, server_name=name) as stranger:
        with pytest.raises(Unavailable):
            await stranger.get(REQUEST_ID)
    await server.stop(grace=None)


@pytest.mark.parametrize("address", ["", "ftp://x:1", "https://", "host:1/path", "host:abc"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"address|[Pp]ort"):
        Client(address, TOKEN)
