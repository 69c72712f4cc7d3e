"""Sellers' health as a test says it is."""

from __future__ import annotations

from collections.abc import Sequence

from sellers.admission.model import BreakerState, Limits, SellerHealth


class ScriptedHealth:
    """Implements ``aggregator.ports.FleetHealth``: every seller is well, save for those of whom a test says otherwise.

    Attributes:
        of: what is said of some sellers.

    """

    def __init__(self) -> None:
        self.of: dict[str, SellerHealth] = {}

    async def health(self, sellers: Sequence[Limits]) -> list[SellerHealth]:
        return [self.of.get(limits.seller_id) or well(limits.seller_id) for limits in sellers]


def well(seller_id: str) -> SellerHealth:
    """Give the health of a seller that was never called."""
    return SellerHealth(
        seller_id=seller_id,
        breaker=BreakerState.CLOSED,
        open_since=None,
        retry_after_s=0.0,
        calls_left=100,
        books_left=None,
        in_flight=0,
        judged=0,
        failed=0,
        from_fleet=True,
    )
