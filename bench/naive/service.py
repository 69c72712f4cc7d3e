"""The straightforward aggregator, as one would write it first: everything it knows is in Valkey.

Asks all sellers for every book that is not cached, at most so often per seller and clock minute (INCR, and skip it when
that is used up), not those whose breaker is open (HGETALL), and under a lock for each book that the others poll. What
came in is cached for a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from mesh.clock import Clock

CACHE_S = 60
POLL_S = 0.2
LOCK_S = 15
SELLER_S = 3.0
BREAKER_FAILURES = 5
BREAKER_OPEN_S = 30.0


class Store(Protocol):
    """The commands of Valkey that it uses."""

    async def get(self, key: str) -> bytes | None:
        """GET."""
        ...

    async def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> bool:
        """SET with EX, and NX; say whether it was set."""
        ...

    async def delete(self, key: str) -> None:
        """DEL."""
        ...

    async def incr(self, key: str) -> int:
        """INCR."""
        ...

    async def expire(self, key: str, seconds: int) -> None:
        """EXPIRE."""
        ...

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        """HGETALL."""
        ...

    async def hincrby(self, key: str, field: str) -> int:
        """HINCRBY by 1."""
        ...

    async def hset(self, key: str, field: str, value: str) -> None:
        """HSET."""
        ...


AskSeller = Callable[[int, str, float], Awaitable[int | None]]
"""Asks a seller about a book within a timeout; gives its total in minor units or None for "no". May raise."""


class NaiveAggregator:
    """Gives the quotes for a book."""

    def __init__(
        self,
        store: Store,
        sellers: Sequence[int],
        ask: AskSeller,
        clock: Clock,
        calls_per_minute: int,
    ) -> None:
        self._store = store
        self._sellers = sellers
        self._ask = ask
        self._clock = clock
        self._calls_per_minute = calls_per_minute

    async def quotes(self, book_id: str) -> list[tuple[int, int]]:
        """Give the sellers that have a book, each with its total."""
        key, lock = f"quotes:{book_id}", f"lock:{book_id}"
        while True:
            cached = await self._store.get(key)
            if cached is not None:
                return [(seller, total) for seller, total in json.loads(cached)]
            if await self._store.set(lock, "1", ex=LOCK_S, nx=True):
                break
            await self._clock.sleep(POLL_S)
        try:
            answers = await asyncio.gather(
                *(self._ask_one(seller, book_id) for seller in self._sellers)
            )
            quotes = [answer for answer in answers if answer is not None]
            if quotes:
                await self._store.set(key, json.dumps(quotes), ex=CACHE_S)
            return quotes
        finally:
            await self._store.delete(lock)

    async def _ask_one(self, seller: int, book_id: str) -> tuple[int, int] | None:
        if await self._is_open(seller) or not await self._may_call(seller):
            return None
        try:
            total = await self._ask(seller, book_id, SELLER_S)
        except Exception:  # noqa: BLE001  whatever it was, it counts against the seller
            await self._failed(seller)
            return None
        await self._store.delete(f"breaker:{seller}")
        return None if total is None else (seller, total)

    async def _may_call(self, seller: int) -> bool:
        minute = int(self._clock.monotonic() // 60)
        key = f"calls:{seller}:{minute}"
        calls = await self._store.incr(key)
        if calls == 1:
            await self._store.expire(key, 120)
        return calls <= self._calls_per_minute

    async def _is_open(self, seller: int) -> bool:
        breaker = await self._store.hgetall(f"breaker:{seller}")
        return float(breaker.get(b"open_until", 0)) > self._clock.monotonic()

    async def _failed(self, seller: int) -> None:
        key = f"breaker:{seller}"
        if await self._store.hincrby(key, "failures") >= BREAKER_FAILURES:
            await self._store.hset(key, "open_until", str(self._clock.monotonic() + BREAKER_OPEN_S))
