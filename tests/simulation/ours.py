"""Our own books: the store under test, and what stands in it after each change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar, cast
from uuid import UUID

from mesh.clock import Clock
from orchestrator.domain.flags import Flag
from orchestrator.domain.observations import PaymentChanged
from orchestrator.domain.purchase import Attempt, Purchase
from orchestrator.notification_ports import NotificationStore
from orchestrator.operator_ports import Dossier, FlagRecord, PaymentRecord, PurchaseRecords
from orchestrator.ports import PurchaseStore, Recorded
from tests.fakes.notification_store import MemoryNotificationStore
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

    def run(self, work: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Do something with the store, alone, to its end."""
        ...

    async def rows(self) -> dict[UUID, OurRow]:
        """Give all purchases as they stand, within ``run``."""
        ...

    async def end_session(self, owner: int) -> None:
        """Have a worker's session end, as when its process is killed."""
        ...

    async def wear_out(self, owner: int, claims: int) -> None:
        """Have what a worker works on claimed so often as if many before it had ended with it."""
        ...

    def has_claims(self, owner: int | None) -> bool:
        """Say whether a worker may have claimed something."""
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

    @property
    def notifications(self) -> NotificationStore:
        """Whom to tell, and what was told; to be used within ``run``."""
        ...

    async def any_try_due(self) -> bool:
        """Say whether a notifier would begin to tell something."""
        ...

    async def anything_to_tell(self) -> bool:
        """Say whether somebody has still to be told something."""
        ...

    @property
    def records(self) -> PurchaseRecords:
        """Purchases as operators see them; to be used within ``run``."""
        ...


class MemoryBooks:
    """Books in memory."""

    def __init__(self, store: MemoryPurchaseStore, clock: Clock) -> None:
        self._store = store
        self._notifications = MemoryNotificationStore(store, clock)
        self._known: dict[UUID, OurRow] = {}

    @property
    def store(self) -> PurchaseStore:
        return self._store

    def run(self, work: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        return work()

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

    async def wear_out(self, owner: int, claims: int) -> None:
        for row in self._store.rows.values():
            if row.owner == owner:
                row.claims, row.claimed_since = claims, datetime.min.replace(tzinfo=UTC)

    def has_claims(self, owner: int | None) -> bool:
        return any(row.owner == owner for row in self._store.rows.values())

    async def anything_due(self) -> bool:
        return self._store.anything_due()

    async def anything_left(self) -> bool:
        return bool(self._store.left_by_the_dead())

    async def next_due(self) -> datetime | None:
        due = [row.due_at for row in self._store.rows.values() if row.due_at is not None]
        return min(due, default=None)

    @property
    def records(self) -> PurchaseRecords:
        return MemoryRecords(self._store)

    @property
    def notifications(self) -> NotificationStore:
        return cast("NotificationStore", self._notifications)

    async def any_try_due(self) -> bool:
        return self._notifications.anything_due()

    async def anything_to_tell(self) -> bool:
        return self._notifications.anything_waits()


class MemoryRecords:
    """Implements ``PurchaseRecords`` on the store in memory, as far as decisions and events need it."""

    def __init__(self, store: MemoryPurchaseStore) -> None:
        self._store = store

    async def open_flags(self, after: int, limit: int) -> list[FlagRecord]:
        """Give the open flags of all purchases."""
        flags = [
            record
            for request_id, row in self._store.rows.items()
            for record in _flag_records(request_id, row)
            if record.resolved_at is None and record.flag_id > after
        ]
        return flags[:limit]

    async def inspect(self, request_id: UUID) -> Dossier | None:
        """Give what is known of a purchase."""
        row = self._store.rows.get(request_id)
        if row is None:
            return None
        purchase, money = row.purchase, row.purchase.authorization
        view = await self._store.get(request_id, purchase.customer_id)
        assert view is not None
        return Dossier(
            view=view,
            customer_id=purchase.customer_id,
            stage=purchase.stage.value,
            tries=purchase.tries,
            epoch=purchase.epoch,
            due_at=row.due_at,
            purchase=purchase,
            payment=PaymentRecord(
                money.state.value,
                money.provider_id,
                purchase.max_price,
                money.captured,
                money.refunded,
                money.capture_before,
            ),
            attempts=(),
            flags=tuple(_flag_records(request_id, row)),
            observations=(),
            events=tuple(row.events),
        )

    async def of_payment(self, provider_id: str, event_id: str) -> UUID | None:
        """Give the purchase of a payment, unless an observation of it has this event already."""
        for request_id, row in self._store.rows.items():
            told = {
                observation.what.detail
                for observation in row.observations
                if isinstance(observation.what, PaymentChanged)
            }
            if row.purchase.authorization.provider_id == provider_id and event_id not in told:
                return request_id
        return None


def _flag_records(request_id: UUID, row: Row) -> Iterator[FlagRecord]:
    at = row.purchase.created_at
    for number, raised in enumerate(row.flags, 1):
        resolved_at = at if raised.settled else None
        yield FlagRecord(number, request_id, number, raised.flag, at, resolved_at, raised.settled)
