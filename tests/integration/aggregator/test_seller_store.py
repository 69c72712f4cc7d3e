"""One suite over the store of sellers in PostgreSQL and over the fake that other tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.ports import SellerStore
from mesh import errors
from mesh.postgres import open_pool, statements
from sellers.model import SellerState
from tests.fakes.proxy import proxy
from tests.fakes.seller import registered
from tests.fakes.seller_store import MemorySellerStore
from tests.servers import PostgresServer

ACME = registered("acme", "acme:443")
BETA = registered("beta", "beta:443")


@pytest.fixture(params=["memory", "postgres"])
async def store(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> AsyncIterator[SellerStore]:
    if request.param == "memory":
        yield MemorySellerStore()
        return
    dsn = await postgres_server.clone()
    async with await open_pool(dsn, max_size=4, application_name="test") as pool:
        yield PostgresSellerStore(pool)
    await postgres_server.drop(dsn)


async def test_an_empty_registry_has_revision_0(store: SellerStore) -> None:
    assert await store.revision() == 0
    assert list(await store.since(0)) == []


async def test_sellers_come_back_as_they_were_put(store: SellerStore) -> None:
    odd = replace(
        BETA,
        display_name="B\u00eata \u4e66",
        tls_roots="-----BEGIN CERTIFICATE-----\n" + "x" * 60_000,
        state=SellerState.DISABLED,
        capabilities=replace(
            BETA.capabilities, currencies=("USD", "EUR"), supports_holds=False, min_quote_life_s=1.5
        ),
    )
    revision = await store.put([odd, ACME])
    assert await store.revision() == revision == 1
    assert list(await store.since(0)) == [replace(ACME, revision=1), replace(odd, revision=1)]


async def test_only_what_changed_since_a_revision_is_given(store: SellerStore) -> None:
    await store.put([ACME, BETA])
    renamed = replace(BETA, display_name="Beta Books")
    assert await store.put([ACME, renamed]) == 2
    assert list(await store.since(1)) == [replace(renamed, revision=2)]
    assert list(await store.since(2)) == []


async def test_putting_the_same_again_changes_nothing(store: SellerStore) -> None:
    assert await store.put([ACME, BETA]) == 1
    assert await store.put([replace(BETA, revision=77), ACME]) == 1
    assert await store.revision() == 1


async def test_only_sellers_whose_state_changes_get_the_revision(store: SellerStore) -> None:
    await store.put([ACME, replace(BETA, state=SellerState.DRAINING)])
    assert await store.set_state(["acme", "beta"], SellerState.DRAINING) == 2
    assert list(await store.since(1)) == [replace(ACME, state=SellerState.DRAINING, revision=2)]
    assert await store.set_state(["beta", "acme"], SellerState.DRAINING) == 2
    assert await store.revision() == 2


async def test_a_state_is_set_for_all_or_none_and_the_unknown_are_named(store: SellerStore) -> None:
    await store.put([ACME])
    with pytest.raises(errors.NotFound) as caught:
        await store.set_state(["zeta", "acme", "beta"], SellerState.DISABLED)
    assert caught.value.message == "not registered: beta, zeta"
    assert list(await store.since(0)) == [replace(ACME, revision=1)]


async def test_what_a_seller_can_do_is_changed_alone_and_only_if_nothing_else_was(
    store: SellerStore,
) -> None:
    await store.put([ACME, BETA])
    more = replace(ACME.capabilities, max_batch_size=77)
    assert await store.set_capabilities("acme", more, 1) == 2
    assert list(await store.since(1)) == [replace(ACME, capabilities=more, revision=2)]
    assert await store.set_capabilities("acme", more, 2) == 2
    await store.set_state(["acme"], SellerState.DISABLED)
    assert await store.set_capabilities("acme", ACME.capabilities, 2) == 3
    assert await store.set_capabilities("zeta", more, 3) == 3
    disabled = replace(ACME, capabilities=more, state=SellerState.DISABLED, revision=3)
    assert list(await store.since(1)) == [disabled]


async def test_writers_at_once_get_revisions_in_turn(store: SellerStore) -> None:
    sellers = [registered(f"seller-{number}", "s:1") for number in range(20)]
    revisions = await asyncio.gather(*(store.put([seller]) for seller in sellers))
    assert sorted(revisions) == list(range(1, 21))
    assert {seller.revision for seller in await store.since(0)} == set(revisions)


async def test_what_postgres_refuses_is_registered_not_even_in_part(postgres_dsn: str) -> None:
    async with await open_pool(postgres_dsn, max_size=1, application_name="test") as pool:
        store = PostgresSellerStore(pool)
        with pytest.raises(asyncpg.CheckViolationError):
            await store.put([ACME, replace(BETA, seller_id="Not An Id")])
        assert list(await store.since(0)) == []
        assert await store.revision() == 0


async def test_a_database_that_is_gone_is_unavailable_and_comes_back(
    postgres_dsn: str, postgres_server: PostgresServer
) -> None:
    async with proxy(postgres_server.port) as way:
        dsn = postgres_dsn.replace(str(postgres_server.port), str(way.port))
        async with await open_pool(dsn, max_size=2, application_name="test") as pool:
            store = PostgresSellerStore(pool)
            await store.put([ACME])
            await way.cut()
            for _ in range(2):
                with pytest.raises(errors.Unavailable):
                    await store.put([BETA])
                with pytest.raises(errors.Unavailable):
                    await store.revision()
            await way.restore()
            assert await store.put([BETA]) == 2


async def test_a_database_without_our_tables_is_unavailable(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("DROP SCHEMA aggregator CASCADE")
    await connection.close()
    async with await open_pool(postgres_dsn, max_size=1, application_name="test") as pool:
        with pytest.raises(errors.Unavailable, match="bookmesh migrate"):
            await PostgresSellerStore(pool).revision()


@pytest.mark.parametrize("name", sorted(statements("aggregator.adapters")))
async def test_every_statement_is_understood_by_postgres(postgres_dsn: str, name: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.prepare(statements("aggregator.adapters")[name])
    finally:
        await connection.close()
