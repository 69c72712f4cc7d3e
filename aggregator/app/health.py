"""Says how sellers are doing: once, or whenever that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress

from aggregator.domain.health import Health, latencies_s
from aggregator.domain.outlook import Outlooks
from aggregator.domain.registration import not_registered
from aggregator.ports import FleetHealth
from mesh import errors
from sellers.admission.model import Limits
from sellers.model import Seller, SellerState
from sellers.registry import Directory, Snapshot


class HealthObserver:
    """Puts together what the registry, admission and this replica's own experience say of sellers."""

    def __init__(
        self, directory: Directory, fleet: FleetHealth, outlooks: Outlooks, *, look_every_s: float
    ) -> None:
        self._directory = directory
        self._fleet = fleet
        self._outlooks = outlooks
        self._look_every_s = look_every_s
        self._closed = asyncio.Event()

    async def get(self, seller_ids: Sequence[str]) -> list[Health]:
        """Give the health of sellers, in the order of their ids; of all that are not disabled where none is named.

        Raises:
            NotFound: naming those that are not registered.
            Unavailable: before the registry has been read.

        """
        return await self._look(self._named(seller_ids))

    async def page(
        self, seller_ids: Sequence[str], most: int, after: str
    ) -> tuple[list[Health], str]:
        """Give at most so many of those that ``get`` gives, from behind an id.

        Returns:
            Them, and the id behind which the next page begins; empty when this is the last one.

        Raises:
            NotFound: naming those that are not registered.
            Unavailable: before the registry has been read.

        """
        left = [seller for seller in self._named(seller_ids) if seller.seller_id > after]
        page = left[:most]
        return await self._look(page), page[-1].seller_id if len(left) > most else ""

    async def watch(self, seller_ids: Sequence[str]) -> AsyncGenerator[list[Health], None]:
        """Give the health of sellers, then of those whose health has changed, once a look, until ``close``.

        Raises:
            NotFound: naming those that are not registered at first.
            Unavailable: before the registry has been read.

        """
        first = await self.get(seller_ids)
        yield first
        known = {health.seller_id: health for health in first}
        while not await self._closed_within(self._look_every_s):
            # Also one that has been disabled since: its watcher has to learn that.
            chosen = _chosen(self._snapshot(), seller_ids, known)
            found = await self._look(chosen)
            changed = [health for health in found if health.differs(known.get(health.seller_id))]
            if changed:
                yield changed
                known |= {health.seller_id: health for health in changed}

    def close(self) -> None:
        """End all watches."""
        self._closed.set()

    def _named(self, seller_ids: Sequence[str]) -> list[Seller]:
        snapshot = self._snapshot()
        unknown = [name for name in seller_ids if name not in snapshot.sellers]
        if unknown:
            raise not_registered(unknown)
        return _chosen(snapshot, seller_ids)

    async def _look(self, sellers: Sequence[Seller]) -> list[Health]:
        of_fleet = await self._fleet.health([Limits.of(seller) for seller in sellers])
        return [
            Health(
                seller_id=seller.seller_id,
                state=seller.state,
                calls=calls,
                latencies_s=latencies_s(self._outlooks[seller.seller_id]),
            )
            for seller, calls in zip(sellers, of_fleet, strict=True)
        ]

    async def _closed_within(self, time_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(time_s):
                await self._closed.wait()
        return self._closed.is_set()

    def _snapshot(self) -> Snapshot:
        snapshot = self._directory.snapshot
        if snapshot is None:
            raise errors.Unavailable(
                "the registry of sellers has not been read yet: try again", retry_after_s=1.0
            )
        return snapshot


def _chosen(
    snapshot: Snapshot, seller_ids: Sequence[str], known: Collection[str] = ()
) -> list[Seller]:
    """Give the sellers that are named; where none is, those that are known or not disabled."""
    sellers = snapshot.sellers
    if seller_ids:
        return [sellers[name] for name in sorted(seller_ids) if name in sellers]
    return [
        sellers[name]
        for name in sorted(sellers)
        if name in known or sellers[name].state is not SellerState.DISABLED
    ]
