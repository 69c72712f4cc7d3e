"""Deadlines that shrink at every hop.

The server sets the deadline of the call that it works on; calls made on its behalf ask ``timeout`` how long they may
take. Each hop keeps a margin to report its own timeout (as Boulder's ``grpc/interceptors.go`` does).
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

REPORT_MARGIN_S = 0.02
"""What a hop keeps for itself."""

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def enter(remaining_s: float) -> None:
    """Set the deadline of the call that this task works on, ``remaining_s`` seconds from now."""
    _deadline.set(asyncio.get_running_loop().time() + remaining_s)


def leave() -> None:
    """Forget the deadline: from here on this task works for others than the call that began it."""
    _deadline.set(None)


def remaining() -> float | None:
    """Give the seconds left for the call that this task works on; None outside a call or where it has no end."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - asyncio.get_running_loop().time()


def timeout(at_most_s: float) -> float:
    """Give the timeout for a call to the next hop: ``at_most_s``, or what is left less the margin; never below 0."""
    left = remaining()
    return at_most_s if left is None else max(0.0, min(at_most_s, left - REPORT_MARGIN_S))
