"""Questions about health, asked of the things themselves."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import asyncpg
import grpc
import httpx
from grpc_health.v1 import health_pb2

_TIMEOUT_S = 2.0


class NotReady(Exception):
    """It does not do what it is for, yet; the message says what was seen."""


async def grpc_serves(address: str, connect: Callable[[], grpc.aio.Channel]) -> None:
    """Return if the gRPC server at ``host:port`` says that it is SERVING (grpc.health.v1), over a new channel to it.

    Raises:
        NotReady: if it does not listen, does not answer, or says that it is not serving.

    """
    # A gRPC channel that was refused waits a second before it tries again; this knows at once.
    await _listens(address)
    async with connect() as channel:
        # HealthStub's types leave its methods out.
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            msg = f"its health check failed: {error.code().name}: {error.details()}"
            raise NotReady(msg) from None
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        msg = f"it says {name}"
        raise NotReady(msg)


async def postgres_answers(dsn: str) -> None:
    """Return if a query at PostgreSQL gives its result.

    Raises:
        NotReady: if it does not.

    """
    try:
        connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError) as error:
        msg = f"it refuses a connection: {error}"
        raise NotReady(msg) from None
    try:
        await connection.execute("SELECT 1", timeout=_TIMEOUT_S)
    except asyncpg.PostgresError as error:
        msg = f"it refuses a query: {error}"
        raise NotReady(msg) from None
    finally:
        connection.terminate()


async def valkey_answers(host: str, port: int) -> None:
    """Return if Valkey answers a PING.

    Raises:
        NotReady: if it does not, or is still loading its data.

    """
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        msg = f"it refuses a connection: {error.strerror}"
        raise NotReady(msg) from None
    try:
        writer.write(b"PING\r\n")
        answer = await reader.readline()
    except OSError as error:
        msg = f"it does not answer: {error.strerror}"
        raise NotReady(msg) from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if answer != b"+PONG\r\n":
        msg = f"it answers {answer!r}"
        raise NotReady(msg)


async def http_gives_200(url: str, headers: dict[str, str], roots: Path | None = None) -> None:
    """Return if a GET gives 200; ``roots`` are the CAs to believe over https, PEM.

    Raises:
        NotReady: if it does not.

    """
    verify = ssl.create_default_context(cafile=roots) if roots else True
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=verify) as client:
        try:
            response = await client.get(url, headers=headers)
        except httpx.HTTPError as error:
            msg = f"{url}: {type(error).__name__} {error}"
            raise NotReady(msg) from None
    if response.status_code != httpx.codes.OK:
        msg = f"{url} gives {response.status_code}: {response.text[:200]}"
        raise NotReady(msg)


async def _listens(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        msg = f"nobody listens on {address}"
        raise NotReady(msg) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
