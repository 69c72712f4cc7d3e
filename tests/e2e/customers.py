"""Customers of a running mesh: the same calls over REST and over gRPC, with the same answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from bookmesh.customer.v1 import customer_pb2 as pb
from mesh.grpc.errors import from_rpc
from tests.e2e.waiting import eventually

if TYPE_CHECKING:
    from bookmesh.customer.v1.customer_pb2_grpc import (
        PurchaseServiceAsyncStub,
        QuoteServiceAsyncStub,
    )

PATH = "/api/v1/purchase-requests"
FINAL_WITHIN_S = 20.0
"""What Bookmesh promises."""

PERSISTS_FOR_S = 60.0
SHOULD_BE_SO_WITHIN_S = 60.0
"""For what comes in a moment, unless the machine stands still."""

Json = dict[str, Any]

_HTTP_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "FAILED_PRECONDITION": 402,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
BUSY = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
"""What a mesh that is out of order, or has too much to do, may answer."""

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@dataclass(eq=False)
class Refused(Exception):
    """An error, the same over REST and gRPC."""

    code: str
    message: str
    reason: str = ""
    fields: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


class Customer(Protocol):
    """What a customer can do; answers are as REST has them."""

    async def create(self, body: Json, key: str | None = None) -> Json: ...

    async def get(self, request_id: str) -> Json: ...

    async def page(self, size: int = 0, token: str = "", **wanted: object) -> Json: ...

    async def compare(self, book_id: str, **wanted: object) -> Json: ...

    def stream_prices(self, book_id: str, **wanted: object) -> AsyncIterator[Json]: ...

    def watch(self, request_id: str) -> AsyncIterator[Json]: ...


class Rest:
    """A customer who uses REST."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def create(self, body: Json, key: str | None = None) -> Json:
        headers = {} if key is None else {"idempotency-key": key}
        response = await self.client.post(PATH, json=body, headers=headers)
        answer = _read(response, expected=202)
        assert response.headers["location"] == answer["status_url"]
        return answer

    async def get(self, request_id: str) -> Json:
        return _read(await self.client.get(f"{PATH}/{request_id}"))

    async def page(self, size: int = 0, token: str = "", **wanted: object) -> Json:
        query: Any = {"page_size": size, "page_token": token, **wanted}
        return _read(await self.client.get(PATH, params=query))

    async def compare(self, book_id: str, **wanted: object) -> Json:
        query: Any = wanted
        return _read(await self.client.get(f"{_prices(book_id)}", params=query))

    async def stream_prices(self, book_id: str, **wanted: object) -> AsyncIterator[Json]:
        async for line in self._lines(f"{_prices(book_id)}:stream", wanted):
            yield line

    async def watch(self, request_id: str) -> AsyncIterator[Json]:
        async for line in self._lines(f"{PATH}/{request_id}:watch", {}):
            yield line

    async def _lines(self, path: str, query: Any) -> AsyncIterator[Json]:  # noqa: ANN401  httpx takes much
        async with self.client.stream("GET", path, params=query, timeout=None) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _read(response)
            async for line in response.aiter_lines():
                yield json.loads(line)


class Grpc:
    """A customer who uses gRPC."""

    def __init__(
        self,
        stub: PurchaseServiceAsyncStub,
        token: str,
        quotes: QuoteServiceAsyncStub | None = None,
    ) -> None:
        """Use stubs; without ``quotes`` no prices can be compared."""
        self.stub = stub
        self._quotes = quotes
        self.metadata: tuple[tuple[str, str], ...] = (
            (("authorization", f"Bearer {token}"),) if token else ()
        )

    async def create(self, body: Json, key: str | None = None) -> Json:
        request = ParseDict(body, pb.CreatePurchaseRequestRequest())
        more = () if key is None else (("idempotency-key", key),)
        return await _called(
            self.stub.CreatePurchaseRequest(request, metadata=self.metadata + more)
        )

    async def get(self, request_id: str) -> Json:
        request = pb.GetPurchaseRequestRequest(request_id=request_id)
        return await _called(self.stub.GetPurchaseRequest(request, metadata=self.metadata))

    async def page(self, size: int = 0, token: str = "", **wanted: object) -> Json:
        request = ParseDict(
            {"page_size": size, "page_token": token, **wanted}, pb.ListPurchaseRequestsRequest()
        )
        return await _called(self.stub.ListPurchaseRequests(request, metadata=self.metadata))

    async def compare(self, book_id: str, **wanted: object) -> Json:
        request = ParseDict({"book_id": book_id, **wanted}, pb.ListQuotesRequest())
        return await _called(self.quotes.ListQuotes(request, metadata=self.metadata))

    @property
    def quotes(self) -> QuoteServiceAsyncStub:
        assert self._quotes is not None
        return self._quotes

    async def stream_prices(self, book_id: str, **wanted: object) -> AsyncIterator[Json]:
        request = ParseDict({"book_id": book_id, **wanted}, pb.StreamQuotesRequest())
        try:
            async for event in self.quotes.StreamQuotes(request, metadata=self.metadata):
                yield _shown(event)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from error

    async def watch(self, request_id: str) -> AsyncIterator[Json]:
        request = pb.WatchPurchaseRequestRequest(request_id=request_id)
        try:
            async for event in self.stub.WatchPurchaseRequest(request, metadata=self.metadata):
                yield _shown(event)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from error


async def ask(customer: Customer, book_id: str) -> str:
    """Ask for a book, for at most 29.99; give the request id."""
    wish: Json = {"book_id": book_id, "max_price": 29.99, "payment_token": "tok_ok"}
    return str((await customer.create(wish))["request_id"])


async def final(customer: Customer, request_id: str) -> Json:
    """Give the final answer, for which a customer waits no longer than was promised."""

    async def answer() -> Json | None:
        current = await customer.get(request_id)
        return None if current["status"] == "pending" else current

    return await eventually(answer, FINAL_WITHIN_S)


async def buy(customer: Customer, book_id: str, max_price: float = 29.99, **more: object) -> Json:
    """Ask for a book and give the final answer, without the request id, which is checked here."""
    body = {"book_id": book_id, "max_price": max_price, "payment_token": "tok_ok", **more}
    request_id = (await customer.create(body))["request_id"]
    answer = await final(customer, request_id)
    assert answer.pop("request_id") == request_id
    return answer


async def all_answer(customer: Customer, book_id: str) -> None:
    """Wait until every seller answers: one that another test had made dead is left alone for half a minute."""

    async def answered() -> bool | None:
        summary = (await customer.compare(book_id))["summary"]
        return summary["answered"] == summary["sellers"] or None

    await eventually(answered, SHOULD_BE_SO_WITHIN_S)


async def persisting(call: Callable[[], Awaitable[Json | None]]) -> Json:
    """Call again while there is no answer, and while the mesh or the way to it is out of order.

    For calls that are safe to repeat.
    """

    async def answer() -> Json | None:
        try:
            return await call()
        except httpx.TransportError:
            return None
        except Refused as refused:
            # The second is what gRPC calls a stream through Envoy whose gateway has died.
            if refused.code in BUSY or "RST_STREAM" in refused.message:
                return None
            raise

    return await eventually(answer, PERSISTS_FOR_S)


async def refusal(
    customer: Customer, body: Json, key: Callable[[], str | None] = lambda: None
) -> Refused:
    """Give how a wish is refused because of its card.

    Asked again while it is taken: on a slow machine the provider may answer later than the customer waits, and a wish
    whose card is refused then was accepted, and fails. ``key`` gives another one each time.
    """

    async def refused() -> Refused | None:
        try:
            created = await customer.create(body, key())
        except Refused as caught:
            return None if caught.code in BUSY else caught
        assert (await final(customer, created["request_id"]))["status"] == "failed"
        return None

    return await eventually(refused, SHOULD_BE_SO_WITHIN_S)


def _prices(book_id: str) -> str:
    return f"/api/v1/books/{quote(book_id, safe='')}/quotes"


def _read(response: httpx.Response, expected: int = 200) -> Json:
    answer: Json = response.json()
    if response.status_code == expected:
        return answer
    code = _CODES[answer["code"]]
    assert response.status_code == _HTTP_STATUSES[code]
    details = {detail["@type"]: detail for detail in answer["details"]}
    violations = details.get(_BAD_REQUEST, {}).get("field_violations", [])
    info = details.get(_ERROR_INFO, {})
    raise Refused(
        code,
        answer["message"],
        info.get("reason", ""),
        tuple(violation["field"] for violation in violations),
        info.get("metadata", {}),
    )


async def _called(call: Awaitable[Message]) -> Json:
    try:
        return _shown(await call)
    except grpc.aio.AioRpcError as error:
        raise _refused(error) from error


def _refused(rpc_error: grpc.aio.AioRpcError) -> Refused:
    error = from_rpc(rpc_error)
    fields = tuple(violation.field for violation in error.fields)
    return Refused(rpc_error.code().name, error.message, error.reason, fields, error.metadata)


def _shown(message: Message) -> Json:
    shown: Json = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return shown
