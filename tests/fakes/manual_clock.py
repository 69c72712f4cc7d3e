"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class ManualClock:
    """Implements ``mesh.clock.Clock``; sleepers wake when ``advance`` has gone past their time."""

    def __init__(self) -> None:
        self._elapsed_s = 0.0
        self._start = datetime(2026, 1, 1, tzinfo=UTC)
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, delay_s: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._elapsed_s + delay_s, woken))
        await woken.wait()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._elapsed_s += seconds
        for wake_at, woken in self._sleepers:
            if wake_at <= self._elapsed_s:
                woken.set()
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].is_set()]
