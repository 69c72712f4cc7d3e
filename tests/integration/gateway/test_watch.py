from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
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
