"""The orchestrators, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import structlog

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from gateway.adapters.answers import answered
from mesh import errors
from mesh.clock import Clock
from mesh.grpc import deadline

if TYPE_CHECKING:
    from bookmesh.orchestrator.v1.orchestrator_pb2_grpc import PurchaseServiceAsyncStub

SERVICE = pb.DESCRIPTOR.services_by_name["PurchaseService"].full_name
RETRIED = ("SubmitPurchase", "GetPurchase", "ListPurchases", "CancelPurchase", "AcceptOffer")
"""What is safe to repeat at another replica; SubmitPurchase under its request_id, AcceptOffer once an offer."""

_SUBMIT_S = 5.0
_READ_S = 3.0
_RETRY_AFTER_S = 1.0
_OUT_OF_REACH = (
    "purchases are out of reach at the moment: try again, to buy with the same idempotency-key"
)

_FUTILE_STREAMS = 8
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0

_log = structlog.get_logger(__name__)


class GrpcOrchestrator:
    """Calls whichever orchestrator is there, within the time that its caller has left."""

    def __init__(self, stub: PurchaseServiceAsyncStub, clock: Clock) -> None:
        self._stub = stub
        self._clock = clock

    async def submit(self, request: pb.SubmitPurchaseRequest) -> pb.Purchase:
        with _answered():
            response = await self._stub.SubmitPurchase(request, timeout=deadline.timeout(_SUBMIT_S))
        return response.purchase

    async def get(self, customer_id: str, request_id: str) -> pb.Purchase:
        request = pb.GetPurchaseRequest(customer_id=customer_id, request_id=request_id)
        with _answered():
            response = await self._stub.GetPurchase(request, timeout=deadline.timeout(_READ_S))
        return response.purchase

    async def page(self, request: pb.ListPurchasesRequest) -> pb.ListPurchasesResponse:
        with _answered():
            return await self._stub.ListPurchases(request, timeout=deadline.timeout(_READ_S))

    async def cancel(self, request: pb.CancelPurchaseRequest) -> pb.Purchase:
        with _answered():
            response = await self._stub.CancelPurchase(request, timeout=deadline.timeout(_SUBMIT_S))
        return response.purchase

    async def accept_offer(self, request: pb.AcceptOfferRequest) -> pb.Purchase:
        with _answered():
            response = await self._stub.AcceptOffer(request, timeout=deadline.timeout(_SUBMIT_S))
        return response.purchase

    async def watch(
        self, customer_id: str, request_id: str
    ) -> AsyncIterator[pb.WatchPurchaseResponse]:
        """Give all events, each once, until the result.

        When the replica that streams them goes away, another is asked; its events begin at the first, and those that
        were given before are left out. Ever longer pauses, up to 2 s; eight streams in a row that brought nothing, over
        about 11 s, are Unavailable.
        """
        request = pb.WatchPurchaseRequest(customer_id=customer_id, request_id=request_id)
        seen: set[str] = set()
        failures = 0
        finished = False
        while True:
            error = _out_of_reach()
            try:
                # To its very end: a stream that is left earlier never ends its span.
                async for event in self._events(request):
                    failures = 0
                    finished = finished or event.HasField("result")
                    if event.event_id not in seen:
                        seen.add(event.event_id)
                        yield event
            except errors.Unavailable as unavailable:
                error = unavailable
            if finished:
                return
            failures += 1
            if failures == _FUTILE_STREAMS:
                raise error
            _log.info("watching at another orchestrator", problem=error.message)
            await self._clock.sleep(min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S))

    async def _events(
        self, request: pb.WatchPurchaseRequest
    ) -> AsyncIterator[pb.WatchPurchaseResponse]:
        left_s = deadline.remaining()
        call = self._stub.WatchPurchase(
            request, timeout=None if left_s is None else deadline.timeout(left_s)
        )
        try:
            with _answered():
                async for event in call:
                    yield event
        finally:
            call.cancel()


def _answered() -> AbstractContextManager[None]:
    return answered(_OUT_OF_REACH)


def _out_of_reach() -> errors.Unavailable:
    return errors.Unavailable(_OUT_OF_REACH, retry_after_s=_RETRY_AFTER_S)
