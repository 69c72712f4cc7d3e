"""An event loop whose time passes only while nothing is to be done: minutes take milliseconds, exactly repeatable."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

_T = TypeVar("_T")
_START = datetime(2026, 1, 1, tzinfo=UTC)


class _NoWaiting(selectors.DefaultSelector):
    """Passes the time instead of waiting for it. Real input and output are not waited for."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again in this virtual time")
        self._wait(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; it begins at 1,000 s."""

    def __init__(self) -> None:
        self._elapsed_s = 1000.0
        super().__init__(_NoWaiting(self._pass))

    def time(self) -> float:
        return self._elapsed_s

    def _pass(self, seconds: float) -> None:
        self._elapsed_s += max(seconds, 0.0)


class VirtualClock:
    """Implements ``mesh.clock.Clock`` by the running virtual loop."""

    def now(self) -> datetime:
        return _START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


def run_virtually(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
