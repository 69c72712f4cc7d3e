"""Watching by server-sent events: ids, a heartbeat, resuming, an end, and errors within the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from mesh.grpc.errors import from_rpc
from tests.fakes.events import EventReader
from tests.fakes.issuer import Issuer
from tests.fakes.orchestrators import (
    PURCHASE_ID,
    STREAM_ENDS,
    OrchestratorReplica,
    purchase,
    result,
    step,
)

if TYPE_CHECKING:
    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub

WHOLE = (
    step("1", "SUBMITTED"),
    step("2", "COLLECTING"),
    internal.WatchPurchaseResponse(event_id="2-1700000000000-0", quotes=internal.QuotesArrived()),
    internal.WatchPurchaseResponse(event_id="2-1700000000000-1", quotes=internal.QuotesArrived()),
    step("3", "VOIDED"),
    result("4", purchase("NOT_AVAILABLE")),
    STREAM_ENDS,
)


class Listener:
    """A customer who listens."""

    def __init__(self, stub: PurchaseServiceAsyncStub, token: str) -> None:
        self.stub = stub
        self.metadata = (("authorization", f"Bearer {token}"),)

    def listen(
        self, last_id: str = "", *more: tuple[str, str]
    ) -> grpc.aio.UnaryStreamCall[pb.WatchPurchaseRequestEventsRequest, httpbody_pb2.HttpBody]:
        seen = (("last-event-id", last_id),) if last_id else ()
        return self.stub.WatchPurchaseRequestEvents(
            pb.WatchPurchaseRequestEventsRequest(request_id=PURCHASE_ID),
            metadata=(*self.metadata, *seen, *more),
        )

    async def heard(self, last_id: str = "") -> EventReader:
        reader = EventReader()
        async for body in self.listen(last_id):
            assert body.content_type == "text/event-stream"
            reader.feed(body.data.decode())
        return reader


@pytest.fixture
def listener(stub: PurchaseServiceAsyncStub, issuer: Issuer) -> Listener:
    return Listener(stub, issuer.token("alice"))


@pytest.fixture
async def over(replicas: list[OrchestratorReplica]) -> None:
    """The purchase has ended."""
    for replica in replicas:
        await replica.happen(*WHOLE)


@pytest.mark.usefixtures("over")
async def test_events_have_names_ids_and_the_data_of_a_watch(listener: Listener) -> None:
    reader = await listener.heard()
    assert [(event.name, event.event_id) for event in reader.events] == [
        ("step", "1"),
        ("step", "2"),
        ("quotes", "2-1700000000000-0"),
        ("quotes", "2-1700000000000-1"),
        ("step", "3"),
        ("result", "4"),
        ("end", "end"),
    ]
    assert reader.retry_ms == 2000
    watch = listener.stub.WatchPurchaseRequest(
        pb.WatchPurchaseRequestRequest(request_id=PURCHASE_ID), metadata=listener.metadata
    )
    shown = [
        MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        async for message in watch
    ]
    assert [event.data for event in reader.events[:-1]] == shown


async def test_who_comes_late_is_told_together_what_has_happened(
    listener: Listener, replicas: list[OrchestratorReplica]
) -> None:
    """Each message costs the gateway, the edge and the customer."""
    for replica in replicas:
        await replica.happen(*WHOLE[:-2])
    begun = listener.listen()
    first = EventReader()
    while not first.events or first.events[-1].event_id != "3":
        body = await begun.read()
        assert isinstance(body, httpbody_pb2.HttpBody)
        first.feed(body.data.decode())
    body = await listener.listen().read()
    assert isinstance(body, httpbody_pb2.HttpBody)
    at_once = EventReader()
    at_once.feed(body.data.decode())
    assert [event.event_id for event in at_once.events] == [
        event.event_id for event in first.events
    ]


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize(
    ("last_id", "then"),
    [
        ("2", ["2-1700000000000-0", "2-1700000000000-1", "3", "4", "end"]),
        ("2-1700000000000-0", ["2-1700000000000-1", "3", "4", "end"]),
        # A batch that is not known any more, because Valkey has lost it.
        ("2-1699999999999-7", ["2-1700000000000-0", "2-1700000000000-1", "3", "4", "end"]),
        ("3", ["4", "end"]),
        *[(no_id, ["1", "2"]) for no_id in ("x", "-1", "2-", "1.5")],
    ],
)
async def test_who_comes_back_goes_on_behind_the_last_event(
    listener: Listener, last_id: str, then: list[str]
) -> None:
    reader = await listener.heard(last_id)
    assert [event.event_id for event in reader.events][: len(then)] == then


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize("last_id", ["4", "end"])
async def test_who_has_seen_everything_is_told_to_stay_away(
    listener: Listener, last_id: str
) -> None:
    call = listener.listen(last_id)
    assert [body async for body in call] == []
    assert dict(await call.initial_metadata())["x-http-status"] == "204"


@pytest.mark.parametrize("heartbeat_s", [0.05])
async def test_while_nothing_happens_there_is_a_heartbeat(
    listener: Listener, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    reader = EventReader()
    call = listener.listen()
    # The first of them may come before the orchestrator has said anything.
    while reader.comments < 2 or not reader.events:
        body = await call.read()
        assert isinstance(body, httpbody_pb2.HttpBody)
        reader.feed(body.data.decode())
    assert [event.event_id for event in reader.events] == ["1"]


async def test_what_goes_wrong_in_between_is_an_event_and_before_an_error_of_the_call(
    listener: Listener, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    reader = EventReader()
    async for body in listener.listen():
        reader.feed(body.data.decode())
        for replica in replicas:
            await replica.kill()
    [error] = [event for event in reader.events if event.name != "step"]
    # Who comes back goes on behind the last event.
    assert (error.name, error.event_id) == ("error", "1")
    assert error.data["code"] == grpc.StatusCode.UNAVAILABLE.value[0]
    [info, retry] = error.data["details"]
    assert info == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "UNAVAILABLE",
        "domain": "bookmesh",
    }
    assert retry["retry_delay"] == "1s"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listener.listen().read()
    assert from_rpc(caught.value).retry_after_s is not None


@pytest.mark.parametrize("by_rest", [True, False])
async def test_over_rest_the_last_line_of_a_watch_that_breaks_off_is_the_error(
    listener: Listener, replicas: list[OrchestratorReplica], *, by_rest: bool
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    edge = (("x-envoy-original-method", "GET"),) if by_rest else ()
    call = listener.stub.WatchPurchaseRequest(
        pb.WatchPurchaseRequestRequest(request_id=PURCHASE_ID), metadata=(*listener.metadata, *edge)
    )
    messages = []
    failure = None
    try:
        async for message in call:
            messages.append(message)
            for replica in replicas:
                await replica.kill()
    except grpc.aio.AioRpcError as error:
        failure = error
    if by_rest:
        assert failure is None
        assert messages[-1].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        info = error_details_pb2.ErrorInfo.FromString(messages[-1].error.details[0].value)
        assert info.metadata == {"last_event_id": "1"}
    else:
        assert failure is not None
        assert failure.code() is grpc.StatusCode.UNAVAILABLE
        assert [message.event_id for message in messages] == ["1"]
