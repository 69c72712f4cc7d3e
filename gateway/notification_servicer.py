"""The customer's RPCs of notifications: who is it, is it valid; then the orchestrator."""

from __future__ import annotations

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import NotificationServiceServicer
from bookmesh.orchestrator.v1 import notifications_pb2
from gateway import notification_convert as convert
from gateway.callers import Callers
from gateway.notification_ports import NotificationCenter
from mesh.grpc.interceptor import Context


class NotificationServicer(NotificationServiceServicer):
    """Answers ``bookmesh.customer.v1.NotificationService``."""

    def __init__(self, callers: Callers, center: NotificationCenter) -> None:
        self._callers = callers
        self._center = center

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, context: Context
    ) -> pb.CreateWebhookEndpointResponse:
        """Register an address; the answer alone has its secret."""
        created = await self._center.create_endpoint(
            notifications_pb2.CreateWebhookEndpointRequest(
                customer_id=await self._customer(context), url=request.url
            )
        )
        return pb.CreateWebhookEndpointResponse(
            endpoint=convert.endpoint(created.endpoint), secret=created.secret
        )

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, context: Context
    ) -> pb.ListWebhookEndpointsResponse:
        """List the caller's endpoints."""
        listed = await self._center.endpoints(
            notifications_pb2.ListWebhookEndpointsRequest(customer_id=await self._customer(context))
        )
        return pb.ListWebhookEndpointsResponse(
            endpoints=[convert.endpoint(endpoint) for endpoint in listed.endpoints]
        )

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context
    ) -> pb.RotateWebhookSecretResponse:
        """Make a new secret."""
        rotated = await self._center.rotate_secret(
            notifications_pb2.RotateWebhookSecretRequest(
                customer_id=await self._customer(context), endpoint_id=request.endpoint_id
            )
        )
        return pb.RotateWebhookSecretResponse(secret=rotated.secret)

    async def EnableWebhookEndpoint(
        self, request: pb.EnableWebhookEndpointRequest, context: Context
    ) -> pb.EnableWebhookEndpointResponse:
        """Enable an endpoint again."""
        enabled = await self._center.enable_endpoint(
            notifications_pb2.EnableWebhookEndpointRequest(
                customer_id=await self._customer(context), endpoint_id=request.endpoint_id
            )
        )
        return pb.EnableWebhookEndpointResponse(endpoint=convert.endpoint(enabled.endpoint))

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, context: Context
    ) -> pb.DeleteWebhookEndpointResponse:
        """Remove an endpoint."""
        await self._center.delete_endpoint(
            notifications_pb2.DeleteWebhookEndpointRequest(
                customer_id=await self._customer(context), endpoint_id=request.endpoint_id
            )
        )
        return pb.DeleteWebhookEndpointResponse()

    async def SetNotificationEmail(
        self, request: pb.SetNotificationEmailRequest, context: Context
    ) -> pb.SetNotificationEmailResponse:
        """Have a code mailed to the address that is to be told by e-mail."""
        found = await self._center.set_email(
            notifications_pb2.SetNotificationEmailRequest(
                customer_id=await self._customer(context), email=request.email
            )
        )
        return pb.SetNotificationEmailResponse(
            email=found.email, unconfirmed_email=found.unconfirmed_email or None
        )

    async def ConfirmNotificationEmail(
        self, request: pb.ConfirmNotificationEmailRequest, context: Context
    ) -> pb.ConfirmNotificationEmailResponse:
        """Confirm the address by the code that was mailed to it."""
        confirmed = await self._center.confirm_email(
            notifications_pb2.ConfirmNotificationEmailRequest(
                customer_id=await self._customer(context), code=request.code
            )
        )
        return pb.ConfirmNotificationEmailResponse(email=confirmed.email)

    async def GetNotificationEmail(
        self, request: pb.GetNotificationEmailRequest, context: Context
    ) -> pb.GetNotificationEmailResponse:
        """Give the address that is told by e-mail."""
        found = await self._center.email(
            notifications_pb2.GetNotificationEmailRequest(customer_id=await self._customer(context))
        )
        return pb.GetNotificationEmailResponse(
            email=found.email, unconfirmed_email=found.unconfirmed_email or None
        )

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: Context
    ) -> pb.ListDeliveriesResponse:
        """List what was sent or tried."""
        page = await self._center.deliveries(
            notifications_pb2.ListDeliveriesRequest(
                customer_id=await self._customer(context),
                page_size=request.page_size,
                page_token=request.page_token,
                request_id=request.request_id,
            )
        )
        return pb.ListDeliveriesResponse(
            deliveries=[convert.delivery(delivery) for delivery in page.deliveries],
            next_page_token=page.next_page_token,
        )

    async def _customer(self, context: Context) -> str:
        return await self._callers.customer(context)
