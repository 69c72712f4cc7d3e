"""A database that goes away in the middle of something."""

from __future__ import annotations

from random import Random
from typing import Any, NoReturn
from uuid import UUID

import asyncpg
import pytest

from mesh.clock import SystemClock
from mesh.errors import Unavailable
from mesh.ids import uuid7_factory
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.adapters.sandbox import SandboxPaymentProvider
from orchestrator.ports import Unknown


class BrokenPool:
    """A pool in which everything fails in one way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def fetchrow(self, *args: object) -> NoReturn:
        raise self._error

    def acquire(self) -> NoReturn:
        raise self._error


@pytest.fixture(
    params=[
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def pool(request: pytest.FixtureRequest) -> Any:  # noqa: ANN401  a pool, as far as it is used
    return BrokenPool(request.param)


async def test_purchases_are_unavailable(pool: Any) -> None:  # noqa: ANN401  as above
    store = PostgresPurchaseStore(pool, "postgresql://nowhere")
    with pytest.raises(Unavailable) as caught:
        await store.get(UUID(int=1), "alice")
    assert (caught.value.reason, caught.value.retry_after_s) == ("DATABASE_UNAVAILABLE", 1.0)


async def test_the_sandbox_answers_nothing(pool: Any) -> None:  # noqa: ANN401  as above
    clock = SystemClock()
    sandbox = SandboxPaymentProvider(pool, clock, uuid7_factory(clock, Random(7)))
    assert isinstance(await sandbox.void("key", "auth_1"), Unknown)
