"""Tells a network of ours that is down from sellers that are."""

from __future__ import annotations

from collections import OrderedDict


class Outage:
    """Who could be reached lately.

    When nearly all that were called cannot be reached, it is our own network that is down, or whatever lies before all
    of them: to blame each of them would leave them alone for long after they are back.
    """

    def __init__(self, *, window_s: float, sellers: int, percent: int) -> None:
        """Start with nobody called.

        Args:
            window_s: how long it matters how a call ended.
            sellers: the fewest that cannot be reached in an outage; fewer may well be down by themselves.
            percent: the least share of those that were called lately that cannot.

        """
        self._window_s = window_s
        self._sellers = sellers
        self._percent = percent
        # By seller the last call, the oldest first: when it ended, and whether the seller was reached.
        self._last: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._unreached = 0

    def note(self, seller_id: str, now: float, *, reached: bool) -> None:
        """Take note of how a call has ended just now (monotonic)."""
        self._forget(seller_id)
        self._last[seller_id] = (now, reached)
        self._unreached += not reached
        while True:
            oldest = next(iter(self._last))
            if now - self._last[oldest][0] <= self._window_s:
                return
            self._forget(oldest)

    @property
    def is_ours(self) -> bool:
        """Say whether what could not be reached at the last note was our own fault."""
        return self._unreached >= self._sellers and self._unreached * 100 >= self._percent * len(
            self._last
        )

    def _forget(self, seller_id: str) -> None:
        before = self._last.pop(seller_id, None)
        if before is not None and not before[1]:
            self._unreached -= 1
