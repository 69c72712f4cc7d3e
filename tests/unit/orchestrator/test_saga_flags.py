"""What no rule can decide, and what operators decide."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from orchestrator.domain.flags import Invariant, Settled
from orchestrator.domain.observations import (
    Decision,
    Observation,
    OrderChanged,
    PaymentChanged,
    Resolve,
)
from orchestrator.domain.purchase import (
    Release,
    Stage,
    Status,
)
from orchestrator.domain.saga import (
    MOST_FAULTS,
    Moment,
    Next,
    PaymentFound,
    fits,
    settled_by_itself,
)
from tests.unit.orchestrator.sagas import EARLY, NOW, SAGA, paid_by, purchase, trying, unpaid, usd


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
