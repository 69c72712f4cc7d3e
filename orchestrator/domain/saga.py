"""What follows from what: each function takes a purchase and the outcome of an effect and gives what to commit.

The worker runs one effect, calls the function for its outcome and commits what comes back. Nothing else changes a
purchase. The intent of the next effect is part of that commit: when the stage is ``HOLD``, the attempt to hold stands
in the purchase before the seller is called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.domain.events import Collected, Event, Finished, Step, StepName
from orchestrator.domain.purchase import (
    Attempt,
    AuthorizationState,
    Candidate,
    FailureReason,
    Offer,
    Release,
    Stage,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from mesh.money import Money
    from orchestrator.domain.purchase import Plan, Purchase

MOST_TRIES_AT_A_SELLER = 2
MOST_COLLECTIONS = 2

_ASK_AGAIN = frozenset({"quote_expired", "hold_expired", "price_changed"})
"""Refusals after which the same seller may still sell, at a price to be asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The clock of a purchase, in seconds since it was committed unless said otherwise (DESIGN, "A purchase")."""

    authorize_by_s: float = 8.0
    """Until then an authorization without an answer is sent again; after it the purchase has failed."""
    collect_by_s: float = 10.0
    """End of collecting."""
    recollect_s: float = 1.0
    """After how long to ask again when nobody has answered at all."""
    hold_by_s: float = 14.0
    """No hold is begun after this."""
    order_by_s: float = 17.0
    """No order is begun after this."""
    pending_until_s: float = 20.0
    """An order that is still pending after this is cancelled."""
    not_after_s: float = 5.0
    """How long a seller may still work on a call, after it was decided."""
    not_found_counts_after_s: float = 5.0
    """How long after ``not_after`` NOT_FOUND means that an order never will be."""
    quote_margin_s: float = 1.0
    """A quote with less life than this is asked for again."""
    in_flight_s: float = 0.25
    """When to ask again for what a seller is still working on."""
    offer_life_s: float = 300.0
    """How long an offer may be accepted."""
    release_for_s: float = 3600.0
    """How long a release without an answer is repeated; by then a hold has ended by itself."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is decided: by the mesh's clock, and as the age of the purchase in seconds."""

    now: datetime
    age_s: float


@dataclass(frozen=True, slots=True)
class SellerKind:
    """What a purchase must know of a seller."""

    supports_holds: bool
    supports_cancel_before_order: bool


@dataclass(frozen=True, slots=True)
class Next:
    """What to commit: the purchase as it is from now on, what happened, and after how many seconds it goes on."""

    purchase: Purchase
    events: tuple[Event, ...] = ()
    delay_s: float = 0.0


class Resolution(StrEnum):
    """How to find out what became of an order."""

    REPLAY = "replay"
    """Place it again under its key: the first answer comes back, or it is placed now."""
    POLL = "poll"
    """Ask for it by its key."""
    CANCEL = "cancel"
    """Close its key."""
    POLL_FOR_GOOD = "poll_for_good"
    """Ask for it by its key; NOT_FOUND means that it never will be."""


class Saga:
    """The decisions of purchases, under given limits and with what is known of the sellers."""

    def __init__(self, limits: Limits, kind_of: Callable[[str], SellerKind | None]) -> None:
        """Keep the limits, and what tells of a seller by its id, as far as it is known now."""
        self._limits = limits
        self._kind_of = kind_of

    # Authorization

    def authorized(self, purchase: Purchase, provider_id: str) -> Next:
        """The provider has reserved max_price."""
        authorization = replace(
            purchase.authorization, state=AuthorizationState.AUTHORIZED, provider_id=provider_id
        )
        purchase = replace(purchase, authorization=authorization)
        if purchase.status is not Status.PENDING:
            return Next(_to(purchase, Stage.VOID))
        return Next(
            _to(purchase, Stage.COLLECT),
            (Step(StepName.AUTHORIZED, total=purchase.max_price), Step(StepName.COLLECTING)),
        )

    def declined(self, purchase: Purchase, reason: FailureReason) -> Next:
        """The provider reserves nothing."""
        authorization = replace(purchase.authorization, state=AuthorizationState.DECLINED)
        purchase = replace(purchase, authorization=authorization)
        if purchase.status is not Status.PENDING:
            return Next(_to(purchase, Stage.DONE))
        finished = _finish(_to(purchase, Stage.DONE), Status.FAILED, reason)
        return replace(
            finished,
            events=(Step(StepName.AUTHORIZATION_REFUSED, reason=reason.value), *finished.events),
        )

    def authorization_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        """The provider did not answer: the same key again, and after a while the customer is told."""
        if purchase.status is Status.PENDING and moment.age_s >= self._limits.authorize_by_s:
            return _finish(
                _to(purchase, Stage.SETTLE_AUTHORIZATION),
                Status.FAILED,
                FailureReason.PAYMENT_UNAVAILABLE,
            )
        return _again(purchase)

    # Collecting

    def collected(
        self,
        purchase: Purchase,
        candidates: Iterable[Candidate],
        summary: Collected,
        moment: Moment,
    ) -> Next:
        """A collection ended with these quotes."""
        ranked = sorted(candidates, key=Candidate.rank)
        plan = purchase.plan
        dearer = next((c for c in ranked if c.total.minor > purchase.max_price.minor), None)
        plan = replace(
            plan,
            candidates=tuple(c for c in ranked if c.total.minor <= purchase.max_price.minor),
            dearer=dearer if summary.answered else plan.dearer,
            answered=max(plan.answered, summary.answered),
            collections=plan.collections + 1,
            # Sellers that were not waited for may be cheaper than any that is known: until they were, there is no "no".
            obstructed=any(reason == "stopped" for reason, _ in summary.misses),
        )
        if self._worth_another(plan, moment):
            again = _to(replace(purchase, plan=plan), Stage.COLLECT)
            return Next(again, (summary, Step(StepName.COLLECTING)), self._limits.recollect_s)
        return _with(summary, self._advance(replace(purchase, plan=plan), moment))

    def collection_failed(self, purchase: Purchase, moment: Moment) -> Next:
        """The aggregator could not be asked: again while there is time."""
        if moment.age_s < self._limits.collect_by_s:
            return _again(purchase)
        if purchase.plan.collections:
            return self._answer(purchase, moment)
        return _finish(_to(purchase, Stage.VOID), Status.FAILED, FailureReason.OUT_OF_TIME)

    def requoted(
        self,
        purchase: Purchase,
        candidate: Candidate | None,
        moment: Moment,
        *,
        reached: bool = True,
    ) -> Next:
        """The cheapest seller was asked again; None when it gives no price now, or was not ``reached``."""
        plan = replace(purchase.plan, candidates=purchase.plan.candidates[1:])
        purchase = replace(purchase, plan=plan)
        if not reached:
            purchase = _obstructed(purchase)
        if candidate is None or candidate.expires_at <= moment.now:
            return self._advance(purchase, moment)
        # However short its life is, it was given just now: the margin is for quotes that have waited.
        return self._advance(_consider(purchase, candidate), moment, requoted=candidate)

    # Trying a seller

    def held(self, purchase: Purchase, hold_id: str, total: Money, moment: Moment) -> Next:
        """The seller holds a copy, at a price of its own: order it, unless it is not the best any more."""
        attempt = _attempt(purchase)
        held = Step(StepName.HELD, attempt.seller_id, total)
        rank = (total.minor, attempt.seller_id)
        if total.minor > purchase.max_price.minor:
            why = "above_max_price"
        elif any(candidate.rank() < rank for candidate in purchase.plan.candidates):
            why = "cheaper_elsewhere"
        elif moment.age_s > self._limits.order_by_s:
            why = "out_of_time"
        else:
            attempt = replace(
                attempt, hold_id=hold_id, agreed=total, not_after=self._not_after(moment)
            )
            return Next(
                _to(replace(purchase, attempt=attempt), Stage.ORDER),
                (held, Step(StepName.ORDERING, attempt.seller_id, total)),
            )
        purchase = _consider(
            replace(purchase, attempt=replace(attempt, hold_id=hold_id)),
            Candidate(attempt.seller_id, attempt.quote_id, total, moment.now + timedelta(hours=1)),
        )
        return _with(held, self._release(purchase, why, moment))

    def hold_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        """The seller may hold a copy or not: have it released by its key, and go on."""
        return self._release(_obstructed(purchase), "unknown", moment)

    def refused(
        self, purchase: Purchase, reason: str, updated: Candidate | None, moment: Moment
    ) -> Next:
        """The seller definitely does not sell under this key: its price may have changed, or the next one follows."""
        attempt = _attempt(purchase)
        purchase = replace(purchase, attempt=replace(attempt, outcome=reason))
        if updated is not None:
            purchase = _consider(purchase, updated)
        elif reason in _ASK_AGAIN:
            expired = Candidate(attempt.seller_id, attempt.quote_id, attempt.agreed, moment.now)
            purchase = _consider(purchase, expired)
        refused = Step(StepName.SELLER_REFUSED, attempt.seller_id, reason=reason)
        if attempt.hold_id is not None:
            return _with(refused, self._release(purchase, reason, moment))
        return _with(refused, self._advance(purchase, moment))

    def unreached(self, purchase: Purchase, why: str, moment: Moment) -> Next:
        """The seller was certainly not reached, for whatever reason: the next one follows."""
        return self.refused(_obstructed(purchase), why, None, moment)

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        """The seller has sold the copy: charge what it says, if that was ever agreed."""
        attempt = replace(_attempt(purchase), order_id=order_id, charged=total, outcome="confirmed")
        purchase = replace(purchase, attempt=attempt)
        ordered = Step(StepName.ORDERED, attempt.seller_id, total)
        stage = Stage.CAPTURE if _chargeable(purchase, total) else Stage.CANCEL_ORDER
        return Next(_to(purchase, stage), (ordered,))

    def order_pending(self, purchase: Purchase, retry_after_s: float) -> Next:
        """The seller has not decided yet."""
        attempt = replace(_attempt(purchase), outcome="pending")
        tries = purchase.tries if purchase.stage is Stage.RESOLVE_ORDER else 0
        purchase = replace(
            _to(replace(purchase, attempt=attempt), Stage.RESOLVE_ORDER), tries=tries
        )
        return Next(purchase, delay_s=min(max(retry_after_s, 0.1), 5.0))

    def in_flight(self, purchase: Purchase, moment: Moment) -> Next:
        """The seller is still working on an earlier call with this key: ask again soon, while it may be.

        Once it cannot be any more, the outcome is as unknown as any.
        """
        if moment.now < _attempt(purchase).not_after:
            return Next(purchase, delay_s=self._limits.in_flight_s)
        if purchase.stage is Stage.HOLD:
            return self.hold_unknown(purchase, moment)
        return self.order_unknown(purchase)

    def order_unknown(self, purchase: Purchase) -> Next:
        """Nobody knows whether the seller has sold the copy."""
        if purchase.stage is Stage.RESOLVE_ORDER:
            return _again(purchase)
        return Next(_to(purchase, Stage.RESOLVE_ORDER))

    def resolution(self, purchase: Purchase, moment: Moment) -> Resolution:
        """Say how to find out what became of the order.

        A pending one is asked for until its time is over, then cancelled. Else its key is sent once more, then it is
        asked for, then its key is closed by a cancel; a seller that accepts none before the order exists is asked until
        the order cannot arrive any more.
        """
        attempt = _attempt(purchase)
        kind = self._kind_of(attempt.seller_id)
        closable = kind is not None and kind.supports_cancel_before_order
        if attempt.outcome == "pending":
            return (
                Resolution.POLL
                if moment.age_s < self._limits.pending_until_s
                else Resolution.CANCEL
            )
        if purchase.tries == 0 and moment.now < attempt.not_after:
            return Resolution.REPLAY
        if closable and purchase.tries > 1:
            return Resolution.CANCEL
        settled = attempt.not_after + timedelta(seconds=self._limits.not_found_counts_after_s)
        return Resolution.POLL_FOR_GOOD if moment.now >= settled else Resolution.POLL

    # Money

    def captured(self, purchase: Purchase, amount: Money) -> Next:
        """The order's total is charged: the purchase is done."""
        authorization = replace(
            purchase.authorization, state=AuthorizationState.CAPTURED, captured=amount
        )
        purchase = replace(purchase, authorization=authorization)
        finished = _finish(_to(purchase, _cleaning(purchase.plan)), Status.PURCHASED, None)
        return _with(Step(StepName.CAPTURED, total=amount), finished)

    def capture_refused(self, purchase: Purchase, reason: str) -> Next:
        """The provider definitely does not charge: take the order back."""
        attempt = _attempt(purchase)
        return Next(
            _to(purchase, Stage.CANCEL_ORDER),
            (Step(StepName.CAPTURE_REFUSED, attempt.seller_id, attempt.charged, reason),),
        )

    def order_cancelled(self, purchase: Purchase, moment: Moment) -> Next:
        """The order is taken back: nothing was bought."""
        attempt = replace(_attempt(purchase), outcome="cancelled")
        purchase = replace(purchase, attempt=attempt)
        cancelled = Step(StepName.ORDER_CANCELLED, attempt.seller_id)
        if not _chargeable(purchase, attempt.charged):
            return _with(cancelled, self._advance(purchase, moment))
        voiding = _to(purchase, Stage.VOID)
        return _with(cancelled, _finish(voiding, Status.FAILED, FailureReason.CAPTURE_REFUSED))

    def voided(self, purchase: Purchase) -> Next:
        """Nothing is reserved any more."""
        authorization = replace(purchase.authorization, state=AuthorizationState.VOIDED)
        purchase = replace(purchase, authorization=authorization)
        return Next(_to(purchase, _cleaning(purchase.plan)), (Step(StepName.VOIDED),))

    def released(self, purchase: Purchase, answered: Iterable[Release], moment: Moment) -> Next:
        """Sellers have answered these releases."""
        purchase = without_releases(purchase, answered)
        if not purchase.plan.releases or moment.age_s > self._limits.release_for_s:
            return Next(_to(purchase, Stage.DONE))
        return _again(purchase)

    def flagged(self, purchase: Purchase) -> Next:
        """No rule of ours can decide this: an operator has to."""
        return Next(_to(purchase, Stage.FLAGGED))

    def again(self, purchase: Purchase) -> Next:
        """The outcome is unknown and the effect is safe to repeat: repeat it, later each time."""
        return _again(purchase)

    def _advance(
        self, purchase: Purchase, moment: Moment, requoted: Candidate | None = None
    ) -> Next:
        """Take the next cheapest seller; without one, the next collection or the true answer.

        ``requoted`` is one that was asked for its price just now.
        """
        late = False
        candidates = purchase.plan.candidates
        while candidates:
            candidate, *rest = candidates
            kind = self._kind_of(candidate.seller_id)
            if (
                kind is not None
                and purchase.plan.tries_at(candidate.seller_id) < MOST_TRIES_AT_A_SELLER
            ):
                by_s = self._limits.hold_by_s if kind.supports_holds else self._limits.order_by_s
                if moment.age_s <= by_s:
                    purchase = replace(purchase, plan=replace(purchase.plan, candidates=candidates))
                    if candidate is not requoted and self._expired(candidate, moment):
                        return Next(_to(purchase, Stage.REQUOTE))
                    return self._take(purchase, candidate, kind, moment)
                late = True
            candidates = tuple(rest)
        purchase = replace(purchase, plan=replace(purchase.plan, candidates=()))
        if late:
            return _finish(_to(purchase, Stage.VOID), Status.FAILED, FailureReason.OUT_OF_TIME)
        tried = purchase.attempt is not None
        if (
            tried
            and purchase.plan.collections < MOST_COLLECTIONS
            and moment.age_s < self._limits.collect_by_s
        ):
            return Next(_to(purchase, Stage.COLLECT), (Step(StepName.COLLECTING),))
        return self._answer(purchase, moment)

    def _take(
        self, purchase: Purchase, candidate: Candidate, kind: SellerKind, moment: Moment
    ) -> Next:
        plan = purchase.plan
        tries = plan.tries_at(candidate.seller_id) + 1
        key = f"{purchase.request_id}:{candidate.seller_id}"
        attempt = Attempt(
            number=purchase.attempt.number + 1 if purchase.attempt else 1,
            seller_id=candidate.seller_id,
            key=key if tries == 1 else f"{key}:{tries}",
            quote_id=candidate.quote_id,
            quoted=candidate.total,
            with_hold=kind.supports_holds,
            not_after=self._not_after(moment),
            agreed=candidate.total,
        )
        plan = replace(
            plan,
            candidates=plan.candidates[1:],
            tries=tuple((dict(plan.tries) | {candidate.seller_id: tries}).items()),
        )
        name, stage = (
            (StepName.HOLDING, Stage.HOLD)
            if kind.supports_holds
            else (StepName.ORDERING, Stage.ORDER)
        )
        return Next(
            _to(replace(purchase, plan=plan, attempt=attempt), stage),
            (Step(name, candidate.seller_id, candidate.total),),
        )

    def _answer(self, purchase: Purchase, moment: Moment) -> Next:
        """Give the answer that is true when nothing affordable can be had."""
        voiding = _to(purchase, Stage.VOID)
        if purchase.plan.obstructed:
            # Neither "too dear" nor "not available" would be true.
            return _finish(voiding, Status.FAILED, FailureReason.OUT_OF_TIME)
        dearer = purchase.plan.dearer
        if dearer is not None:
            expires_at = moment.now + timedelta(seconds=self._limits.offer_life_s)
            voiding = replace(voiding, offer=Offer(dearer.total, dearer.seller_id, expires_at))
            return _finish(voiding, Status.PRICE_NOT_MET, None)
        if purchase.plan.answered:
            return _finish(voiding, Status.NOT_AVAILABLE, None)
        return _finish(voiding, Status.FAILED, FailureReason.NO_SELLER_ANSWERED)

    def _worth_another(self, plan: Plan, moment: Moment) -> bool:
        """Say whether to ask again because nobody has answered at all."""
        return (
            plan.answered == 0
            and plan.collections < MOST_COLLECTIONS
            and moment.age_s + self._limits.recollect_s < self._limits.collect_by_s / 2
        )

    def _release(self, purchase: Purchase, why: str, moment: Moment) -> Next:
        """Commit to giving a hold back, and go on without waiting for the seller's answer."""
        attempt = _attempt(purchase)
        plan = purchase.plan
        plan = replace(plan, releases=(*plan.releases, Release(attempt.seller_id, attempt.key)))
        purchase = replace(
            purchase, plan=plan, attempt=replace(attempt, outcome=attempt.outcome or why)
        )
        step = Step(StepName.HOLD_RELEASED, attempt.seller_id, reason=why)
        return _with(step, self._advance(purchase, moment))

    def _expired(self, candidate: Candidate, moment: Moment) -> bool:
        margin = timedelta(seconds=self._limits.quote_margin_s)
        return candidate.expires_at <= moment.now + margin

    def _not_after(self, moment: Moment) -> datetime:
        return moment.now + timedelta(seconds=self._limits.not_after_s)


def without_releases(purchase: Purchase, answered: Iterable[Release]) -> Purchase:
    """Take the releases that were answered off the purchase."""
    gone = set(answered)
    if not gone:
        return purchase
    rest = tuple(release for release in purchase.plan.releases if release not in gone)
    return replace(purchase, plan=replace(purchase.plan, releases=rest))


def _to(purchase: Purchase, stage: Stage) -> Purchase:
    return replace(purchase, stage=stage, tries=0)


def _again(purchase: Purchase) -> Next:
    delay_s = min(0.25 * 2 ** min(purchase.tries, 10), 30.0)
    return Next(replace(purchase, tries=purchase.tries + 1), delay_s=delay_s)


def _with(event: Event, following: Next) -> Next:
    return replace(following, events=(event, *following.events))


def _finish(purchase: Purchase, status: Status, reason: FailureReason | None) -> Next:
    return Next(replace(purchase, status=status, failure_reason=reason), (Finished(),))


def _cleaning(plan: Plan) -> Stage:
    return Stage.RELEASE if plan.releases else Stage.DONE


def _obstructed(purchase: Purchase) -> Purchase:
    return replace(purchase, plan=replace(purchase.plan, obstructed=True))


def _consider(purchase: Purchase, candidate: Candidate) -> Purchase:
    """Take a price of a seller into the order of sellers, or among those that are too dear."""
    plan = purchase.plan
    if candidate.total.minor <= purchase.max_price.minor:
        ranked = tuple(sorted((*plan.candidates, candidate), key=Candidate.rank))
        return replace(purchase, plan=replace(plan, candidates=ranked))
    if plan.dearer is None or candidate.rank() < plan.dearer.rank():
        return replace(purchase, plan=replace(plan, dearer=candidate))
    return purchase


def _chargeable(purchase: Purchase, total: Money | None) -> bool:
    """Say whether a total is within what is authorized."""
    limit = purchase.max_price
    return total is not None and total.currency == limit.currency and total.minor <= limit.minor


def _attempt(purchase: Purchase) -> Attempt:
    if purchase.attempt is None:
        msg = f"{purchase.request_id} is in stage {purchase.stage} without an attempt"
        raise ValueError(msg)
    return purchase.attempt
