"""The quote cache ends when it is told to, although its client swallows a cancellation that comes at a bad moment."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import ConnectionError as ConnectionLost

from aggregator.adapters.valkey import ValkeyQuoteCache
from aggregator.domain.cached import CacheSettings
from aggregator.domain.collection import Answer, Question
from mesh.clock import SystemClock
from sellers.model import Condition, Unavailable, UnavailableReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

QUESTION = Question("9780134685991", "USD", frozenset({Condition.NEW}))
NO = Answer("acme", Unavailable(UnavailableReason.NOT_CARRIED), 0.1)


class _Careless:
    """A client and its pipeline: each call hangs, and its cancellation is told as a connection that was lost."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def _hang(self) -> None:
        self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionLost("while it was given up") from None

    def evalsha(self, *_arguments: object) -> None: ...

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        await self._hang()
        return []

    async def set(self, *_arguments: object, **_more: object) -> None:
        await self._hang()

    @asynccontextmanager
    async def pipeline(self, *, transaction: bool) -> AsyncIterator[_Careless]:
        assert not transaction
        yield self

    @asynccontextmanager
    async def pubsub(self) -> AsyncIterator[_Careless]:
        yield self

    async def subscribe(self, _channel: str) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("doing", ["reading", "writing"])
async def test_it_ends_whatever_the_client_makes_of_it(doing: str) -> None:
    client = _Careless()
    cache = ValkeyQuoteCache(cast("Redis", client), SystemClock(), "one", CacheSettings())
    running = asyncio.create_task(cache.run())
    await asyncio.sleep(0)
    asking: asyncio.Task[object] | None = None
    if doing == "reading":
        asking = asyncio.create_task(cache.open(QUESTION, ["acme"]))
    else:
        cache.put(QUESTION, [NO])
    await client.called.wait()
    running.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await running
    if asking is not None:
        await asking
