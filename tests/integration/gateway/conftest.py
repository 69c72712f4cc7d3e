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
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc
from gateway.adapters import orchestrator
from gateway.adapters.keys import FileKeys
from gateway.adapters.orchestrator import GrpcOrchestrator
from gateway.adapters.tokens import JwtIdentities
from gateway.callers import Callers
from gateway.limits import Limits
from gateway.servicer import PurchaseServicer
from mesh.clock import SystemClock
from mesh.grpc.channel import open_channel
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.ids import uuid7_factory
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer
from tests.fakes.orchestrators import OrchestratorReplica, Script

CALLS, STREAMS = 50, 10
"""How many a customer may have open."""


HEARTBEAT_S = 0.2


class HurriedClock(SystemClock):
    """Leaves out the pauses between tries."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


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
    replicas: list[OrchestratorReplica], issuer: Issuer
) -> AsyncIterator[customer_pb2_grpc.PurchaseServiceAsyncStub]:
    """Give a customer's stub of a gateway that is ready."""
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
            heartbeat_s=HEARTBEAT_S,
        )
        interceptor = ServiceInterceptor(
            Validator(),
            default_timeout_s=10.0,
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
        await channel.channel_ready()
        yield customer_pb2_grpc.PurchaseServiceStub(customers)
