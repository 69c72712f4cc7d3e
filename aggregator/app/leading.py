"""Keeps a lead while its holder finds out what nobody knows."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aggregator.domain.collection import Question
from aggregator.ports import QuoteCache

_RENEW_S = 0.3


async def lead_until(ended: asyncio.Event, cache: QuoteCache, question: Question) -> None:
    """Renew a lead until something has ended. Whoever leads gives it up afterwards, however this ends."""
    while not ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(_RENEW_S):
                await ended.wait()
                return
        cache.renew(question)
