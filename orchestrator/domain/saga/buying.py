"""From quotes to an order: whom to try, and what follows from what sellers answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.domain.events import Step, StepName
from orchestrator.domain.purchase import (
    Attempt,
    Candidate,
    FailureReason,
    Offer,
    Release,
    Stage,
    Status,
)
from orchestrator.domain.saga.deciding import Deciding
from orchestrator.domain.saga.moves import (
    attempt_of,
    chargeable,
    consider,
    counted,
    finish,
    in_currency_of,
    obstructed,
    to,
    tried_again,
    with_event,
)
from orchestrator.domain.saga.terms import (
    CONFIRMED,
    MOST_COLLECTIONS,
    MOST_SILENT_COLLECTIONS,
    MOST_TRIES_AT_A_SELLER,
    Next,
    Resolution,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mesh.money import Money
    from orchestrator.domain.events import Collected
    from orchestrator.domain.purchase import Plan, Purchase
    from orchestrator.domain.saga.terms import Moment, SellerKind

_PENDING, _TOO_LATE = "pending", "too_late"

_NOT_SILENT = frozenset(
    {"out_of_stock", "not_carried", "condition", "currency", "not_selected", "stopped"}
)
"""Misses that leave nothing open: the seller has answered, or was not meant to be asked."""

_ASK_AGAIN = frozenset({"quote_expired", "hold_expired", "price_changed"})
"""Refusals after which the same seller may still sell, at a price to be asked for."""


class Buying(Deciding):
    """The decisions while a purchase looks for a copy."""

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
        if summary.answered >= plan.answered:
            plan = replace(plan, answered=summary.answered, silent=silent(summary))
        plan = replace(
            plan,
            candidates=tuple(c for c in ranked if c.total.minor <= purchase.max_price.minor),
            dearer=dearer if summary.answered else plan.dearer,
            collections=plan.collections + 1,
            # Sellers that were not waited for may be cheaper than any that is known: until they were, there is no "no".
            stopped=any(reason == "stopped" for reason, _ in summary.misses),
            # One that could not be reached may be among those that have not answered now.
            obstructed=plan.obstructed and summary.answered < summary.sellers,
        )
        if self._worth_another(plan, moment):
            again = to(replace(purchase, plan=plan), Stage.COLLECT)
            return Next(again, (summary, Step(StepName.COLLECTING)), self._recollect_s(plan))
        return with_event(summary, self._advance(replace(purchase, plan=plan), moment))

    def collection_failed(self, purchase: Purchase, moment: Moment) -> Next:
        """The aggregator could not be asked: again while there is time."""
        if moment.age_s < self._limits.collect_by_s:
            return tried_again(purchase)
        if purchase.plan.collections:
            return self._answer(purchase, moment)
        return finish(to(purchase, Stage.VOID), Status.FAILED, FailureReason.OUT_OF_TIME)

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
            purchase = obstructed(purchase)
        if candidate is None or candidate.expires_at <= moment.now:
            return self._advance(purchase, moment)
        # However short its life is, it was given just now: the margin is for quotes that have waited.
        return self._advance(consider(purchase, candidate), moment, requoted=candidate)

    # Trying a seller

    def held(self, purchase: Purchase, hold_id: str, total: Money, moment: Moment) -> Next:
        """The seller holds a copy, at a price of its own: order it, unless it is not the best any more."""
        attempt = attempt_of(purchase)
        held = Step(StepName.HELD, attempt.seller_id, total)
        rank = (total.minor, attempt.seller_id)
        if total.minor > purchase.max_price.minor:
            why = "above_max_price"
        elif any(candidate.rank() < rank for candidate in purchase.plan.candidates):
            why = "cheaper_elsewhere"
        elif moment.age_s > self._limits.order_by_s:
            why = "out_of_time"
        elif self._expiring(purchase, moment):
            why = "authorization_expiring"
        elif purchase.cancel_requested:
            why = "cancelled"
        else:
            attempt = replace(
                attempt, hold_id=hold_id, agreed=total, not_after=self._not_after(moment)
            )
            return Next(
                to(replace(purchase, attempt=attempt), Stage.ORDER),
                (held, Step(StepName.ORDERING, attempt.seller_id, total)),
            )
        purchase = consider(
            replace(purchase, attempt=replace(attempt, hold_id=hold_id)),
            Candidate(attempt.seller_id, attempt.quote_id, total, moment.now + timedelta(hours=1)),
        )
        return with_event(held, self._release(purchase, why, moment))

    def hold_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        """The seller may hold a copy or not: have it released by its key, and go on."""
        return self._release(obstructed(purchase), "unknown", moment)

    def refused(
        self, purchase: Purchase, reason: str, updated: Candidate | None, moment: Moment
    ) -> Next:
        """The seller definitely does not sell under this key: its price may have changed, or the next one follows."""
        attempt = attempt_of(purchase)
        purchase = replace(purchase, attempt=replace(attempt, outcome=reason))
        if updated is not None:
            purchase = consider(purchase, updated)
        elif reason in _ASK_AGAIN:
            expired = Candidate(attempt.seller_id, attempt.quote_id, attempt.agreed, moment.now)
            purchase = consider(purchase, expired)
        refused = Step(StepName.SELLER_REFUSED, attempt.seller_id, reason=reason)
        if attempt.hold_id is not None:
            return with_event(refused, self._release(purchase, reason, moment, refused=True))
        return with_event(refused, self._advance(purchase, moment))

    def unreached(self, purchase: Purchase, why: str, moment: Moment) -> Next:
        """The seller was certainly not reached, for whatever reason: the next one follows."""
        return self.refused(obstructed(purchase), why, None, moment)

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        """The seller has sold the copy: charge what it says, if that was ever agreed."""
        attempt = replace(
            attempt_of(purchase),
            order_id=order_id,
            charged=in_currency_of(purchase, total),
            outcome=CONFIRMED,
        )
        purchase = replace(purchase, attempt=attempt)
        ordered = Step(StepName.ORDERED, attempt.seller_id, total)
        stage = Stage.CAPTURE if chargeable(purchase, total) else Stage.CANCEL_ORDER
        return Next(to(purchase, stage), (ordered,))

    def order_pending(
        self, purchase: Purchase, retry_after_s: float, moment: Moment, *, too_late: bool = False
    ) -> Next:
        """The seller has not decided yet; ``too_late`` when it said so to a cancel, and will not take it back."""
        attempt = attempt_of(purchase)
        outcome = _TOO_LATE if too_late or attempt.outcome == _TOO_LATE else _PENDING
        tries = counted(purchase) if purchase.stage is Stage.RESOLVE_ORDER else 0
        purchase = replace(
            to(purchase, Stage.RESOLVE_ORDER),
            tries=tries,
            attempt=replace(attempt, outcome=outcome),
        )
        return self._unless_overdue(
            Next(purchase, delay_s=min(max(retry_after_s, 0.1), 5.0)), moment
        )

    def in_flight(self, purchase: Purchase, moment: Moment) -> Next:
        """The seller is still working on an earlier call with this key: ask again soon, while it may be.

        Once it cannot be any more, the outcome is as unknown as any.
        """
        if moment.now < attempt_of(purchase).not_after:
            return Next(purchase, delay_s=self._limits.in_flight_s)
        if purchase.stage is Stage.HOLD:
            return self.hold_unknown(purchase, moment)
        return self.order_unknown(purchase, moment)

    def order_unknown(
        self, purchase: Purchase, moment: Moment, *, sent_again: bool = False
    ) -> Next:
        """Nobody knows whether the seller has sold the copy.

        ``sent_again`` when its key was to be sent once more already, for which there was no way to the seller.
        """
        if purchase.stage is Stage.RESOLVE_ORDER:
            return self.again(purchase, moment)
        return Next(replace(to(purchase, Stage.RESOLVE_ORDER), tries=1 if sent_again else 0))

    def resolution(self, purchase: Purchase, moment: Moment) -> Resolution:
        """Say how to find out what became of the order.

        A pending one is asked for until its time is over, then cancelled; if it is too late for that, it is asked for
        again (a repeated cancel only repeats its first answer). Else its key is sent once more, then it is asked for,
        then its key is closed by a cancel; a seller that accepts none before the order exists is asked until the order
        cannot arrive any more. Where that is never certain, because the seller does not heed ``not_after``, it is asked
        until an operator decides. One that cannot be asked heeds ``not_after``: its key is sent again, which gives the
        first answer, or no order.
        """
        attempt = attempt_of(purchase)
        kind = self._kind_of(attempt.seller_id)
        closable = kind is not None and kind.supports_cancel_before_order
        answers = kind is None or kind.supports_get_order
        if attempt.outcome in (_PENDING, _TOO_LATE):
            waiting = moment.age_s < self._limits.pending_until_s or attempt.outcome == _TOO_LATE
            return Resolution.POLL if waiting and answers else Resolution.CANCEL
        if purchase.tries == 0 and moment.now < attempt.not_after:
            return Resolution.REPLAY
        settled = attempt.not_after + timedelta(seconds=self._limits.not_found_counts_after_s)
        if closable:
            # However late: a seller that does not heed not_after may still get the order of a worker that woke up.
            asked = purchase.tries > 1 or moment.now >= settled or not answers
            return Resolution.CANCEL if asked else Resolution.POLL
        if not answers:
            return Resolution.REPLAY
        heeds = kind is not None and kind.honours_not_after
        return Resolution.POLL_FOR_GOOD if heeds and moment.now >= settled else Resolution.POLL

    # Whom to try next, and what to answer when there is nobody

    def _advance(
        self, purchase: Purchase, moment: Moment, requoted: Candidate | None = None
    ) -> Next:
        """Take the next cheapest seller; without one, the next collection or the true answer.

        ``requoted`` is one that was asked for its price just now.
        """
        voiding = to(purchase, Stage.VOID)
        if purchase.cancel_requested:
            return finish(voiding, Status.CANCELLED, None)
        late = False
        candidates = purchase.plan.candidates
        if candidates and self._expiring(purchase, moment):
            return finish(voiding, Status.FAILED, FailureReason.AUTHORIZATION_EXPIRING)
        while candidates:
            candidate, *rest = candidates
            kind = self._kind_of(candidate.seller_id)
            if kind is None:
                # It has not said no; it is only not to be found in the registry now.
                purchase = obstructed(purchase)
            elif purchase.plan.tries_at(candidate.seller_id) < MOST_TRIES_AT_A_SELLER:
                by_s = self._limits.hold_by_s if kind.supports_holds else self._limits.order_by_s
                if moment.age_s <= by_s:
                    purchase = replace(purchase, plan=replace(purchase.plan, candidates=candidates))
                    if candidate is not requoted and self._expired(candidate, moment):
                        return Next(to(purchase, Stage.REQUOTE))
                    return self._take(purchase, candidate, kind, moment)
                late = True
            candidates = tuple(rest)
        without = replace(purchase, plan=replace(purchase.plan, candidates=()))
        return self._exhausted(without, moment, late=late)

    def _exhausted(self, purchase: Purchase, moment: Moment, *, late: bool) -> Next:
        """Nobody is left to try; ``late`` when somebody was, had there been time."""
        if late:
            return finish(to(purchase, Stage.VOID), Status.FAILED, FailureReason.OUT_OF_TIME)
        tried = purchase.attempt is not None
        if (
            tried
            and purchase.plan.collections < MOST_COLLECTIONS
            and moment.age_s < self._limits.collect_by_s
        ):
            return Next(to(purchase, Stage.COLLECT), (Step(StepName.COLLECTING),))
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
            to(replace(purchase, plan=plan, attempt=attempt), stage),
            (Step(name, candidate.seller_id, candidate.total),),
            ended=purchase.attempt,
        )

    def _answer(self, purchase: Purchase, moment: Moment) -> Next:
        """Give the answer that is true when nothing affordable can be had."""
        voiding = to(purchase, Stage.VOID)
        if purchase.plan.stopped or purchase.plan.obstructed:
            # Neither "too dear" nor "not available" would be true.
            return finish(voiding, Status.FAILED, FailureReason.OUT_OF_TIME)
        dearer = purchase.plan.dearer
        if dearer is not None:
            expires_at = moment.now + timedelta(seconds=self._limits.offer_life_s)
            voiding = replace(voiding, offer=Offer(dearer.total, dearer.seller_id, expires_at))
            return finish(voiding, Status.PRICE_NOT_MET, None)
        if purchase.plan.tells_of_stock:
            return finish(voiding, Status.NOT_AVAILABLE, None)
        return finish(voiding, Status.FAILED, FailureReason.NO_SELLER_ANSWERED)

    def _release(
        self, purchase: Purchase, why: str, moment: Moment, *, refused: bool = False
    ) -> Next:
        """Commit to giving a hold back, and go on without waiting for the seller's answer.

        ``refused`` when an order from it was.
        """
        attempt = attempt_of(purchase)
        plan = purchase.plan
        release = Release(attempt.seller_id, attempt.key, refused=refused)
        plan = replace(plan, releases=(*plan.releases, release))
        purchase = replace(
            purchase, plan=plan, attempt=replace(attempt, outcome=attempt.outcome or why)
        )
        step = Step(StepName.HOLD_RELEASED, attempt.seller_id, reason=why)
        return with_event(step, self._advance(purchase, moment))

    def _worth_another(self, plan: Plan, moment: Moment) -> bool:
        """Say whether to ask again because too few have answered to tell anything."""
        told = plan.candidates or plan.dearer or plan.tells_of_stock
        return (
            not told
            and plan.collections < MOST_SILENT_COLLECTIONS
            and moment.age_s + self._recollect_s(plan) < self._limits.collect_by_s
        )

    def _recollect_s(self, plan: Plan) -> float:
        return self._limits.recollect_s * 2.0 ** (plan.collections - 1)

    def _expired(self, candidate: Candidate, moment: Moment) -> bool:
        margin = timedelta(seconds=self._limits.quote_margin_s)
        return candidate.expires_at <= moment.now + margin


def silent(summary: Collected) -> int:
    """Count the sellers of whose stock nothing is known, although they were meant to be asked."""
    return sum(count for reason, count in summary.misses if reason not in _NOT_SILENT)
