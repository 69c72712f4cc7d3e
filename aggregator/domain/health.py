"""How a seller is doing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta

from aggregator.domain.outlook import Outlook
from sellers.admission.model import SellerHealth
from sellers.model import SellerState

QUANTILES = (0.5, 0.9, 0.99)

_SAME_MOMENT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Health:
    """How a seller is doing.

    Attributes:
        seller_id: who.
        state: its state in the registry.
        calls: what admission knows.
        latencies_s: times within which each part in ``QUANTILES`` of its calls were answered lately; None for one that
            nothing is known of.

    """

    seller_id: str
    state: SellerState
    calls: SellerHealth
    latencies_s: tuple[float | None, ...]

    def differs(self, before: Health | None) -> bool:
        """Say whether this is other than what was known before.

        The moment at which a breaker opened is computed each time from how long ago that is, and so is never quite the
        same.
        """
        if before is None:
            return True
        was, since = before.calls.open_since, self.calls.open_since
        if was is None or since is None or abs(since - was) > _SAME_MOMENT:
            return self != before
        same = replace(self.calls, open_since=was, retry_after_s=before.calls.retry_after_s)
        return replace(self, calls=same) != before


def latencies_s(outlook: Outlook) -> tuple[float | None, ...]:
    """Give the quantiles of a seller's latency."""
    if not outlook.answered:
        return (None,) * len(QUANTILES)
    found = (outlook.latency.quantile(q) for q in QUANTILES)
    return tuple(latency_s if math.isfinite(latency_s) else None for latency_s in found)
