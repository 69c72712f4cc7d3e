"""The seller under test: what the tests of the contract need to talk to it, whoever it is."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import grpc
import protovalidate
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1 import seller_pb2_grpc
from mesh.convert import money_from_proto, money_to_proto, seconds
from mesh.money import Money as Amount
from seller_sim.app import Simulation
from tests.fakes.clock import PushedClock, until

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

CALL_TIMEOUT_S = 10.0
NEW = pb.CONDITION_NEW
ALL_CONDITIONS = (
    pb.CONDITION_NEW,
    pb.CONDITION_LIKE_NEW,
    pb.CONDITION_VERY_GOOD,
    pb.CONDITION_GOOD,
    pb.CONDITION_ACCEPTABLE,
)


@dataclass
class Control:
    """Power over a simulated seller and its time, which tests of rarer answers need."""

    simulation: Simulation
    clock: PushedClock
    seller_id: str

    async def change(self, **settings: object) -> None:
        """Change the behaviour of the seller from now on."""
        await self.simulation.change_behaviour([self.seller_id], settings)

    async def working(self) -> None:
        """Wait until a hold or an order is being worked on."""
        await until(lambda: bool(self.simulation._in_flight))

    def push(self, by_s: float) -> None:
        """Let time pass."""
        self.clock.push(by_s)


@dataclass
class Subject:
    """A seller that implements the contract.

    Attributes:
        stub: the way to it.
        credential: what it knows Bookmesh by.
        book_id: a book of which it has several new copies.
        missing_book_id: a book that it does not have.
        currency: in which it sells.
        control: power over it; None when it is not simulated here.
        capabilities: what it says it can do.

    """

    stub: seller_pb2_grpc.SellerServiceAsyncStub
    credential: str
    book_id: str
    missing_book_id: str
    currency: str
    control: Control | None
    capabilities: pb.Capabilities = field(default_factory=pb.Capabilities)
    held_keys: list[str] = field(default_factory=list)
    ordered_keys: list[str] = field(default_factory=list)

    async def give_back(self) -> None:
        """Release and cancel all that was held and ordered."""
        for key in self.held_keys:
            await self.release(key)
        for key in self.ordered_keys:
            await self.cancel(key)

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """Make a call with the credential; the answer has to be valid."""
        metadata = (("authorization", f"Bearer {self.credential}"),)
        response = await method(request, metadata=metadata, timeout=CALL_TIMEOUT_S)
        protovalidate.validate(response)
        return response

    async def refused(
        self, method: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT
    ) -> grpc.StatusCode:
        """Make a call that has to fail; give its status."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request)
        return caught.value.code()

    async def quote(self, book_id: str = "") -> pb.Quote:
        """Ask for the price of a new copy, which the seller has to have."""
        request = self.quote_request(book_id or self.book_id)
        response = await self.call(self.stub.GetQuote, request)
        assert response.WhichOneof("outcome") == "quote", response
        return response.quote

    async def hold(self, key: str = "") -> pb.Hold:
        """Hold a new copy, which the seller has to do."""
        quote = await self.quote()
        response = await self.try_to_hold(self.hold_request(quote.quote_id, key))
        assert response.WhichOneof("outcome") == "hold", response
        return response.hold

    async def try_to_hold(self, request: pb.HoldBookRequest) -> pb.HoldBookResponse:
        """Ask for a copy to be held."""
        self.held_keys.append(request.idempotency_key)
        return await self.call(self.stub.HoldBook, request)

    async def order_request(self, key: str = "") -> pb.PlaceOrderRequest:
        """Give an order that the seller has to accept, from a hold or from a quote as it wants it."""
        request = pb.PlaceOrderRequest(
            idempotency_key=key or new_key(),
            book_id=self.book_id,
            buyer_reference="contract-test",
            not_after=in_seconds(60),
        )
        if self.capabilities.supports_holds:
            hold = await self.hold()
            request.hold_id = hold.hold_id
            request.max_total.CopyFrom(hold.total)
        else:
            quote = await self.quote()
            request.quote_id = quote.quote_id
            request.max_total.CopyFrom(quote.total)
        return request

    async def place(self, request: pb.PlaceOrderRequest) -> pb.PlaceOrderResponse:
        """Place an order."""
        self.ordered_keys.append(request.idempotency_key)
        return await self.call(self.stub.PlaceOrder, request)

    async def buy(self, key: str = "") -> pb.PlaceOrderRequest:
        """Place an order that the seller has to accept; give the request."""
        request = await self.order_request(key)
        await self.confirmed(request)
        return request

    async def confirmed(self, request: pb.PlaceOrderRequest) -> pb.OrderConfirmed:
        """Place an order that the seller has to confirm, now or once it has thought about it."""
        response = await self.place(request)
        if response.WhichOneof("outcome") == "confirmed":
            return response.confirmed
        assert response.WhichOneof("outcome") == "pending", response
        order = await self.order(request.idempotency_key)
        while order.HasField("pending"):
            await asyncio.sleep(seconds(order.pending.retry_after) or 1)
            order = await self.order(request.idempotency_key)
        assert order.WhichOneof("state") == "confirmed", order
        return order.confirmed

    async def order(self, key: str) -> pb.Order:
        """Get an order, which has to be there."""
        request = pb.GetOrderRequest(idempotency_key=key)
        return (await self.call(self.stub.GetOrder, request)).order

    async def cancel(self, key: str) -> pb.CancelOrderResponse:
        """Cancel an order."""
        return await self.call(self.stub.CancelOrder, pb.CancelOrderRequest(idempotency_key=key))

    async def release(self, key: str) -> pb.ReleaseHoldResponse.Result.ValueType:
        """Release a hold."""
        request = pb.ReleaseHoldRequest(idempotency_key=key)
        return (await self.call(self.stub.ReleaseHold, request)).result

    def quote_request(
        self, book_id: str, conditions: tuple[pb.Condition.ValueType, ...] = (NEW,)
    ) -> pb.GetQuoteRequest:
        """Give a request for a quote in the seller's currency."""
        return pb.GetQuoteRequest(
            book_id=book_id, currency_code=self.currency, conditions=conditions
        )

    def hold_request(self, quote_id: str, key: str = "") -> pb.HoldBookRequest:
        """Give a request to hold a copy."""
        return pb.HoldBookRequest(
            idempotency_key=key or new_key(),
            quote_id=quote_id,
            book_id=self.book_id,
            not_after=in_seconds(60),
        )


def new_key() -> str:
    """Give a key that was never used, in the form that Bookmesh gives its keys."""
    return f"{uuid.uuid4()}:contract-test"


def in_seconds(delta_s: float) -> Timestamp:
    """Give the moment some seconds from now."""
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=delta_s))
    return moment


def less(amount: Money, by_minor: int = 1) -> Money:
    """Give an amount less some minor units."""
    exact = money_from_proto(amount)
    return money_to_proto(Amount(exact.currency, exact.minor - by_minor))
