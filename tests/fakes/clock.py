"""A clock that goes with the machine's, and can be pushed ahead of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from mesh.clock import SystemClock


class PushedClock(SystemClock):
    """Tells the machine's time plus what it was pushed by; sleepers wake when that has reached their time."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._pushed = asyncio.Event()

    def push(self, by_s: float) -> None:
        """Go ahead by ``by_s`` seconds."""
        self._ahead_s += by_s
        self._pushed.set()
        self._pushed = asyncio.Event()

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._ahead_s)

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead_s

    async def sleep(self, delay_s: float) -> None:
        wake_at = self.monotonic() + delay_s
        while (left_s := wake_at - self.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._pushed.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; the test's own timeout is the limit."""
    while not condition():  # noqa: ASYNC110  it is about state that no event announces
        await asyncio.sleep(0.001)
