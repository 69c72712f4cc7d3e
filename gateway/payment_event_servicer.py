"""What the payment provider calls: passed on as it came, because only the orchestrator can tell whose word it is."""

from __future__ import annotations

from google.api import httpbody_pb2

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PaymentEventServiceServicer
from bookmesh.orchestrator.v1 import orchestrator_pb2
from gateway import callers
from gateway.ports import PaymentEvents
from mesh import errors
from mesh.grpc.interceptor import Context

SIGNATURE = "stripe-signature"
"""The metadata, over REST the header, that proves an event."""


class PaymentEventServicer(PaymentEventServiceServicer):
    """Answers ``bookmesh.customer.v1.PaymentEventService``."""

    def __init__(self, payment_events: PaymentEvents) -> None:
        self._payment_events = payment_events

    async def ReceivePaymentEvent(
        self, request: httpbody_pb2.HttpBody, context: Context
    ) -> pb.ReceivePaymentEventResponse:
        """Pass an event on."""
        signatures = callers.metadata(context, SIGNATURE)
        if len(signatures) != 1 or not signatures[0] or not request.data:
            raise errors.InvalidArgument(
                f"an event has a body and one header {SIGNATURE}", reason="SIGNATURE_INVALID"
            )
        await self._payment_events.receive(
            orchestrator_pb2.ReceivePaymentEventRequest(
                payload=request.data, signature=signatures[0]
            )
        )
        return pb.ReceivePaymentEventResponse()
