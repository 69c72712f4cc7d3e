"""Time as a dependency: real in the services, virtual in tests and simulations."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits.

    ``now`` is for what people and other machines read; ``monotonic`` is for measuring and for deadlines.
    """

    def now(self) -> datetime:
        """Give the wall-clock time, aware, in UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Give seconds since an arbitrary moment. Never goes back; the same scale as the event loop's ``time()``."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Return after ``delay_s`` seconds, at once when it is zero or less."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Give the wall-clock time, aware, in UTC."""
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)
    """Gives the seconds that asyncio's loop has too. As it is, since it is asked some ten times for each call."""

    async def sleep(self, delay_s: float) -> None:
        """Return after ``delay_s`` seconds."""
        await asyncio.sleep(delay_s)
