"""Waiting for what other processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

ResultT = TypeVar("ResultT")

_POLL_S = 0.05


async def eventually(look: Callable[[], Awaitable[ResultT | None]], within_s: float) -> ResultT:
    """Give the first result of ``look`` that is not None.

    Raises:
        TimeoutError: if there is none in time.

    """
    async with asyncio.timeout(within_s):
        while (result := await look()) is None:  # noqa: ASYNC110  other processes set no events of ours
            await asyncio.sleep(_POLL_S)
        return result
