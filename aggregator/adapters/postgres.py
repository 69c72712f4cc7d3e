"""The registry of sellers in PostgreSQL."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from aggregator.domain.registration import not_registered
from mesh import errors
from mesh.postgres import DOWN, statements
from sellers.model import Capabilities, Seller, SellerState

_NOT_NOW = (
    *DOWN,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    # While it is replaced by another: it is not there yet, or does not know us yet.
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientPrivilegeError,
)


class PostgresSellerStore:
    """Implements ``SellerStore`` on the schema ``aggregator``."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._sql = statements("aggregator.adapters")

    async def revision(self) -> int:
        async with reachable("the registry"):
            revision: int = await self._pool.fetchval(self._sql["registry_revision"])
            return revision

    async def since(self, revision: int) -> list[Seller]:
        async with reachable("the registry"):
            rows = await self._pool.fetch(self._sql["sellers_since"], revision)
        return [_seller(row) for row in rows]

    async def put(self, sellers: Sequence[Seller]) -> int:
        columns = (
            [seller.seller_id for seller in sellers],
            [seller.display_name for seller in sellers],
            [seller.endpoint for seller in sellers],
            [seller.tls_roots for seller in sellers],
            [seller.credential_reference for seller in sellers],
            [_json(seller.capabilities) for seller in sellers],
            [seller.state.value for seller in sellers],
        )
        async with (
            reachable("the registry"),
            self._pool.acquire() as connection,
            connection.transaction(),
        ):
            known: int = await connection.fetchval(self._sql["lock_registry"])
            revision = known + 1
            if not await connection.fetch(self._sql["put_sellers"], *columns, revision):
                return known
            await connection.execute(self._sql["set_registry_revision"], revision)
            return revision

    async def set_state(self, seller_ids: Sequence[str], state: SellerState) -> int:
        async with (
            reachable("the registry"),
            self._pool.acquire() as connection,
            connection.transaction(),
        ):
            known: int = await connection.fetchval(self._sql["lock_registry"])
            unknown = await connection.fetch(self._sql["unknown_sellers"], seller_ids)
            if unknown:
                raise not_registered(row["seller_id"] for row in unknown)
            revision = known + 1
            change = (seller_ids, state.value, revision)
            if not await connection.fetch(self._sql["set_seller_state"], *change):
                return known
            await connection.execute(self._sql["set_registry_revision"], revision)
            return revision

    async def set_capabilities(
        self, seller_id: str, capabilities: Capabilities, seen_revision: int
    ) -> int:
        async with (
            reachable("the registry"),
            self._pool.acquire() as connection,
            connection.transaction(),
        ):
            known: int = await connection.fetchval(self._sql["lock_registry"])
            revision = known + 1
            change = (seller_id, _json(capabilities), seen_revision, revision)
            if not await connection.fetch(self._sql["set_capabilities"], *change):
                return known
            await connection.execute(self._sql["set_registry_revision"], revision)
            return revision


def _json(capabilities: Capabilities) -> str:
    return json.dumps(dataclasses.asdict(capabilities))


def _seller(row: asyncpg.Record) -> Seller:
    capabilities = json.loads(row["capabilities"])
    return Seller(
        seller_id=row["seller_id"],
        display_name=row["display_name"],
        endpoint=row["endpoint"],
        tls_roots=row["tls_roots"],
        credential_reference=row["credential_reference"],
        capabilities=Capabilities(
            **{
                **capabilities,
                "currencies": tuple(capabilities["currencies"]),
                "contract_versions": tuple(capabilities["contract_versions"]),
            }
        ),
        state=SellerState(row["state"]),
        revision=row["revision"],
    )


@asynccontextmanager
async def reachable(what: str) -> AsyncIterator[None]:
    """Turn the ways in which PostgreSQL cannot be used now into ``Unavailable``; ``what`` is kept there.

    Raises:
        Unavailable: while it is down, overloaded, locked, read only, replaced, closed to us, or not migrated yet.

    """
    try:
        yield
    except _NOT_NOW as error:
        raise errors.Unavailable(
            f"the database of {what} cannot be used now ({type(error).__name__}): try again",
            retry_after_s=1.0,
        ) from error
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError) as error:
        raise errors.Unavailable(
            f"the tables of {what} are not there yet: run `bookmesh migrate`", retry_after_s=1.0
        ) from error
