"""Which customers want much lately, beside the others."""

from __future__ import annotations

import math
from collections import OrderedDict

_HALF_LIFE_S = 30.0
"""After this time a collection counts half."""

_LITTLE = 5.0
"""Whoever wanted no more collections than this does not want much, be it all that there is."""

_MUCH = 0.02
"""Nor does who wanted no more than this part of all: where so many want the same, nobody pushes out anybody."""

_CUSTOMERS = 10_000
"""So many customers are watched; of those above it the ones that came longest ago are forgotten."""


class Demand:
    """Counts the collections that customers caused. Those without a name are not told apart and never want much."""

    def __init__(self) -> None:
        self._wanted: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = (0.0, 0.0)
        self._much: set[str] = set()

    @property
    def uneven(self) -> bool:
        """Whether anybody may want much."""
        return bool(self._much)

    def note(self, customer_id: str, now: float) -> None:
        """Take note of a collection."""
        self._all = _faded(self._all, now) + 1.0, now
        if not customer_id:
            return
        wanted = _faded(self._wanted.pop(customer_id, (0.0, now)), now) + 1.0
        self._wanted[customer_id] = wanted, now
        if wanted > _LITTLE:
            self._much.add(customer_id)
        if len(self._wanted) > _CUSTOMERS:
            forgotten, _ = self._wanted.popitem(last=False)
            self._much.discard(forgotten)

    def is_much(self, customer_id: str, now: float) -> bool:
        """Say whether a customer wants much at the moment."""
        if customer_id not in self._much:
            return False
        wanted = _faded(self._wanted[customer_id], now)
        if wanted <= _LITTLE:
            self._much.discard(customer_id)
            return False
        return wanted > _MUCH * _faded(self._all, now)


def _faded(count: tuple[float, float], now: float) -> float:
    number, at_s = count
    return number * math.pow(0.5, (now - at_s) / _HALF_LIFE_S)
