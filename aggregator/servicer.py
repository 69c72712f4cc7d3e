"""The RPCs of the aggregator: convert, call the use case, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from aggregator import convert
from aggregator.app.collect import QuoteCollector
from aggregator.app.health import HealthObserver
from aggregator.app.market import OnSale
from aggregator.app.registry import Registry
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
    QuoteServiceServicer,
    RegistryServiceServicer,
    SellerHealthServiceServicer,
)
from mesh.grpc import deadline
from sellers import registration

DEFAULT_TIMEOUT_S = 10.0
"""How long a collection may take whose caller sets no deadline."""


class QuoteServicer(QuoteServiceServicer):
    """Answers ``bookmesh.aggregator.v1.QuoteService``."""

    def __init__(self, collector: QuoteCollector, sold: OnSale) -> None:
        """Collect with a collector; tell ``sold`` whether sellers stood by their quotes."""
        self._collector = collector
        self._sold = sold

    async def CollectQuotes(
        self,
        request: pb.CollectQuotesRequest,
        context: grpc.aio.ServicerContext[pb.CollectQuotesRequest, pb.CollectQuotesResponse],
    ) -> AsyncIterator[pb.CollectQuotesResponse]:
        time_left_s = deadline.remaining()
        if time_left_s is None:
            time_left_s = DEFAULT_TIMEOUT_S
        question, wish = convert.question(request), convert.wish(request)
        async with self._collector.open(question, time_left_s, wish) as collection:
            yield pb.CollectQuotesResponse(
                started=pb.CollectionStarted(
                    collection_id=str(collection.collection_id), sellers=collection.of
                )
            )
            async for answers in collection.batches():
                yield pb.CollectQuotesResponse(batch=convert.batch(answers))
        yield pb.CollectQuotesResponse(summary=convert.summary(collection.summary()))

    async def ReportSale(
        self,
        request: pb.ReportSaleRequest,
        context: grpc.aio.ServicerContext[pb.ReportSaleRequest, pb.ReportSaleResponse],
    ) -> pb.ReportSaleResponse:
        refused = request.outcome == pb.ReportSaleRequest.OUTCOME_REFUSED
        self._sold(request.seller_id, refused=refused)
        return pb.ReportSaleResponse()


class RegistryServicer(RegistryServiceServicer):
    """Answers ``bookmesh.aggregator.v1.RegistryService``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def RegisterSellers(
        self,
        request: pb.RegisterSellersRequest,
        context: grpc.aio.ServicerContext[pb.RegisterSellersRequest, pb.RegisterSellersResponse],
    ) -> pb.RegisterSellersResponse:
        sellers = [registration.from_proto(message) for message in request.sellers]
        return pb.RegisterSellersResponse(revision=await self._registry.register(sellers))

    async def SetSellerState(
        self,
        request: pb.SetSellerStateRequest,
        context: grpc.aio.ServicerContext[pb.SetSellerStateRequest, pb.SetSellerStateResponse],
    ) -> pb.SetSellerStateResponse:
        state = registration.STATES[request.state]
        revision = await self._registry.set_state(list(request.seller_ids), state)
        return pb.SetSellerStateResponse(revision=revision)

    async def WatchSellers(
        self,
        request: pb.WatchSellersRequest,
        context: grpc.aio.ServicerContext[pb.WatchSellersRequest, pb.WatchSellersResponse],
    ) -> AsyncIterator[pb.WatchSellersResponse]:
        async for chunk in self._registry.watch():
            yield convert.watch_response(chunk)


class SellerHealthServicer(SellerHealthServiceServicer):
    """Answers ``bookmesh.aggregator.v1.SellerHealthService``."""

    def __init__(self, observer: HealthObserver) -> None:
        self._observer = observer

    async def GetSellerHealth(
        self,
        request: pb.GetSellerHealthRequest,
        context: grpc.aio.ServicerContext[pb.GetSellerHealthRequest, pb.GetSellerHealthResponse],
    ) -> pb.GetSellerHealthResponse:
        if not request.page_size:
            found, after = await self._observer.get(request.seller_ids), ""
        else:
            found, after = await self._observer.page(
                request.seller_ids, request.page_size, request.page_token
            )
        return pb.GetSellerHealthResponse(
            sellers=map(convert.seller_health, found), next_page_token=after
        )

    async def WatchSellerHealth(
        self,
        request: pb.WatchSellerHealthRequest,
        context: grpc.aio.ServicerContext[
            pb.WatchSellerHealthRequest, pb.WatchSellerHealthResponse
        ],
    ) -> AsyncIterator[pb.WatchSellerHealthResponse]:
        async for changed in self._observer.watch(request.seller_ids):
            yield pb.WatchSellerHealthResponse(sellers=map(convert.seller_health, changed))
