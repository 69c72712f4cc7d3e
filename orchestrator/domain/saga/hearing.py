"""What others tell of a purchase: the provider, the reconciler, operators."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from orchestrator.domain.events import Step, StepName
from orchestrator.domain.flags import Flag, Invariant, Settled
from orchestrator.domain.observations import Decision, OrderChanged, PaymentChanged, Resolve
from orchestrator.domain.purchase import AuthorizationState, Stage, Status
from orchestrator.domain.saga.moves import (
    attempt_of,
    charged_by_seller,
    finish,
    in_currency_of,
    to,
    why_failed,
    with_event,
)
from orchestrator.domain.saga.paying import Paying
from orchestrator.domain.saga.terms import CONFIRMED, Next

if TYPE_CHECKING:
    from mesh.money import Money
    from orchestrator.domain.observations import Observation
    from orchestrator.domain.purchase import Authorization, Purchase
    from orchestrator.domain.saga.terms import Moment, PaymentFound

_NO_ORDER_WORDS = frozenset({"cancelled", "closed", "rejected"})

_ORDERING = frozenset(
    {Stage.ORDER, Stage.RESOLVE_ORDER, Stage.CAPTURE, Stage.CANCEL_ORDER, Stage.SETTLE_PAYMENT}
)
_MAY_BE_LEFT = frozenset(
    {AuthorizationState.INTENDED, AuthorizationState.AUTHORIZED, AuthorizationState.DECLINED}
)
_RESTING = frozenset({Stage.RELEASE, Stage.OFFER, Stage.DONE})


class Hearing(Paying):
    """The decisions about what is heard of a purchase."""

    def observed(self, purchase: Purchase, observation: Observation, moment: Moment) -> Next:
        """Somebody tells something of the purchase. What is under way finds out by itself."""
        match observation.what:
            case PaymentChanged(_, provider_id):
                ours = purchase.authorization
                # It may have been made after all, when it was given up without its name.
                name = ours.provider_id or provider_id
                if purchase.stage in _RESTING and name is not None:
                    named = replace(purchase, authorization=replace(ours, provider_id=name))
                    return Next(to(named, Stage.CHECK_PAYMENT))
            case OrderChanged(key, detail):
                if purchase.stage in _RESTING:
                    if purchase.attempt is not None and purchase.attempt.key == key:
                        return Next(to(purchase, Stage.CHECK_ORDER))
                    flag = Flag(
                        Invariant.ONE_ORDER,
                        f"a seller has something under {key}, which is not the order of this purchase: {detail}",
                        "have it cancelled by the seller, then no_order; close to write it off",
                    )
                    return self.flagged(purchase, flag)
            case Resolve():
                if fits(purchase, observation.what):
                    return self._resolve(purchase, observation.what, observation.by, moment)
        return Next(purchase)

    # The payment

    def payment_checked(
        self, purchase: Purchase, payment: PaymentFound | None, moment: Moment
    ) -> Next:
        """Compare a payment at the provider, None when it has none, with what we have."""
        ours = purchase.authorization
        if payment is not None and payment.reserved and ours.state in _MAY_BE_LEFT:
            # Whoever closed the purchase has left it so, or did not know of it.
            return Next(to(purchase, Stage.VOID))
        if payment is not None and payment.agrees_with(ours):
            return self._rest(purchase, moment)
        theirs = "nothing of it" if payment is None else str(payment)
        flag = Flag(
            Invariant.LEDGERS_AGREE,
            f"the provider has {theirs}, we have {ours.state.value}"
            + (f" {ours.captured}" if ours.captured else ""),
            "refund gives back what is charged; payment_settled takes what the provider says as it is",
            payment.captured if payment is not None else ours.captured,
        )
        return self.flagged(purchase, flag)

    def payment_settled(
        self, purchase: Purchase, payment: PaymentFound | None, moment: Moment
    ) -> Next:
        """Take what the provider says, None when it has nothing, as an operator has decided."""
        ours = purchase.authorization
        pending = purchase.status is Status.PENDING
        if payment is None or payment.nothing_reserved:
            gone = (
                AuthorizationState.DECLINED
                if ours.provider_id is None
                else AuthorizationState.VOIDED
            )
            return self._without_payment(
                purchase, replace(ours, state=gone, captured=None, refunded=None), moment
            )
        if payment.captured.minor and payment.refunded == payment.captured:
            back = self.refunded(purchase, payment.captured)
            following = self._without_payment(purchase, back.purchase.authorization, moment)
            return replace(following, events=(*back.events, *following.events))
        whole = bool(payment.captured.minor) and not payment.refunded.minor
        if pending and whole and charged_by_seller(purchase) == payment.captured:
            return self.captured(purchase, payment.captured)
        if not pending and payment.reserved:
            return Next(to(purchase, Stage.VOID))
        if not pending and 0 < payment.captured.minor <= purchase.max_price.minor:
            taken = replace(
                ours,
                state=AuthorizationState.CAPTURED,
                captured=payment.captured,
                refunded=payment.refunded if payment.refunded.minor else None,
            )
            return self._rest(replace(purchase, authorization=taken), moment)
        flag = Flag(
            Invariant.SUMS_ADD_UP,
            f"the provider has {payment}, which does not settle a purchase that is {purchase.status.value}",
            "settle it at the provider first, or close to leave it as it is",
            payment.captured,
        )
        return self.flagged(purchase, flag)

    def _without_payment(
        self, purchase: Purchase, authorization: Authorization, moment: Moment
    ) -> Next:
        """The payment has come to nothing; so has the purchase, unless it ended before."""
        following = self._rest(replace(purchase, authorization=authorization), moment)
        if purchase.status is not Status.PENDING:
            return following
        return finish(following.purchase, Status.FAILED, why_failed(purchase))

    # The order

    def order_checked(
        self, purchase: Purchase, total: Money | None, word: str, moment: Moment
    ) -> Next:
        """Compare an order at the seller with what we have.

        ``total`` is what a standing order costs, None when none stands; ``word`` is the seller's answer.
        """
        attempt = attempt_of(purchase)
        given_back = purchase.authorization.state is AuthorizationState.REFUNDED
        if purchase.status is not Status.PURCHASED or given_back:
            if total is None:
                return self._rest(purchase, moment)
            stray = replace(attempt, charged=in_currency_of(purchase, total), outcome="stray")
            return Next(to(replace(purchase, attempt=stray), Stage.CANCEL_ORDER))
        if word == CONFIRMED and total == attempt.charged:
            return self._rest(purchase, moment)
        charged = purchase.authorization.captured
        if total is None and word in _NO_ORDER_WORDS:
            flag = Flag(
                Invariant.PAID_FOR_WHAT_WAS_BOUGHT,
                f"{attempt.seller_id} says {word} of order {attempt.order_id}, which is paid for",
                "nothing: it is being refunded, and this flag is resolved by that",
                charged,
            )
            return self._alarmed(Next(to(purchase, Stage.REFUND)), flag)
        flag = Flag(
            Invariant.LEDGERS_AGREE,
            f"{attempt.seller_id} says {word} of order {attempt.order_id}"
            + (f" for {total}" if total is not None else "")
            + f", we have charged {charged}",
            "settle with the seller: refund when there is no book, close when all is well",
            charged,
        )
        return self.flagged(purchase, flag)

    # An operator's decision

    def _resolve(self, purchase: Purchase, what: Resolve, by: str, moment: Moment) -> Next:
        """Do as an operator has decided; the flags that were open are resolved by that."""
        was = purchase.resume or purchase.stage
        purchase = replace(purchase, stage=was, resume=None, flagged=False)
        match what.decision:
            case Decision.RETRY:
                # The order may have been sent before it came to the flag: what became of it is found out first.
                again = Stage.RESOLVE_ORDER if was is Stage.ORDER else was
                following = Next(to(purchase, again))
            case Decision.ORDER_STANDS:
                total = what.total or attempt_of(purchase).agreed
                following = self.ordered(purchase, what.order_id or "", total)
            case Decision.NO_ORDER:
                following = self._no_order(purchase, moment)
            case Decision.PAYMENT_SETTLED:
                following = (
                    self.payment_settled(purchase, None, moment)
                    if purchase.authorization.provider_id is None
                    else Next(to(purchase, Stage.SETTLE_PAYMENT))
                )
            case Decision.REFUND:
                following = Next(to(purchase, Stage.REFUND))
            case Decision.CLOSE:
                # Whatever else is settled by hand, copies that are still held for it are given back.
                rest = Stage.RELEASE if purchase.plan.releases else Stage.DONE
                following = Next(to(purchase, rest))
                if purchase.status is Status.PENDING:
                    following = finish(following.purchase, Status.FAILED, why_failed(purchase))
            case _:
                assert_never(what.decision)
        decided = with_event(Step(StepName.RESOLVED, reason=what.decision.value), following)
        how = f"{what.decision.value}: {what.reason}"
        return decided if decided.flags else replace(decided, settled=Settled(by, how))

    def _no_order(self, purchase: Purchase, moment: Moment) -> Next:
        if purchase.status is not Status.PENDING:
            return self._rest(purchase, moment)
        if purchase.stage in (Stage.ORDER, Stage.RESOLVE_ORDER):
            return self.unreached(purchase, "not_placed", moment)
        return self.order_cancelled(purchase, moment)


def fits(purchase: Purchase, what: Resolve) -> bool:
    """Say whether an operator's decision is about the open flag and possible in the state of a purchase."""
    if not purchase.flagged or what.flag not in (None, purchase.flag):
        return False
    ordering = purchase.attempt is not None and (purchase.resume or purchase.stage) in _ORDERING
    money = purchase.authorization
    match what.decision:
        case Decision.RETRY | Decision.CLOSE:
            # Closed without its name, what may be reserved could be released by nobody.
            unknown = money.state is AuthorizationState.INTENDED
            return what.decision is Decision.RETRY or not unknown
        case Decision.ORDER_STANDS:
            known = bool(what.order_id) and what.total is not None
            return known and purchase.status is Status.PENDING and ordering
        case Decision.NO_ORDER:
            return purchase.status is not Status.PENDING or ordering
        case Decision.PAYMENT_SETTLED:
            return money.provider_id is not None or money.state is AuthorizationState.INTENDED
        case Decision.REFUND:
            decided = purchase.status is not Status.PENDING
            return decided and money.provider_id is not None and money.refunded is None
