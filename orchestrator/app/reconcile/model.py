"""What reconciling is about, and what it needs from the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from orchestrator.domain.reconciliation import Booked, Bounds, Finding
from orchestrator.ports import ProviderPayment, Unknown
from sellers.model import CancelOutcome, GetOrderOutcome, ListOrdersOutcome

PROVIDER = "provider"
"""The provider's name among those that could not be compared with."""


class Mode(StrEnum):
    """How far to go."""

    REPORT = "report"
    """Change nothing."""
    TELL = "tell"
    """Tell workers what to look at."""
    APPLY = "apply"
    """As ``TELL``, and take back what no purchase of ours is about."""


@dataclass(frozen=True, slots=True)
class Period:
    """What to compare: purchases committed, payments made and orders changed from ``since`` and before ``until``."""

    since: datetime
    until: datetime


class Done(StrEnum):
    """What became of a finding."""

    LEFT = "left"
    """Nothing was done."""
    TOLD = "told"
    """A worker was told to look, and it still did not agree when the run ended."""
    RESOLVED = "resolved"
    """It was put right, and was seen to agree."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding and what became of it; ``note`` says what stood in the way, if anything did."""

    finding: Finding
    done: Done = Done.LEFT
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be compared: with whom, and why."""

    who: str
    why: str


@dataclass(slots=True)
class Comparison:
    """What a run has compared so far, and found."""

    purchases: int = 0
    payments: int = 0
    orders: int = 0
    sellers: int = 0
    gaps: list[Gap] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Give how many findings still do not agree."""
        return sum(outcome.done is not Done.RESOLVED for outcome in self.outcomes)

    def lacks(self, who: str, why: str) -> None:
        """Note that something could not be compared, once for each reason."""
        gap = Gap(who, why)
        if gap not in self.gaps:
            self.gaps.append(gap)


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """How to compare."""

    bounds: Bounds = field(default_factory=Bounds)
    clocks_apart: timedelta = timedelta(minutes=10)
    """How far the clocks of others may be from ours: their lists are read from so much earlier."""
    sellers_at_once: int = 16
    tries: int = 2
    """How often to ask for a page that did not come."""
    pages_of_a_seller: int = 400
    """A seller that lists more pages than this is left unfinished."""
    entries: int = 2_000_000
    """Most payments and orders of a run; eight bytes are kept of each."""
    findings: int = 10_000
    """Most findings of a run."""
    findings_of_a_seller: int = 500
    """A seller with more differences than this is not listed further: it is the seller that is wrong."""
    workers_s: float = 20.0
    """How long workers may take to act on what they were told, in seconds."""


class Books(Protocol):
    """Our books. Every method raises ``mesh.errors.Unavailable`` when the database does not answer."""

    async def booked(self, request_ids: Sequence[UUID]) -> dict[UUID, Booked]:
        """Give those of these purchases that there are."""
        ...

    async def booked_under(self, keys: Sequence[str]) -> dict[str, Booked]:
        """Give the purchases that have tries under these keys, by key."""
        ...

    def committed(self, since: datetime, until: datetime) -> AsyncIterator[list[Booked]]:
        """Give all purchases committed at ``since`` or later and before ``until``, page by page."""
        ...

    def open(self, until: datetime) -> AsyncIterator[list[Booked]]:
        """Give all purchases committed before ``until`` that something is left to do for, or that are flagged."""
        ...

    async def busy(self, request_ids: Sequence[UUID]) -> bool:
        """Say whether a worker still has to act on what it was told of any of these purchases."""
        ...


class PaymentBooks(Protocol):
    """The provider's books: the part of ``PaymentProvider`` that only reads."""

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        """Give a payment as it is now; None when the provider has none of that name."""
        ...

    def list_since(self, since: datetime, page_size: int = 100) -> AsyncIterator[ProviderPayment]:
        """Give all payments made at ``since`` or later, in no particular order, ``page_size`` a call.

        Raises:
            mesh.errors.Unavailable: while iterating, when the provider does not answer; start again.

        """
        ...


class OrderBooks(Protocol):
    """The sellers' books. Nothing that a seller or the network does raises."""

    def ids(self) -> list[str]:
        """Give the ids of all sellers that may be called."""
        ...

    async def list_orders(
        self, seller_id: str, changed_from: datetime, page_token: str
    ) -> ListOrdersOutcome:
        """List our orders at a seller that changed at or after a time, oldest change first, a page a call."""
        ...

    async def find_order(self, seller_id: str, key: str) -> GetOrderOutcome:
        """Ask a seller for the order under a key."""
        ...

    async def cancel_stray(self, seller_id: str, key: str) -> CancelOutcome:
        """Cancel the order under a key that no purchase of ours has."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A run that this process has begun; ``starts`` counts how often it was begun, and is the fence of its end."""

    run_id: UUID
    starts: int
    mode: Mode
    period: Period


class Verdict(StrEnum):
    """How a run ended."""

    CLEAN = "clean"
    """Everything was compared, and agrees."""
    FINDINGS = "findings"
    """Everything was compared; not everything agrees."""
    PARTIAL = "partial"
    """Not everything could be compared; what was found is true."""
    FAILED = "failed"
    """The run came to no end."""


class Runs(Protocol):
    """The record of runs. Every method raises ``mesh.errors.Unavailable`` when the database does not answer."""

    async def wanted(self, every_s: float) -> bool:
        """Say whether somebody asks for a run, or the last scheduled one is that long ago (never, when 0)."""
        ...

    def turn(self) -> AbstractAsyncContextManager[bool]:
        """Hold the fleet's one turn to reconcile; False when another process has it."""
        ...

    async def begin(self, by: str, every_s: float) -> Task | None:
        """Begin the next run, as one whose process has ended before it; None when none is wanted.

        Only in one's turn.
        """
        ...

    async def end(self, task: Task, verdict: Verdict, found: Comparison) -> bool:
        """Record what a run has found, for good; False when it was begun again since."""
        ...
