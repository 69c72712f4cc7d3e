"""What the use cases need from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sellers.model import Condition, QuoteOutcome, Seller


class QuoteSource(Protocol):
    """Asks sellers for prices."""

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        """Ask one seller; whatever it or the network does is a value. Cancellation reaches the call."""
        ...


class SellerStore(Protocol):
    """Keeps the registry. Its methods raise ``mesh.errors.Unavailable`` while it cannot be reached."""

    async def revision(self) -> int:
        """Give the revision of the last change; 0 before the first."""
        ...

    async def since(self, revision: int) -> Sequence[Seller]:
        """Give the sellers that changed after a revision, as they are now; all of them after 0."""
        ...

    async def put(self, sellers: Sequence[Seller]) -> int:
        """Add or replace sellers, all or none, and give the revision after it.

        Those that change get that revision, whatever theirs was; where nothing changes the revision stays.
        """
        ...
