"""Runs simulations, which need CPU and no clock, in processes of their own, one on each core."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import get_context
from typing import ParamSpec, Protocol, TypeVar

import structlog

CORES = 2
_RARELY = 200_000

P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Runs a function in another process and gives what it returns."""

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]: ...


@asynccontextmanager
async def workers() -> AsyncIterator[Run]:
    """Start processes; give what runs functions in them. At the end no more are begun."""
    pool = ProcessPoolExecutor(CORES, mp_context=get_context("spawn"), initializer=_set_up)
    loop = asyncio.get_running_loop()

    def run(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return loop.run_in_executor(pool, partial(function, *args, **kwargs))

    try:
        yield run
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def quiet() -> None:
    """Log no more than warnings, to the standard error."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _set_up() -> None:
    quiet()
    # A simulation holds millions of objects that live; looking through all of them often would take most of its time.
    gc.set_threshold(_RARELY, 50, 1000)
