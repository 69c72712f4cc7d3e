"""The RPCs of notifications: convert, call the use case, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import notifications_pb2 as pb
from bookmesh.orchestrator.v1.notifications_pb2_grpc import NotificationServiceServicer
from orchestrator import notification_convert as convert

if TYPE_CHECKING:
    from mesh.grpc.interceptor import Context
    from orchestrator.app.notifications import Notifications


class NotificationServicer(NotificationServiceServicer):
    """``bookmesh.orchestrator.v1.NotificationService``."""

    def __init__(self, notifications: Notifications) -> None:
        """Answer from these use cases."""
        self._notifications = notifications

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, context: Context
    ) -> pb.CreateWebhookEndpointResponse:
        """Register an address."""
        endpoint, secret = await self._notifications.create_endpoint(
            request.customer_id, request.url
        )
        return pb.CreateWebhookEndpointResponse(endpoint=convert.endpoint(endpoint), secret=secret)

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, context: Context
    ) -> pb.ListWebhookEndpointsResponse:
        """List a customer's endpoints."""
        endpoints = await self._notifications.endpoints(request.customer_id)
        return pb.ListWebhookEndpointsResponse(
            endpoints=[convert.endpoint(endpoint) for endpoint in endpoints]
        )

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context
    ) -> pb.RotateWebhookSecretResponse:
        """Make a new secret."""
        secret = await self._notifications.rotate_secret(request.customer_id, request.endpoint_id)
        return pb.RotateWebhookSecretResponse(secret=secret)

    async def EnableWebhookEndpoint(
        self, request: pb.EnableWebhookEndpointRequest, context: Context
    ) -> pb.EnableWebhookEndpointResponse:
        """Enable an endpoint again."""
        endpoint = await self._notifications.enable_endpoint(
            request.customer_id, request.endpoint_id
        )
        return pb.EnableWebhookEndpointResponse(endpoint=convert.endpoint(endpoint))

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, context: Context
    ) -> pb.DeleteWebhookEndpointResponse:
        """Remove an endpoint."""
        await self._notifications.remove_endpoint(request.customer_id, request.endpoint_id)
        return pb.DeleteWebhookEndpointResponse()

    async def SetNotificationEmail(
        self, request: pb.SetNotificationEmailRequest, context: Context
    ) -> pb.SetNotificationEmailResponse:
        """Mail a code to the address that is to be told by e-mail."""
        found = await self._notifications.set_email(request.customer_id, request.email)
        return pb.SetNotificationEmailResponse(
            email=found.email or "", unconfirmed_email=found.unconfirmed or ""
        )

    async def ConfirmNotificationEmail(
        self, request: pb.ConfirmNotificationEmailRequest, context: Context
    ) -> pb.ConfirmNotificationEmailResponse:
        """Have the address told to which this code was mailed."""
        email = await self._notifications.confirm_email(request.customer_id, request.code)
        return pb.ConfirmNotificationEmailResponse(email=email)

    async def GetNotificationEmail(
        self, request: pb.GetNotificationEmailRequest, context: Context
    ) -> pb.GetNotificationEmailResponse:
        """Give the address that is told by e-mail."""
        found = await self._notifications.email(request.customer_id)
        return pb.GetNotificationEmailResponse(
            email=found.email or "", unconfirmed_email=found.unconfirmed or ""
        )

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Context
    ) -> pb.ListDeliveriesResponse:
        """List what was sent or tried."""
        page = await self._notifications.deliveries(
            request.customer_id, request.request_id, request.page_size, request.page_token
        )
        return pb.ListDeliveriesResponse(
            deliveries=[convert.delivery(delivery) for delivery in page.deliveries],
            next_page_token=page.next_page_token,
        )
