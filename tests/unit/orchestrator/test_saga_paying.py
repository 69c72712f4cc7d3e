"""The decisions about money, the customer's cancel and what others tell, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from orchestrator.domain.events import Collected, Finished, Step, StepName
from orchestrator.domain.flags import Invariant, Settled
from orchestrator.domain.observations import (
    Decision,
    Observation,
    PaymentChanged,
    Resolve,
)
from orchestrator.domain.purchase import (
    Authorization,
    AuthorizationState,
    FailureReason,
    Offer,
    Release,
    Stage,
    Status,
)
from orchestrator.domain.saga import (
    Limits,
    Moment,
    PaymentFound,
    Resolution,
    Saga,
    SellerKind,
    begins_order,
    fits,
    settled_by_itself,
)
from tests.unit.orchestrator.sagas import (
    EARLY,
    KINDS,
    NOW,
    SAGA,
    bought,
    candidate,
    collected,
    paid_by,
    purchase,
    trying,
    usd,
)

# The customer's cancel


@pytest.mark.parametrize(
    ("stage", "following"),
    [
        (Stage.AUTHORIZE, Stage.SETTLE_AUTHORIZATION),
        (Stage.COLLECT, Stage.VOID),
        (Stage.REQUOTE, Stage.VOID),
        (Stage.HOLD, Stage.VOID),
        (Stage.ORDER, None),
        (Stage.RESOLVE_ORDER, None),
        (Stage.CAPTURE, None),
        (Stage.CANCEL_ORDER, None),
        (Stage.FLAGGED, None),
    ],
)
def test_a_cancel_wins_until_an_order_may_stand(stage: Stage, following: Stage | None) -> None:
    before = replace(trying("held", 2000, stage=stage), cancel_requested=True)
    cancelled = SAGA.cancelled(before, EARLY)
    if following is None:
        assert cancelled is None
        return
    assert cancelled is not None
    assert (cancelled.purchase.stage, cancelled.purchase.status) == (following, Status.CANCELLED)
    assert cancelled.events[-1] == Finished()
    releases = (Release("held", f"{UUID(int=1)}:held"),) if stage is Stage.HOLD else ()
    assert cancelled.purchase.plan.releases == releases


@pytest.mark.parametrize(("epoch", "tries"), [(1, 0), (2, 0), (1, 1)])
def test_a_cancel_before_anything_was_sent_reserves_nothing(epoch: int, tries: int) -> None:
    waiting = purchase(stage=Stage.AUTHORIZE, epoch=epoch, tries=tries, cancel_requested=True)
    cancelled = SAGA.cancelled(waiting, EARLY)
    assert cancelled is not None
    assert cancelled.purchase.status is Status.CANCELLED
    sent = (epoch, tries) != (1, 0)
    assert cancelled.purchase.stage is (Stage.SETTLE_AUTHORIZATION if sent else Stage.DONE)
    assert (cancelled.purchase.authorization.state is AuthorizationState.INTENDED) is sent


def test_a_cancel_changes_nothing_that_is_over_or_was_not_asked_for() -> None:
    assert SAGA.cancelled(purchase(), EARLY) is None
    over = purchase(status=Status.NOT_AVAILABLE, cancel_requested=True, stage=Stage.VOID)
    assert SAGA.cancelled(over, EARLY) is None


def test_after_a_refusal_the_cancel_comes_before_the_next_seller() -> None:
    before = trying("atomic", 2000, candidate("held", 2500), stage=Stage.ORDER)
    refused = SAGA.refused(replace(before, cancel_requested=True), "out_of_stock", None, EARLY)
    assert (refused.purchase.stage, refused.purchase.status) == (Stage.VOID, Status.CANCELLED)


def test_a_cancel_that_was_committed_before_the_order_gives_the_hold_back() -> None:
    before = trying("held", 2000, stage=Stage.HOLD)
    held = SAGA.held(before, "h", usd(2000), EARLY)
    assert begins_order(before, held.purchase)
    instead = SAGA.forestalled(before, held, EARLY)
    assert instead.purchase.status is Status.CANCELLED
    assert instead.purchase.plan.releases == (Release("held", f"{UUID(int=1)}:held"),)
    assert [event.name for event in instead.events if isinstance(event, Step)] == [
        StepName.HELD,
        StepName.HOLD_RELEASED,
    ]


def test_a_cancel_that_was_committed_before_the_next_order_leaves_no_trace_of_that() -> None:
    before = trying("stubborn", 2000, candidate("atomic", 2500), stage=Stage.ORDER)
    following = SAGA.refused(before, "out_of_stock", None, EARLY)
    assert begins_order(before, following.purchase)
    instead = SAGA.forestalled(before, following, EARLY)
    assert instead.purchase.status is Status.CANCELLED
    assert instead.purchase.attempt is not None
    assert (instead.purchase.attempt.seller_id, instead.purchase.attempt.outcome) == (
        "stubborn",
        "out_of_stock",
    )


def test_a_cancel_that_comes_before_the_next_order_leaves_the_decision_that_led_to_it() -> None:
    """The operator has decided that there is no order: the flag is resolved by that."""
    before = trying("stubborn", 2000, candidate("atomic", 2500), stage=Stage.ORDER)
    flagged = SAGA.poisoned(before, "OSError").purchase
    what = Observation(1, "ann", Resolve(Decision.NO_ORDER, "why"))
    following = SAGA.observed(flagged, what, EARLY)
    assert begins_order(flagged, following.purchase)
    instead = SAGA.forestalled(flagged, following, EARLY)
    assert instead.purchase.status is Status.CANCELLED
    assert instead.settled == Settled("ann", "no_order: why")


def test_what_became_of_an_order_is_found_out_before_it_is_tried_again() -> None:
    ordering = trying("atomic", 2000, stage=Stage.ORDER)
    flagged = SAGA.poisoned(ordering, "OSError").purchase
    retry = Observation(1, "ann", Resolve(Decision.RETRY, "why"))
    following = SAGA.observed(flagged, retry, EARLY).purchase
    assert following.stage is Stage.RESOLVE_ORDER
    assert not begins_order(flagged, following)


def test_an_order_is_begun_once() -> None:
    ordering = trying("atomic", 2000, stage=Stage.ORDER)
    assert begins_order(purchase(), ordering)
    assert not begins_order(ordering, ordering)
    assert not begins_order(ordering, replace(ordering, stage=Stage.RESOLVE_ORDER))


# The try that ended


def test_how_a_try_ended_is_committed_with_the_next_one() -> None:
    before = trying("atomic", 2000, candidate("held", 2500), stage=Stage.ORDER)
    following = SAGA.refused(before, "out_of_stock", None, EARLY)
    assert following.ended is not None
    assert (following.ended.seller_id, following.ended.outcome) == ("atomic", "out_of_stock")
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.number == 2


# The authorization


@pytest.mark.parametrize(("hours", "ordered"), [(23.9, False), (24.1, True), (None, True)])
def test_no_order_on_an_authorization_that_lapses_within_a_day(
    hours: float | None, *, ordered: bool
) -> None:
    ends = NOW + timedelta(hours=hours) if hours is not None else None
    authorized = SAGA.authorized(purchase(stage=Stage.AUTHORIZE), "auth", ends).purchase
    assert authorized.authorization.capture_before == ends
    summary = Collected("c", 9, 9, 1, 1, (), NOW, 1.0)
    following = SAGA.collected(authorized, [candidate("atomic", 2000)], summary, EARLY).purchase
    if ordered:
        assert following.stage is Stage.ORDER
    else:
        assert following.failure_reason is FailureReason.AUTHORIZATION_EXPIRING
        assert following.stage is Stage.VOID


def test_a_hold_on_an_authorization_that_lapses_is_given_back() -> None:
    before = trying("held", 2000, stage=Stage.HOLD)
    before = replace(before, authorization=Authorization(capture_before=NOW + timedelta(hours=1)))
    following = SAGA.held(before, "h", usd(2000), EARLY).purchase
    assert following.failure_reason is FailureReason.AUTHORIZATION_EXPIRING
    assert following.plan.releases != ()


@pytest.mark.parametrize(
    ("epoch", "tries", "age_s", "given_up"),
    [(1, 0, 10.0, True), (1, 0, 9.9, False), (2, 0, 60.0, False), (1, 1, 60.0, False)],
)
def test_only_what_was_never_tried_fails_without_an_authorization(
    epoch: int, tries: int, age_s: float, *, given_up: bool
) -> None:
    waiting = purchase(stage=Stage.AUTHORIZE, epoch=epoch, tries=tries)
    following = SAGA.claimed_too_late(waiting, Moment(NOW, age_s))
    assert (following is not None) is given_up
    if following is not None:
        assert following.purchase.failure_reason is FailureReason.OUT_OF_TIME
        assert following.purchase.stage is Stage.DONE


# Sellers and their words


def test_a_seller_that_is_not_to_be_found_in_the_registry_has_not_said_no() -> None:
    following = collected(candidate("gone", 1000)).purchase
    assert following.failure_reason is FailureReason.OUT_OF_TIME


def test_a_cancel_that_was_too_late_is_not_sent_again() -> None:
    """A repeated cancel repeats its first answer: the order is asked for."""
    late = Moment(NOW, 30.0)
    pending = SAGA.order_pending(trying("atomic", 2000, stage=Stage.RESOLVE_ORDER), 1.0, late)
    assert SAGA.resolution(pending.purchase, late) is Resolution.CANCEL
    told = SAGA.order_pending(pending.purchase, 1.0, late, too_late=True).purchase
    assert SAGA.resolution(told, late) is Resolution.POLL
    still = SAGA.order_pending(told, 1.0, late).purchase
    assert SAGA.resolution(still, late) is Resolution.POLL


@pytest.mark.parametrize("after_s", [1, 6, 11, 3600])
def test_the_key_of_a_seller_that_can_close_keys_is_closed_however_late(after_s: float) -> None:
    before = replace(trying("atomic", 2000, stage=Stage.RESOLVE_ORDER), tries=2)
    moment = Moment(NOW + timedelta(seconds=after_s), 1 + after_s)
    assert SAGA.resolution(before, moment) is Resolution.CANCEL
    first = SAGA.resolution(replace(before, tries=0), moment)
    assert first is not Resolution.POLL_FOR_GOOD


def test_a_seller_that_cannot_be_asked_for_orders_is_sent_the_key_again() -> None:
    mute = SellerKind(
        supports_holds=False, supports_cancel_before_order=False, supports_get_order=False
    )
    saga = Saga(Limits(), {"atomic": mute}.get)
    before = replace(trying("atomic", 2000, stage=Stage.RESOLVE_ORDER), tries=5)
    for after_s in (1, 6, 60):
        moment = Moment(NOW + timedelta(seconds=after_s), after_s)
        assert saga.resolution(before, moment) is Resolution.REPLAY


def test_a_hold_that_went_into_a_refused_order_may_be_called_ordered() -> None:
    before = trying("held", 2000, candidate("atomic", 2500), stage=Stage.ORDER)
    assert before.attempt is not None
    before = replace(before, attempt=replace(before.attempt, hold_id="h"))
    refused = SAGA.refused(before, "out_of_stock", None, EARLY).purchase
    assert [release.refused for release in refused.plan.releases] == [True]
    unknown = SAGA.hold_unknown(trying("held", 2000, stage=Stage.HOLD), EARLY).purchase
    assert [release.refused for release in unknown.plan.releases] == [False]


# The end


@pytest.mark.parametrize(
    ("found", "agrees"),
    [
        (PaymentFound(reserved=False, captured=usd(2000), refunded=usd(0)), True),
        (PaymentFound(reserved=False, captured=usd(2999), refunded=usd(0)), False),
        (PaymentFound(reserved=False, captured=usd(2000), refunded=usd(2000)), False),
        (PaymentFound(reserved=False, captured=usd(0), refunded=usd(0)), False),
        (None, False),
    ],
)
def test_a_payment_is_compared_with_ours(found: PaymentFound | None, *, agrees: bool) -> None:
    following = SAGA.payment_checked(bought(), found, EARLY)
    assert following.purchase.stage is (Stage.DONE if agrees else Stage.FLAGGED)
    assert bool(following.flags) is not agrees


def test_an_order_that_the_seller_took_back_is_refunded_and_stays_purchased() -> None:
    following = SAGA.order_checked(bought(), None, "cancelled", EARLY)
    assert following.purchase.stage is Stage.REFUND
    assert [flag.invariant for flag in following.flags] == [Invariant.PAID_FOR_WHAT_WAS_BOUGHT]
    refunded = settled_by_itself(following.purchase, SAGA.refunded(following.purchase, usd(2000)))
    assert (refunded.purchase.status, refunded.purchase.stage) == (Status.PURCHASED, Stage.DONE)
    assert refunded.purchase.authorization.state is AuthorizationState.REFUNDED
    assert refunded.settled is not None


@pytest.mark.parametrize(
    ("total", "word"), [(2100, "confirmed"), (2000, "pending"), (None, "nothing")]
)
def test_an_order_that_is_not_as_it_was_charged_is_flagged(total: int | None, word: str) -> None:
    following = SAGA.order_checked(bought(), usd(total) if total else None, word, EARLY)
    assert following.purchase.stage is Stage.FLAGGED


def test_a_stray_order_is_cancelled_and_the_status_stays() -> None:
    over = replace(trying("atomic", 2000, stage=Stage.CHECK_ORDER), status=Status.NOT_AVAILABLE)
    stray = SAGA.order_checked(over, usd(2000), "confirmed", EARLY)
    assert stray.purchase.stage is Stage.CANCEL_ORDER
    cancelled = SAGA.order_cancelled(stray.purchase, EARLY).purchase
    assert (cancelled.stage, cancelled.status) == (Stage.DONE, Status.NOT_AVAILABLE)
    stands = SAGA.order_stands(stray.purchase)
    assert stands.flags[0].invariant is Invariant.NOTHING_LEFT_OVER


@pytest.mark.parametrize("state", [AuthorizationState.INTENDED, AuthorizationState.DECLINED])
def test_an_authorization_that_was_made_after_all_is_released(state: AuthorizationState) -> None:
    over = purchase(
        stage=Stage.DONE, status=Status.FAILED, authorization=Authorization(state=state)
    )
    told = Observation(1, "reconciler", PaymentChanged("left", "auth"))
    checking = SAGA.observed(over, told, EARLY).purchase
    assert (checking.stage, checking.authorization.provider_id) == (Stage.CHECK_PAYMENT, "auth")
    still = PaymentFound(reserved=True, captured=usd(0), refunded=usd(0))
    assert SAGA.payment_checked(checking, still, EARLY).purchase.stage is Stage.VOID


def test_the_name_of_a_payment_does_not_change_by_what_others_tell() -> None:
    told = Observation(1, "reconciler", PaymentChanged("second", "other"))
    assert SAGA.observed(bought(), told, EARLY).purchase.authorization.provider_id == "auth"


def test_what_may_be_reserved_under_an_unknown_name_is_not_closed() -> None:
    stopped = SAGA.poisoned(purchase(stage=Stage.AUTHORIZE), "OSError").purchase
    assert not fits(stopped, Resolve(Decision.CLOSE, "why"))
    assert fits(stopped, Resolve(Decision.RETRY, "why"))


def test_a_part_that_was_given_back_by_hand_is_settled_once() -> None:
    part = PaymentFound(reserved=False, captured=usd(2000), refunded=usd(500))
    flagged = SAGA.payment_checked(bought(), part, EARLY).purchase
    assert flagged.stage is Stage.FLAGGED
    settled = SAGA.payment_settled(replace(flagged, stage=Stage.SETTLE_PAYMENT), part, EARLY)
    ours = settled.purchase.authorization
    assert (ours.state, ours.refunded) == (AuthorizationState.CAPTURED, usd(500))
    assert SAGA.payment_checked(settled.purchase, part, EARLY).flags == ()
    more = replace(part, refunded=usd(600))
    assert SAGA.payment_checked(settled.purchase, more, EARLY).flags != ()


def test_an_order_that_stands_although_its_price_was_given_back_is_taken_back() -> None:
    given_back = SAGA.refunded(bought(), usd(2000)).purchase
    following = SAGA.order_checked(given_back, usd(2000), "confirmed", EARLY)
    assert following.purchase.stage is Stage.CANCEL_ORDER
    cancelled = SAGA.order_cancelled(following.purchase, EARLY).purchase
    assert (cancelled.stage, cancelled.status) == (Stage.DONE, Status.PURCHASED)
    assert SAGA.order_checked(given_back, None, "cancelled", EARLY).purchase.stage is Stage.DONE


def test_the_token_is_kept_until_an_offer_ends_where_it_can_pay_for_it() -> None:
    reusing = Saga(Limits(), KINDS.get, reusable_tokens=True)
    reserved = paid_by("auth", purchase())
    summary = Collected("c", 9, 9, 1, 1, (), NOW, 1.0)
    offered = reusing.collected(reserved, [candidate("held", 3500)], summary, EARLY).purchase
    resting = reusing.voided(offered, EARLY)
    assert (resting.purchase.stage, resting.delay_s) == (Stage.OFFER, 300.0)
    for before in (reserved, offered, resting.purchase):
        assert reusing.needs_token(before, NOW)
        assert not SAGA.needs_token(before, NOW)
    ended = reusing.offer_ended(resting.purchase, Moment(NOW + timedelta(seconds=300), 301))
    assert ended.purchase.stage is Stage.DONE
    assert not reusing.needs_token(ended.purchase, NOW)
    for looked_at in (Stage.CHECK_PAYMENT, Stage.CHECK_ORDER):
        assert reusing.needs_token(replace(resting.purchase, stage=looked_at), NOW)
    assert SAGA.voided(offered, EARLY).purchase.stage is Stage.DONE
    settling = purchase(stage=Stage.SETTLE_AUTHORIZATION, status=Status.CANCELLED)
    assert SAGA.needs_token(settling, NOW)


def test_the_token_goes_with_the_offer_however_long_a_hold_is_given_back() -> None:
    reusing = Saga(Limits(), KINDS.get, reusable_tokens=True)
    ends = NOW + timedelta(seconds=300)
    releasing = purchase(
        stage=Stage.RELEASE,
        status=Status.PRICE_NOT_MET,
        offer=Offer(usd(3500), "held", ends),
        authorization=Authorization(AuthorizationState.VOIDED, "auth"),
    )
    assert reusing.needs_token(releasing, ends - timedelta(seconds=1))
    assert not reusing.needs_token(releasing, ends)
