"""How much customers may have open at this gateway at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from mesh import errors

if TYPE_CHECKING:
    from collections.abc import Callable

_RETRY_AFTER_S = 1.0


class Limits:
    """Counts calls and streams that are open, by customer, and refuses those above the limits.

    A call counts until the task that answers it is done, however that ends. Streams are counted apart, so that nobody's
    streams stand in the way of his calls; besides, all streams of the process together have a limit, which bounds its
    memory. Each gateway counts for itself.
    """

    def __init__(self, *, calls: int, streams: int, all_streams: int) -> None:
        """Set the limits: calls and streams of a customer, streams of all customers together."""
        self._calls_each, self._streams_each, self._all_streams = calls, streams, all_streams
        self._calls: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    def call(self, customer_id: str) -> None:
        """Count the current task as a call of this customer.

        Raises:
            ResourceExhausted: reason TOO_MANY_CALLS.

        """
        if self._calls[customer_id] >= self._calls_each:
            raise errors.ResourceExhausted(
                f"you have {self._calls_each} calls open already: wait for their answers",
                reason="TOO_MANY_CALLS",
                retry_after_s=_RETRY_AFTER_S,
            )
        _count(self._calls, customer_id)

    def stream(self, customer_id: str) -> None:
        """Count the current task as a stream of this customer.

        Raises:
            ResourceExhausted: reason TOO_MANY_STREAMS, by this customer or by all together.

        """
        if self._streams[customer_id] >= self._streams_each:
            raise errors.ResourceExhausted(
                f"you have {self._streams_each} streams open already: end one that you do not need",
                reason="TOO_MANY_STREAMS",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._streams.total() >= self._all_streams:
            raise errors.ResourceExhausted(
                "more streams than this server can keep are open: try again, or ask for the status instead",
                reason="TOO_MANY_STREAMS",
                retry_after_s=_RETRY_AFTER_S,
            )
        _count(self._streams, customer_id)


def _count(counts: Counter[str], customer_id: str) -> None:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call is counted by the task that answers it: there is none")
    counts[customer_id] += 1
    task.add_done_callback(_uncount(counts, customer_id))


def _uncount(counts: Counter[str], customer_id: str) -> Callable[[asyncio.Task[object]], None]:
    def uncount(_task: asyncio.Task[object]) -> None:
        counts[customer_id] -= 1
        if not counts[customer_id]:
            del counts[customer_id]

    return uncount
