"""The aggregator's services over real gRPC, in this process, with the store that a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import grpc
import pytest
from protovalidate import Validator

from aggregator.app.collect import Limits, QuoteCollector
from aggregator.app.gather import Gatherer
from aggregator.app.lots import GatherSettings
from aggregator.app.registry import Registry
from aggregator.domain.cached import CacheSettings
from aggregator.domain.outlook import Outlooks
from aggregator.ports import SellerStore
from aggregator.servicer import QuoteServicer, RegistryServicer
from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
    QuoteServiceStub,
    RegistryServiceStub,
    add_QuoteServiceServicer_to_server,
    add_RegistryServiceServicer_to_server,
)
from mesh.clock import SystemClock
from mesh.grpc.interceptor import ServiceInterceptor
from mesh.ids import uuid7_factory
from sellers.credentials import Credentials
from sellers.model import Seller
from sellers.registry import Directory
from sellers.transport import SellerTransport
from tests.fakes.admission import OpenAdmission
from tests.fakes.quote_cache import Memory, MemoryQuoteCache
from tests.fakes.seller_store import MemorySellerStore

if TYPE_CHECKING:
    # Exist for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import (
        QuoteServiceAsyncStub,
        RegistryServiceAsyncStub,
    )

POLL_S = 0.05
AMPLE = GatherSettings(seller_s=30.0)
"""So much time for each seller that no slow machine makes one late."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A running aggregator: stubs of its services, and what it knows."""

    quotes: QuoteServiceAsyncStub
    registrations: RegistryServiceAsyncStub
    directory: Directory
    admission: OpenAdmission
    sales: list[tuple[str, bool]]


StartReplica = Callable[..., AbstractAsyncContextManager[Replica]]


@pytest.fixture
def start_replica(tmp_path: Path) -> StartReplica:
    """Give what runs an aggregator on a store until its block ends."""
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))

    @asynccontextmanager
    async def start(
        store: SellerStore | None = None,
        *,
        sellers: Sequence[Seller] = (),
        limits: Limits | None = None,
        gathering: GatherSettings | None = None,
        read: bool = True,
    ) -> AsyncIterator[Replica]:
        clock = SystemClock()
        directory = Directory()
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(
                SellerTransport(Credentials(tmp_path / "credentials.json", clock), clock)
            )
            registry = Registry(
                store or MemorySellerStore(),
                directory,
                clock,
                lambda snapshot: transport.retain(snapshot.sellers.values()),
                poll_s=POLL_S,
            )
            outlooks, admission = Outlooks(), OpenAdmission(clock)
            gatherer = Gatherer(transport, admission, outlooks, gathering or AMPLE, clock)
            gathers = asyncio.create_task(gatherer.run())
            stack.push_async_callback(asyncio.wait, (gathers,))
            stack.callback(gathers.cancel)
            collector = QuoteCollector(
                directory,
                gatherer,
                MemoryQuoteCache(Memory(), clock, CacheSettings()),
                outlooks,
                clock=clock,
                new_id=uuid7_factory(clock, Random(1)),
                limits=limits or Limits(),
            )
            sales: list[tuple[str, bool]] = []

            def sold(seller_id: str, *, refused: bool) -> None:
                sales.append((seller_id, refused))

            interceptor = ServiceInterceptor(
                Validator(),
                default_timeout_s=30,
                unbounded=("/bookmesh.aggregator.v1.RegistryService/WatchSellers",),
                only="bookmesh.",
            )
            server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
            add_QuoteServiceServicer_to_server(QuoteServicer(collector, sold), server)
            add_RegistryServiceServicer_to_server(RegistryServicer(registry), server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            stack.callback(registry.close)
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            )
            if sellers:
                await registry.register(sellers)
            if read:
                following = asyncio.create_task(registry.follow())
                stack.push_async_callback(asyncio.wait, (following,))
                stack.callback(following.cancel)
                await registry.refresh()
            yield Replica(
                QuoteServiceStub(channel),
                RegistryServiceStub(channel),
                directory,
                admission,
                sales,
            )

    return start
