"""Cancellation that was swallowed on the way."""

from __future__ import annotations

import asyncio


def end_if_cancelled() -> None:
    """End this task if it was cancelled and something inside it has swallowed that.

    redis-py does when it is cancelled while it gives up a connection; a loop over its calls would go on for ever, and
    with it whoever waits for its end. Call it where the loop begins anew.

    Raises:
        asyncio.CancelledError: if so.

    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
