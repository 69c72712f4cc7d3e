"""The sellers that this process knows: an immutable snapshot, swapped as a whole when something changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sellers.model import Seller, SellerState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All registered sellers at one revision of the registry.

    Attributes:
        revision: the registry's revision up to which this is everything.
        sellers: by id.
        active: those that are asked, by id in alphabetical order.

    """

    revision: int
    sellers: Mapping[str, Seller]
    active: tuple[Seller, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Pick out the active sellers once for all who read."""
        active = (self.sellers[key] for key in sorted(self.sellers))
        object.__setattr__(
            self, "active", tuple(seller for seller in active if seller.state is SellerState.ACTIVE)
        )


class Directory:
    """Holds the present snapshot. Readers take ``snapshot`` once and work on it; it never changes under them."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """Give what is known now; None until the registry has been read once."""
        return self._snapshot

    def replace(self, sellers: Iterable[Seller], revision: int) -> Snapshot:
        """Take this as everything that is known."""
        by_id = {seller.seller_id: seller for seller in sellers}
        self._snapshot = Snapshot(revision, MappingProxyType(by_id))
        return self._snapshot

    def apply(self, changed: Iterable[Seller], revision: int) -> Snapshot:
        """Take over the sellers that have changed since the present snapshot."""
        known = self._snapshot.sellers if self._snapshot is not None else {}
        by_id = {**known, **{seller.seller_id: seller for seller in changed}}
        self._snapshot = Snapshot(revision, MappingProxyType(by_id))
        return self._snapshot
