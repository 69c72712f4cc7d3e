"""The decisions while a purchase looks for a copy, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from mesh.money import Money
from orchestrator.domain.events import Collected, Finished, Step
from orchestrator.domain.flags import Invariant
from orchestrator.domain.purchase import (
    Candidate,
    FailureReason,
    Plan,
    Release,
    Stage,
    Status,
)
from orchestrator.domain.saga import (
    Moment,
    Resolution,
)
from sellers.answers import MAX_LIFE_S
from tests.unit.orchestrator.sagas import (
    EARLY,
    LATE,
    NOW,
    SAGA,
    candidate,
    collected,
    purchase,
    trying,
    usd,
)


def test_tries_the_cheapest_first_and_ties_by_name() -> None:
    following = collected(
        candidate("held", 2500), candidate("atomic", 2500), candidate("stubborn", 2600)
    )
    attempt = following.purchase.attempt
    assert attempt is not None
    assert attempt.seller_id == "atomic"
    assert [c.seller_id for c in following.purchase.plan.candidates] == ["held", "stubborn"]


@pytest.mark.parametrize(("seller_id", "stage"), [("held", Stage.HOLD), ("atomic", Stage.ORDER)])
def test_the_first_effect_at_a_seller_is_by_its_kind(seller_id: str, stage: Stage) -> None:
    following = collected(candidate(seller_id, 2500))
    assert following.purchase.stage is stage
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.key == f"{UUID(int=1)}:{seller_id}"


def test_the_intent_is_part_of_the_decision() -> None:
    following = collected(candidate("held", 2500))
    attempt = following.purchase.attempt
    assert attempt is not None
    assert attempt.not_after == NOW + timedelta(seconds=5)
    assert following.purchase.plan.tries == (("held", 1),)


def test_max_price_itself_is_affordable() -> None:
    assert collected(candidate("held", 2999)).purchase.stage is Stage.HOLD


@pytest.mark.parametrize(
    ("candidates", "answered", "status", "reason"),
    [
        ([("held", 3000)], 1, Status.PRICE_NOT_MET, None),
        ([], 3, Status.NOT_AVAILABLE, None),
    ],
)
def test_without_an_affordable_seller_the_answer_is_final_and_the_money_is_released(
    candidates: list[tuple[str, int]],
    answered: int,
    status: Status,
    reason: FailureReason | None,
) -> None:
    following = collected(*(candidate(*c) for c in candidates), answered=answered)
    assert (following.purchase.status, following.purchase.failure_reason) == (status, reason)
    assert following.purchase.stage is Stage.VOID
    assert following.events[-1] == Finished()


@pytest.mark.parametrize(
    ("answered", "misses", "status"),
    [
        (2, {"circuit_open": 20, "unreachable": 4}, Status.FAILED),
        (2, {"not_carried": 2, "timed_out": 3}, Status.FAILED),
        (2, {"out_of_stock": 2, "seller_error": 2}, Status.NOT_AVAILABLE),
        (2, {"condition": 1, "currency": 1, "not_selected": 9_000}, Status.NOT_AVAILABLE),
        (0, {"timed_out": 9}, Status.FAILED),
        (0, {}, Status.FAILED),
    ],
)
def test_it_is_not_available_only_if_half_of_the_sellers_have_answered(
    answered: int, misses: dict[str, int], status: Status
) -> None:
    before = purchase(plan=Plan(collections=1))
    summary = Collected("c", 26, 26, answered, 0, tuple(misses.items()), NOW, 1.0)
    following = SAGA.collected(before, [], summary, LATE).purchase
    assert following.status is status
    if status is Status.FAILED:
        assert following.failure_reason is FailureReason.NO_SELLER_ANSWERED


def test_the_collection_that_most_sellers_answered_tells_whether_it_is_available() -> None:
    """The first seller that was tried had sold out; then all the others broke down."""
    everybody = Collected("c1", 9, 9, 9, 1, (("not_carried", 8),), NOW, 1.0)
    hardly_any = Collected("c2", 9, 9, 1, 0, (("not_carried", 1), ("unreachable", 8)), NOW, 1.0)
    for first, second, status in (
        (everybody, hardly_any, Status.NOT_AVAILABLE),
        (hardly_any, everybody, Status.NOT_AVAILABLE),
        (hardly_any, hardly_any, Status.FAILED),
    ):
        tried = SAGA.collected(purchase(), [candidate("atomic", 2500)], first, EARLY).purchase
        again = SAGA.refused(tried, "out_of_stock", None, EARLY).purchase
        assert again.stage is Stage.COLLECT
        assert SAGA.collected(again, [], second, LATE).purchase.status is status


def test_after_an_early_stop_there_is_no_no() -> None:
    summary = Collected("c", 9, 9, 5, 1, (("stopped", 3),), NOW, 1.0)
    moment = Moment(NOW, 11.0)
    first = SAGA.collected(purchase(), [candidate("atomic", 2500)], summary, moment).purchase
    final = SAGA.refused(first, "out_of_stock", None, moment).purchase
    assert (final.status, final.failure_reason) == (Status.FAILED, FailureReason.OUT_OF_TIME)


@pytest.mark.parametrize(("answered", "status"), [(8, Status.FAILED), (9, Status.NOT_AVAILABLE)])
def test_a_seller_that_could_not_be_reached_may_be_one_that_does_not_answer_now(
    answered: int, status: Status
) -> None:
    unreached = SAGA.unreached(trying("atomic", 2000, stage=Stage.ORDER), "unreachable", EARLY)
    assert unreached.purchase.stage is Stage.COLLECT
    summary = Collected("c", 9, 9, answered, 0, (), NOW, 1.0)
    assert SAGA.collected(unreached.purchase, [], summary, EARLY).purchase.status is status


def test_a_seller_that_could_not_be_asked_again_is_no_no() -> None:
    before = purchase(plan=Plan(candidates=(candidate("held", 2000),), collections=2, answered=5))
    unreached = SAGA.requoted(before, None, EARLY, reached=False).purchase
    assert unreached.failure_reason is FailureReason.OUT_OF_TIME
    assert SAGA.requoted(before, None, EARLY).purchase.status is Status.NOT_AVAILABLE


def test_sellers_that_are_not_known_any_more_are_passed_over() -> None:
    following = collected(candidate("gone", 1000), candidate("held", 2500))
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.seller_id == "held"


def test_no_hold_after_14_s_and_no_order_after_17_s() -> None:
    late = Moment(NOW, 15.0)
    following = collected(candidate("held", 2000), candidate("atomic", 2500), moment=late)
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.seller_id == "atomic"
    too_late = Moment(NOW, 17.5)
    following = collected(candidate("held", 2000), candidate("atomic", 2500), moment=too_late)
    assert following.purchase.failure_reason is FailureReason.OUT_OF_TIME


def test_a_quote_that_expires_within_the_margin_is_asked_for_again() -> None:
    assert collected(candidate("held", 2000, life_s=0.9)).purchase.stage is Stage.REQUOTE
    assert collected(candidate("held", 2000, life_s=1.1)).purchase.stage is Stage.HOLD


def test_the_second_try_at_a_seller_has_its_own_key_and_there_is_no_third() -> None:
    before = trying("atomic", 2000, stage=Stage.ORDER)
    second = SAGA.refused(before, "price_changed", candidate("atomic", 2100), EARLY)
    assert second.purchase.attempt is not None
    assert second.purchase.attempt.key == f"{UUID(int=1)}:atomic:2"
    third = SAGA.refused(
        second.purchase, "price_changed", candidate("atomic", 2200), Moment(NOW, 12)
    )
    assert third.purchase.stage is Stage.VOID


def test_a_hold_at_a_price_that_is_still_the_best_is_ordered_at_that_price() -> None:
    before = trying("held", 2000, candidate("atomic", 2500), stage=Stage.HOLD)
    following = SAGA.held(before, "h", usd(2500 - 1), EARLY)
    assert following.purchase.stage is Stage.ORDER
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.agreed == usd(2499)


@pytest.mark.parametrize("minor", [2501, 3000])
def test_a_hold_that_is_not_the_best_any_more_is_released_and_its_price_remembered(
    minor: int,
) -> None:
    before = trying("held", 2000, candidate("atomic", 2500), stage=Stage.HOLD)
    following = SAGA.held(before, "h", usd(minor), EARLY)
    assert following.purchase.plan.releases == (Release("held", f"{UUID(int=1)}:held"),)
    assert following.purchase.attempt is not None
    assert following.purchase.attempt.seller_id == "atomic"
    plan = following.purchase.plan
    known = [*plan.candidates, *([plan.dearer] if plan.dearer else [])]
    assert [(c.seller_id, c.total.minor) for c in known] == [("held", minor)]


def test_an_order_for_more_than_was_agreed_is_never_charged() -> None:
    before = trying("atomic", 2000, stage=Stage.ORDER)
    assert SAGA.ordered(before, "o", usd(1999)).purchase.stage is Stage.CAPTURE
    assert SAGA.ordered(before, "o", usd(2000)).purchase.stage is Stage.CAPTURE
    assert SAGA.ordered(before, "o", usd(2001)).purchase.stage is Stage.CANCEL_ORDER
    assert SAGA.ordered(before, "o", usd(3000)).purchase.stage is Stage.CANCEL_ORDER


def test_an_order_in_another_currency_is_taken_back_for_the_next_seller() -> None:
    """Its amount is not kept: read again as the purchase's currency it would look like a price."""
    before = trying("atomic", 2000, candidate("held", 2500), stage=Stage.ORDER)
    ordered = SAGA.ordered(before, "o", Money("EUR", 1))
    assert ordered.purchase.stage is Stage.CANCEL_ORDER
    assert ordered.purchase.attempt is not None
    assert ordered.purchase.attempt.charged is None
    assert SAGA.order_cancelled(ordered.purchase, EARLY).purchase.stage is Stage.HOLD
    [flag] = SAGA.order_stands(ordered.purchase).flags
    assert (flag.invariant, flag.amount) == (Invariant.PAID_FOR_WHAT_WAS_BOUGHT, None)


def test_a_total_is_never_compared_across_currencies() -> None:
    """Whatever was agreed in another currency: nothing is charged but what was authorized."""
    before = trying("atomic", 2000, stage=Stage.ORDER)
    assert before.attempt is not None
    agreed = replace(before.attempt, agreed=Money("JPY", 1500))
    ordered = SAGA.ordered(replace(before, attempt=agreed), "o", Money("JPY", 1500))
    assert ordered.purchase.stage is Stage.CANCEL_ORDER


@pytest.mark.parametrize(
    ("seller_id", "tries", "after_s", "expected"),
    [
        ("atomic", 0, 1, Resolution.REPLAY),
        ("atomic", 1, 1, Resolution.POLL),
        ("atomic", 2, 1, Resolution.CANCEL),
        ("atomic", 0, 6, Resolution.POLL),
        ("atomic", 2, 6, Resolution.CANCEL),
        ("stubborn", 0, 1, Resolution.REPLAY),
        ("stubborn", 1, 1, Resolution.POLL),
        ("stubborn", 5, 9.9, Resolution.POLL),
        ("stubborn", 5, 10, Resolution.POLL_FOR_GOOD),
        ("careless", 0, 1, Resolution.REPLAY),
        ("careless", 5, 3600, Resolution.POLL),
        ("gone", 5, 1, Resolution.POLL),
        ("gone", 5, 10, Resolution.POLL),
    ],
)
def test_an_unknown_order_is_sent_again_then_closed_or_waited_for(
    seller_id: str, tries: int, after_s: float, expected: Resolution
) -> None:
    before = trying("atomic", 2000, stage=Stage.RESOLVE_ORDER)
    assert before.attempt is not None
    before = replace(before, tries=tries, attempt=replace(before.attempt, seller_id=seller_id))
    moment = Moment(NOW + timedelta(seconds=after_s), 1 + after_s)
    assert SAGA.resolution(before, moment) is expected


def test_an_unknown_order_never_becomes_a_failure_by_time_alone() -> None:
    unknown = trying("stubborn", 2000, stage=Stage.RESOLVE_ORDER)
    delays = []
    for _ in range(50):
        following = SAGA.order_unknown(unknown, EARLY)
        unknown = following.purchase
        delays.append(following.delay_s)
        assert (unknown.stage, unknown.status) == (Stage.RESOLVE_ORDER, Status.PENDING)
    assert delays == sorted(delays)
    assert max(delays) <= 30


def test_a_key_that_was_to_be_sent_again_already_is_asked_for_next() -> None:
    """A worker found the intent, and no way to the seller: the same way need not be tried twice in a row."""
    before = trying("atomic", 2000, stage=Stage.ORDER)
    first = SAGA.order_unknown(before, EARLY).purchase
    assert SAGA.resolution(first, EARLY) is Resolution.REPLAY
    again = SAGA.order_unknown(before, EARLY, sent_again=True).purchase
    assert SAGA.resolution(again, EARLY) is Resolution.POLL


def test_a_pending_order_is_polled_until_its_time_is_over_then_cancelled() -> None:
    pending = SAGA.order_pending(trying("atomic", 2000, stage=Stage.ORDER), 1.0, EARLY).purchase
    assert SAGA.resolution(pending, Moment(NOW, 19.9)) is Resolution.POLL
    assert SAGA.resolution(pending, Moment(NOW, 20.0)) is Resolution.CANCEL


def test_an_authorization_that_turns_up_after_we_gave_up_is_voided() -> None:
    before = purchase(stage=Stage.AUTHORIZE)
    given_up = SAGA.authorization_unknown(before, Moment(NOW, 8.0))
    assert given_up.purchase.failure_reason is FailureReason.PAYMENT_UNAVAILABLE
    assert given_up.purchase.stage is Stage.SETTLE_AUTHORIZATION
    assert SAGA.authorization_unknown(given_up.purchase, Moment(NOW, 9.0)).events == ()
    assert SAGA.authorized(given_up.purchase, "auth", None).purchase.stage is Stage.VOID
    assert (
        SAGA.declined(given_up.purchase, FailureReason.CARD_DECLINED).purchase.stage is Stage.DONE
    )


def test_a_refused_capture_fails_only_once_the_order_is_taken_back() -> None:
    ordered = SAGA.ordered(trying("atomic", 2000, stage=Stage.ORDER), "o", usd(2000)).purchase
    refused = SAGA.capture_refused(ordered, "insufficient_funds")
    assert (refused.purchase.stage, refused.purchase.status) == (Stage.CANCEL_ORDER, Status.PENDING)
    cancelled = SAGA.order_cancelled(refused.purchase, EARLY)
    assert cancelled.purchase.failure_reason is FailureReason.CAPTURE_REFUSED
    assert cancelled.purchase.stage is Stage.VOID


def test_holds_whose_release_was_not_answered_are_given_back_at_the_end() -> None:
    before = trying("held", 2000, candidate("atomic", 2500), stage=Stage.HOLD)
    atomic = SAGA.hold_unknown(before, EARLY).purchase
    captured = SAGA.captured(SAGA.ordered(atomic, "o", usd(2500)).purchase, usd(2500)).purchase
    assert captured.stage is Stage.RELEASE
    assert SAGA.released(captured, (), EARLY).purchase.stage is Stage.RELEASE
    assert SAGA.released(captured, captured.plan.releases, EARLY).purchase.stage is Stage.DONE


def test_a_release_is_repeated_for_as_long_as_a_hold_may_last_ever_less_often() -> None:
    held = trying("held", 2000, stage=Stage.HOLD)
    voided = SAGA.voided(SAGA.hold_unknown(held, EARLY).purchase, EARLY).purchase
    age_s, asked = EARLY.age_s, 0
    while age_s <= MAX_LIFE_S:
        following = SAGA.released(voided, (), Moment(NOW, age_s))
        assert following.purchase.stage is Stage.RELEASE
        voided, age_s, asked = following.purchase, age_s + following.delay_s, asked + 1
    assert asked < 200
    assert SAGA.released(voided, (), Moment(NOW, age_s * 2)).purchase.stage is Stage.DONE


def test_a_step_says_who_and_how_much() -> None:
    following = collected(candidate("held", 2500))
    step = following.events[-1]
    assert isinstance(step, Step)
    assert (step.seller_id, step.total) == ("held", usd(2500))


@pytest.mark.parametrize("answered", [0, 4])
def test_when_too_few_answer_all_are_asked_again_for_some_seconds_before_it_is_a_failure(
    answered: int,
) -> None:
    silence = Collected("c", 9, 9, answered, 0, (("unreachable", 9 - answered),), NOW, 1.0)
    following = SAGA.collected(purchase(stage=Stage.COLLECT), (), silence, EARLY)
    delays = []
    while following.purchase.stage is Stage.COLLECT:
        delays.append(following.delay_s)
        following = SAGA.collected(following.purchase, (), silence, EARLY)
    assert delays == [1.0, 2.0, 4.0]
    assert following.purchase.failure_reason is FailureReason.NO_SELLER_ANSWERED


def test_nobody_is_asked_again_when_there_is_no_time_to_answer() -> None:
    late = collected(answered=0, moment=LATE).purchase
    assert late.failure_reason is FailureReason.NO_SELLER_ANSWERED


@pytest.mark.parametrize("dearer", [None, candidate("held", 3500)])
def test_an_affordable_seller_that_could_not_be_reached_is_never_a_no(
    dearer: Candidate | None,
) -> None:
    before = trying("atomic", 2000, stage=Stage.ORDER)
    before = replace(before, plan=replace(before.plan, dearer=dearer, collections=2))
    unreached = SAGA.unreached(before, "rate_limited", EARLY).purchase
    assert (unreached.status, unreached.failure_reason) == (
        Status.FAILED,
        FailureReason.OUT_OF_TIME,
    )
    refused = SAGA.refused(before, "out_of_stock", None, EARLY).purchase
    assert refused.status is (Status.PRICE_NOT_MET if dearer else Status.NOT_AVAILABLE)
