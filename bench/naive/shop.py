"""The straightforward shop: one process, a purchase is one function, as one would write it first.

``python -m bench.naive.shop ADDRESS DSN VALKEY CONTROL DATA CALLS``: answers ``CreatePurchaseRequest`` once the
purchase is over, with its final status. A row, an authorization at the same sandbox as ours, the quotes of the
straightforward aggregator, hold and order at the cheapest seller, then the next; a capture. It has no second process
and recovers nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import grpc
from redis.asyncio import BlockingConnectionPool, Redis

from bench.naive.service import AskSeller, NaiveAggregator
from bench.naive.stores import ValkeyStore
from bookmesh.customer.v1 import customer_pb2 as pb2
from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceStub
from bookmesh.sellersim.v1 import control_pb2
from bookmesh.sellersim.v1.control_pb2_grpc import ControlServiceStub
from deploy.local.certificates import connect
from deploy.local.data import DataFolder
from mesh import convert
from mesh.clock import SystemClock
from mesh.grpc.interceptor import Context
from mesh.ids import NewId, uuid7_factory
from mesh.money import Money, from_decimal
from orchestrator.adapters.sandbox import SandboxPaymentProvider
from orchestrator.ports import Authorized, Captured, PaymentProvider

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceAsyncStub

_HOLD_S = 2.0
_ORDER_S = 3.0
_CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Seller:
    """A seller: the way to it, the credential to send, and whether it has holds."""

    stub: SellerServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]
    holds: bool


class NaiveShop:
    """Buys books."""

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        provider: PaymentProvider,
        new_id: NewId,
        sellers: Sequence[Seller],
        quotes: Callable[[AskSeller], NaiveAggregator],
    ) -> None:
        self._pool = pool
        self._provider = provider
        self._new_id = new_id
        self._sellers = sellers
        self._quote_ids: dict[tuple[int, str], str] = {}
        self._quotes = quotes(self._ask)

    async def buy(self, book_id: str, max_price: Money, token: str) -> tuple[UUID, str]:
        """Buy a book; give the purchase's id and its final status."""
        purchase_id = self._new_id()
        await self._pool.execute(_INSERT, purchase_id, book_id, max_price.minor)
        status = await self._carry_out(purchase_id, book_id, max_price, token)
        await self._pool.execute(_UPDATE, purchase_id, status)
        return purchase_id, status

    async def _carry_out(
        self, purchase_id: UUID, book_id: str, max_price: Money, token: str
    ) -> str:
        authorized = await self._provider.authorize(
            f"{purchase_id}:authorize", token, max_price, str(purchase_id), datetime.now(UTC)
        )
        if not isinstance(authorized, Authorized):
            return "failed"
        quotes = await self._quotes.quotes(book_id)
        for seller, total in sorted(quotes, key=lambda quote: quote[1]):
            if total > max_price.minor:
                break
            try:
                charged = await self._order(seller, purchase_id, book_id, Money(_CURRENCY, total))
            except grpc.aio.AioRpcError:
                continue
            if charged is not None:
                captured = await self._provider.capture(
                    f"{purchase_id}:capture", authorized.provider_id, charged
                )
                return "purchased" if isinstance(captured, Captured) else "failed"
        await self._provider.void(f"{purchase_id}:void", authorized.provider_id)
        return "price_not_met" if quotes else "not_available"

    async def _order(
        self, seller: int, purchase_id: UUID, book_id: str, total: Money
    ) -> Money | None:
        """Hold and order; give what is charged, None when the seller will not sell at that total."""
        there = self._sellers[seller]
        key, metadata = f"{purchase_id}:{seller}", there.metadata
        quote_id = self._quote_ids[seller, book_id]
        not_after = convert.timestamp(datetime.now(UTC) + timedelta(seconds=5))
        order = pb.PlaceOrderRequest(
            idempotency_key=key,
            book_id=book_id,
            buyer_reference=str(purchase_id),
            max_total=convert.money_to_proto(total),
            not_after=not_after,
        )
        if there.holds:
            held = await there.stub.HoldBook(
                pb.HoldBookRequest(
                    idempotency_key=key, quote_id=quote_id, book_id=book_id, not_after=not_after
                ),
                timeout=_HOLD_S,
                metadata=metadata,
            )
            if not held.HasField("hold"):
                return None
            order.hold_id = held.hold.hold_id
        else:
            order.quote_id = quote_id
        placed = await there.stub.PlaceOrder(order, timeout=_ORDER_S, metadata=metadata)
        return (
            convert.money_from_proto(placed.confirmed.total)
            if placed.HasField("confirmed")
            else None
        )

    async def _ask(self, seller: int, book_id: str, timeout_s: float) -> int | None:
        there = self._sellers[seller]
        answer = await there.stub.GetQuote(
            pb.GetQuoteRequest(
                book_id=book_id, currency_code=_CURRENCY, conditions=[pb.CONDITION_NEW]
            ),
            timeout=timeout_s,
            metadata=there.metadata,
        )
        if not answer.HasField("quote"):
            return None
        self._quote_ids[seller, book_id] = answer.quote.quote_id
        return convert.money_from_proto(answer.quote.total).minor


def _handler(shop: NaiveShop) -> grpc.GenericRpcHandler:
    """Answer the one method."""

    async def create(
        request: pb2.CreatePurchaseRequestRequest,
        _context: Context,
    ) -> pb2.CreatePurchaseRequestResponse:
        max_price = from_decimal(_CURRENCY, Decimal(repr(request.max_price)))
        purchase_id, status = await shop.buy(request.book_id, max_price, request.payment_token)
        return pb2.CreatePurchaseRequestResponse(
            request_id=str(purchase_id), status=pb2.PurchaseStatus.Word.Value(status)
        )

    return grpc.method_handlers_generic_handler(
        pb2.DESCRIPTOR.services_by_name["PurchaseService"].full_name,
        {
            "CreatePurchaseRequest": grpc.unary_unary_rpc_method_handler(
                create,
                pb2.CreatePurchaseRequestRequest.FromString,
                pb2.CreatePurchaseRequestResponse.SerializeToString,
            )
        },
    )


async def main(address: str, dsn: str, valkey: str, control: str, *rest: str) -> None:
    """Serve until killed."""
    folder, calls_per_minute = rest
    sellers = await _sellers(control, DataFolder(Path(folder)))
    clock = SystemClock()
    async with (
        asyncpg.create_pool(dsn, max_size=20) as pool,
        Redis.from_pool(_connections(valkey)) as client,
    ):
        await pool.execute(_TABLE)
        new_id = uuid7_factory(clock, SystemRandom())

        def quotes(ask: AskSeller) -> NaiveAggregator:
            return NaiveAggregator(
                ValkeyStore(client), range(len(sellers)), ask, clock, int(calls_per_minute)
            )

        provider = SandboxPaymentProvider(pool, clock, new_id)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (_handler(NaiveShop(pool, provider, new_id, sellers, quotes)),)
        )
        server.add_insecure_port(address)
        await server.start()
        print("ready", flush=True)
        await server.wait_for_termination()


def _connections(valkey: str) -> BlockingConnectionPool:
    """Make calls wait for a connection: hundreds of purchases each have hundreds of commands at once."""
    return BlockingConnectionPool.from_url(valkey, max_connections=200, timeout=None)


async def _sellers(control: str, data: DataFolder) -> list[Seller]:
    secrets: dict[str, str] = json.loads(data.seller_credentials.read_text())
    async with connect(data, control, "sellersim") as channel:
        listed = await ControlServiceStub(channel).ListSellers(control_pb2.ListSellersRequest())
    return [
        Seller(
            SellerServiceStub(grpc.aio.insecure_channel(seller.endpoint)),
            (("authorization", f"Bearer {secrets[seller.credential_reference]}"),),
            seller.capabilities.supports_holds,
        )
        for seller in listed.sellers
    ]


_TABLE = """
CREATE SCHEMA IF NOT EXISTS naive;
CREATE TABLE IF NOT EXISTS naive.purchase (
    purchase_id uuid PRIMARY KEY,
    book_id text,
    max_price_minor bigint,
    status text,
    created_at timestamptz DEFAULT now()
);
"""
_INSERT = "INSERT INTO naive.purchase (purchase_id, book_id, max_price_minor, status) VALUES ($1, $2, $3, 'pending')"
_UPDATE = "UPDATE naive.purchase SET status = $2 WHERE purchase_id = $1"


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
