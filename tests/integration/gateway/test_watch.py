from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, UnaryStreamCall

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from mesh import errors
from mesh.grpc.errors import from_rpc
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

Watch = UnaryStreamCall[pb.WatchPurchaseRequestRequest, pb.WatchPurchaseRequestResponse]


@pytest.fixture
def watch(stub: PurchaseServiceAsyncStub, issuer: Issuer) -> Watch:
    return stub.WatchPurchaseRequest(
        pb.WatchPurchaseRequestRequest(request_id=PURCHASE_ID),
        metadata=(("authorization", f"Bearer {issuer.token('alice')}"),),
    )


async def read(watch: Watch) -> str:
    event = await watch.read()
    assert isinstance(event, pb.WatchPurchaseRequestResponse)
    return event.event_id


async def rest(watch: Watch) -> list[str]:
    ids = []
    while isinstance(event := await watch.read(), pb.WatchPurchaseRequestResponse):
        ids.append(event.event_id)
    return ids


def streaming(replicas: list[OrchestratorReplica]) -> OrchestratorReplica:
    [replica] = [replica for replica in replicas if replica.watched and not replica.left.is_set()]
    return replica


async def test_events_are_passed_on_as_they_happen(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    async def happen(event: internal.WatchPurchaseResponse) -> None:
        for replica in replicas:
            await replica.happen(event)

    await happen(step("1", "SUBMITTED"))
    assert await read(watch) == "1"
    await happen(step("2", "AUTHORIZED"))
    assert await read(watch) == "2"
    await happen(result("3", purchase("NOT_AVAILABLE")))
    await happen(STREAM_ENDS)
    assert await rest(watch) == ["3"]


async def test_the_stream_ends_with_the_result(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(result("1", purchase("NOT_AVAILABLE")), STREAM_ENDS)
    events = [event async for event in watch]
    assert [event.event_id for event in events] == ["1"]
    assert events[0].result.status == pb.PurchaseStatus.not_available
    assert sum(replica.watched for replica in replicas) == 1


async def test_a_replica_that_dies_after_the_result_is_not_missed(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(result("1", purchase("NOT_AVAILABLE")))
    assert await read(watch) == "1"
    for replica in replicas:
        await replica.kill()
    assert await rest(watch) == []


async def test_a_dead_replica_is_replaced_and_nothing_is_said_twice(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"), step("2", "AUTHORIZED"))
    assert [await read(watch), await read(watch)] == ["1", "2"]
    dead = streaming(replicas)
    await dead.kill()
    [alive] = [replica for replica in replicas if replica is not dead]
    await alive.happen(step("3", "COLLECTING"), result("4", purchase("NOT_AVAILABLE")), STREAM_ENDS)
    assert await rest(watch) == ["3", "4"]


async def test_a_stream_that_ends_early_is_opened_again(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    assert await read(watch) == "1"
    first = streaming(replicas)
    await first.happen(STREAM_ENDS)
    for replica in replicas:
        if replica is not first:
            await replica.happen(result("2", purchase("NOT_AVAILABLE")), STREAM_ENDS)
    assert await rest(watch) == ["2"]


async def test_without_orchestrators_the_watcher_may_try_again(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    assert await read(watch) == "1"
    for replica in replicas:
        await replica.kill()
    with pytest.raises(AioRpcError) as caught:
        await watch.read()
    error = from_rpc(caught.value)
    assert type(error) is errors.Unavailable
    assert error.retry_after_s is not None


async def test_a_watcher_who_leaves_is_forgotten_everywhere(
    watch: Watch, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    assert await read(watch) == "1"
    replica = streaming(replicas)
    watch.cancel()
    await replica.left.wait()


async def shared(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, *customers: str, edge: bool = False
) -> list[Watch]:
    """Open watches of these customers; give them when each has had the first event."""
    by_rest = (("x-envoy-original-method", "GET"),) if edge else ()
    watches = [
        stub.WatchPurchaseRequest(
            pb.WatchPurchaseRequestRequest(request_id=PURCHASE_ID),
            metadata=(("authorization", f"Bearer {issuer.token(customer)}"), *by_rest),
        )
        for customer in customers
    ]
    assert [await read(watch) for watch in watches] == ["1"] * len(watches)
    return watches


def asked(replicas: list[OrchestratorReplica]) -> int:
    return sum(replica.watched for replica in replicas)


async def test_however_many_watch_a_purchase_the_orchestrator_is_asked_once(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    first, second = await shared(stub, issuer, "alice", "alice")
    for replica in replicas:
        await replica.happen(step("2", "AUTHORIZED"))
    assert [await read(first), await read(second)] == ["2", "2"]
    # Who comes late has missed nothing.
    [late] = await shared(stub, issuer, "alice")
    assert await read(late) == "2"
    assert asked(replicas) == 1
    for replica in replicas:
        await replica.happen(result("3", purchase("NOT_AVAILABLE")), STREAM_ENDS)
    assert [await rest(watch) for watch in (first, second, late)] == [["3"]] * 3


async def test_customers_never_share_a_watch(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, replicas: list[OrchestratorReplica]
) -> None:
    """Whether the purchase is theirs, the orchestrator says."""
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    await shared(stub, issuer, "alice", "mallory")
    requests = [request for replica in replicas for request in replica.script.asked[:2]]
    assert {
        request.customer_id
        for request in requests
        if isinstance(request, internal.WatchPurchaseRequest)
    } == {"alice", "mallory"}


async def test_who_leaves_takes_nothing_from_the_others(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    first, second = await shared(stub, issuer, "alice", "alice")
    first.cancel()
    for replica in replicas:
        await replica.happen(step("2", "AUTHORIZED"))
    assert await read(second) == "2"
    replica = streaming(replicas)
    second.cancel()
    await replica.left.wait()
    # Who comes then begins anew.
    [again] = await shared(stub, issuer, "alice")
    assert await read(again) == "2"
    assert asked(replicas) == 2


async def test_each_is_told_of_an_error_and_how_far_it_came(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.happen(step("1", "SUBMITTED"))
    by_rest = await shared(stub, issuer, "alice", "alice", edge=True)
    [by_grpc] = await shared(stub, issuer, "alice")
    for replica in replicas:
        await replica.kill()
    for watch in by_rest:
        told = await watch.read()
        assert isinstance(told, pb.WatchPurchaseRequestResponse)
        assert told.error.code == StatusCode.UNAVAILABLE.value[0]
    with pytest.raises(AioRpcError) as caught:
        await by_grpc.read()
    assert from_rpc(caught.value).metadata == {}
