"""Our own books: the store under test, and what stands in it after each change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from orchestrator.domain.flags import Flag
from orchestrator.domain.purchase import Attempt, Purchase
from orchestrator.ports import PurchaseStore, Recorded
from tests.fakes.purchase_store import MemoryPurchaseStore, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OurRow:
    """A purchase in our books.

    Attributes:
        purchase: as it stands.
        attempts: all of its attempts, by number.
        events: all that happened.
        has_token: whether its payment token is still kept.
        flags: the open flags.
        outbox: what the customer is to be told.

    """

    purchase: Purchase
    attempts: Mapping[int, Attempt]
    events: tuple[Recorded, ...]
    has_token: bool
    flags: tuple[Flag, ...]
    outbox: tuple[str, ...]


class Books(Protocol):
    """A store, and what only its tests may do with it."""

    @property
    def store(self) -> PurchaseStore:
        """The store itself."""
        ...

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something with the store, alone, to its end."""
        ...

    async def rows(self) -> dict[UUID, OurRow]:
        """Give all purchases as they stand, within ``run``."""
        ...

    async def end_session(self, owner: int) -> None:
        """Have a worker's session end, as when its process is killed."""
        ...

    async def anything_due(self) -> bool:
        """Say whether a claim would take something."""
        ...

    async def anything_left(self) -> bool:
        """Say whether dead workers have left something."""
        ...

    async def next_due(self) -> datetime | None:
        """Give when something may be claimed next, within ``run``."""
        ...


class MemoryBooks:
    """Books in memory."""

    def __init__(self, store: MemoryPurchaseStore) -> None:
        self._store = store
        self._known: dict[UUID, OurRow] = {}

    @property
    def store(self) -> PurchaseStore:
        return self._store

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    async def rows(self) -> dict[UUID, OurRow]:
        """Give all purchases; one that has not changed is the same object as before."""
        self._known = {
            request_id: self._row(request_id, row) for request_id, row in self._store.rows.items()
        }
        return self._known

    def _row(self, request_id: UUID, row: Row) -> OurRow:
        known, has_token = self._known.get(request_id), row.token is not None
        if (
            known is not None
            and known.purchase is row.purchase
            and known.has_token == has_token
            and len(known.events) == len(row.events)
        ):
            return known
        flags = tuple(raised.flag for raised in row.flags if raised.settled is None)
        outbox = tuple(row.outbox)
        events = tuple(row.events)
        return OurRow(row.purchase, dict(row.attempts), events, has_token, flags, outbox)

    async def end_session(self, owner: int) -> None:
        self._store.end_session(owner)

    async def anything_due(self) -> bool:
        return self._store.anything_due()

    async def anything_left(self) -> bool:
        return bool(self._store.left_by_the_dead())

    async def next_due(self) -> datetime | None:
        due = [row.due_at for row in self._store.rows.values() if row.due_at is not None]
        return min(due, default=None)
