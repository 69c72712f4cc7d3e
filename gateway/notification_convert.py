"""The customer's contract of notifications to and from the orchestrator's. Pure."""

from __future__ import annotations

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import notifications_pb2

_State = notifications_pb2.Delivery.State


def endpoint(found: notifications_pb2.WebhookEndpoint) -> pb.WebhookEndpoint:
    """Give an endpoint as its customer sees it."""
    return pb.WebhookEndpoint(
        endpoint_id=found.endpoint_id,
        url=found.url,
        enabled=found.enabled,
        disabled_reason=found.disabled_reason,
        create_time=found.create_time,
    )


def delivery(found: notifications_pb2.Delivery) -> pb.Delivery:
    """Give a delivery as its customer sees it."""
    word = _State.Name(found.state).removeprefix("STATE_").lower()
    message = pb.Delivery(
        message_id=found.message_id,
        request_id=found.request_id,
        type=found.type,
        receiver=found.receiver,
        state=pb.DeliveryState.Word.Value(word),
        tries=found.tries,
        last_error=found.last_error,
    )
    if found.HasField("last_status"):
        message.last_status = found.last_status
    if found.HasField("last_try_time"):
        message.last_try_time.CopyFrom(found.last_try_time)
    if found.HasField("next_try_time"):
        message.next_try_time.CopyFrom(found.next_try_time)
    return message
