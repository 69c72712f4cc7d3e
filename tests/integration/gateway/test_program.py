"""``python -m gateway`` as it is run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer
from tests.fakes.orchestrators import OrchestratorReplica

SERVICE = "bookmesh.customer.v1.PurchaseService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Health = grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


@asynccontextmanager
async def running(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    told = {f"BOOKMESH_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        env={**os.environ, **told},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def port(process: asyncio.subprocess.Process) -> int:
    assert process.stderr is not None
    async for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == "listening":
            return int(entry["port"])
    pytest.fail("it ended without listening")


def watch_health(channel: grpc.aio.Channel) -> Health:
    method: grpc.aio.UnaryStreamMultiCallable[
        health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
    ] = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return method(health_pb2.HealthCheckRequest(service=SERVICE))


async def until(health: Health, status: int) -> None:
    """Wait for a state of health: on a slow machine there may be others on the way to it."""
    async for answer in health:
        if answer.status == status:
            return
    pytest.fail("its health is told no more")


async def test_it_serves_while_an_orchestrator_and_the_keys_are_there(
    replicas: list[OrchestratorReplica], issuer: Issuer
) -> None:
    target = "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
    issuer.file.unlink()
    async with running(
        ORCHESTRATOR_TARGET=target,
        AGGREGATOR_TARGET="ipv4:127.0.0.1:9",
        JWKS_FILE=str(issuer.file),
        JWT_ISSUER=ISSUER,
        JWT_AUDIENCE=AUDIENCE,
        DRAIN_PAUSE_S="0",
    ) as process:
        address = f"127.0.0.1:{await port(process)}"
        async with grpc.aio.insecure_channel(address) as channel:
            health = watch_health(channel)
            await until(health, NOT_SERVING)
            issuer.publish()
            await until(health, SERVING)
            await replicas[0].serve(yes=False)
            await replicas[1].serve(yes=False)
            await until(health, NOT_SERVING)
            await replicas[1].serve(yes=True)
            await until(health, SERVING)
            process.send_signal(signal.SIGTERM)
            await until(health, NOT_SERVING)
            health.cancel()
        await process.communicate()
        assert process.returncode == 0


async def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    async with running(
        JWKS_FILE=str(tmp_path), JWT_ISSUER="i", JWT_AUDIENCE="a", DEFAULT_CURRENCY="XXX"
    ) as process:
        _, complaint = await process.communicate()
        assert process.returncode == 2
        assert b"BOOKMESH_ORCHESTRATOR_TARGET: " in complaint
        assert b"BOOKMESH_DEFAULT_CURRENCY: " in complaint
