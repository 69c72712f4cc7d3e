"""A gateway before two scripted orchestrators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import grpc
import pytest
from protovalidate import Validator

from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from gateway.adapters import orchestrator
from gateway.adapters.orchestrator import GrpcOrchestrator
from gateway.callers import Callers
from gateway.limits import Limits
from gateway.servicer import PurchaseServicer
from mesh.clock import SystemClock
from mesh.grpc.channel import open_channel
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.ids import uuid7_factory
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import FileKeys
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer
from tests.fakes.orchestrators import PURCHASE_ID, OrchestratorReplica, Script

CALLS, STREAMS = 50, 10
"""How many a customer may have open."""

CALL_S = 30.0
"""The time of a call, so that no slow machine ends it."""


class HurriedClock(SystemClock):
    """Leaves out the pauses between tries."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def heartbeat_s() -> float:
    """After how long a silent stream has a heartbeat: never, unless a test wants to hear it."""
    return 600.0


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


@pytest.fixture
async def replicas(script: Script) -> AsyncIterator[list[OrchestratorReplica]]:
    replicas = [OrchestratorReplica(script), OrchestratorReplica(script)]
    for replica in replicas:
        await replica.start()
    yield replicas
    for replica in replicas:
        await replica.kill()


@pytest.fixture
async def stub(
    replicas: list[OrchestratorReplica],
    script: Script,
    issuer: Issuer,
    heartbeat_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[customer_pb2_grpc.PurchaseServiceAsyncStub]:
    """Give a customer's stub of a gateway that is connected to all replicas."""
    monkeypatch.setattr(orchestrator, "_SUBMIT_S", CALL_S)
    monkeypatch.setattr(orchestrator, "_READ_S", CALL_S)
    clock = HurriedClock()
    target = "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(
            open_channel(target, orchestrator.SERVICE, retried=orchestrator.RETRIED)
        )
        servicer = PurchaseServicer(
            Callers(
                JwtIdentities(FileKeys(issuer.file), issuer=ISSUER, audience=AUDIENCE),
                Limits(calls=CALLS, streams=STREAMS, all_streams=2 * STREAMS),
            ),
            GrpcOrchestrator(orchestrator_pb2_grpc.PurchaseServiceStub(channel), clock),
            uuid7_factory(clock, Random(1)),
            default_currency="USD",
            heartbeat_s=heartbeat_s,
        )
        interceptor = ServiceInterceptor(
            Validator(),
            default_timeout_s=CALL_S,
            unbounded=[
                "/bookmesh.customer.v1.PurchaseService/WatchPurchaseRequest",
                "/bookmesh.customer.v1.PurchaseService/WatchPurchaseRequestEvents",
            ],
            only="bookmesh.",
        )
        server = grpc.aio.server(interceptors=[interceptor])
        customer_pb2_grpc.add_PurchaseServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        customers = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        await connected(channel, replicas, script)
        yield customer_pb2_grpc.PurchaseServiceStub(customers)


async def connected(
    channel: grpc.aio.Channel, replicas: list[OrchestratorReplica], script: Script
) -> None:
    """Wait until the channel reaches every replica: it is ready as soon as it reaches one."""
    internal = orchestrator_pb2_grpc.PurchaseServiceStub(channel)
    while not all(replica.asked for replica in replicas):
        await internal.GetPurchase(
            orchestrator_pb2.GetPurchaseRequest(customer_id="nobody", request_id=PURCHASE_ID),
            wait_for_ready=True,
        )
    script.asked.clear()
    script.time_left_s.clear()
