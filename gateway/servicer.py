"""The customer's RPCs: who is it, is it valid; then the orchestrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog
from google.api import httpbody_pb2

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceServicer
from bookmesh.orchestrator.v1 import orchestrator_pb2
from customers.form import purchase_request
from gateway import convert, streams
from gateway.callers import Callers, metadata
from gateway.ports import Orchestrator
from gateway.watches import PurchaseEvent, Watches
from mesh import errors
from mesh.grpc import deadline
from mesh.grpc.interceptor import Context
from mesh.ids import NewId

AUTHORIZATION_WAIT_S = 2.0
"""How long a new request waits for its card, so that the answer can say that it was declined; a cancel for the end."""

_SUBMIT_MARGIN_S = 0.5
"""What of a caller's time that wait must leave for the rest of the call."""

_ACCEPTED = "202"
_PAYMENT_REQUIRED = "402"

_log = structlog.get_logger(__name__)


class PurchaseServicer(PurchaseServiceServicer):
    """Answers ``bookmesh.customer.v1.PurchaseService``."""

    def __init__(
        self,
        callers: Callers,
        orchestrator: Orchestrator,
        new_id: NewId,
        *,
        default_currency: str,
        heartbeat_s: float = streams.HEARTBEAT_S,
    ) -> None:
        self._callers = callers
        self._orchestrator = orchestrator
        self._watches = Watches(orchestrator)
        self._new_id = new_id
        self._default_currency = default_currency
        self._heartbeat_s = heartbeat_s

    async def CreatePurchaseRequest(
        self, request: pb.CreatePurchaseRequestRequest, context: Context
    ) -> pb.CreatePurchaseRequestResponse:
        """Submit a purchase; say where its status can be read, and which status REST answers with."""
        customer_id = await self._callers.customer(context)
        submission = convert.submission(
            request,
            metadata(context, convert.IDEMPOTENCY_KEY),
            customer_id=customer_id,
            request_id=self._new_id(),
            authorization_wait_s=_wait_s(),
            default_currency=self._default_currency,
        )
        purchase = await self._orchestrator.submit(submission)
        _log.info("submitted", request_id=purchase.request_id)
        await _say_where(purchase, context)
        return convert.created(purchase)

    async def GetPurchaseRequest(
        self, request: pb.GetPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        """Tell what has become of a request."""
        customer_id = await self._callers.customer(context)
        try:
            purchase = await self._orchestrator.get(customer_id, _id(request.request_id))
        except errors.NotFound:
            raise _not_found() from None
        return purchase_request(purchase)

    async def ListPurchaseRequests(
        self, request: pb.ListPurchaseRequestsRequest, context: Context
    ) -> pb.ListPurchaseRequestsResponse:
        """List the caller's own requests."""
        customer_id = await self._callers.customer(context)
        page = await self._orchestrator.page(convert.listing(request, customer_id))
        return pb.ListPurchaseRequestsResponse(
            purchase_requests=[convert.summary(purchase) for purchase in page.purchases],
            next_page_token=page.next_page_token,
        )

    async def WatchPurchaseRequest(
        self, request: pb.WatchPurchaseRequestRequest, context: Context
    ) -> AsyncIterator[pb.WatchPurchaseRequestResponse]:
        """Pass on the events of a request as they happen."""
        customer_id = await self._callers.watcher(context)
        async for message in streams.in_band(
            (
                event.data
                async for together in self._events(customer_id, request.request_id)
                for event in together
            ),
            context,
            lambda status: pb.WatchPurchaseRequestResponse(error=status),
            lambda last: {"last_event_id": last.event_id},
        ):
            yield message

    async def WatchPurchaseRequestEvents(
        self, request: pb.WatchPurchaseRequestEventsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Pass on the events of a request as server-sent events, from where the caller left off."""
        customer_id = await self._callers.watcher(context)
        async for body in streams.server_sent(
            self._events(customer_id, request.request_id, self._heartbeat_s),
            context,
            seen=streams.not_behind(streams.last_event_id(context)),
        ):
            yield body

    async def CancelPurchaseRequest(
        self, request: pb.CancelPurchaseRequestRequest, context: Context
    ) -> pb.PurchaseRequest:
        """Cancel a request as far as that is still possible."""
        customer_id = await self._callers.customer(context)
        cancellation = convert.cancellation(customer_id, _id(request.request_id), _wait_s())
        try:
            purchase = await self._orchestrator.cancel(cancellation)
        except errors.NotFound:
            raise _not_found() from None
        _log.info("cancel requested", request_id=purchase.request_id)
        return purchase_request(purchase)

    async def AcceptOffer(
        self, request: pb.AcceptOfferRequest, context: Context
    ) -> pb.AcceptOfferResponse:
        """Buy at the offered price; answer as a new request does."""
        customer_id = await self._callers.customer(context)
        acceptance = convert.acceptance(
            request,
            customer_id=customer_id,
            request_id=_id(request.request_id),
            new_request_id=self._new_id(),
            authorization_wait_s=_wait_s(),
        )
        try:
            purchase = await self._orchestrator.accept_offer(acceptance)
        except errors.NotFound:
            raise _not_found() from None
        _log.info("offer accepted", request_id=purchase.request_id)
        await _say_where(purchase, context)
        return convert.accepted(purchase)

    async def _events(
        self, customer_id: str, request_id: str, heartbeat_s: float | None = None
    ) -> AsyncGenerator[Sequence[PurchaseEvent], None]:
        try:
            async for together in self._watches.events(customer_id, _id(request_id), heartbeat_s):
                yield together
        except errors.NotFound:
            raise _not_found() from None


def _wait_s() -> float:
    """Give how long a call may wait for what it has begun, in seconds."""
    longest_wait_s = deadline.timeout(AUTHORIZATION_WAIT_S + _SUBMIT_MARGIN_S)
    return max(0.0, longest_wait_s - _SUBMIT_MARGIN_S)


async def _say_where(purchase: orchestrator_pb2.Purchase, context: Context) -> None:
    """Say where the status of a new request can be read, and which status REST answers with.

    Raises:
        FailedPrecondition: when its card was refused.

    """
    fault = convert.card_fault(purchase)
    await context.send_initial_metadata(
        (
            ("location", convert.status_url(purchase.request_id)),
            ("x-http-status", _PAYMENT_REQUIRED if fault else _ACCEPTED),
        )
    )
    if fault:
        raise fault


def _id(request_id: str) -> str:
    canonical = convert.canonical_id(request_id)
    if canonical is None:
        raise _not_found()
    return canonical


def _not_found() -> errors.NotFound:
    """Make the one answer for what does not exist, never could, or is another customer's."""
    return errors.NotFound(
        "there is no purchase request of yours with this id", reason="PURCHASE_REQUEST_NOT_FOUND"
    )
