"""Puts right what can be put right, and changes no purchase.

What a worker can put right it is told to look at. Only what no purchase of ours is about, so that no worker ever will,
is taken back here, and only when somebody says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never
from uuid import UUID

import structlog

from mesh.clock import Clock
from orchestrator.app.reconcile.compare import Comparer, Run, Suspect, why
from orchestrator.app.reconcile.model import (
    PROVIDER,
    Books,
    Done,
    Mode,
    OrderBooks,
    Outcome,
    ReconcileSettings,
)
from orchestrator.domain.observations import OrderChanged, PaymentChanged, Told
from orchestrator.domain.reconciliation import (
    Finding,
    Kind,
    Remedy,
    TheirOrder,
    certainly_ours,
    made_at,
)
from orchestrator.ports import (
    AlreadyCaptured,
    Broadcast,
    PaymentProvider,
    PurchaseStore,
    Unknown,
    Voided,
)
from sellers.model import CallFailed, Cancelled, Closed, OrderNotFound, TooLate

_log = structlog.get_logger(__name__)

BY = "reconciler"
"""Who tells workers to look."""

_LOOK_EVERY_S = 0.25


class Settler:
    """Does something about findings, as far as a mode allows."""

    def __init__(
        self,
        comparer: Comparer,
        books: Books,
        purchases: PurchaseStore,
        *,
        provider: PaymentProvider,
        sellers: OrderBooks,
        broadcast: Broadcast,
        settings: ReconcileSettings,
        clock: Clock,
    ) -> None:
        self._comparer = comparer
        self._books = books
        self._purchases = purchases
        self._provider = provider
        self._sellers = sellers
        self._broadcast = broadcast
        self._settings = settings
        self._clock = clock

    async def settle(self, run: Run, mode: Mode) -> None:
        """Tell workers what to look at, take strays back, and look at all of it once more.

        Raises:
            mesh.errors.Unavailable: when our own database does not answer.

        """
        if mode is Mode.REPORT:
            return
        told = await self._tell_workers(run)
        if mode is Mode.APPLY:
            # Orders first: what pays for one that stands is not released.
            await self._take_back_all(run, Remedy.CANCEL)
            await self._take_back_all(run, Remedy.VOID)
        outcomes = run.found.outcomes
        for place, outcome in enumerate(outcomes):
            if outcome.done is Done.TOLD:
                outcomes[place] = await self._looked_at_again(run, outcome)
        # What workers could not put right either, they have flagged.
        for booked in (await self._books.booked(told)).values():
            self._comparer.compare_alone(run, booked)

    async def _tell_workers(self, run: Run) -> list[UUID]:
        """Tell workers what to look at, and wait for them; give the purchases."""
        outcomes = run.found.outcomes
        told = dict[UUID, None]()
        for place, outcome in enumerate(outcomes):
            request_id = outcome.finding.request_id
            if request_id is not None and await self._tell(request_id, outcome.finding):
                outcomes[place] = replace(outcome, done=Done.TOLD)
                told[request_id] = None
        if told:
            await self._broadcast.work()
            await self._wait_for_workers(list(told))
        return list(told)

    async def _tell(self, request_id: UUID, finding: Finding) -> bool:
        """Tell a worker to look; False when there is nothing to tell."""
        detail = f"{finding.kind}: {finding.detail}"
        if finding.remedy is Remedy.LOOK_AT_PAYMENT:
            what: Told = PaymentChanged(detail, finding.provider_id)
        elif finding.remedy is Remedy.LOOK_AT_ORDER and finding.order_key is not None:
            what = OrderChanged(finding.order_key, detail)
        else:
            return False
        await self._purchases.observe(request_id, BY, what)
        _log.info("a worker was told to look", request_id=str(request_id), found=detail)
        return True

    async def _wait_for_workers(self, told: Sequence[UUID]) -> None:
        """Return when workers have acted on everything, or have had their time."""
        until_s = self._clock.monotonic() + self._settings.workers_s
        while self._clock.monotonic() < until_s and await self._books.busy(told):
            await self._clock.sleep(_LOOK_EVERY_S)

    async def _take_back_all(self, run: Run, remedy: Remedy) -> None:
        outcomes = run.found.outcomes
        for place, outcome in enumerate(outcomes):
            finding = outcome.finding
            if finding.remedy is not remedy:
                continue
            note = await self._obstacle(run, finding)
            if not note:
                _log.warning(
                    "taking back a stray",
                    kind=finding.kind,
                    request_id=str(finding.request_id),
                    provider_id=finding.provider_id,
                    seller_id=finding.seller_id,
                    amount=str(finding.amount),
                )
                take_back = self._cancel if remedy is Remedy.CANCEL else self._void
                note = await take_back(finding)
            outcomes[place] = replace(outcome, note=note, done=Done.LEFT if note else Done.TOLD)

    async def _void(self, finding: Finding) -> str:
        """Release a stray authorization; give what stood in the way."""
        provider_id = finding.provider_id or ""
        key = f"{finding.request_id}:void:{provider_id}"
        match await self._provider.void(key, provider_id):
            case Voided():
                return ""
            case AlreadyCaptured():
                return "the provider has charged it meanwhile"
            case Unknown(detail):
                return f"the provider does not say whether it is released: {detail}"
            case outcome:
                assert_never(outcome)

    async def _cancel(self, finding: Finding) -> str:
        """Cancel a stray order; give what stood in the way."""
        outcome = await self._sellers.cancel_stray(finding.seller_id or "", finding.order_key or "")
        match outcome:
            case Closed() | Cancelled():
                return ""
            case TooLate():
                return "the seller does not cancel it any more"
            case OrderNotFound():
                return "the seller does not know it any more"
            case CallFailed():
                return f"the seller does not say whether it is cancelled: {why(outcome)}"
            case _:
                assert_never(outcome)

    async def _obstacle(self, run: Run, finding: Finding) -> str:
        """Say why a stray may not be taken back; empty when it may."""
        if not certainly_ours(finding, self._clock.now(), self._settings.bounds):
            return "it is too young, or not certainly ours"
        mine = [o for o in run.found.outcomes if o.finding.request_id == finding.request_id]
        if any(o.finding.kind is Kind.STRAY_CAPTURE for o in mine):
            return "the provider has charged for it: the purchase is lost, not the order"
        if finding.remedy is Remedy.VOID:
            orders = [o for o in mine if o.finding.remedy is Remedy.CANCEL]
            return "its order stands" if any(o.done is Done.LEFT for o in orders) else ""
        if await self._comparer.booked(finding.request_id) is not None:
            return ""
        made = None if finding.request_id is None else made_at(finding.request_id)
        if PROVIDER not in run.complete or made is None or made < run.period.since:
            return "whether it is charged for is not known: compare from before it was made"
        return ""

    async def _looked_at_again(self, run: Run, outcome: Outcome) -> Outcome:
        """Look at what was put right; it counts as resolved when it is not found again."""
        finding = outcome.finding
        order = (
            TheirOrder(
                finding.seller_id,
                finding.order_key,
                OrderNotFound(),
                None if finding.request_id is None else str(finding.request_id),
                finding.began_at,
            )
            if finding.seller_id is not None and finding.order_key is not None
            else None
        )
        suspect = Suspect(finding.request_id, finding.provider_id, order)
        again = await self._comparer.look(run, suspect)
        if again is None:
            return replace(outcome, note="it could not be looked at again")
        if any(found.identity() == finding.identity() for found in again):
            return replace(outcome, note="it does not agree yet")
        booked = await self._comparer.booked(finding.request_id)
        if booked is not None and booked.under_way:
            return replace(outcome, note=f"a worker is at its step {booked.stage!r}")
        return replace(outcome, done=Done.RESOLVED)
