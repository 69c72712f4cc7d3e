"""What follows from what: each function takes a purchase and the outcome of an effect and gives what to commit.

The worker runs one effect, calls the function for its outcome and commits what comes back. Nothing else changes a
purchase. The intent of the next effect is part of that commit: when the stage is ``HOLD``, the attempt to hold stands
in the purchase before the seller is called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from orchestrator.domain.events import Collected, Event, Finished, Step, StepName
from orchestrator.domain.flags import SYSTEM, Flag, Invariant, Settled
from orchestrator.domain.observations import (
    Decision,
    Observation,
    OrderChanged,
    PaymentChanged,
    Resolve,
)
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
    from orchestrator.domain.purchase import Authorization, Plan, Purchase

MOST_TRIES_AT_A_SELLER = 2
MOST_COLLECTIONS = 2
MOST_SILENT_COLLECTIONS = 4
"""When too few have answered to tell anything: all of them may be out of reach for some seconds."""
MOST_FAULTS = 20
"""Tries after which a step that fails by a fault of ours is left to an operator."""
_MOST_COUNTED = 15
"""Tries without an answer are counted up to here: however long others were silent, it takes several faults of ours in a
row to leave a purchase to an operator."""
_OVERDUE_TRIES = 10
_LONGEST_DELAY_S = 30.0
_LONGEST_RELEASE_DELAY_S = 600.0
"""A seller that is gone for hours is not asked twice a minute by each purchase that it may hold a copy for."""

_PENDING, _TOO_LATE, _CONFIRMED = "pending", "too_late", "confirmed"
_NO_ORDER_WORDS = frozenset({"cancelled", "closed", "rejected"})

_BUYING = frozenset({Stage.COLLECT, Stage.REQUOTE, Stage.HOLD, Stage.ORDER, Stage.RESOLVE_ORDER})
_ORDERING = frozenset(
    {Stage.ORDER, Stage.RESOLVE_ORDER, Stage.CAPTURE, Stage.CANCEL_ORDER, Stage.SETTLE_PAYMENT}
)
_OFFERING = frozenset(
    {Stage.VOID, Stage.RELEASE, Stage.OFFER, Stage.CHECK_PAYMENT, Stage.CHECK_ORDER}
)
_MAY_BE_LEFT = frozenset(
    {AuthorizationState.INTENDED, AuthorizationState.AUTHORIZED, AuthorizationState.DECLINED}
)
_RESTING = frozenset({Stage.RELEASE, Stage.OFFER, Stage.DONE})
_AT_SELLER = frozenset({Stage.RESOLVE_ORDER, Stage.CANCEL_ORDER, Stage.CHECK_ORDER})

_NOT_SILENT = frozenset(
    {"out_of_stock", "not_carried", "condition", "currency", "not_selected", "stopped"}
)
"""Misses that leave nothing open: the seller has answered, or was not meant to be asked."""

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
    """After how long to ask again when too few have answered to tell anything; twice as long each time."""
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
    release_for_s: float = 90_000.0
    """For how long a release without an answer is repeated: by then a hold, of a day at most, has ended by itself."""
    capture_margin_s: float = 86_400.0
    """No order is begun on an authorization that lapses within this time."""
    overdue_s: float = 600.0
    """After this an operator is told of an outcome that is still unknown. It is tried on meanwhile."""


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
    supports_get_order: bool = True
    honours_not_after: bool = True


@dataclass(frozen=True, slots=True)
class Next:
    """What to commit.

    Attributes:
        purchase: as it is from now on.
        events: what happened.
        delay_s: after how many seconds it goes on.
        ended: the try before the purchase's present one, when it has ended in this decision.
        flags: what an operator must know.
        settled: resolves the flags that were open; never together with ``flags``.

    """

    purchase: Purchase
    events: tuple[Event, ...] = ()
    delay_s: float = 0.0
    ended: Attempt | None = None
    flags: tuple[Flag, ...] = ()
    settled: Settled | None = None


@dataclass(frozen=True, slots=True)
class PaymentFound:
    """A payment as the provider has it: whether something is still reserved, what is charged and what given back."""

    reserved: bool
    captured: Money
    refunded: Money

    @property
    def nothing_reserved(self) -> bool:
        """Whether it has come to nothing: nothing is reserved, and nothing was charged."""
        return not self.reserved and not self.captured.minor

    def agrees_with(self, ours: Authorization) -> bool:
        """Say whether our books say the same."""
        match ours.state:
            case AuthorizationState.CAPTURED:
                given_back = ours.refunded.minor if ours.refunded else 0
                return self.captured == ours.captured and self.refunded.minor == given_back
            case AuthorizationState.REFUNDED:
                return self.captured == ours.captured and self.refunded == ours.refunded
            case AuthorizationState.VOIDED | AuthorizationState.DECLINED:
                return self.nothing_reserved
            case AuthorizationState.INTENDED | AuthorizationState.AUTHORIZED:
                return not self.captured.minor

    def __str__(self) -> str:
        """Say it in words for operators."""
        if not self.captured.minor:
            return "it still reserved" if self.reserved else "nothing charged or reserved"
        given_back = f", {self.refunded} of it given back" if self.refunded.minor else ""
        return f"{self.captured} charged{given_back}"


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

    def claimed_too_late(self, purchase: Purchase, moment: Moment) -> Next | None:
        """It stood in the queue until nothing can be collected any more: nothing need be reserved for it.

        None when there is time, or an authorization may have been sent.
        """
        if not _untouched(purchase) or moment.age_s < self._limits.collect_by_s:
            return None
        return _finish(_unauthorized(purchase), Status.FAILED, FailureReason.OUT_OF_TIME)

    def authorization_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        """The provider did not answer: the same key again, and after a while the customer is told."""
        if purchase.status is Status.PENDING and moment.age_s >= self._limits.authorize_by_s:
            return _finish(
                _to(purchase, Stage.SETTLE_AUTHORIZATION),
                Status.FAILED,
                FailureReason.PAYMENT_UNAVAILABLE,
            )
        return self.again(purchase, moment)

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
            plan = replace(plan, answered=summary.answered, silent=_silent(summary))
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
            again = _to(replace(purchase, plan=plan), Stage.COLLECT)
            return Next(again, (summary, Step(StepName.COLLECTING)), self._recollect_s(plan))
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
        elif self._expiring(purchase, moment):
            why = "authorization_expiring"
        elif purchase.cancel_requested:
            why = "cancelled"
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
            return _with(refused, self._release(purchase, reason, moment, refused=True))
        return _with(refused, self._advance(purchase, moment))

    def unreached(self, purchase: Purchase, why: str, moment: Moment) -> Next:
        """The seller was certainly not reached, for whatever reason: the next one follows."""
        return self.refused(_obstructed(purchase), why, None, moment)

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        """The seller has sold the copy: charge what it says, if that was ever agreed."""
        attempt = replace(
            _attempt(purchase),
            order_id=order_id,
            charged=_in_currency_of(purchase, total),
            outcome=_CONFIRMED,
        )
        purchase = replace(purchase, attempt=attempt)
        ordered = Step(StepName.ORDERED, attempt.seller_id, total)
        stage = Stage.CAPTURE if _chargeable(purchase, total) else Stage.CANCEL_ORDER
        return Next(_to(purchase, stage), (ordered,))

    def order_pending(
        self, purchase: Purchase, retry_after_s: float, moment: Moment, *, too_late: bool = False
    ) -> Next:
        """The seller has not decided yet; ``too_late`` when it said so to a cancel, and will not take it back."""
        attempt = _attempt(purchase)
        outcome = _TOO_LATE if too_late or attempt.outcome == _TOO_LATE else _PENDING
        tries = _counted(purchase) if purchase.stage is Stage.RESOLVE_ORDER else 0
        purchase = replace(
            _to(purchase, Stage.RESOLVE_ORDER),
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
        if moment.now < _attempt(purchase).not_after:
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
        return Next(replace(_to(purchase, Stage.RESOLVE_ORDER), tries=1 if sent_again else 0))

    def resolution(self, purchase: Purchase, moment: Moment) -> Resolution:
        """Say how to find out what became of the order.

        A pending one is asked for until its time is over, then cancelled; if it is too late for that, it is asked for
        again (a repeated cancel only repeats its first answer). Else its key is sent once more, then it is asked for,
        then its key is closed by a cancel; a seller that accepts none before the order exists is asked until the order
        cannot arrive any more. Where that is never certain, because the seller does not heed ``not_after``, it is asked
        until an operator decides. One that cannot be asked heeds ``not_after``: its key is sent again, which gives the
        first answer, or no order.
        """
        attempt = _attempt(purchase)
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

    # Money

    def captured(self, purchase: Purchase, amount: Money) -> Next:
        """The order's total is charged: the purchase is done."""
        authorization = replace(
            purchase.authorization, state=AuthorizationState.CAPTURED, captured=amount
        )
        purchase = replace(purchase, authorization=authorization)
        stage = Stage.RELEASE if purchase.plan.releases else Stage.DONE
        finished = _finish(_to(purchase, stage), Status.PURCHASED, None)
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
        if purchase.status is not Status.PENDING:
            return _with(cancelled, self._rest(purchase, moment))
        if not _chargeable(purchase, attempt.charged):
            return _with(cancelled, self._advance(purchase, moment))
        voiding = _to(purchase, Stage.VOID)
        return _with(cancelled, _finish(voiding, Status.FAILED, FailureReason.CAPTURE_REFUSED))

    def order_stands(self, purchase: Purchase) -> Next:
        """The seller does not take back what cannot be charged, or was never to be bought."""
        attempt = _attempt(purchase)
        if purchase.status is Status.PENDING:
            charge = "was refused" if _chargeable(purchase, attempt.charged) else "is not allowed"
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
        return _with(Step(StepName.VOIDED), self._rest(purchase, moment))

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
        return _again(purchase, _LONGEST_RELEASE_DELAY_S)

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
        return Next(_to(purchase, stage), (Step(StepName.REFUNDED, total=amount),))

    def refund_refused(self, purchase: Purchase, reason: str) -> Next:
        """The provider definitely does not give it back."""
        flag = Flag(
            Invariant.PAID_FOR_WHAT_WAS_BOUGHT,
            f"the provider refuses the refund: {reason}",
            "give the money back by other means, then payment_settled or close; retry when the cause is gone",
            purchase.authorization.captured or purchase.max_price,
        )
        return self.flagged(purchase, flag)

    # The customer's cancel

    def cancelled(self, purchase: Purchase, moment: Moment) -> Next | None:
        """The customer has asked for it to be cancelled; None when that changes nothing, or cannot be done now.

        While an order may stand it cannot: if the seller rejects it, the cancel comes before the next seller.
        """
        if not purchase.cancel_requested or purchase.status is not Status.PENDING:
            return None
        match purchase.stage:
            case Stage.AUTHORIZE if _untouched(purchase):
                return _finish(_unauthorized(purchase), Status.CANCELLED, None)
            case Stage.AUTHORIZE:
                settling = _to(purchase, Stage.SETTLE_AUTHORIZATION)
                return _finish(settling, Status.CANCELLED, None)
            case Stage.COLLECT | Stage.REQUOTE:
                return self._advance(purchase, moment)
            case Stage.HOLD:
                return self._release(purchase, "cancelled", moment)
            case _:
                return None

    def forestalled(self, before: Purchase, following: Next, moment: Moment) -> Next:
        """The customer's cancel was committed before this intent to order: what was decided, without the order."""
        purchase = replace(following.purchase, cancel_requested=True)
        if before.attempt is not None and before.attempt.key == _attempt(purchase).key:
            instead = self._release(purchase, "cancelled", moment)
        else:
            # The new try was never committed, so it never was.
            purchase = replace(purchase, attempt=following.ended)
            instead = self._advance(purchase, moment)
        events = (*following.events[:-1], *instead.events)
        return replace(instead, events=events, settled=following.settled)

    # The end of an offer

    def offer_ended(self, purchase: Purchase, moment: Moment) -> Next:
        """It may be over: then the payment token is not needed any more."""
        return self._rest(purchase, moment)

    def unchanged(self, purchase: Purchase) -> Next:
        """Nothing is to be done."""
        return Next(purchase)

    # What others tell

    def observed(self, purchase: Purchase, observation: Observation, moment: Moment) -> Next:
        """Somebody tells something of the purchase. What is under way finds out by itself."""
        match observation.what:
            case PaymentChanged(_, provider_id):
                ours = purchase.authorization
                # It may have been made after all, when it was given up without its name.
                name = ours.provider_id or provider_id
                if purchase.stage in _RESTING and name is not None:
                    named = replace(purchase, authorization=replace(ours, provider_id=name))
                    return Next(_to(named, Stage.CHECK_PAYMENT))
            case OrderChanged(key, detail):
                if purchase.stage in _RESTING:
                    if purchase.attempt is not None and purchase.attempt.key == key:
                        return Next(_to(purchase, Stage.CHECK_ORDER))
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

    def payment_checked(
        self, purchase: Purchase, payment: PaymentFound | None, moment: Moment
    ) -> Next:
        """Compare a payment at the provider, None when it has none, with what we have."""
        ours = purchase.authorization
        if payment is not None and payment.reserved and ours.state in _MAY_BE_LEFT:
            # Whoever closed the purchase has left it so, or did not know of it.
            return Next(_to(purchase, Stage.VOID))
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
        if pending and whole and _charged(purchase) == payment.captured:
            return self.captured(purchase, payment.captured)
        if not pending and payment.reserved:
            return Next(_to(purchase, Stage.VOID))
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
        return _finish(following.purchase, Status.FAILED, _why_failed(purchase))

    def order_checked(
        self, purchase: Purchase, total: Money | None, word: str, moment: Moment
    ) -> Next:
        """Compare an order at the seller with what we have.

        ``total`` is what a standing order costs, None when none stands; ``word`` is the seller's answer.
        """
        attempt = _attempt(purchase)
        given_back = purchase.authorization.state is AuthorizationState.REFUNDED
        if purchase.status is not Status.PURCHASED or given_back:
            if total is None:
                return self._rest(purchase, moment)
            stray = replace(attempt, charged=_in_currency_of(purchase, total), outcome="stray")
            return Next(_to(replace(purchase, attempt=stray), Stage.CANCEL_ORDER))
        if word == _CONFIRMED and total == attempt.charged:
            return self._rest(purchase, moment)
        charged = purchase.authorization.captured
        if total is None and word in _NO_ORDER_WORDS:
            flag = Flag(
                Invariant.PAID_FOR_WHAT_WAS_BOUGHT,
                f"{attempt.seller_id} says {word} of order {attempt.order_id}, which is paid for",
                "nothing: it is being refunded, and this flag is resolved by that",
                charged,
            )
            return self._alarmed(Next(_to(purchase, Stage.REFUND)), flag)
        flag = Flag(
            Invariant.LEDGERS_AGREE,
            f"{attempt.seller_id} says {word} of order {attempt.order_id}"
            + (f" for {total}" if total is not None else "")
            + f", we have charged {charged}",
            "settle with the seller: refund when there is no book, close when all is well",
            charged,
        )
        return self.flagged(purchase, flag)

    # What nobody can decide

    def flagged(self, purchase: Purchase, flag: Flag) -> Next:
        """No rule of ours can decide this: an operator has to."""
        resume = purchase.resume if purchase.stage is Stage.FLAGGED else purchase.stage
        waiting = replace(_to(purchase, Stage.FLAGGED), resume=resume)
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
        return replace(_again(purchase), purchase=replace(purchase, tries=purchase.tries + 1))

    def again(self, purchase: Purchase, moment: Moment) -> Next:
        """The outcome is unknown and the effect is safe to repeat: repeat it, later each time."""
        return self._unless_overdue(_again(purchase), moment)

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

    def _resolve(self, purchase: Purchase, what: Resolve, by: str, moment: Moment) -> Next:
        """Do as an operator has decided; the flags that were open are resolved by that."""
        was = purchase.resume or purchase.stage
        purchase = replace(purchase, stage=was, resume=None, flagged=False)
        match what.decision:
            case Decision.RETRY:
                # The order may have been sent before it came to the flag: what became of it is found out first.
                again = Stage.RESOLVE_ORDER if was is Stage.ORDER else was
                following = Next(_to(purchase, again))
            case Decision.ORDER_STANDS:
                total = what.total or _attempt(purchase).agreed
                following = self.ordered(purchase, what.order_id or "", total)
            case Decision.NO_ORDER:
                following = self._no_order(purchase, moment)
            case Decision.PAYMENT_SETTLED:
                following = (
                    self.payment_settled(purchase, None, moment)
                    if purchase.authorization.provider_id is None
                    else Next(_to(purchase, Stage.SETTLE_PAYMENT))
                )
            case Decision.REFUND:
                following = Next(_to(purchase, Stage.REFUND))
            case Decision.CLOSE:
                following = Next(_to(purchase, Stage.DONE))
                if purchase.status is Status.PENDING:
                    following = _finish(following.purchase, Status.FAILED, _why_failed(purchase))
            case _:
                assert_never(what.decision)
        decided = _with(Step(StepName.RESOLVED, reason=what.decision.value), following)
        how = f"{what.decision.value}: {what.reason}"
        return decided if decided.flags else replace(decided, settled=Settled(by, how))

    def _no_order(self, purchase: Purchase, moment: Moment) -> Next:
        if purchase.status is not Status.PENDING:
            return self._rest(purchase, moment)
        if purchase.stage in (Stage.ORDER, Stage.RESOLVE_ORDER):
            return self.unreached(purchase, "not_placed", moment)
        return self.order_cancelled(purchase, moment)

    def _rest(self, purchase: Purchase, moment: Moment) -> Next:
        """Nothing is left to buy or to pay: give back holds, keep the token for an offer, be done."""
        if purchase.plan.releases:
            return Next(_to(purchase, Stage.RELEASE))
        offer = purchase.offer
        if offer is not None and self._reusable_tokens and moment.now < offer.expires_at:
            delay_s = (offer.expires_at - moment.now).total_seconds()
            return Next(_to(purchase, Stage.OFFER), delay_s=delay_s)
        return Next(_to(purchase, Stage.DONE))

    def _advance(
        self, purchase: Purchase, moment: Moment, requoted: Candidate | None = None
    ) -> Next:
        """Take the next cheapest seller; without one, the next collection or the true answer.

        ``requoted`` is one that was asked for its price just now.
        """
        voiding = _to(purchase, Stage.VOID)
        if purchase.cancel_requested:
            return _finish(voiding, Status.CANCELLED, None)
        late = False
        candidates = purchase.plan.candidates
        if candidates and self._expiring(purchase, moment):
            return _finish(voiding, Status.FAILED, FailureReason.AUTHORIZATION_EXPIRING)
        while candidates:
            candidate, *rest = candidates
            kind = self._kind_of(candidate.seller_id)
            if kind is None:
                # It has not said no; it is only not to be found in the registry now.
                purchase = _obstructed(purchase)
            elif purchase.plan.tries_at(candidate.seller_id) < MOST_TRIES_AT_A_SELLER:
                by_s = self._limits.hold_by_s if kind.supports_holds else self._limits.order_by_s
                if moment.age_s <= by_s:
                    purchase = replace(purchase, plan=replace(purchase.plan, candidates=candidates))
                    if candidate is not requoted and self._expired(candidate, moment):
                        return Next(_to(purchase, Stage.REQUOTE))
                    return self._take(purchase, candidate, kind, moment)
                late = True
            candidates = tuple(rest)
        without = replace(purchase, plan=replace(purchase.plan, candidates=()))
        return self._exhausted(without, moment, late=late)

    def _exhausted(self, purchase: Purchase, moment: Moment, *, late: bool) -> Next:
        """Nobody is left to try; ``late`` when somebody was, had there been time."""
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
            ended=purchase.attempt,
        )

    def _answer(self, purchase: Purchase, moment: Moment) -> Next:
        """Give the answer that is true when nothing affordable can be had."""
        voiding = _to(purchase, Stage.VOID)
        if purchase.plan.stopped or purchase.plan.obstructed:
            # Neither "too dear" nor "not available" would be true.
            return _finish(voiding, Status.FAILED, FailureReason.OUT_OF_TIME)
        dearer = purchase.plan.dearer
        if dearer is not None:
            expires_at = moment.now + timedelta(seconds=self._limits.offer_life_s)
            voiding = replace(voiding, offer=Offer(dearer.total, dearer.seller_id, expires_at))
            return _finish(voiding, Status.PRICE_NOT_MET, None)
        if purchase.plan.tells_of_stock:
            return _finish(voiding, Status.NOT_AVAILABLE, None)
        return _finish(voiding, Status.FAILED, FailureReason.NO_SELLER_ANSWERED)

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

    def _release(
        self, purchase: Purchase, why: str, moment: Moment, *, refused: bool = False
    ) -> Next:
        """Commit to giving a hold back, and go on without waiting for the seller's answer.

        ``refused`` when an order from it was.
        """
        attempt = _attempt(purchase)
        plan = purchase.plan
        release = Release(attempt.seller_id, attempt.key, refused=refused)
        plan = replace(plan, releases=(*plan.releases, release))
        purchase = replace(
            purchase, plan=plan, attempt=replace(attempt, outcome=attempt.outcome or why)
        )
        step = Step(StepName.HOLD_RELEASED, attempt.seller_id, reason=why)
        return _with(step, self._advance(purchase, moment))

    def _expired(self, candidate: Candidate, moment: Moment) -> bool:
        margin = timedelta(seconds=self._limits.quote_margin_s)
        return candidate.expires_at <= moment.now + margin

    def _expiring(self, purchase: Purchase, moment: Moment) -> bool:
        """Say whether the authorization lapses too soon to order on it."""
        ends = purchase.authorization.capture_before
        margin = timedelta(seconds=self._limits.capture_margin_s)
        return ends is not None and ends - moment.now < margin

    def _not_after(self, moment: Moment) -> datetime:
        return moment.now + timedelta(seconds=self._limits.not_after_s)


def without_releases(purchase: Purchase, answered: Iterable[Release]) -> Purchase:
    """Take the releases that were answered off the purchase."""
    gone = set(answered)
    if gone.isdisjoint(purchase.plan.releases):
        return purchase
    rest = tuple(release for release in purchase.plan.releases if release not in gone)
    return replace(purchase, plan=replace(purchase.plan, releases=rest))


def begins_order(before: Purchase, after: Purchase) -> bool:
    """Say whether the step from one to the other is an intent to place an order: the point of no return."""
    if after.stage is not Stage.ORDER or after.attempt is None:
        return False
    again = before.attempt is not None and before.attempt.key == after.attempt.key
    return before.stage is not Stage.ORDER or not again


def settled_by_itself(before: Purchase, following: Next) -> Next:
    """Resolve the flags of what went on although an operator was told: it has found its answer meanwhile."""
    stage = following.purchase.stage
    moved_on = stage not in (before.stage, Stage.FLAGGED)
    if not before.flagged or not moved_on or following.flags or following.settled is not None:
        return following
    settled = Settled(SYSTEM, f"{before.stage.value} came to its end: {stage.value} follows")
    return replace(following, purchase=replace(following.purchase, flagged=False), settled=settled)


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


def _to(purchase: Purchase, stage: Stage) -> Purchase:
    return replace(purchase, stage=stage, tries=0, resume=None)


def _again(purchase: Purchase, longest_delay_s: float = _LONGEST_DELAY_S) -> Next:
    delay_s = min(0.25 * 2 ** min(purchase.tries, 20), longest_delay_s)
    return Next(replace(purchase, tries=_counted(purchase)), delay_s=delay_s)


def _counted(purchase: Purchase) -> int:
    return min(purchase.tries + 1, _MOST_COUNTED)


def _with(event: Event, following: Next) -> Next:
    return replace(following, events=(event, *following.events))


def _finish(purchase: Purchase, status: Status, reason: FailureReason | None) -> Next:
    return Next(replace(purchase, status=status, failure_reason=reason), (Finished(),))


def _untouched(purchase: Purchase) -> bool:
    """Say whether an authorization certainly was never sent: neither by an earlier claim, nor by a try of this one."""
    return purchase.epoch == 1 and not purchase.tries


def _unauthorized(purchase: Purchase) -> Purchase:
    """End a purchase for which nothing was ever to be reserved."""
    authorization = replace(purchase.authorization, state=AuthorizationState.DECLINED)
    return _to(replace(purchase, authorization=authorization), Stage.DONE)


def _silent(summary: Collected) -> int:
    """Count the sellers of whose stock nothing is known, although they were meant to be asked."""
    return sum(count for reason, count in summary.misses if reason not in _NOT_SILENT)


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
    """Say whether a total is within what was agreed with the seller, and within what is authorized."""
    limits = purchase.max_price, _attempt(purchase).agreed
    return total is not None and all(
        total.currency == limit.currency and total.minor <= limit.minor for limit in limits
    )


def _in_currency_of(purchase: Purchase, total: Money) -> Money | None:
    """Give what a seller charges; None in another currency, in which nothing of a purchase is kept."""
    return total if total.currency == purchase.max_price.currency else None


def _why_failed(purchase: Purchase) -> FailureReason:
    """Give the reason of a purchase that an operator ends."""
    if purchase.authorization.provider_id is None:
        return FailureReason.PAYMENT_UNAVAILABLE
    charged = _charged(purchase) is not None
    return FailureReason.CAPTURE_REFUSED if charged else FailureReason.OUT_OF_TIME


def _charged(purchase: Purchase) -> Money | None:
    """Give what the seller charges, where an order was confirmed."""
    return purchase.attempt.charged if purchase.attempt is not None else None


def _attempt(purchase: Purchase) -> Attempt:
    if purchase.attempt is None:
        msg = f"{purchase.request_id} is in stage {purchase.stage} without an attempt"
        raise ValueError(msg)
    return purchase.attempt
