"""What the gateway's RPCs of notifications need of the world; as in ``ports``, in the orchestrator's messages."""

from __future__ import annotations

from typing import Protocol

from bookmesh.orchestrator.v1 import notifications_pb2 as pb


class NotificationCenter(Protocol):
    """The orchestrators' notifications, as one.

    All raise what the orchestrator answered; Unavailable with ``retry_after_s`` when none can be reached.
    """

    async def create_endpoint(
        self, request: pb.CreateWebhookEndpointRequest
    ) -> pb.CreateWebhookEndpointResponse:
        """Register an address for webhooks."""
        ...

    async def endpoints(
        self, request: pb.ListWebhookEndpointsRequest
    ) -> pb.ListWebhookEndpointsResponse:
        """List a customer's endpoints."""
        ...

    async def rotate_secret(
        self, request: pb.RotateWebhookSecretRequest
    ) -> pb.RotateWebhookSecretResponse:
        """Make a new secret for an endpoint."""
        ...

    async def enable_endpoint(
        self, request: pb.EnableWebhookEndpointRequest
    ) -> pb.EnableWebhookEndpointResponse:
        """Enable an endpoint again."""
        ...

    async def delete_endpoint(
        self, request: pb.DeleteWebhookEndpointRequest
    ) -> pb.DeleteWebhookEndpointResponse:
        """Remove an endpoint."""
        ...

    async def set_email(
        self, request: pb.SetNotificationEmailRequest
    ) -> pb.SetNotificationEmailResponse:
        """Have a code mailed to the address that is to be told by e-mail."""
        ...

    async def confirm_email(
        self, request: pb.ConfirmNotificationEmailRequest
    ) -> pb.ConfirmNotificationEmailResponse:
        """Confirm the address by the code that was mailed to it."""
        ...

    async def email(
        self, request: pb.GetNotificationEmailRequest
    ) -> pb.GetNotificationEmailResponse:
        """Give the address that is told by e-mail."""
        ...

    async def deliveries(self, request: pb.ListDeliveriesRequest) -> pb.ListDeliveriesResponse:
        """List what was sent or tried."""
        ...
