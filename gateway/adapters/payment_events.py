"""The orchestrators' ear for the payment provider, over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from gateway.adapters.answers import answered
from mesh.grpc import deadline

if TYPE_CHECKING:
    from bookmesh.orchestrator.v1.orchestrator_pb2_grpc import PaymentEventServiceAsyncStub

SERVICE = pb.DESCRIPTOR.services_by_name["PaymentEventService"].full_name
RETRIED = ("ReceivePaymentEvent",)
"""What is safe to repeat at another replica: an event is noted once."""

_TIMEOUT_S = 3.0


class GrpcPaymentEvents:
    """Calls whichever orchestrator is there."""

    def __init__(self, stub: PaymentEventServiceAsyncStub) -> None:
        self._stub = stub

    async def receive(self, request: pb.ReceivePaymentEventRequest) -> None:
        with answered("the event could not be taken: send it again"):
            await self._stub.ReceivePaymentEvent(request, timeout=deadline.timeout(_TIMEOUT_S))
