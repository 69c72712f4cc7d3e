"""What all decisions share: what is known, how to go on trying, whom to tell when no rule can decide."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.domain.events import Step, StepName
from orchestrator.domain.flags import Flag, Invariant
from orchestrator.domain.purchase import AuthorizationState, Stage, Status
from orchestrator.domain.saga.moves import to, tried_again
from orchestrator.domain.saga.terms import MOST_FAULTS, Next

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.domain.purchase import Purchase
    from orchestrator.domain.saga.terms import Limits, Moment, SellerKind

_OVERDUE_TRIES = 10

_BUYING = frozenset({Stage.COLLECT, Stage.REQUOTE, Stage.HOLD, Stage.ORDER, Stage.RESOLVE_ORDER})
_OFFERING = frozenset(
    {Stage.VOID, Stage.RELEASE, Stage.OFFER, Stage.CHECK_PAYMENT, Stage.CHECK_ORDER}
)
_AT_SELLER = frozenset({Stage.RESOLVE_ORDER, Stage.CANCEL_ORDER, Stage.CHECK_ORDER})


class Deciding:
    """The limits and the sellers, and what follows whatever stage a purchase is in."""

    def __init__(
        self,
        limits: Limits,
        kind_of: Callable[[str], SellerKind | None],
        *,
        reusable_tokens: bool = False,
    ) -> None:
        """Keep the limits, and what tells of a seller by its id, as far as it is known now.

        With ``reusable_tokens`` the payment token is kept until an offer has ended, because it can pay for that too.
        """
        self._limits = limits
        self._kind_of = kind_of
        self._reusable_tokens = reusable_tokens

    def needs_token(self, purchase: Purchase, now: datetime) -> bool:
        """Say whether the payment token may still be needed: to authorize, or to pay for an offer with it again."""
        if purchase.stage is Stage.DONE:
            return False
        if purchase.authorization.state is AuthorizationState.INTENDED:
            return True
        if purchase.status is Status.PENDING:
            return self._reusable_tokens and purchase.stage in _BUYING
        offer = purchase.offer if self._reusable_tokens and purchase.stage in _OFFERING else None
        return offer is not None and now < offer.expires_at

    def unchanged(self, purchase: Purchase) -> Next:
        """Nothing is to be done."""
        return Next(purchase)

    def flagged(self, purchase: Purchase, flag: Flag) -> Next:
        """No rule of ours can decide this: an operator has to."""
        resume = purchase.resume if purchase.stage is Stage.FLAGGED else purchase.stage
        waiting = replace(to(purchase, Stage.FLAGGED), resume=resume)
        return self._alarmed(Next(waiting), flag)

    def poisoned(self, purchase: Purchase, problem: str) -> Next:
        """Working on it has failed too often, or ended its workers."""
        flag = Flag(
            Invariant.ENDS,
            f"it stopped in stage {purchase.stage.value}: {problem}",
            "find the fault in the log and retry, which finds out first what the stopped step has done",
            purchase.max_price,
        )
        return self.flagged(purchase, flag)

    def stumbled(self, purchase: Purchase, problem: str) -> Next:
        """A step has failed by a fault of ours: again, but not for ever."""
        if purchase.tries >= MOST_FAULTS:
            return self.poisoned(purchase, problem)
        return replace(tried_again(purchase), purchase=replace(purchase, tries=purchase.tries + 1))

    def again(self, purchase: Purchase, moment: Moment) -> Next:
        """The outcome is unknown and the effect is safe to repeat: repeat it, later each time."""
        return self._unless_overdue(tried_again(purchase), moment)

    def _unless_overdue(self, following: Next, moment: Moment) -> Next:
        purchase = following.purchase
        overdue = purchase.tries >= _OVERDUE_TRIES and moment.age_s >= self._limits.overdue_s
        if purchase.flagged or not overdue:
            return following
        who = "the seller" if purchase.stage in _AT_SELLER else "the provider"
        flag = Flag(
            Invariant.ENDS,
            f"{who} gives no definite answer in stage {purchase.stage.value}",
            "nothing, if it comes back: it is asked on. Else find out from them and decide",
            purchase.max_price,
        )
        return self._alarmed(following, flag)

    def _alarmed(self, following: Next, flag: Flag) -> Next:
        event = Step(StepName.FLAGGED, total=flag.amount, reason=flag.invariant.value)
        return replace(
            following,
            purchase=replace(following.purchase, flagged=True),
            events=(*following.events, event),
            flags=(*following.flags, flag),
        )

    def _rest(self, purchase: Purchase, moment: Moment) -> Next:
        """Nothing is left to buy or to pay: give back holds, keep the token for an offer, be done."""
        if purchase.plan.releases:
            return Next(to(purchase, Stage.RELEASE))
        offer = purchase.offer
        if offer is not None and self._reusable_tokens and moment.now < offer.expires_at:
            delay_s = (offer.expires_at - moment.now).total_seconds()
            return Next(to(purchase, Stage.OFFER), delay_s=delay_s)
        return Next(to(purchase, Stage.DONE))

    def _expiring(self, purchase: Purchase, moment: Moment) -> bool:
        """Say whether the authorization lapses too soon to order on it."""
        ends = purchase.authorization.capture_before
        margin = timedelta(seconds=self._limits.capture_margin_s)
        return ends is not None and ends - moment.now < margin

    def _not_after(self, moment: Moment) -> datetime:
        return moment.now + timedelta(seconds=self._limits.not_after_s)
