"""The REST listener: JSON to gRPC and back, and every refusal as a google.rpc.Status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.api import httpbody_pb2
from google.protobuf import descriptor_pb2, json_format

from bookmesh.customer.v1 import customer_pb2, customer_pb2_grpc
from deploy.envoy.settings import EdgeSettings
from deploy.local.keys import AUDIENCE, ISSUER
from mesh.clock import SystemClock
from tests.integration.envoy.conftest import PATH, SERVICE, Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

DESCRIPTOR_SET = Path(EdgeSettings.model_fields["edge_descriptor_file"].default).read_bytes()
OTHER_SCOPES = ["", "operator", "customers", "operator internals", "xcustomer", "customer:read"]
BODY = {"book_id": "isbn-978-0134685991", "max_price": 29.99, "payment_token": "tok_abc123"}


def reason(response: httpx.Response) -> str:
    """Check that an answer is a google.rpc.Status; give the reason of its ErrorInfo."""
    assert response.headers["content-type"] == "application/json"
    status = response.json()
    assert set(status) == {"code", "message", "details"}
    info = status["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "bookmesh"
    return str(info["reason"])


def violations(response: httpx.Response) -> list[str]:
    """Give the fields that the BadRequest of an answer names."""
    return [
        violation["field"]
        for detail in response.json()["details"]
        if detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
        for violation in detail["field_violations"]
    ]


async def test_a_purchase_is_accepted_with_202_and_a_location(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.post(PATH, json=BODY, headers={"idempotency-key": "k"})
    assert response.status_code == 202
    assert response.headers["location"] == f"{PATH}/r1"
    assert response.json() == {
        "request_id": "r1",
        "status": "pending",
        "status_url": f"{PATH}/r1",
    }
    call = envoy.calls[-1]
    assert call.request == customer_pb2.CreatePurchaseRequestRequest(
        book_id="isbn-978-0134685991", max_price=29.99, payment_token="tok_abc123"
    )
    assert call.metadata["idempotency-key"] == "k"
    assert call.metadata["authorization"].startswith("Bearer ")
    assert not [
        name for name in response.headers if name.startswith(("grpc-", "x-envoy", "x-http"))
    ]


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/x-www-form-urlencoded",
    ],
)
async def test_a_body_need_not_say_that_it_is_json(envoy: Edge, content_type: str) -> None:
    """Above all since curl says of any body that it is a form."""
    async with envoy.client() as client:
        response = await client.post(
            PATH,
            content=json.dumps(BODY),
            headers={"content-type": content_type} if content_type else {},
        )
    assert response.status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "json",
    ],
)
async def test_a_body_that_says_that_it_is_something_else_is_415(
    envoy: Edge, content_type: str
) -> None:
    async with envoy.client() as client:
        response = await client.post(
            PATH, content=json.dumps(BODY), headers={"content-type": content_type}
        )
    assert (response.status_code, reason(response)) == (415, "CONTENT_TYPE_UNSUPPORTED")


@pytest.mark.parametrize(
    "query",
    ["max_price=5", "payment_token=tok_secret", "max%5fprice=5", "%22=1&book_id=x", "book_id"],
)
async def test_a_field_in_the_query_of_a_post_is_refused(envoy: Edge, query: str) -> None:
    before = len(envoy.calls)
    async with envoy.client() as client:
        response = await client.post(f"{PATH}?{query}", json=BODY)
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == [
        "book_id" if "book" in query else "payment_token" if "token" in query else "max_price"
    ]
    assert "tok_secret" not in response.text
    assert len(envoy.calls) == before


async def test_no_error_has_details_that_are_not_set(envoy: Edge) -> None:
    async with envoy.client() as client:
        wrong = await client.post(PATH, json={**BODY, "payment_token": "tok_wrong_field"})
    assert wrong.json()["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "INVALID_ARGUMENT",
            "domain": "bookmesh",
        },
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "field_violations": [
                {"field": "max_price", "description": 'is "reason":"" and ,"metadata":{}'}
            ],
        },
    ]


async def test_the_gateway_can_answer_402_with_details(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.post(PATH, json={**BODY, "payment_token": "tok_declined"})
    assert response.status_code == 402
    assert response.json() == {
        "code": 9,
        "message": "the gateway says why",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "CARD_DECLINED",
                "domain": "bookmesh",
                "metadata": {"request_id": "r1"},
            }
        ],
    }


async def test_what_fails_after_it_was_announced_as_accepted_is_not_accepted(envoy: Edge) -> None:
    """A gateway that dies, or whose time is up, between its headers and its answer."""
    async with envoy.client() as client:
        response = await client.post(PATH, json={**BODY, "payment_token": "tok_cut_off"})
    assert (response.status_code, reason(response)) == (503, "UNAVAILABLE")
    assert "location" not in response.headers


async def test_an_answer_that_is_no_http_is_503(envoy: Edge) -> None:
    """To Envoy this is 502, which no customer need tell from a gateway that is gone."""
    async with envoy.client() as client:
        response = await client.post(PATH, json={**BODY, "payment_token": "tok_garbled"})
    assert (response.status_code, reason(response)) == (503, "UNAVAILABLE")
    assert response.headers["retry-after"] == "1"


async def test_an_error_of_the_gateway_keeps_its_details(envoy: Edge) -> None:
    async with envoy.client() as client:
        wrong = await client.post(PATH, json={**BODY, "payment_token": "tok_wrong"})
        unknown = await client.get(f"{PATH}/unknown")
        unknown_stream = await client.get(f"{PATH}/unknown:watch")
    assert (wrong.status_code, reason(wrong)) == (400, "INVALID_ARGUMENT")
    assert (unknown.status_code, reason(unknown)) == (404, "NOT_FOUND")
    assert (unknown_stream.status_code, reason(unknown_stream)) == (404, "NOT_FOUND")


async def test_a_purchase_request_is_read_as_it_is(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(f"{PATH}/r1")
    assert response.status_code == 200
    assert response.text == '{"request_id":"r1","status":"purchased","final_price":24.99}'


async def test_a_list_takes_its_query(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(PATH, params={"page_size": 5, "page_token": "a"})
    assert response.status_code == 200
    assert envoy.calls[-1].request == customer_pb2.ListPurchaseRequestsRequest(
        page_size=5, page_token="a"
    )


async def test_a_list_takes_filters(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(
            f"{PATH}?statuses=pending&statuses=failed&book_id=a%20b+c%2B"
            "&created_after=2026-01-01T00:00:00Z&created_before=2026-02-01T00:00:00.5%2B01:00"
        )
        wrong = await client.get(PATH, params={"created_after": "yesterday"})
        unknown = await client.get(PATH, params={"statuses": "lost"})
    assert response.status_code == 200
    request = envoy.calls[-1].request
    assert isinstance(request, customer_pb2.ListPurchaseRequestsRequest)
    assert request.statuses == [
        customer_pb2.PurchaseStatus.pending,
        customer_pb2.PurchaseStatus.failed,
    ]
    assert request.book_id == "a b c+"
    assert request.created_after.ToJsonString() == "2026-01-01T00:00:00Z"
    assert request.created_before.ToJsonString() == "2026-01-31T23:00:00.500Z"
    assert (wrong.status_code, reason(wrong)) == (400, "INVALID_ARGUMENT")
    assert violations(wrong) == ["created_after"]
    assert violations(unknown) == ["statuses"]


@pytest.mark.parametrize(
    ("path", "book_id"),
    [
        ("9780134685991", "9780134685991"),
        ("0-13-468599-7", "0-13-468599-7"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("a%3Ab%3Fc%23d%26e%3Df", "a:b?c#d&e=f"),
        ("a:b", "a:b"),
        ("%2541", "%41"),
        ("%E6%9C%AC", "\u672c"),
        ("quotes", "quotes"),
        ("x%00y", None),
        ("a%2Fb", None),
        ("a%5Cb", None),
        ("%2e%2e", None),
        ("..", None),
        ("", None),
        ("%", None),
        ("%zz", None),
    ],
)
@pytest.mark.parametrize("form", ["", ":stream", ":events"])
async def test_a_path_names_the_book_that_it_says_or_none(
    envoy: Edge, path: str, book_id: str | None, form: str
) -> None:
    envoy.go_on.set()
    before = len(envoy.calls)
    async with envoy.client() as client:
        # As it is: httpx would tidy it up.
        url = httpx.URL(envoy.rest_url).copy_with(
            raw_path=f"/api/v1/books/{path}/quotes{form}".encode()
        )
        response = await client.get(url)
    if book_id is None:
        assert response.status_code in {400, 404}, response.text
        assert reason(response) in {"INVALID_ARGUMENT", "NOT_FOUND"}
        assert len(envoy.calls) == before
    else:
        assert response.status_code == 200, response.text
        asked: Any = envoy.calls[-1].request
        assert asked.book_id == book_id


@pytest.mark.parametrize("path", [f"{PATH}/r1:events", "/api/v1/books/b/quotes:events"])
async def test_server_sent_events_come_one_by_one_and_end_with_204(envoy: Edge, path: str) -> None:
    envoy.go_on.clear()
    async with envoy.client() as client:
        async with client.stream("GET", path) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-store"
            parts = response.aiter_text()
            assert await anext(parts) == "id: 1\ndata: {}\n\n"
            envoy.go_on.set()
            assert "".join([part async for part in parts]) == "id: 2\ndata: {}\n\n"
        over = await client.get(path, headers={"last-event-id": "end"})
    assert (over.status_code, over.content) == (204, b"")
    assert "content-type" not in over.headers
    assert envoy.calls[-1].metadata["x-envoy-original-method"] == "GET"


async def test_a_comparison_streams_lines(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get("/api/v1/books/b/quotes:stream", params={"max_wait_ms": 9})
        posted = await client.post("/api/v1/books/b/quotes")
    assert response.headers["content-type"] == "application/x-ndjson"
    assert json.loads(response.text)["summary"]["sellers"] == 1
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
    remaining_s = envoy.calls[-1].time_remaining_s
    assert remaining_s is not None
    # Others have 5 s.
    assert 5 < remaining_s <= 12


async def test_a_watch_streams_lines_as_they_come_for_an_hour_at_most(envoy: Edge) -> None:
    envoy.go_on.clear()
    async with envoy.client() as client, client.stream("GET", f"{PATH}/r1:watch") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.aiter_lines()
        assert json.loads(await anext(lines)) == {"event_id": "1"}
        envoy.go_on.set()
        assert [json.loads(line) async for line in lines] == [{"event_id": "2"}]
    remaining_s = envoy.calls[-1].time_remaining_s
    assert remaining_s is not None
    assert 3000 < remaining_s <= 3600


async def test_a_watch_that_breaks_off_says_so_in_its_last_line(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(f"{PATH}/broken:watch")
    assert response.status_code == 200
    *_, last = [json.loads(line) for line in response.text.splitlines()]
    assert last["error"] == {
        "code": 14,
        "message": "try again",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "UNAVAILABLE",
                "domain": "bookmesh",
                "metadata": {"last_event_id": "1"},
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"},
        ],
    }


async def test_a_call_has_a_deadline_that_the_customer_cannot_move(envoy: Edge) -> None:
    async with envoy.client() as client:
        await client.get(f"{PATH}/r1", headers={"grpc-timeout": "1H"})
    remaining_s = envoy.calls[-1].time_remaining_s
    assert remaining_s is not None
    assert remaining_s <= 5


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("max_price", "abc", '"abc" is not a number'),
        ("max_price", True, "true is not a number"),
        ("max_price", {}, "must not be an object"),
        ("conditions", ["new", "shiny"], '"shiny" is not one of its words'),
    ],
)
async def test_a_value_of_the_wrong_kind_is_400_and_named(
    envoy: Edge, name: str, value: object, why: str
) -> None:
    async with envoy.client() as client:
        response = await client.post(PATH, json={**BODY, name: value})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == [name]
    assert response.json()["message"] == f"{name}: {why}"


@pytest.mark.parametrize("name", ["nope", "no%22pe%5C", "%25s"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_query_parameter_is_400_and_named(
    envoy: Edge, method: str, name: str
) -> None:
    async with envoy.client() as client:
        response = await client.request(
            method, f"{PATH}?{name}=1", json=BODY if method == "POST" else None
        )
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == [name]


async def test_a_query_parameter_of_the_wrong_kind_is_400_and_named(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(PATH, params={"page_size": "many"})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == ["page_size"]


@pytest.mark.parametrize(
    "content",
    [
        "hello",
        "[1]",
        '{"payment_token": "tok_secret", ',
        '{"payment_token": "tok_secret", "max_price": 1e999}',
        '{"payment_token": "tok_secret", "max_price": NaN}',
        '{"payment_token": "tok_secret" "}]"',
        '{"book_id": ["tok_secret"]}',
        b'{"payment_token": "\xfftok_secret"}',
    ],
)
async def test_a_body_that_does_not_fit_is_400_and_not_repeated(
    envoy: Edge, content: str | bytes
) -> None:
    async with envoy.client() as client:
        response = await client.post(PATH, content=content)
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert "the body does not fit" in response.json()["message"]
    assert "tok_secret" not in response.text


async def test_no_body_reaches_the_gateway_as_an_empty_request(envoy: Edge) -> None:
    async with envoy.client() as client:
        await client.post(PATH)
    assert envoy.calls[-1].request == customer_pb2.CreatePurchaseRequestRequest()


async def test_a_body_that_is_too_large_is_413(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.post(PATH, json={**BODY, "book_id": "9" * 70_000})
    assert (response.status_code, reason(response)) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(("size", "status"), [(65_536, 202), (65_537, 413), (110_000, 413)])
async def test_a_body_is_counted_as_a_whole_although_it_comes_in_pieces(
    envoy: Edge, size: int, status: int
) -> None:
    body = json.dumps(BODY).encode().ljust(size)

    async with envoy.client() as client, envoy.client() as other:

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:50_000]
            # By the time that this is answered, Envoy has read the first piece.
            await other.get(f"{PATH}/r1")
            yield body[50_000:]

        response = await client.post(PATH, content=pieces())
    assert response.status_code == status, response.text
    if status != httpx.codes.ACCEPTED:
        assert reason(response) == "BODY_TOO_LARGE"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{PATH}/r1?request_id=r2", "request_id"),
        (f"{PATH}/r1?requestId=r2", "requestId"),
        (f"{PATH}/r1?page=1&request%5Fid=r2", "request_id"),
        (f"{PATH}/r1:watch?request_id=r2", "request_id"),
        (f"{PATH}/r1:events?request_id=r2", "request_id"),
        ("/api/v1/books/b1/quotes?book_id=b2", "book_id"),
        ("/api/v1/books/b1/quotes:stream?book_id=b2", "book_id"),
    ],
)
async def test_the_query_never_names_another_than_the_path(
    envoy: Edge, path: str, name: str
) -> None:
    before = len(envoy.calls)
    async with envoy.client() as client:
        response = await client.get(path)
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == [name]
    assert len(envoy.calls) == before


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("page_size=1&page_size=2", "page_size"),
        ("page_size=1&pageSize=2", "pageSize"),
        ("book_id=a&statuses=failed&book_id=a", "book_id"),
    ],
)
async def test_a_query_says_a_thing_once(envoy: Edge, query: str, name: str) -> None:
    async with envoy.client() as client:
        response = await client.get(f"{PATH}?{query}")
        several = await client.get(f"{PATH}?statuses=failed&statuses=purchased&page_size=2")
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == [name]
    assert several.status_code == 200


async def test_what_is_no_time_is_400_and_named(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(PATH, params={"created_after": "yesterday"})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert violations(response) == ["created_after"]
    assert response.json()["message"] == (
        "created_after: must be a time such as 2026-01-01T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("head", "status", "why"),
    [
        (b"GET /docs HTTP/1.0\r\n", 426, "HTTP_VERSION_UNSUPPORTED"),
        (
            b"GET /docs HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
            400,
            "INVALID_ARGUMENT",
        ),
        (b"POST /docs HTTP/1.1\r\ntransfer-encoding: rot13\r\n", 501, "UNIMPLEMENTED"),
    ],
    ids=["http/1.0", "websocket", "encoding"],
)
async def test_what_no_program_should_send_is_told_so_in_the_same_form(
    envoy: Edge, head: bytes, status: int, why: str
) -> None:
    host, _, port = envoy.rest_url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + b"host: bookmesh\r\n\r\n")
    answered = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(answered.lower().partition("content-length: ")[2].partition("\r\n")[0])
    told = json.loads(await reader.readexactly(length))
    writer.close()
    await writer.wait_closed()
    assert int(answered.split()[1]) == status
    assert told["details"][0]["reason"] == why
    assert told["message"]
    assert "token" not in told["message"]


async def test_grpc_at_the_port_of_rest_is_told_where_it_is(envoy: Edge) -> None:
    metadata = (("authorization", f"Bearer {envoy.token()}"),)
    address = envoy.rest_url.removeprefix("http://")
    async with grpc.aio.insecure_channel(address) as channel:
        stub = customer_pb2_grpc.PurchaseServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListPurchaseRequests(
                customer_pb2.ListPurchaseRequestsRequest(), metadata=metadata
            )
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert refused.value.details() == "this port has the REST API: gRPC has another"


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/nothing", f"{PATH}/r1:dance", f"{PATH}/r1/more", f"{PATH}/", "/status"]
)
async def test_an_unknown_path_is_404(envoy: Edge, path: str) -> None:
    async with envoy.client() as client:
        response = await client.get(path)
    assert (response.status_code, reason(response)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", PATH, "GET, POST"),
        ("POST", f"{PATH}/r1", "GET"),
        ("PUT", f"{PATH}/r1:watch", "GET"),
    ],
)
async def test_a_wrong_method_is_405(envoy: Edge, method: str, path: str, allow: str) -> None:
    async with envoy.client() as client:
        response = await client.request(method, path)
    assert (response.status_code, reason(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(("path", "allow"), [(PATH, "GET, POST"), (f"{PATH}/r1", "GET")])
async def test_head_and_options_are_no_methods_of_a_resource(
    envoy: Edge, path: str, allow: str
) -> None:
    async with envoy.client() as client:
        head, options = await client.head(path), await client.options(path)
    assert (head.status_code, head.headers["allow"], head.content) == (405, allow, b"")
    assert head.headers["content-type"] == "application/json"
    assert (options.status_code, options.headers["allow"]) == (405, allow)
    assert reason(options) == "METHOD_NOT_ALLOWED"


async def test_a_cancel_and_an_accepted_offer_are_posts(envoy: Edge) -> None:
    async with envoy.client() as client:
        cancelled = await client.post(f"{PATH}/r1:cancel")
        accepted = await client.post(f"{PATH}/r1:accept-offer", json={"payment_token": "tok_b"})
        got = await client.get(f"{PATH}/r1:cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"{PATH}/r2"
    assert accepted.json() == {
        "request_id": "r2",
        "status": "pending",
        "status_url": f"{PATH}/r2",
    }
    assert (got.status_code, got.headers["allow"]) == (405, "POST")


async def test_an_event_of_the_payment_provider_comes_through_as_it_is_and_needs_no_token(
    envoy: Edge,
) -> None:
    payload = b'{ "id": "evt_1",\n "data": {"object": {}} }'
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        response = await client.post(
            "/api/v1/payment-events",
            content=payload,
            headers={"stripe-signature": "t=1,v1=abc", "content-type": "application/json"},
        )
        got = await client.get("/api/v1/payment-events")
        other = await client.get(PATH)
    assert (response.status_code, response.json()) == (200, {})
    call = envoy.calls[-1]
    assert isinstance(call.request, httpbody_pb2.HttpBody)
    assert call.request.data == payload
    assert call.metadata["stripe-signature"] == "t=1,v1=abc"
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert other.status_code == 401


async def test_a_malformed_request_is_400(envoy: Edge) -> None:
    async with envoy.client() as client:
        slash = await client.get(f"{PATH}/a%2fb")
        underscore = await client.get(PATH, headers={"a_b": "c"})
    assert (slash.status_code, reason(slash)) == (400, "INVALID_ARGUMENT")
    assert (underscore.status_code, reason(underscore)) == (400, "INVALID_ARGUMENT")


async def test_headers_that_are_too_large_are_431(envoy: Edge) -> None:
    async with envoy.client() as client:
        response = await client.get(PATH, headers={"x": "a" * 70_000})
    assert (response.status_code, reason(response)) == (431, "HEADERS_TOO_LARGE")


def signed(
    claims: dict[str, object],
    key: str | ec.EllipticCurvePrivateKey = "",
    algorithm: str = "ES256",
) -> str:
    """Sign other claims, or with another key, than the issuer would."""
    now = SystemClock().now()
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + timedelta(minutes=5)}
    return jwt.encode({**good, **claims}, key, algorithm=algorithm, headers={"kid": "development"})


async def test_only_a_good_token_gets_in(envoy: Edge) -> None:
    key = envoy.data.issuer_key.read_text()
    now = SystemClock().now()
    bad = {
        "no token": "",
        "not a token": "Bearer abc",
        "expired": f"Bearer {signed({'exp': now - timedelta(minutes=5)}, key)}",
        "without an end": f"Bearer {jwt.encode({'iss': ISSUER, 'aud': AUDIENCE}, key, 'ES256')}",
        "another issuer": f"Bearer {signed({'iss': 'somebody'}, key)}",
        "another audience": f"Bearer {signed({'aud': 'elsewhere'}, key)}",
        "another key": f"Bearer {signed({}, ec.generate_private_key(ec.SECP256R1()))}",
        "no signature": f"Bearer {signed({}, algorithm='none')}",
        "another scheme": f"Basic {signed({}, key)}",
    }
    before = len(envoy.calls)
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        words = {
            "no token": "TOKEN_MISSING",
            "another scheme": "TOKEN_MISSING",
            "expired": "TOKEN_EXPIRED",
        }
        for what, authorization in bad.items():
            response = await client.post(PATH, json=BODY, headers={"authorization": authorization})
            word = words.get(what, "TOKEN_INVALID")
            assert (response.status_code, reason(response)) == (401, word), what
        good = await client.get(PATH, headers={"authorization": f"Bearer {signed({}, key)}"})
    assert good.status_code == 200
    assert len(envoy.calls) == before + 1


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_word_before_a_token_may_be_in_any_case(envoy: Edge, scheme: str) -> None:
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        response = await client.get(PATH, headers={"authorization": f"{scheme} {envoy.token()}"})
    assert response.status_code == 200


@pytest.mark.parametrize("scope", [None, "customer", "internal", "openid customer", "customer a"])
async def test_a_token_that_is_for_customers_or_says_nothing_of_it_gets_in(
    envoy: Edge, scope: str | None
) -> None:
    claims: dict[str, object] = {} if scope is None else {"scope": scope}
    token = signed(claims, envoy.data.issuer_key.read_text())
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        response = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 200


@pytest.mark.parametrize("scope", OTHER_SCOPES)
async def test_a_token_for_something_else_is_403(envoy: Edge, scope: str) -> None:
    before = len(envoy.calls)
    token = signed({"scope": scope}, envoy.data.issuer_key.read_text())
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        response = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
    assert (response.status_code, reason(response)) == (403, "SCOPE_MISSING")
    assert response.json()["code"] == 7
    assert len(envoy.calls) == before


async def test_headers_that_claim_an_identity_or_change_the_routing_are_dropped(
    envoy: Edge,
) -> None:
    forged = {
        "x-customer-id": "mallory",
        "x-jwt-payload": "mallory",
        "x-jwt-sub": "mallory",
        "x-envoy-max-retries": "9",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    async with envoy.client() as client:
        response = await client.get(PATH, headers=forged)
    assert response.status_code == 200
    assert not forged.keys() & envoy.calls[-1].metadata.keys()


@pytest.mark.parametrize(
    "header",
    ["a&b", "x~trace", "it's", "x-tags-bin", "grpc-trace-bin", "grpc-previous-rpc-attempts"],
)
async def test_what_grpc_has_no_form_for_is_left_behind(envoy: Edge, header: str) -> None:
    """HTTP allows such names, and a gRPC server fails with them."""
    async with envoy.client() as client:
        response = await client.get(PATH, headers={header: "!", "x-other.one": "kept"})
    assert response.status_code == 200
    metadata = envoy.calls[-1].metadata
    assert header not in metadata
    assert metadata["x-other.one"] == "kept"


async def test_the_log_has_the_trace_of_the_call_and_no_query(envoy: Edge) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with envoy.client() as client:
        await client.post(
            f"{PATH}?payment_token=tok_secret",
            json=BODY,
            headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
        )
    [line] = await envoy.log_lines(lambda line: line.get("trace_id") == trace_id)
    assert line["path"] == PATH
    assert line["status"] == 400
    assert "tok_secret" not in envoy.data.log("envoy").read_text()


async def test_every_binding_of_the_contract_has_a_route(envoy: Edge) -> None:
    """A new RPC with a google.api.http binding needs a route in envoy.yaml."""
    described = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET)
    services = [
        service
        for proto in described.file
        for service in proto.service
        if f"{proto.package}.{service.name}" in {SERVICE, "bookmesh.customer.v1.QuoteService"}
    ]
    assert len(services) == 2
    envoy.go_on.set()
    async with envoy.client() as client:
        for method in [method for service in services for method in service.method]:
            rule = json_format.MessageToDict(method.options)["[google.api.http]"]
            [verb] = rule.keys() & {"get", "put", "post", "delete", "patch"}
            path = rule[verb].replace("{request_id}", "r1").replace("{book_id}", "b")
            response = await client.request(verb.upper(), path)
            assert response.status_code in {200, 202}, f"{method.name}: {response.text}"
