"""The orchestrator's RPCs: convert, call the use case, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from mesh import convert as mesh_convert
from orchestrator import convert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from orchestrator.app.payment_events import PaymentEvents
    from orchestrator.app.purchases import Purchases
    from orchestrator.app.watch import Watch


class PurchaseServicer(pb_grpc.PurchaseServiceServicer):
    """``bookmesh.orchestrator.v1.PurchaseService``."""

    def __init__(self, purchases: Purchases, watch: Watch) -> None:
        """Answer from these use cases."""
        self._purchases = purchases
        self._watch = watch

    async def SubmitPurchase(
        self,
        request: pb.SubmitPurchaseRequest,
        context: grpc.aio.ServicerContext[pb.SubmitPurchaseRequest, pb.SubmitPurchaseResponse],
    ) -> pb.SubmitPurchaseResponse:
        """Commit a purchase and wait a while for its authorization."""
        wait_s = mesh_convert.seconds(request.authorization_wait)
        view = await self._purchases.submit(convert.order(request), wait_s)
        return pb.SubmitPurchaseResponse(purchase=convert.purchase(view))

    async def GetPurchase(
        self,
        request: pb.GetPurchaseRequest,
        context: grpc.aio.ServicerContext[pb.GetPurchaseRequest, pb.GetPurchaseResponse],
    ) -> pb.GetPurchaseResponse:
        """Give a purchase."""
        view = await self._purchases.get(request.customer_id, request.request_id)
        return pb.GetPurchaseResponse(purchase=convert.purchase(view))

    async def ListPurchases(
        self,
        request: pb.ListPurchasesRequest,
        context: grpc.aio.ServicerContext[pb.ListPurchasesRequest, pb.ListPurchasesResponse],
    ) -> pb.ListPurchasesResponse:
        """List a customer's purchases."""
        page = await self._purchases.page(
            request.customer_id, convert.wanted(request), request.page_size, request.page_token
        )
        return pb.ListPurchasesResponse(
            purchases=[convert.purchase(view) for view in page.purchases],
            next_page_token=page.next_page_token,
        )

    async def WatchPurchase(
        self,
        request: pb.WatchPurchaseRequest,
        context: grpc.aio.ServicerContext[pb.WatchPurchaseRequest, pb.WatchPurchaseResponse],
    ) -> AsyncIterator[pb.WatchPurchaseResponse]:
        """Stream all events of a purchase until it is final."""
        async for event in self._watch.watch(request.customer_id, request.request_id):
            yield convert.watch_event(event)

    async def CancelPurchase(
        self,
        request: pb.CancelPurchaseRequest,
        context: grpc.aio.ServicerContext[pb.CancelPurchaseRequest, pb.CancelPurchaseResponse],
    ) -> pb.CancelPurchaseResponse:
        """Have a purchase cancelled."""
        wait_s = mesh_convert.seconds(request.wait)
        view = await self._purchases.cancel(request.customer_id, request.request_id, wait_s)
        return pb.CancelPurchaseResponse(purchase=convert.purchase(view))

    async def AcceptOffer(
        self,
        request: pb.AcceptOfferRequest,
        context: grpc.aio.ServicerContext[pb.AcceptOfferRequest, pb.AcceptOfferResponse],
    ) -> pb.AcceptOfferResponse:
        """Make a purchase of an offer."""
        wait_s = mesh_convert.seconds(request.authorization_wait)
        view = await self._purchases.accept_offer(convert.acceptance(request), wait_s)
        return pb.AcceptOfferResponse(purchase=convert.purchase(view))


class PaymentEventServicer(pb_grpc.PaymentEventServiceServicer):
    """``bookmesh.orchestrator.v1.PaymentEventService``."""

    def __init__(self, events: PaymentEvents) -> None:
        """Answer from this use case."""
        self._events = events

    async def ReceivePaymentEvent(
        self,
        request: pb.ReceivePaymentEventRequest,
        context: grpc.aio.ServicerContext[
            pb.ReceivePaymentEventRequest, pb.ReceivePaymentEventResponse
        ],
    ) -> pb.ReceivePaymentEventResponse:
        """Take what the payment provider tells."""
        await self._events.receive(request.payload, request.signature)
        return pb.ReceivePaymentEventResponse()
