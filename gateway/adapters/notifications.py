"""The orchestrators' notifications, over gRPC."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from bookmesh.orchestrator.v1 import notifications_pb2 as pb
from gateway.adapters.answers import answered
from mesh.grpc import deadline

if TYPE_CHECKING:
    from bookmesh.orchestrator.v1.notifications_pb2_grpc import NotificationServiceAsyncStub

SERVICE = pb.DESCRIPTOR.services_by_name["NotificationService"].full_name
RETRIED = (
    "ListWebhookEndpoints",
    "EnableWebhookEndpoint",
    "GetNotificationEmail",
    "ListDeliveries",
)
"""What is safe to repeat at another replica. Not to delete, or to confirm: a repetition would find nothing.
Not to set an address: a repetition would send another code."""

_Response = TypeVar("_Response")

_TIMEOUT_S = 3.0
_CREATE_S = 5.0


class GrpcNotificationCenter:
    """Calls whichever orchestrator is there, within the time that its caller has left."""

    def __init__(self, stub: NotificationServiceAsyncStub) -> None:
        self._stub = stub

    async def create_endpoint(
        self, request: pb.CreateWebhookEndpointRequest
    ) -> pb.CreateWebhookEndpointResponse:
        return await _answered(
            self._stub.CreateWebhookEndpoint(request, timeout=deadline.timeout(_CREATE_S))
        )

    async def endpoints(
        self, request: pb.ListWebhookEndpointsRequest
    ) -> pb.ListWebhookEndpointsResponse:
        return await _answered(
            self._stub.ListWebhookEndpoints(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def rotate_secret(
        self, request: pb.RotateWebhookSecretRequest
    ) -> pb.RotateWebhookSecretResponse:
        return await _answered(
            self._stub.RotateWebhookSecret(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def enable_endpoint(
        self, request: pb.EnableWebhookEndpointRequest
    ) -> pb.EnableWebhookEndpointResponse:
        return await _answered(
            self._stub.EnableWebhookEndpoint(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def delete_endpoint(
        self, request: pb.DeleteWebhookEndpointRequest
    ) -> pb.DeleteWebhookEndpointResponse:
        return await _answered(
            self._stub.DeleteWebhookEndpoint(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def set_email(
        self, request: pb.SetNotificationEmailRequest
    ) -> pb.SetNotificationEmailResponse:
        return await _answered(
            self._stub.SetNotificationEmail(request, timeout=deadline.timeout(_CREATE_S))
        )

    async def confirm_email(
        self, request: pb.ConfirmNotificationEmailRequest
    ) -> pb.ConfirmNotificationEmailResponse:
        return await _answered(
            self._stub.ConfirmNotificationEmail(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def email(
        self, request: pb.GetNotificationEmailRequest
    ) -> pb.GetNotificationEmailResponse:
        return await _answered(
            self._stub.GetNotificationEmail(request, timeout=deadline.timeout(_TIMEOUT_S))
        )

    async def deliveries(self, request: pb.ListDeliveriesRequest) -> pb.ListDeliveriesResponse:
        return await _answered(
            self._stub.ListDeliveries(request, timeout=deadline.timeout(_TIMEOUT_S))
        )


async def _answered(call: Awaitable[_Response]) -> _Response:
    with answered("notifications are out of reach at the moment: try again"):
        return await call
