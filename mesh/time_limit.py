"""A time limit for the answers of others that does not count against them how long this process was busy itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LAST_LOOK_S = 0.01


@asynccontextmanager
async def answer_within(timeout_s: float) -> AsyncIterator[None]:
    """Let what the block waits for take so long, and not miss an answer that has come by then.

    When the event loop was blocked, the time is over before it has read an answer that lies there: so it has a last
    look, in which it reads.

    Raises:
        TimeoutError: if the time was over.

    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + _LAST_LOOK_S))
        try:
            yield
        finally:
            timer.cancel()
