"""The registry over real gRPC and real PostgreSQL, with two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest

from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.app.registry import CHUNK
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.seller.v1 import seller_pb2
from mesh.clock import SystemClock
from mesh.grpc.errors import from_rpc
from mesh.postgres import open_pool
from sellers.model import Seller, SellerState
from sellers.registration import to_proto
from sellers.registry import Directory, Snapshot
from sellers.watch import follow_registry
from tests.fakes.proxy import proxy
from tests.fakes.seller import fake_seller, quotes, registered
from tests.integration.aggregator.conftest import Replica, StartReplica
from tests.servers import PostgresServer

ACME = registered("acme", "acme:443")
BETA = registered("beta", "beta:443")


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresSellerStore]:
    async with await open_pool(postgres_dsn, max_size=4, application_name="test") as pool:
        yield PostgresSellerStore(pool)


async def register(replica: Replica, *sellers: Seller) -> int:
    request = pb.RegisterSellersRequest(sellers=[to_proto(seller) for seller in sellers])
    return (await replica.registrations.RegisterSellers(request)).revision


class Follower:
    """What a service that follows the registry knows."""

    def __init__(self) -> None:
        self.directory = Directory()
        self._changed = asyncio.Event()

    async def follow(self, replica: Replica) -> None:
        await follow_registry(replica.registrations, self.directory, SystemClock(), self._on_change)

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        """Wait until what is known is as it should be."""
        while (snapshot := self.directory.snapshot) is None or not holds(snapshot):
            await self._changed.wait()
            self._changed.clear()
        return snapshot

    def _on_change(self, snapshot: Snapshot) -> None:
        self._changed.set()


async def test_a_change_at_one_replica_reaches_those_who_follow_another(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    async with start_replica(store) as here, start_replica(store) as there:
        follower = Follower()
        following = asyncio.create_task(follower.follow(there))
        await follower.until(lambda snapshot: snapshot.revision == 0)
        assert await register(here, ACME, BETA) == 1
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 1)
        assert snapshot.active == (ACME, BETA)
        assert await register(here, replace(ACME, state=SellerState.DRAINING)) == 2
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 2)
        assert [seller.seller_id for seller in snapshot.active] == ["beta"]
        assert snapshot.sellers["acme"].state is SellerState.DRAINING
        following.cancel()
        await asyncio.wait((following,))


async def set_state(
    replica: Replica, state: pb.Seller.State.ValueType, *seller_ids: str
) -> pb.SetSellerStateResponse:
    request = pb.SetSellerStateRequest(seller_ids=seller_ids, state=state)
    return await replica.registrations.SetSellerState(request)


async def test_a_state_set_at_one_replica_reaches_those_who_follow_another(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    async with start_replica(store) as here, start_replica(store) as there:
        follower = Follower()
        following = asyncio.create_task(follower.follow(there))
        await register(here, ACME, BETA)
        assert (await set_state(here, pb.Seller.STATE_DRAINING, "acme")).revision == 2
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 2)
        assert snapshot.active == (BETA,)
        assert snapshot.sellers["acme"].state is SellerState.DRAINING
        await set_state(here, pb.Seller.STATE_DISABLED, "acme", "beta")
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 3)
        assert {seller.state for seller in snapshot.sellers.values()} == {SellerState.DISABLED}
        await set_state(here, pb.Seller.STATE_ACTIVE, "acme")
        await follower.until(lambda snapshot: len(snapshot.active) == 1)
        following.cancel()
        await asyncio.wait((following,))


async def test_a_state_for_sellers_of_whom_one_is_unknown_changes_none(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    async with start_replica(store) as replica:
        await register(replica, ACME)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await set_state(replica, pb.Seller.STATE_DISABLED, "acme", "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert "nobody" in (caught.value.details() or "")
        assert replica.directory.snapshot is not None
        assert [seller.seller_id for seller in replica.directory.snapshot.active] == ["acme"]


@pytest.mark.parametrize(
    ("state", "seller_ids"),
    [
        (pb.Seller.STATE_UNSPECIFIED, ["acme"]),
        (pb.Seller.STATE_ACTIVE, []),
        (pb.Seller.STATE_ACTIVE, ["acme", "acme"]),
    ],
    ids=["no state", "no seller", "a seller twice"],
)
async def test_a_change_of_state_that_makes_no_sense_is_refused(
    start_replica: StartReplica, state: pb.Seller.State.ValueType, seller_ids: list[str]
) -> None:
    async with start_replica(sellers=[ACME]) as replica:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await set_state(replica, state, *seller_ids)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_newcomer_learns_all_sellers_however_many(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    names = [f"seller-{number:03}" for number in range(3 * CHUNK + 1)]
    async with start_replica(store) as replica:
        await register(replica, *(registered(name, "s:1") for name in names))
        follower = Follower()
        following = asyncio.create_task(follower.follow(replica))
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 1)
        assert [seller.seller_id for seller in snapshot.active] == names
        following.cancel()
        await asyncio.wait((following,))


async def test_a_follower_goes_on_after_its_replica_was_replaced(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    follower = Follower()
    async with start_replica(store) as first:
        await register(first, ACME)
        following = asyncio.create_task(follower.follow(first))
        await follower.until(lambda snapshot: snapshot.revision == 1)
        following.cancel()
        await asyncio.wait((following,))
    async with start_replica(store) as second:
        await register(second, BETA)
        following = asyncio.create_task(follower.follow(second))
        snapshot = await follower.until(lambda snapshot: snapshot.revision == 2)
        assert [seller.seller_id for seller in snapshot.active] == ["acme", "beta"]
        following.cancel()
        await asyncio.wait((following,))


async def test_without_postgres_collections_go_on_and_registrations_do_not(
    start_replica: StartReplica, postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    async with AsyncExitStack() as stack:
        way = await stack.enter_async_context(proxy(postgres_server.port))
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        pool = await stack.enter_async_context(
            await open_pool(dsn, max_size=2, application_name="test")
        )
        fake = await stack.enter_async_context(fake_seller(GetQuote=quotes()))
        replica = await stack.enter_async_context(start_replica(PostgresSellerStore(pool)))
        await register(replica, registered("acme", fake.endpoint))
        await way.cut()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await register(replica, BETA)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert from_rpc(caught.value).retry_after_s == pytest.approx(1.0)
        assert await quoting_sellers(replica) == ["acme"]
        await way.restore()
        assert await register(replica, BETA) == 2


async def quoting_sellers(replica: Replica) -> list[str]:
    request = pb.CollectQuotesRequest(
        book_id="9780134685991", currency_code="USD", conditions=[seller_pb2.CONDITION_NEW]
    )
    return [
        quote.seller_id
        async for part in replica.quotes.CollectQuotes(request)
        for quote in part.batch.quotes
    ]


async def test_a_new_seller_is_asked_in_the_next_collection_and_a_disabled_one_is_not(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    async with (
        fake_seller(GetQuote=quotes()) as one,
        fake_seller(GetQuote=quotes()) as two,
        start_replica(store) as replica,
    ):
        acme, beta = registered("acme", one.endpoint), registered("beta", two.endpoint)
        assert await quoting_sellers(replica) == []
        await register(replica, acme)
        assert await quoting_sellers(replica) == ["acme"]
        await register(replica, replace(acme, state=SellerState.DISABLED), beta)
        assert await quoting_sellers(replica) == ["beta"]


UNRESOLVABLE = replace(
    BETA,
    capabilities=replace(BETA.capabilities, supports_get_order=False, honours_not_after=False),
)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (UNRESOLVABLE, "sellers[1].capabilities"),
        (replace(BETA, endpoint="no port"), "sellers[1].endpoint"),
        (replace(BETA, endpoint=""), "sellers[1].endpoint"),
        (replace(BETA, endpoint="beta:99999"), "sellers[1].endpoint"),
        (replace(BETA, seller_id="Beta Books"), "sellers[1].seller_id"),
        (replace(BETA, seller_id="acme"), "sellers[1].seller_id"),
        (replace(BETA, credential_reference=""), "sellers[1].credential_reference"),
        (replace(BETA, tls_roots="nonsense"), "sellers[1].tls_roots"),
        (
            replace(BETA, capabilities=replace(BETA.capabilities, calls_per_minute=0)),
            "sellers[1].capabilities.calls_per_minute",
        ),
        (
            replace(BETA, capabilities=replace(BETA.capabilities, key_retention_s=3600.0)),
            "sellers[1].capabilities.key_retention",
        ),
    ],
    ids=[
        "orders cannot be resolved",
        "endpoint without port",
        "no endpoint",
        "port out of range",
        "id of another form",
        "id twice",
        "no credential",
        "roots that are none",
        "no calls",
        "keys kept too short",
    ],
)
async def test_a_wrong_seller_is_named_and_none_is_registered(
    start_replica: StartReplica, store: PostgresSellerStore, wrong: Seller, field: str
) -> None:
    async with start_replica(store) as replica:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await register(replica, ACME, wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [violation.field for violation in from_rpc(caught.value).fields] == [field]
        assert await store.revision() == 0


async def test_registering_again_changes_nothing(
    start_replica: StartReplica, store: PostgresSellerStore
) -> None:
    async with start_replica(store) as replica:
        assert [await register(replica, ACME, BETA) for _ in range(2)] == [1, 1]
