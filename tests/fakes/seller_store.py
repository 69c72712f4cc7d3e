"""The registry of sellers in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aggregator.domain.registration import not_registered
from mesh import errors
from sellers.model import Capabilities, Seller, SellerState


class MemorySellerStore:
    """Implements ``aggregator.ports.SellerStore``.

    Attributes:
        reachable: whether it answers.

    """

    def __init__(self) -> None:
        self.reachable = True
        self._revision = 0
        self._sellers: dict[str, Seller] = {}

    async def revision(self) -> int:
        self._check()
        return self._revision

    async def since(self, revision: int) -> list[Seller]:
        self._check()
        return [
            self._sellers[key]
            for key in sorted(self._sellers)
            if self._sellers[key].revision > revision
        ]

    async def put(self, sellers: Sequence[Seller]) -> int:
        self._check()
        revision = self._revision + 1
        for seller in sellers:
            known = self._sellers.get(seller.seller_id)
            if known is None or known != replace(seller, revision=known.revision):
                self._sellers[seller.seller_id] = replace(seller, revision=revision)
                self._revision = revision
        return self._revision

    async def set_state(self, seller_ids: Sequence[str], state: SellerState) -> int:
        self._check()
        unknown = set(seller_ids) - self._sellers.keys()
        if unknown:
            raise not_registered(unknown)
        return await self.put([replace(self._sellers[key], state=state) for key in seller_ids])

    async def set_capabilities(
        self, seller_id: str, capabilities: Capabilities, seen_revision: int
    ) -> int:
        self._check()
        known = self._sellers.get(seller_id)
        if known is None or known.revision != seen_revision:
            return self._revision
        return await self.put([replace(known, capabilities=capabilities)])

    def _check(self) -> None:
        if not self.reachable:
            raise errors.Unavailable("the test says so")
