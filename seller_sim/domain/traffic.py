"""Counts a seller's calls and says which of them are too many."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class SlidingWindow:
    """Adds up what happened in the last 60 seconds, exactly: one entry for each event."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._events: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, now_s: float, amount: int = 1) -> int:
        """Add an event; give the sum of the last 60 seconds with it. ``now_s`` never goes back."""
        self._events.append((now_s, amount))
        self._sum += amount
        return self.sum(now_s)

    def sum(self, now_s: float) -> int:
        """Give the sum of the last 60 seconds."""
        events = self._events
        while events and events[0][0] <= now_s - WINDOW_S:
            self._sum -= events.popleft()[1]
        return self._sum

    def wait_s(self, now_s: float, amount: int, limit: int) -> float:
        """Give after how many seconds ``amount`` more fit under ``limit``: 0 is now.

        An amount above the limit never fits; then it is the time until the window is empty.
        """
        excess = self.sum(now_s) + amount - limit
        if excess <= 0:
            return 0.0
        freed_s = now_s
        for happened_s, size in self._events:
            freed_s = happened_s + WINDOW_S
            excess -= size
            if excess <= 0:
                break
        return max(freed_s - now_s, 0.0) or WINDOW_S


class BusyTime:
    """Adds up for how long at least one of several calls was being worked on.

    Attributes:
        total_s: until the last time that none was, in seconds.
        calls: how many are being worked on.

    """

    def __init__(self) -> None:
        """Start with none."""
        self.total_s = 0.0
        self.calls = 0
        self._since_s = 0.0

    def began(self, now_s: float) -> None:
        """Count a call that began."""
        if not self.calls:
            self._since_s = now_s
        self.calls += 1

    def ended(self, now_s: float) -> None:
        """Count a call that ended."""
        self.calls -= 1
        if not self.calls:
            self.total_s += now_s - self._since_s


class Traffic:
    """What one seller has counted since it was started.

    Attributes:
        calls: calls that arrived, by method, those refused included.
        rate_limited: calls refused because there were too many.
        peak_per_minute: the most calls that arrived in any 60 seconds.

    """

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.calls: dict[str, int] = {}
        self.rate_limited = 0
        self.peak_per_minute = 0
        self._arrived = SlidingWindow()
        self._admitted = SlidingWindow()
        self._priced = SlidingWindow()

    def admit_call(self, method: str, now_s: float, limit: int) -> float:
        """Count a call; give 0 when it may go on, else after how many seconds the next one may.

        Only calls that may go on use up the limit; each that arrives counts for the peak.
        """
        self.calls[method] = self.calls.get(method, 0) + 1
        self.peak_per_minute = max(self.peak_per_minute, self._arrived.add(now_s))
        wait_s = self._admitted.wait_s(now_s, 1, limit)
        if wait_s:
            self.rate_limited += 1
        else:
            self._admitted.add(now_s)
        return wait_s

    def admit_books(self, books: int, now_s: float, limit: int) -> float:
        """Count books to be priced; give 0 when they may be, else after how many seconds. A limit of 0 is none."""
        if not limit:
            return 0.0
        wait_s = self._priced.wait_s(now_s, books, limit)
        if wait_s:
            self.rate_limited += 1
        else:
            self._priced.add(now_s, books)
        return wait_s
