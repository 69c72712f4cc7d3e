"""Bookmesh as its customers see it, doing what a test says, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc as pb_grpc
from deploy.local.options import HOST
from mesh import errors
from mesh.grpc.errors import abort

REQUEST_ID = "01980000-0000-7000-8000-000000000001"
NEXT_REQUEST_ID = "01980000-0000-7000-8000-000000000002"
TOKEN = "the-token"

Context = grpc.aio.ServicerContext[Any, Any]
_Status = pb.PurchaseStatus


def purchased() -> pb.PurchaseRequest:
    return pb.PurchaseRequest(
        request_id=REQUEST_ID,
        status=_Status.purchased,
        final_price=24.99,
        seller_id="alpha",
        confirmation="A-1",
    )


def price_not_met() -> pb.PurchaseRequest:
    return pb.PurchaseRequest(
        request_id=REQUEST_ID,
        status=_Status.price_not_met,
        lowest_price=34.99,
        message="Best price ($34.99) exceeds your max ($29.99)",
        offer=pb.Offer(
            price=34.99,
            currency_code="USD",
            seller_id="bravo",
            expires_at=Timestamp(seconds=1_800_000_000),
        ),
    )


def ended(status: _Status.Word.ValueType, reason: str = "") -> pb.PurchaseRequest:
    purchase = pb.PurchaseRequest(request_id=REQUEST_ID, status=status, message="How it ended")
    if reason:
        purchase.reason = pb.FailureReason.Word.Value(reason)
    return purchase


@dataclass
class Front(pb_grpc.PurchaseServiceServicer, pb_grpc.QuoteServiceServicer):
    """Everything that customers may ask, with scripted answers.

    Attributes:
        purchase: what get, cancel and the end of a watch say.
        errors: raised one after the other, before anything else is answered.
        cuts: how many watches break off before their end.
        open_end: whether a watch waits for ever instead of coming to its end.
        coverage: what is said of the sellers that were not asked for quotes; None where all were.
        silent: whether nothing is ever answered.
        asked: requests as they came.
        metadata: of each of them.
        reached: set once a watch has told something, or a silent one was asked.
        address: where it is.
    """

    purchase: pb.PurchaseRequest = field(default_factory=purchased)
    errors: list[errors.MeshError] = field(default_factory=list)
    cuts: int = 0
    open_end: bool = False
    coverage: pb.Coverage | None = None
    silent: bool = False
    asked: list[Message] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    async def CreatePurchaseRequest(
        self, request: pb.CreatePurchaseRequestRequest, context: Context
    ) -> pb.CreatePurchaseRequestResponse:
        await self._heard(request, context)
        return pb.CreatePurchaseRequestResponse(
            request_id=REQUEST_ID, status=_Status.pending, status_url=f"/x/{REQUEST_ID}"
        )

    async def GetPurchaseRequest(
        self, request: pb.GetPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        await self._heard(request, context)
        return self.purchase

    async def ListPurchaseRequests(
        self, request: pb.ListPurchaseRequestsRequest, context: Context
    ) -> pb.ListPurchaseRequestsResponse:
        await self._heard(request, context)
        page = int(request.page_token or 0)
        return pb.ListPurchaseRequestsResponse(
            purchase_requests=[
                pb.PurchaseRequestSummary(
                    request_id=f"{page}-{number}",
                    status=_Status.purchased,
                    book_id="9780134685991",
                    max_price=29.99,
                    currency_code="USD",
                    create_time=Timestamp(seconds=1_800_000_000),
                    final_price=24.99,
                )
                for number in range(2)
            ],
            next_page_token=str(page + 1) if page < 2 else "",
        )

    async def WatchPurchaseRequest(
        self, request: pb.WatchPurchaseRequestRequest, context: Context
    ) -> AsyncIterator[pb.WatchPurchaseRequestResponse]:
        await self._heard(request, context)
        yield _event(1, pb.WatchPurchaseRequestResponse(step=pb.Step(name=pb.Step.submitted)))
        quotes = [pb.Quote(seller_id="alpha", total=24.99), pb.Quote(seller_id="bravo", total=26)]
        yield _event(2, pb.WatchPurchaseRequestResponse(quotes=pb.QuoteBatch(quotes=quotes)))
        self.reached.set()
        if self.cuts:
            self.cuts -= 1
            await abort(context, errors.Unavailable("the way is gone"))
        if self.open_end:
            await asyncio.Event().wait()
        yield _event(
            3,
            pb.WatchPurchaseRequestResponse(
                step=pb.Step(name=pb.Step.ordering, seller_id="alpha", total=24.99)
            ),
        )
        yield _event(4, pb.WatchPurchaseRequestResponse(result=self.purchase))

    async def CancelPurchaseRequest(
        self, request: pb.CancelPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        await self._heard(request, context)
        return self.purchase

    async def AcceptOffer(
        self, request: pb.AcceptOfferRequest, context: Context
    ) -> pb.AcceptOfferResponse:
        await self._heard(request, context)
        return pb.AcceptOfferResponse(request_id=NEXT_REQUEST_ID, status=_Status.pending)

    async def ListQuotes(
        self, request: pb.ListQuotesRequest, context: Context
    ) -> pb.ListQuotesResponse:
        await self._heard(request, context)
        quotes = [
            pb.Quote(
                seller_id="alpha",
                total=24.99,
                price=21,
                shipping=3.99,
                condition=pb.BookCondition.new,
            )
        ]
        summary = pb.Collection(sellers=2, asked=2, answered=2, quoted=1)
        if self.coverage is not None:
            summary.coverage.CopyFrom(self.coverage)
        return pb.ListQuotesResponse(
            book_id="9780134685991",
            currency_code="USD",
            quotes=[] if request.book_id == "nowhere" else quotes,
            summary=summary,
        )

    async def StreamQuotes(
        self, request: pb.StreamQuotesRequest, context: Context
    ) -> AsyncIterator[pb.StreamQuotesResponse]:
        await self._heard(request, context)
        quotes = [pb.Quote(seller_id="alpha", total=24.99)]
        yield pb.StreamQuotesResponse(quotes=pb.QuoteBatch(quotes=quotes))
        yield pb.StreamQuotesResponse(summary=pb.Collection(sellers=2))

    async def WatchPurchaseRequestEvents(
        self, request: pb.WatchPurchaseRequestEventsRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        await self._heard(request, context)
        yield HttpBody(data=b"event: end")

    async def StreamQuotesEvents(
        self, request: pb.StreamQuotesEventsRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        await self._heard(request, context)
        yield HttpBody(data=b"event: end")

    async def _heard(self, request: Message, context: Context) -> None:
        self.asked.append(request)
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.metadata.append(metadata)
        if metadata.get("authorization") != f"Bearer {TOKEN}":
            # As the edge refuses it.
            problem = "the token is not valid: it is malformed"
            await abort(context, errors.Unauthenticated(problem, reason="TOKEN_INVALID"))
        if self.silent:
            self.reached.set()
            await asyncio.Event().wait()
        if self.errors:
            await abort(context, self.errors.pop(0))


@asynccontextmanager
async def fronted() -> AsyncIterator[Front]:
    front = Front()
    server = grpc.aio.server()
    pb_grpc.add_PurchaseServiceServicer_to_server(front, server)
    pb_grpc.add_QuoteServiceServicer_to_server(front, server)
    front.address = f"{HOST}:{server.add_insecure_port(f'{HOST}:0')}"
    await server.start()
    try:
        yield front
    finally:
        await server.stop(grace=None)


def _event(number: int, event: pb.WatchPurchaseRequestResponse) -> pb.WatchPurchaseRequestResponse:
    event.event_id = str(number)
    event.event_time.FromSeconds(1_800_000_000 + number)
    return event
