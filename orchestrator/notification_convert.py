"""The contract of notifications to and from its use cases. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.orchestrator.v1 import notifications_pb2 as pb
from mesh import convert

if TYPE_CHECKING:
    from orchestrator.notification_ports import Endpoint, LoggedDelivery


def endpoint(found: Endpoint) -> pb.WebhookEndpoint:
    """Give an endpoint as callers see it."""
    return pb.WebhookEndpoint(
        endpoint_id=str(found.endpoint_id),
        url=found.url,
        enabled=found.disabled_reason is None,
        disabled_reason=found.disabled_reason or "",
        create_time=convert.timestamp(found.created_at),
    )


def delivery(found: LoggedDelivery) -> pb.Delivery:
    """Give a delivery as callers see it."""
    message = pb.Delivery(
        message_id=str(found.message_id),
        request_id=str(found.request_id),
        type=found.type,
        receiver=found.receiver,
        state=pb.Delivery.State.Value(f"STATE_{found.state.name}"),
        tries=found.tries,
        last_status=found.last_status,
        last_error=found.last_error,
    )
    if found.last_try_at is not None:
        message.last_try_time.CopyFrom(convert.timestamp(found.last_try_at))
    if found.next_try_at is not None:
        message.next_try_time.CopyFrom(convert.timestamp(found.next_try_at))
    return message
