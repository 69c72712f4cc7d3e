"""A database that cannot be used now is said to be unavailable; a fault of our own is not."""

from __future__ import annotations

import asyncpg
import pytest

from aggregator.adapters.postgres import reachable
from mesh import errors


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.DeadlockDetectedError(),
        asyncpg.LockNotAvailableError(),
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.UndefinedTableError(),
        asyncpg.InvalidCatalogNameError(),
        asyncpg.InvalidPasswordError(),
        asyncpg.InsufficientPrivilegeError(),
    ],
)
async def test_what_passes_is_unavailable_and_tried_again(error: Exception) -> None:
    with pytest.raises(errors.Unavailable) as raised:
        async with reachable("the registry"):
            raise error
    assert raised.value.retry_after_s == 1.0


async def test_a_fault_in_our_sql_stays_what_it_is() -> None:
    with pytest.raises(asyncpg.UndefinedColumnError):
        async with reachable("the registry"):
            raise asyncpg.UndefinedColumnError
