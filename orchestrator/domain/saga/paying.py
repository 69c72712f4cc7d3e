"""Money, and what goes with it: authorizing, charging, releasing, giving back, the customer's cancel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.events import Step, StepName
from orchestrator.domain.flags import Flag, Invariant
from orchestrator.domain.purchase import AuthorizationState, FailureReason, Stage, Status
from orchestrator.domain.saga.buying import Buying
from orchestrator.domain.saga.moves import (
    attempt_of,
    chargeable,
    finish,
    to,
    tried_again,
    unauthorized,
    untouched,
    with_event,
    without_releases,
)
from orchestrator.domain.saga.terms import Next

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mesh.money import Money
    from orchestrator.domain.purchase import Purchase, Release
    from orchestrator.domain.saga.terms import Moment

_LONGEST_RELEASE_DELAY_S = 600.0
"""A seller that is gone for hours is not asked twice a minute by each purchase that it may hold a copy for."""


class Paying(Buying):
    """The decisions about money, before there is an order and after."""

    # Authorization

    def authorized(
        self, purchase: Purchase, provider_id: str, capture_before: datetime | None
    ) -> Next:
        """The provider has reserved max_price, until ``capture_before`` where it says so."""
        authorization = replace(
            purchase.authorization,
            state=AuthorizationState.AUTHORIZED,
            provider_id=provider_id,
            capture_before=capture_before,
        )
        purchase = replace(purchase, authorization=authorization)
        if purchase.status is not Status.PENDING:
            return Next(to(purchase, Stage.VOID))
        return Next(
            to(purchase, Stage.COLLECT),
            (Step(StepName.AUTHORIZED, total=purchase.max_price), Step(StepName.COLLECTING)),
        )

    def declined(self, purchase: Purchase, reason: FailureReason) -> Next:
        """The provider reserves nothing."""
        authorization = replace(purchase.authorization, state=AuthorizationState.DECLINED)
        purchase = replace(purchase, authorization=authorization)
        if purchase.status is not Status.PENDING:
            return Next(to(purchase, Stage.DONE))
        finished = finish(to(purchase, Stage.DONE), Status.FAILED, reason)
        return replace(
            finished,
            events=(Step(StepName.AUTHORIZATION_REFUSED, reason=reason.value), *finished.events),
        )

    def claimed_too_late(self, purchase: Purchase, moment: Moment) -> Next | None:
        """It stood in the queue until nothing can be collected any more: nothing need be reserved for it.

        None when there is time, or an authorization may have been sent.
        """
        if not untouched(purchase) or moment.age_s < self._limits.collect_by_s:
            return None
        return finish(unauthorized(purchase), Status.FAILED, FailureReason.OUT_OF_TIME)

    def authorization_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        """The provider did not answer: the same key again, and after a while the customer is told."""
        if purchase.status is Status.PENDING and moment.age_s >= self._limits.authorize_by_s:
            return finish(
                to(purchase, Stage.SETTLE_AUTHORIZATION),
                Status.FAILED,
                FailureReason.PAYMENT_UNAVAILABLE,
            )
        return self.again(purchase, moment)

    # What is ordered is charged, what is not is released

    def captured(self, purchase: Purchase, amount: Money) -> Next:
        """The order's total is charged: the purchase is done."""
        authorization = replace(
            purchase.authorization, state=AuthorizationState.CAPTURED, captured=amount
        )
        purchase = replace(purchase, authorization=authorization)
        stage = Stage.RELEASE if purchase.plan.releases else Stage.DONE
        finished = finish(to(purchase, stage), Status.PURCHASED, None)
        return with_event(Step(StepName.CAPTURED, total=amount), finished)

    def capture_refused(self, purchase: Purchase, reason: str) -> Next:
        """The provider definitely does not charge: take the order back."""
        attempt = attempt_of(purchase)
        return Next(
            to(purchase, Stage.CANCEL_ORDER),
            (Step(StepName.CAPTURE_REFUSED, attempt.seller_id, attempt.charged, reason),),
        )

    def order_cancelled(self, purchase: Purchase, moment: Moment) -> Next:
        """The order is taken back: nothing was bought."""
        attempt = replace(attempt_of(purchase), outcome="cancelled")
        purchase = replace(purchase, attempt=attempt)
        cancelled = Step(StepName.ORDER_CANCELLED, attempt.seller_id)
        if purchase.status is not Status.PENDING:
            return with_event(cancelled, self._rest(purchase, moment))
        if not chargeable(purchase, attempt.charged):
            return with_event(cancelled, self._advance(purchase, moment))
        voiding = to(purchase, Stage.VOID)
        return with_event(cancelled, finish(voiding, Status.FAILED, FailureReason.CAPTURE_REFUSED))

    def order_stands(self, purchase: Purchase) -> Next:
        """The seller does not take back what cannot be charged, or was never to be bought."""
        attempt = attempt_of(purchase)
        if purchase.status is Status.PENDING:
            charge = "was refused" if chargeable(purchase, attempt.charged) else "is not allowed"
            flag = Flag(
                Invariant.PAID_FOR_WHAT_WAS_BOUGHT,
                f"{attempt.seller_id} does not take order {attempt.order_id} back, and its charge {charge}",
                "settle with the seller: no_order once it has cancelled, payment_settled once the customer has paid"
                " otherwise, close to write it off",
                attempt.charged,
            )
        else:
            flag = Flag(
                Invariant.NOTHING_LEFT_OVER,
                f"{attempt.seller_id} has an order under {attempt.key} and does not take it back, although the"
                f" purchase is {purchase.status.value}",
                "settle with the seller: no_order once it has cancelled, close to write it off",
                attempt.charged or attempt.agreed,
            )
        return self.flagged(purchase, flag)

    def voided(self, purchase: Purchase, moment: Moment) -> Next:
        """Nothing is reserved any more."""
        authorization = replace(purchase.authorization, state=AuthorizationState.VOIDED)
        purchase = replace(purchase, authorization=authorization)
        return with_event(Step(StepName.VOIDED), self._rest(purchase, moment))

    def void_found_capture(self, purchase: Purchase) -> Next:
        """What should be released has been charged, by whomever: an operator has to look at once."""
        flag = Flag(
            Invariant.NOTHING_LEFT_OVER,
            f"the provider has charged {purchase.authorization.provider_id}, which should be released: the purchase is"
            f" {purchase.status.value}",
            "refund gives it back; payment_settled once that was done by hand",
            purchase.max_price,
        )
        return self.flagged(purchase, flag)

    def released(
        self,
        purchase: Purchase,
        answered: Iterable[Release],
        moment: Moment,
        ordered: Iterable[Release] = (),
    ) -> Next:
        """Sellers have answered these releases; those ``ordered`` say that an order was made from the hold."""
        strays = tuple(ordered)
        purchase = without_releases(purchase, (*answered, *strays))
        if strays:
            keys = ", ".join(f"{stray.key} at {stray.seller_id}" for stray in strays)
            flag = Flag(
                Invariant.NOTHING_LEFT_OVER,
                f"an order was made from a hold that was to be released: {keys}",
                "have it cancelled by the seller, then no_order; close to write it off",
            )
            return self.flagged(purchase, flag)
        if not purchase.plan.releases or moment.age_s > self._limits.release_for_s:
            done = replace(purchase, plan=replace(purchase.plan, releases=()))
            return self._rest(done, moment)
        return tried_again(purchase, _LONGEST_RELEASE_DELAY_S)

    def refunded(self, purchase: Purchase, amount: Money) -> Next:
        """All that was charged is given back."""
        authorization = replace(
            purchase.authorization,
            state=AuthorizationState.REFUNDED,
            captured=amount,
            refunded=amount,
        )
        purchase = replace(purchase, authorization=authorization)
        stage = Stage.RELEASE if purchase.plan.releases else Stage.DONE
        return Next(to(purchase, stage), (Step(StepName.REFUNDED, total=amount),))

    def refund_refused(self, purchase: Purchase, reason: str) -> Next:
        """The provider definitely does not give it back."""
        flag = Flag(
            Invariant.PAID_FOR_WHAT_WAS_BOUGHT,
            f"the provider refuses the refund: {reason}",
            "give the money back by other means, then payment_settled or close; retry when the cause is gone",
            purchase.authorization.captured or purchase.max_price,
        )
        return self.flagged(purchase, flag)

    def offer_ended(self, purchase: Purchase, moment: Moment) -> Next:
        """It may be over: then the payment token is not needed any more."""
        return self._rest(purchase, moment)

    # The customer's cancel

    def cancelled(self, purchase: Purchase, moment: Moment) -> Next | None:
        """The customer has asked for it to be cancelled; None when that changes nothing, or cannot be done now.

        While an order may stand it cannot: if the seller rejects it, the cancel comes before the next seller.
        """
        if not purchase.cancel_requested or purchase.status is not Status.PENDING:
            return None
        match purchase.stage:
            case Stage.AUTHORIZE if untouched(purchase):
                return finish(unauthorized(purchase), Status.CANCELLED, None)
            case Stage.AUTHORIZE:
                settling = to(purchase, Stage.SETTLE_AUTHORIZATION)
                return finish(settling, Status.CANCELLED, None)
            case Stage.COLLECT | Stage.REQUOTE:
                return self._advance(purchase, moment)
            case Stage.HOLD:
                return self._release(purchase, "cancelled", moment)
            case _:
                return None

    def forestalled(self, before: Purchase, following: Next, moment: Moment) -> Next:
        """The customer's cancel was committed before this intent to order: what was decided, without the order."""
        purchase = replace(following.purchase, cancel_requested=True)
        if before.attempt is not None and before.attempt.key == attempt_of(purchase).key:
            instead = self._release(purchase, "cancelled", moment)
        else:
            # The new try was never committed, so it never was.
            purchase = replace(purchase, attempt=following.ended)
            instead = self._advance(purchase, moment)
        events = (*following.events[:-1], *instead.events)
        return replace(instead, events=events, settled=following.settled)
