"""Admission that lets every call pass, and notes what it was told."""

from __future__ import annotations

from collections.abc import Sequence

from mesh.clock import Clock
from sellers.admission.model import NO_LIMIT, Allowed, Ask, Decision, Grant, Outcome, Purpose


class OpenAdmission:
    """Implements ``CallAdmission`` without any limit.

    Attributes:
        asks: what was asked for, in rounds.
        reports: how calls ended, by seller, in that order.

    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asks: list[list[Ask]] = []
        self.reports: list[tuple[str, Outcome]] = []

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> Sequence[Decision]:
        self.asks.append(list(asks))
        now = self._clock.monotonic()
        return [
            Allowed(
                Grant(
                    seller_id=ask.limits.seller_id,
                    books=ask.books,
                    from_fleet=True,
                    ends_second=0,
                    probe=0,
                    granted_at=now,
                    good_until=now + 1.0,
                ),
                NO_LIMIT,
                0,
                NO_LIMIT,
            )
            for ask in asks
        ]

    def report(self, grant: Grant, outcome: Outcome) -> None:
        assert not grant.reported
        grant.reported = True
        self.reports.append((grant.seller_id, outcome))
