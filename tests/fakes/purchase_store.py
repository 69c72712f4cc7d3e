"""Purchases in memory: what ``PostgresPurchaseStore`` does, by the clock that it is given.

The suite in ``tests/integration/orchestrator/test_store.py`` runs over both, so that this one cannot lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from operator import attrgetter
from uuid import UUID

from mesh.clock import Clock
from orchestrator.adapters.rows import COMMITTED
from orchestrator.domain.events import Event, Step, StepName
from orchestrator.domain.flags import Flag, Settled
from orchestrator.domain.observations import Observation, Told
from orchestrator.domain.purchase import Attempt, Purchase, Stage, Status
from orchestrator.ports import (
    CancelledFirst,
    Claim,
    Commit,
    Committed,
    Fenced,
    Loaded,
    News,
    Offered,
    Place,
    PurchaseView,
    Recorded,
    SealedToken,
    Submission,
    Submitted,
    Wanted,
)

SPACING_S = 10.0
DEAD_AT_ONCE, LONGEST_LEFT_ALONE_S = 5, 30.0


class Guarded(Exception):
    """What the trigger of the table raises: a final status would change."""


@dataclass(slots=True)
class Raised:
    """A flag as it is kept; ``settled`` once it is resolved."""

    flag: Flag
    settled: Settled | None = None


@dataclass(slots=True)
class Row:
    """A purchase as it is kept, with all that belongs to it."""

    purchase: Purchase
    idempotency_key: str | None
    content_hmac: bytes
    key_id: str
    token: bytes | None
    due_at: datetime | None
    turn: datetime | None
    owner: int | None = None
    claims: int = 0
    claimed_since: datetime | None = None
    observed: int = 0
    events: list[Recorded] = field(default_factory=list)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    flags: list[Raised] = field(default_factory=list)
    outbox: list[News] = field(default_factory=list)


class MemorySession:
    """A worker's session: it lives until it is left or ended."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.ended = asyncio.Event()

    async def lost(self) -> None:
        """Return when the session is gone."""
        await self.ended.wait()


class MemoryPurchaseStore:
    """Implements ``orchestrator.ports.PurchaseStore``."""

    def __init__(self, clock: Clock) -> None:
        self.rows: dict[UUID, Row] = {}
        self._clock = clock
        self._owners = count(1)
        self._living: dict[int, MemorySession] = {}

    async def submit(self, submission: Submission, events: Sequence[Event]) -> bool:
        """Commit a new purchase that is due at once; False when its id, the customer's key or the offer is taken."""
        purchase, key = submission.purchase, submission.idempotency_key
        taken = purchase.request_id in self.rows or any(
            (key is not None and row.idempotency_key == key and _same_customer(row, purchase))
            or (
                purchase.accepted_offer_of is not None
                and row.purchase.accepted_offer_of == purchase.accepted_offer_of
            )
            for row in self.rows.values()
        )
        if taken:
            return False
        now = self._clock.now()
        turns = [
            row.turn + timedelta(seconds=SPACING_S)
            for row in self.rows.values()
            if row.turn is not None and row.due_at is not None and _same_customer(row, purchase)
        ]
        row = Row(
            replace(purchase, created_at=now),
            key,
            submission.content_hmac,
            submission.token.key_id,
            submission.token.sealed,
            due_at=now,
            turn=max([now, *turns]),
        )
        self.rows[purchase.request_id] = row
        self._record(row, events)
        return True

    async def find_submitted(
        self, request_id: UUID, customer_id: str, idempotency_key: str | None
    ) -> Submitted | None:
        """Give the customer's purchase with this key, else the one with this id."""
        by_key = (
            (row for row in self.rows.values() if row.idempotency_key == idempotency_key)
            if idempotency_key is not None
            else iter(())
        )
        by_id = (row for row in (self.rows.get(request_id),) if row is not None)
        for row in (*by_key, *by_id):
            if row.purchase.customer_id == customer_id:
                return Submitted(row.purchase.request_id, row.content_hmac, row.key_id)
        return None

    async def request_cancel(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Note that the customer wants a purchase cancelled; give it as it then is, None when there is none."""
        row = self.rows.get(request_id)
        if row is None or row.purchase.customer_id != customer_id:
            return None
        if row.purchase.status is Status.PENDING and not row.purchase.cancel_requested:
            row.purchase = replace(row.purchase, cancel_requested=True)
            row.turn = None
            if row.owner is None and row.due_at is not None:
                row.due_at = self._clock.now()
            self._record(row, [Step(StepName.CANCEL_REQUESTED)])
        return self._view(row)

    async def observe(self, request_id: UUID, by: str, what: Told) -> bool:
        """Note what somebody tells of a purchase, also of one that is over; False when there is none."""
        row = self.rows.get(request_id)
        if row is None:
            return False
        row.observations.append(Observation(len(row.observations) + 1, by, what))
        row.turn = None
        if row.owner is None:
            row.due_at = self._clock.now()
        return True

    async def claim(self, owner: int, room: int, lease_s: float) -> list[Claim]:
        """Take at most ``room`` due purchases for a worker."""
        now = self._clock.now()
        due = [
            (row.turn or row.due_at, row)
            for row in self.rows.values()
            if row.due_at is not None and row.due_at <= now
        ]
        claims = []
        for _place, row in sorted(due, key=lambda placed: placed[0])[:room]:
            row.purchase = replace(row.purchase, epoch=row.purchase.epoch + 1)
            row.owner, row.due_at = owner, now + timedelta(seconds=lease_s)
            row.turn = None
            row.claims += 1
            row.claimed_since = row.claimed_since or now
            claims.append(Claim(row.purchase.request_id, row.purchase.epoch))
        return claims

    async def load(self, claim: Claim) -> Loaded | None:
        """Give a claimed purchase; None when the claim does not hold any more. All can be read here."""
        row = self._claimed(claim)
        if row is None:
            return None
        now = self._clock.now()
        return Loaded(
            row.purchase,
            (now - row.purchase.created_at).total_seconds(),
            SealedToken(row.key_id, row.token) if row.token is not None else None,
            len(row.events),
            row.claims,
            (now - (row.claimed_since or now)).total_seconds(),
            row.observed,
            tuple(row.observations[row.observed :]),
        )

    async def commit(self, commit: Commit) -> Committed:
        """Commit all of it.

        Raises:
            Fenced: when the claim does not hold any more; then nothing was changed.
            CancelledFirst: when it begins an order and the customer has asked to cancel; then nothing was changed.
            Guarded: when a final status would change; then nothing was changed.

        """
        purchase = commit.purchase
        row = self._fenced(purchase)
        if row is None:
            raise Fenced(str(purchase.request_id))
        if commit.begins_order and self._cancel_comes_first(row):
            raise CancelledFirst(str(purchase.request_id))
        self._guard(row, purchase)
        wait = len(row.observations) > commit.observed
        if commit.settled is not None:
            for raised in row.flags:
                raised.settled = raised.settled or commit.settled
        row.flags += [Raised(flag) for flag in commit.flags]
        row.purchase = _kept(row.purchase, purchase)
        _note_flags(row)
        due_in_s = 0.0 if wait and not commit.keep else commit.due_in_s
        row.due_at = None if due_in_s is None else self._clock.now() + timedelta(seconds=due_in_s)
        if not commit.keep:
            row.owner = None
        if commit.erase_token:
            row.token = None
        for attempt in (commit.ended, purchase.attempt):
            if attempt is not None:
                row.attempts[attempt.number] = attempt
        self._tell(row, commit)
        row.claims, row.claimed_since, row.observed = 0, None, commit.observed
        self._record(row, commit.events)
        return Committed(len(row.events), row.purchase.cancel_requested, wait)

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> dict[UUID, bool]:
        """Lengthen the leases of these claims; give those that still hold, each with whether it is to be cancelled."""
        held = {}
        for claim in claims:
            row = self._claimed(claim)
            if row is not None and row.owner is not None:
                row.due_at = self._clock.now() + timedelta(seconds=lease_s)
                held[claim.request_id] = row.purchase.cancel_requested
        return held

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others take these purchases at once, as if they had not been claimed."""
        for claim in claims:
            row = self._claimed(claim)
            if row is not None and row.owner is not None and row.due_at is not None:
                row.owner, row.due_at = None, self._clock.now()
                row.claims = max(row.claims - 1, 0)
                row.claimed_since = row.claimed_since if row.claims else None

    async def leave(self, claim: Claim, delay_s: float) -> None:
        """Let others take a purchase after a while; the claim counts as one without a commit."""
        row = self._claimed(claim)
        if row is not None:
            row.owner, row.due_at = None, self._clock.now() + timedelta(seconds=delay_s)
            row.claimed_since = None

    async def set_aside(self, claim: Claim, flag: Flag) -> None:
        """Leave a purchase that cannot be read as it is, with a flag, until somebody tells something of it."""
        row = self._claimed(claim)
        if row is None:
            return
        row.owner, row.due_at, row.claims, row.claimed_since = None, None, 0, None
        open_flags = {raised.flag.invariant for raised in row.flags if raised.settled is None}
        if flag.invariant not in open_flags:
            row.flags.append(Raised(flag))
        _note_flags(row)

    async def free_dead(self) -> int:
        """End the leases of workers whose session is gone; give the number of purchases that were freed."""
        dead = self.left_by_the_dead()
        for row in dead:
            too_many = row.claims - DEAD_AT_ONCE
            left_alone_s = min(2.0**too_many, LONGEST_LEFT_ALONE_S) if too_many > 0 else 0.0
            row.owner, row.due_at = None, self._clock.now() + timedelta(seconds=left_alone_s)
        return len(dead)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[MemorySession]:
        """Open a worker's session."""
        session = MemorySession(next(self._owners))
        self._living[session.owner] = session
        try:
            yield session
        finally:
            self.end_session(session.owner)

    async def get(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Give a customer's purchase."""
        row = self.rows.get(request_id)
        mine = row is not None and row.purchase.customer_id == customer_id
        return self._view(row) if row is not None and mine else None

    async def offered(self, request_id: UUID, customer_id: str) -> Offered | None:
        """Give what accepting the offer of a customer's purchase needs."""
        row = self.rows.get(request_id)
        if row is None or row.purchase.customer_id != customer_id:
            return None
        token = SealedToken(row.key_id, row.token) if row.token is not None else None
        purchase = row.purchase
        return Offered(purchase.book_id, purchase.conditions, purchase.offer, token)

    async def page(
        self, customer_id: str, wanted: Wanted, behind: Place | None, limit: int
    ) -> list[PurchaseView]:
        """Give those of a customer's purchases that are wanted, newest first; those behind a place, if there is one."""
        found = [
            self._view(row)
            for row in self.rows.values()
            if row.purchase.customer_id == customer_id
            and row.purchase.status in (wanted.statuses or Status)
            and wanted.book_id in (None, row.purchase.book_id)
            and (not wanted.created_after or row.purchase.created_at >= wanted.created_after)
            and (not wanted.created_before or row.purchase.created_at < wanted.created_before)
        ]
        found.sort(key=_place, reverse=True)
        if behind is not None:
            found = [
                view for view in found if _place(view) < (behind.created_at, behind.request_id)
            ]
        return found[:limit]

    async def events(self, request_id: UUID, after: int) -> list[Recorded]:
        """Give what happened in a purchase after the event of that number."""
        row = self.rows.get(request_id)
        return [recorded for recorded in row.events if recorded.seq > after] if row else []

    async def ping(self) -> bool:
        """Say that it answers."""
        return True

    # For tests

    def end_session(self, owner: int) -> None:
        """Have a worker's session end, as when its process is killed."""
        session = self._living.pop(owner, None)
        if session is not None:
            session.ended.set()

    def anything_due(self) -> bool:
        """Say whether a claim would take something."""
        now = self._clock.now()
        return any(row.due_at is not None and row.due_at <= now for row in self.rows.values())

    def left_by_the_dead(self) -> list[Row]:
        """Give the purchases under way whose worker is gone."""
        return [
            row
            for row in self.rows.values()
            if row.owner is not None and row.due_at is not None and row.owner not in self._living
        ]

    def _claimed(self, claim: Claim) -> Row | None:
        row = self.rows.get(claim.request_id)
        return row if row is not None and row.purchase.epoch == claim.epoch else None

    def _fenced(self, purchase: Purchase) -> Row | None:
        return self._claimed(Claim(purchase.request_id, purchase.epoch))

    def _guard(self, row: Row, purchase: Purchase) -> None:
        if row.purchase.status not in (Status.PENDING, purchase.status):
            raise Guarded(
                f"{row.purchase.status} is final and cannot become {purchase.status}: "
                f"{purchase.request_id}"
            )

    def _record(self, row: Row, events: Sequence[Event]) -> None:
        now = self._clock.now()
        for event in events:
            row.events.append(Recorded(len(row.events) + 1, now, event))

    def _tell(self, row: Row, commit: Commit) -> None:
        row.outbox += [news for news in commit.news if news not in row.outbox]

    def _cancel_comes_first(self, row: Row) -> bool:
        return row.purchase.cancel_requested

    def _view(self, row: Row) -> PurchaseView:
        purchase = row.purchase
        bought = purchase.status is Status.PURCHASED
        attempt = purchase.attempt
        accepted_by = (
            other.purchase.request_id
            for other in self.rows.values()
            if other.purchase.accepted_offer_of == purchase.request_id
        )
        return PurchaseView(
            request_id=purchase.request_id,
            status=purchase.status,
            book_id=purchase.book_id,
            max_price=purchase.max_price,
            created_at=purchase.created_at,
            settled=purchase.stage is not Stage.AUTHORIZE,
            failure_reason=purchase.failure_reason,
            offer=purchase.offer,
            final_price=purchase.authorization.captured if bought else None,
            seller_id=attempt.seller_id if bought and attempt else None,
            confirmation=attempt.order_id if bought and attempt else None,
            committed=purchase.status is Status.PENDING and purchase.stage in COMMITTED,
            cancel_requested=purchase.cancel_requested,
            accepted_offer_of=purchase.accepted_offer_of,
            offer_accepted_by=next(accepted_by, None),
            refunded=purchase.authorization.refunded,
        )


_GIVEN = attrgetter(
    *("customer_id", "book_id", "max_price", "conditions", "created_at", "traceparent", "epoch"),
    *("accepted_offer_of", "cancel_requested", "flagged", "flag"),
)
"""What no commit of a worker changes."""


def _kept(before: Purchase, after: Purchase) -> Purchase:
    """Give a purchase with what a commit changes of it."""
    if after.attempt is not None and _GIVEN(before) == _GIVEN(after):
        return after
    return replace(
        before,
        stage=after.stage,
        resume=after.resume,
        tries=after.tries,
        status=after.status,
        failure_reason=after.failure_reason,
        offer=after.offer,
        plan=after.plan,
        authorization=after.authorization,
        attempt=after.attempt or before.attempt,
    )


def _same_customer(row: Row, purchase: Purchase) -> bool:
    return row.purchase.customer_id == purchase.customer_id


def _place(view: PurchaseView) -> tuple[datetime, UUID]:
    return view.created_at, view.request_id


def _note_flags(row: Row) -> None:
    flag = max((n for n, raised in enumerate(row.flags, 1) if raised.settled is None), default=0)
    if row.purchase.flag != flag:
        row.purchase = replace(row.purchase, flagged=bool(flag), flag=flag)
