"""The decisions of a purchase, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from mesh.money import Money
from orchestrator.domain.events import Collected, Finished, Step, StepName
from orchestrator.domain.flags import Invariant, Settled
from orchestrator.domain.observations import (
    Decision,
    Observation,
    OrderChanged,
    PaymentChanged,
    Resolve,
)
from orchestrator.domain.purchase import (
    Attempt,
    Authorization,
    AuthorizationState,
    Candidate,
    FailureReason,
    Offer,
    Plan,
    Purchase,
    Release,
    Stage,
    Status,
)
from orchestrator.domain.saga import (
    MOST_FAULTS,
    Limits,
    Moment,
    Next,
    PaymentFound,
    Resolution,
    Saga,
    SellerKind,
    begins_order,
    fits,
    settled_by_itself,
)
from sellers.answers import MAX_LIFE_S
from sellers.model import Condition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EARLY = Moment(NOW, 1.0)
LATE = Moment(NOW, 9.5)
"""Too late to ask everybody again."""
KINDS = {
    "held": SellerKind(supports_holds=True, supports_cancel_before_order=True),
    "atomic": SellerKind(supports_holds=False, supports_cancel_before_order=True),
    "stubborn": SellerKind(supports_holds=False, supports_cancel_before_order=False),
    "careless": SellerKind(
        supports_holds=False, supports_cancel_before_order=False, honours_not_after=False
    ),
}
SAGA = Saga(Limits(), KINDS.get)


def usd(minor: int) -> Money:
    return Money("USD", minor)


def candidate(seller_id: str, minor: int, life_s: float = 60) -> Candidate:
    return Candidate(seller_id, f"quote-{seller_id}", usd(minor), NOW + timedelta(seconds=life_s))


def purchase(**changes: object) -> Purchase:
    made = Purchase(
        request_id=UUID(int=1),
        customer_id="alice",
        book_id="9780134685991",
        max_price=usd(2999),
        conditions=(Condition.NEW,),
        created_at=NOW,
        stage=Stage.COLLECT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # each test names the fields it means


def collected(*candidates: Candidate, answered: int | None = None, moment: Moment = EARLY) -> Next:
    summary = Collected(
        "c", 9, 9, len(candidates) if answered is None else answered, 0, (), NOW, 1.0
    )
    return SAGA.collected(purchase(), candidates, summary, moment)


def trying(seller_id: str, minor: int, *others: Candidate, stage: Stage) -> Purchase:
    """Give a purchase in the middle of its first try at a seller."""
    attempt = Attempt(
        number=1,
        seller_id=seller_id,
        key=f"{UUID(int=1)}:{seller_id}",
        quote_id="q",
        quoted=usd(minor),
        with_hold=KINDS[seller_id].supports_holds,
        not_after=NOW + timedelta(seconds=5),
        agreed=usd(minor),
    )
    plan = Plan(candidates=others, tries=((seller_id, 1),), collections=1, answered=5)
    return purchase(stage=stage, attempt=attempt, plan=plan)


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


# Flags


def unpaid() -> Purchase:
    ordered = SAGA.ordered(trying("atomic", 2000, stage=Stage.ORDER), "o", usd(2000)).purchase
    return SAGA.capture_refused(ordered, "insufficient_funds").purchase


def test_an_order_that_cannot_be_charged_or_taken_back_is_flagged_and_never_purchased() -> None:
    following = SAGA.order_stands(unpaid())
    assert (following.purchase.stage, following.purchase.status) == (
        Stage.FLAGGED,
        Status.PENDING,
    )
    [flag] = following.flags
    assert (flag.invariant, flag.amount) == (Invariant.PAID_FOR_WHAT_WAS_BOUGHT, usd(2000))
    assert following.purchase.resume is Stage.CANCEL_ORDER
    assert following.purchase.flagged


def test_a_void_that_finds_a_charge_is_flagged() -> None:
    over = purchase(stage=Stage.VOID, status=Status.CANCELLED)
    following = SAGA.void_found_capture(over)
    assert following.purchase.stage is Stage.FLAGGED
    assert following.flags[0].invariant is Invariant.NOTHING_LEFT_OVER


def test_an_outcome_that_stays_unknown_is_flagged_once_and_tried_on() -> None:
    unknown = replace(trying("atomic", 2000, stage=Stage.RESOLVE_ORDER), tries=9)
    assert SAGA.again(unknown, Moment(NOW, 599.0)).flags == ()
    late = Moment(NOW, 600.0)
    told = SAGA.again(unknown, late)
    assert [flag.invariant for flag in told.flags] == [Invariant.ENDS]
    assert told.purchase.stage is Stage.RESOLVE_ORDER
    assert SAGA.again(told.purchase, late).flags == ()
    confirmed = SAGA.ordered(told.purchase, "o", usd(2000))
    settled = settled_by_itself(told.purchase, confirmed)
    assert settled.settled is not None
    assert not settled.purchase.flagged


def test_a_fault_after_a_long_silence_is_not_what_keeps_failing() -> None:
    """For an hour the provider did not answer; then a step fails once by a fault of ours, and works again."""
    before = purchase(stage=Stage.VOID)
    for _ in range(100):
        before = SAGA.again(before, EARLY).purchase
    for _ in range(3):
        stumbled = SAGA.stumbled(before, "ValueError")
        assert stumbled.purchase.stage is Stage.VOID
        before = SAGA.again(stumbled.purchase, EARLY).purchase
    for _ in range(MOST_FAULTS):
        before = SAGA.stumbled(before, "ValueError").purchase
    assert before.stage is Stage.FLAGGED


def test_a_step_that_keeps_failing_is_flagged() -> None:
    failing = purchase()
    for _ in range(MOST_FAULTS):
        failing = SAGA.stumbled(failing, "ValueError").purchase
        assert failing.stage is Stage.COLLECT
    following = SAGA.stumbled(failing, "ValueError")
    assert (following.purchase.stage, following.purchase.resume) == (Stage.FLAGGED, Stage.COLLECT)


@pytest.mark.parametrize(
    ("decision", "stage", "status"),
    [
        (Decision.RETRY, Stage.CANCEL_ORDER, Status.PENDING),
        (Decision.ORDER_STANDS, Stage.CAPTURE, Status.PENDING),
        (Decision.NO_ORDER, Stage.VOID, Status.FAILED),
        (Decision.PAYMENT_SETTLED, Stage.SETTLE_PAYMENT, Status.PENDING),
        (Decision.CLOSE, Stage.DONE, Status.FAILED),
    ],
)
def test_a_decision_resolves_the_flag_and_leads_on(
    decision: Decision, stage: Stage, status: Status
) -> None:
    before = SAGA.order_stands(paid_by("auth", unpaid())).purchase
    what = Resolve(decision, "why", "o2", usd(1900))
    assert fits(before, what)
    following = SAGA.observed(before, Observation(1, "ann", what), EARLY)
    assert (following.purchase.stage, following.purchase.status) == (stage, status)
    assert following.settled == Settled("ann", f"{decision.value}: why")
    assert not following.purchase.flagged
    assert following.purchase.resume is None


def test_copies_that_are_held_are_given_back_although_a_purchase_is_closed_by_hand() -> None:
    held = Release("held", f"{UUID(int=1)}:held")
    before = SAGA.order_stands(paid_by("auth", unpaid())).purchase
    before = replace(before, plan=replace(before.plan, releases=(held,)))
    closing = Observation(1, "ann", Resolve(Decision.CLOSE, "why"))
    following = SAGA.observed(before, closing, EARLY).purchase
    assert (following.stage, following.status) == (Stage.RELEASE, Status.FAILED)
    assert SAGA.released(following, [held], EARLY).purchase.stage is Stage.DONE


def paid_by(provider_id: str, before: Purchase) -> Purchase:
    authorization = Authorization(AuthorizationState.AUTHORIZED, provider_id)
    return replace(before, authorization=authorization)


def test_what_does_not_settle_a_payment_leaves_all_decisions_open() -> None:
    before = SAGA.order_stands(paid_by("auth", unpaid())).purchase
    settling = SAGA.observed(
        before, Observation(1, "ann", Resolve(Decision.PAYMENT_SETTLED, "why")), EARLY
    )
    still = PaymentFound(reserved=True, captured=usd(0), refunded=usd(0))
    flagged = SAGA.payment_settled(settling.purchase, still, EARLY)
    assert flagged.flags[0].invariant is Invariant.SUMS_ADD_UP
    no_order = SAGA.observed(
        flagged.purchase, Observation(2, "ann", Resolve(Decision.NO_ORDER, "why")), EARLY
    )
    assert (no_order.purchase.stage, no_order.purchase.status) == (Stage.VOID, Status.FAILED)


def test_what_was_closed_with_money_reserved_is_voided_when_somebody_looks() -> None:
    closed = paid_by("auth", purchase(stage=Stage.CHECK_PAYMENT, status=Status.FAILED))
    still = PaymentFound(reserved=True, captured=usd(0), refunded=usd(0))
    assert SAGA.payment_checked(closed, still, EARLY).purchase.stage is Stage.VOID


def test_a_decision_that_does_not_fit_changes_nothing() -> None:
    before = purchase()
    for decision in Decision:
        what = Resolve(decision, "why", "o", usd(1))
        assert not fits(before, what)
        following = SAGA.observed(before, Observation(1, "ann", what), EARLY)
        assert following == Next(before)


@pytest.mark.parametrize(("looked_at", "counts"), [(1, False), (2, True), (3, False), (None, True)])
def test_a_decision_is_about_the_newest_open_flag(looked_at: int | None, *, counts: bool) -> None:
    before = replace(SAGA.order_stands(paid_by("auth", unpaid())).purchase, flag=2)
    what = Resolve(Decision.CLOSE, "why", flag=looked_at)
    following = SAGA.observed(before, Observation(1, "ann", what), EARLY)
    assert (following.purchase.stage is Stage.DONE) is counts


@pytest.mark.parametrize("stage", [s for s in Stage if s not in {"release", "offer", "done"}])
def test_what_is_told_of_a_purchase_under_way_changes_nothing(stage: Stage) -> None:
    before = paid_by("auth", trying("atomic", 2000, stage=stage))
    for what in (PaymentChanged(), OrderChanged(f"{UUID(int=1)}:atomic")):
        assert SAGA.observed(before, Observation(1, "x", what), EARLY) == Next(before)


# The end


def bought() -> Purchase:
    ordered = SAGA.ordered(trying("atomic", 2000, stage=Stage.ORDER), "o", usd(2000)).purchase
    return SAGA.captured(paid_by("auth", ordered), usd(2000)).purchase


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
