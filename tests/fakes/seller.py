"""A seller over real gRPC whose answers a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from google.type import money_pb2

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert
from mesh.money import Money
from sellers.model import Capabilities, Seller, SellerState

Behaviour = Callable[[Any, Any], Awaitable[Message | bytes]]
"""Answers a request, given the context of the call; bytes are sent as they are."""

MessageT = TypeVar("MessageT", bound=Message)

_SERVICE = pb.DESCRIPTOR.services_by_name["SellerService"]


class FakeSeller:
    """Answers with what it is told, UNIMPLEMENTED otherwise, and keeps what it was asked.

    Attributes:
        endpoint: where it listens.
        behaviours: what to do, by method.
        requests: what arrived, as (method, request, metadata).
        arrived: set when a call has arrived.
        cancelled: set when a caller has left a call that was being worked on.

    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, Message, dict[str, str | bytes]]] = []
        self.arrived = asyncio.Event()
        self.cancelled = asyncio.Event()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Give a handler for each method of the contract."""
        return {
            method.name: grpc.unary_unary_rpc_method_handler(
                partial(self._answer, method.name),
                request_deserializer=getattr(pb, method.input_type.name).FromString,
                response_serializer=_serialized,
            )
            for method in _SERVICE.methods
        }

    async def _answer(
        self, method: str, request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Message | bytes:
        self.requests.append((method, request, dict(context.invocation_metadata() or ())))
        self.arrived.set()
        behaviour = self.behaviours.get(method)
        if behaviour is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no behaviour for it")
        try:
            return await behaviour(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def _serialized(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


@asynccontextmanager
async def fake_seller(**behaviours: Behaviour) -> AsyncIterator[FakeSeller]:
    """Run a seller with these behaviours until the block ends."""
    seller = FakeSeller()
    seller.behaviours.update(behaviours)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE.full_name, seller.handlers()),)
    )
    seller.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield seller
    finally:
        await server.stop(None)


def quotes(total_minor: int = 2499) -> Behaviour:
    """Answer GetQuote with a good quote."""

    async def behaviour(request: pb.GetQuoteRequest, context: object) -> Message:
        return pb.GetQuoteResponse(book_id=request.book_id, quote=quote(total_minor))

    return behaviour


def one_by_one(behaviour: Behaviour) -> Behaviour:
    """Answer BatchGetQuotes with what this answers to each of its questions."""

    async def batch(request: pb.BatchGetQuotesRequest, context: object) -> Message:
        answers = [await behaviour(question, context) for question in request.requests]
        return pb.BatchGetQuotesResponse(
            responses=[answer for answer in answers if isinstance(answer, pb.GetQuoteResponse)]
        )

    return batch


def fail_with(
    code: grpc.StatusCode, details: str = "", *trailers: tuple[str, str | bytes]
) -> Behaviour:
    """Answer with a status."""

    async def behaviour(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        await context.abort(code, details, trailers)

    return behaviour


def says(answer: Message | bytes) -> Behaviour:
    """Answer with this, whatever was asked."""

    async def behaviour(request: object, context: object) -> Message | bytes:
        return answer

    return behaviour


async def hangs(request: object, context: object) -> Message:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


def money(minor: int, currency: str = "USD") -> money_pb2.Money:
    """Give the protobuf of an amount."""
    return convert.money_to_proto(Money(currency, minor))


def quote(total_minor: int = 2499) -> pb.Quote:
    """Give a good quote."""
    return pb.Quote(
        quote_id="quote-1",
        price=money(total_minor - 400),
        shipping=money(400),
        total=money(total_minor),
        condition=pb.CONDITION_NEW,
        quantity=3,
        expires_at=convert.timestamp(datetime.now(UTC) + timedelta(seconds=300)),
        valid_for=convert.duration(300),
    )


def changed(message: MessageT, **changes: object) -> MessageT:
    """Give a copy of a message with some fields changed; None clears a field."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in changes.items():
        copy.ClearField(name)
        if isinstance(value, Message):
            getattr(copy, name).CopyFrom(value)
        elif value is not None:
            setattr(copy, name, value)
    return copy


def registered(seller_id: str, endpoint: str) -> Seller:
    """Give an active seller that can do everything, with the credential reference ``test``."""
    return Seller(
        seller_id=seller_id,
        display_name=seller_id.title(),
        endpoint=endpoint,
        tls_roots="",
        credential_reference="test",
        capabilities=Capabilities(
            supports_holds=True,
            max_batch_size=100,
            currencies=("USD",),
            calls_per_minute=100,
            quotes_per_minute=0,
            min_quote_life_s=60.0,
            key_retention_s=7 * 24 * 3600.0,
            supports_cancel_before_order=True,
            supports_get_order=True,
            honours_not_after=True,
            contract_versions=("v1",),
        ),
        state=SellerState.ACTIVE,
        revision=1,
    )
