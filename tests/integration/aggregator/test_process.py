"""``python -m aggregator`` as it runs: honest health, one trace, a drain that does not wait for watchers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceStub, RegistryServiceStub
from bookmesh.seller.v1 import seller_pb2
from sellers.registration import to_proto
from tests.fakes.proxy import proxy
from tests.fakes.seller import fake_seller, quotes, registered
from tests.servers import PostgresServer

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


class Process:
    """The service as a process of its own; its log, line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[dict[str, object]] = []

    async def logged(self, holds: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        """Wait for a line."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(json.loads(line))
            if holds(self.log[-1]):
                return self.log[-1]
        raise AssertionError(f"it ended without that line: {self.log}")

    async def channel(self) -> grpc.aio.Channel:
        """Connect, once it listens."""
        line = await self.logged(lambda line: line["event"] == "listening")
        return grpc.aio.insecure_channel(f"127.0.0.1:{line['port']}")

    async def ended(self) -> int:
        """Wait for its end; give its exit status."""
        await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def aggregator(folder: Path, dsn: str, valkey_url: str) -> AsyncIterator[Process]:
    """Run the service until the block ends."""
    (folder / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aggregator"),
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "BOOKMESH_LISTEN": "127.0.0.1:0",
            "BOOKMESH_ADMIN_LISTEN": "127.0.0.1:0",
            "BOOKMESH_DATABASE_URL": dsn,
            "BOOKMESH_VALKEY_URL": valkey_url,
            "BOOKMESH_QUIET_START": "true",
            "BOOKMESH_SELLER_CREDENTIALS_FILE": str(folder / "credentials.json"),
            "BOOKMESH_DRAIN_PAUSE_S": "0",
            # As much as there may be: on a slow machine a seller may be late.
            "BOOKMESH_SELLER_TIMEOUT_S": "4.5",
            # A drain that waits for watchers would outlive the test.
            "BOOKMESH_DRAIN_S": "600",
        },
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def watch_health(channel: grpc.aio.Channel) -> Health:
    """Watch the health of the quote service."""
    # HealthStub's types leave its methods out.
    watch: grpc.aio.UnaryStreamMultiCallable[HealthCheckRequest, HealthCheckResponse]
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    return watch(HealthCheckRequest(service="bookmesh.aggregator.v1.QuoteService"))


async def until(health: Health, status: int) -> None:
    """Wait for a state of health."""
    async for answer in health:
        if answer.status == status:
            return


if TYPE_CHECKING:
    Health = grpc.aio.UnaryStreamCall[HealthCheckRequest, HealthCheckResponse]


async def test_it_serves_when_it_has_read_the_registry_and_drains_whoever_watches(
    tmp_path: Path, postgres_dsn: str, postgres_server: PostgresServer, valkey_url: str
) -> None:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(proxy(postgres_server.port))
        await way.cut()
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        running = await stack.enter_async_context(aggregator(tmp_path, dsn, valkey_url))
        channel = await stack.enter_async_context(await running.channel())
        health = watch_health(channel)
        await until(health, NOT_SERVING)
        await way.restore()
        await until(health, SERVING)

        watch = RegistryServiceStub(channel).WatchSellers(pb.WatchSellersRequest())
        first = await watch.read()
        assert isinstance(first, pb.WatchSellersResponse)
        assert first.complete
        # Known sellers are enough: it goes on without PostgreSQL.
        await way.cut()
        await running.logged(
            lambda line: str(line["event"]).startswith("the registry cannot be read")
        )
        second_look = watch_health(channel)
        await until(second_look, SERVING)
        second_look.cancel()

        running.process.send_signal(signal.SIGTERM)
        await until(health, NOT_SERVING)
        health.cancel()
        assert await watch.read() is grpc.aio.EOF
        assert await running.ended() == 0


async def test_its_log_carries_the_caller_s_trace(
    tmp_path: Path, postgres_dsn: str, valkey_url: str
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(fake_seller(GetQuote=quotes()))
        running = await stack.enter_async_context(aggregator(tmp_path, postgres_dsn, valkey_url))
        channel = await stack.enter_async_context(await running.channel())
        await RegistryServiceStub(channel).RegisterSellers(
            pb.RegisterSellersRequest(sellers=[to_proto(registered("acme", fake.endpoint))])
        )
        request = pb.CollectQuotesRequest(
            book_id="9780134685991", currency_code="USD", conditions=[seller_pb2.CONDITION_NEW]
        )
        metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
        async for _ in QuoteServiceStub(channel).CollectQuotes(request, metadata=metadata):
            pass
        line = await running.logged(lambda line: line["event"] == "collected")
        assert (line["trace_id"], line["service"], line["quoted"]) == (trace_id, "aggregator", 1)
        assert not any("s3cr3t" in json.dumps(line) for line in running.log)
        [(_, _, sent)] = fake.requests
        assert "traceparent" not in sent, "nothing is exported, so no trace is shown to sellers"


async def test_wrong_settings_are_a_line_each_and_status_2(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aggregator"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BOOKMESH_SELLER_TIMEOUT_S": "-1"},
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert [line.split(":")[0] for line in errors.decode().splitlines()] == [
        "BOOKMESH_VALKEY_URL",
        "BOOKMESH_SELLER_CREDENTIALS_FILE",
        "BOOKMESH_DATABASE_URL",
        "BOOKMESH_SELLER_TIMEOUT_S",
    ]
