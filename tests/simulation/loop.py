"""A lean event loop in virtual time: time passes only while nothing is to be done, and nothing real is waited for.

A simulation is all turns of a loop. asyncio's own spends more on files, signals, the real clock and debugging than the
simulated code spends on its work; this one has what tasks, futures and timers need, and no more.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import events, tasks
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar, cast

T = TypeVar("T")

_BEGINS_S = 1000.0
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_INSTANT_S = 1e-9
"""What is to happen within such a time happens at once, as in asyncio."""

_log = logging.getLogger(__name__)


class _Call(asyncio.TimerHandle):
    """Something to be called, soon or at a time, unless it is cancelled before."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        context: Context | None,
        when: float,
    ) -> None:
        # Not by super(), which keeps what nobody here asks for.
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[object, ...] = args
        self._context = context
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = None
        self._args = ()

    def __call__(self) -> None:
        """Do it, unless it was cancelled."""
        if self._callback is None:
            return
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


class LeanLoop:
    """The loop: as much of ``asyncio.AbstractEventLoop`` as is called; it begins at 1,000 s.

    What is due at the same time is done in the order in which it was asked for. What is asked for without a context is
    called in that of the loop.
    """

    def __init__(self) -> None:
        self._loop = cast("asyncio.AbstractEventLoop", self)
        self._now_s = _BEGINS_S
        self._ready: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._timers: list[tuple[float, int, _Call]] = []
        self._numbers = count()
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self._now_s

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> _Call | None:
        """Have it called next. Tasks and futures, which name a context, never cancel that, and get nothing to do so."""
        if context is not None:
            self._ready.append((context.run, (callback, *args)))
            return None
        call = _Call(callback, args, None, self._now_s)
        self._ready.append((call, ()))
        return call

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> _Call:
        when = self._now_s + delay
        call = _Call(callback, args, context, when)
        heappush(self._timers, (when, next(self._numbers), call))
        return call

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: object,
        context: Context | None = None,
    ) -> _Call:
        call = _Call(callback, args, context, when)
        heappush(self._timers, (when, next(self._numbers), call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        # A name of its own for each is of no use to anybody here.
        task = asyncio.Task(coro, loop=self._loop, name=name or "simulated", context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        _log.error(context["message"], exc_info=context.get("exception"))

    def skip(self, delay_s: float) -> bool:
        """Let a time pass at once if nothing else is to be done until it is over; say whether it was.

        Whoever calls it goes on as if it had slept: by then all others would still be waiting.
        """
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        then_s = self._now_s + delay_s
        if self._ready or (timers and timers[0][0] < then_s + _INSTANT_S):
            return False
        self._now_s = then_s
        return True

    def run_until_complete(self, future: Awaitable[T]) -> T:
        """Run until it is done, then end all that is still running: what that does counts no more.

        Raises:
            RuntimeError: when it is not done, and nothing will ever happen again.

        """
        before = events._get_running_loop()
        events._set_running_loop(self._loop)
        # asyncio enters each task into a set of weak references, for ``all_tasks``. This loop knows its tasks.
        all_tasks = vars(tasks)["_all_tasks"]
        all_tasks.add = _enter_nowhere
        try:
            task = asyncio.ensure_future(future, loop=self._loop)
            while not task.done():
                self._turn()
            rest = [other for other in self._tasks if not other.done()]
            for other in rest:
                other.cancel()
            while not all(other.done() for other in rest):
                self._turn()
        finally:
            del all_tasks.add
            events._set_running_loop(before)
        return task.result()

    def _turn(self) -> None:
        """Do what is due now; when that is nothing, let the time pass until something is."""
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if not timers:
                raise RuntimeError("nothing will ever happen again in this virtual time")
            self._now_s = max(self._now_s, timers[0][0])
        until_s = self._now_s + _INSTANT_S
        while timers and timers[0][0] < until_s:
            ready.append((heappop(timers)[2], ()))
        for _ in range(len(ready)):
            call, args = ready.popleft()
            call(*args)


def _enter_nowhere(_task: asyncio.Task[Any]) -> None:
    """Keep no account of a task."""


async def pass_time(loop: object, delay_s: float) -> None:
    """Sleep, without a turn of the loop where nobody else has anything to do meanwhile."""
    if not (isinstance(loop, LeanLoop) and loop.skip(delay_s)):
        await asyncio.sleep(delay_s)


class LoopClock:
    """Implements ``mesh.clock.Clock`` by a loop. Simulated code asks for nothing as often as for the time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.monotonic = loop.time

    def now(self) -> datetime:
        return _moment(self.monotonic())

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


@lru_cache(maxsize=10_000)
def _moment(now_s: float) -> datetime:
    return _EPOCH + timedelta(seconds=now_s)
