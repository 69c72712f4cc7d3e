"""What no rule can decide: how it is flagged, how operators see it, and what their decisions lead to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from mesh import errors
from mesh.money import Money
from orchestrator.domain.observations import Decision, OrderChanged, PaymentChanged, Resolve
from orchestrator.domain.purchase import FailureReason, Status
from orchestrator.ports import Authorized, Unknown
from sellers.model import CallFailed, FailureKind, Held
from tests.fakes.market import UNREACHED, Market, ScriptedSeller
from tests.integration.orchestrator.conftest import CLOCK, PATIENT, until

if TYPE_CHECKING:
    from uuid import UUID

    from orchestrator.operator_ports import Dossier
    from orchestrator.ports import PurchaseView, RefundOutcome
    from tests.integration.orchestrator.conftest import World


NOT_ARRIVED = CallFailed(
    FailureKind.UNREACHABLE, definitely_not_done=False, detail="connection lost"
)


async def unpaid(world: World) -> PurchaseView:
    """Give a purchase whose capture was refused, at a seller that does not take the order back."""
    view = await world.buy(
        ScriptedSeller("a", 2000, cancels=False), payment_token="tok_capture_fails"
    )
    assert view.status is Status.PENDING
    return view


async def decide(world: World, view: PurchaseView, decision: Decision, **more: object) -> None:
    """Look at the purchase and decide."""
    flags = (await world.operators.inspect(view.request_id)).flags
    newest = max((f.number for f in flags if f.resolved_at is None), default=None)
    more.setdefault("flag", newest)
    what = Resolve(decision, "as agreed by telephone", **more)  # type: ignore[arg-type]  # order_id, total and flag
    await world.operators.resolve(view.request_id, "ann", what)


async def acted_on(world: World, request_id: UUID) -> Dossier:
    """Wait until a worker has acted on all that was told, and nothing is left to do; give what is known then."""
    dossier = await world.operators.inspect(request_id)

    async def is_over() -> bool:
        nonlocal dossier
        dossier = await world.operators.inspect(request_id)
        return dossier.due_at is None and all(o.consumed for o in dossier.observations)

    async with world.working():
        await until(is_over)
    return dossier


async def test_a_flag_says_what_is_in_doubt_and_what_to_do(world: World) -> None:
    view = await unpaid(world)
    [record] = (await world.operators.flags(10, "")).flags
    assert (record.request_id, record.number) == (view.request_id, 1)
    assert record.flag.invariant.value == "I8"
    assert "a does not take order" in record.flag.detail
    assert "no_order" in record.flag.advice
    assert record.flag.amount == Money("USD", 2000)


async def test_flags_are_listed_in_pages_the_oldest_first(world: World) -> None:
    views = [await unpaid(world) for _ in range(3)]
    first = await world.operators.flags(2, "")
    second = await world.operators.flags(2, first.next_page_token)
    listed = [record.request_id for page in (first, second) for record in page.flags]
    assert listed == [view.request_id for view in views]
    assert second.next_page_token == ""
    for token in ("x", "9" * 40, "-1"):
        with pytest.raises(errors.InvalidArgument):
            await world.operators.flags(2, token)


async def test_everything_about_a_purchase_can_be_seen(world: World) -> None:
    view = await unpaid(world)
    dossier = await world.operators.inspect(view.request_id)
    assert (dossier.customer_id, dossier.stage, dossier.due_at) == ("alice", "flagged", None)
    assert (dossier.payment.state, dossier.payment.authorized) == (
        "authorized",
        Money("USD", 2999),
    )
    [attempt] = dossier.attempts
    assert (attempt.attempt.seller_id, attempt.attempt.outcome) == ("a", "confirmed")
    assert len(dossier.flags) == 1
    assert [recorded.seq for recorded in dossier.events] == list(range(1, len(dossier.events) + 1))
    with pytest.raises(errors.NotFound):
        await world.operators.inspect(uuid4())


async def test_once_the_seller_has_cancelled_after_all_it_is_a_failure(world: World) -> None:
    view = await unpaid(world)
    world.market.sellers["a"].live.clear()
    await decide(world, view, Decision.NO_ORDER)
    dossier = await acted_on(world, view.request_id)
    assert (dossier.view.status, dossier.view.failure_reason) == (
        Status.FAILED,
        FailureReason.CAPTURE_REFUSED,
    )
    assert dossier.payment.state == "voided"
    [flag] = dossier.flags
    assert flag.settled is not None
    assert (flag.settled.by, flag.settled.how) == ("ann", "no_order: as agreed by telephone")
    await world.audit(view.request_id)


async def test_a_retry_that_meets_the_same_is_flagged_again(world: World) -> None:
    view = await unpaid(world)
    await decide(world, view, Decision.RETRY)
    dossier = await acted_on(world, view.request_id)
    assert dossier.stage == "flagged"
    assert [flag.resolved_at is not None for flag in dossier.flags] == [True, False]
    world.market.sellers["a"].cancels = True
    await decide(world, view, Decision.RETRY)
    assert (await acted_on(world, view.request_id)).view.status is Status.FAILED
    await world.audit(view.request_id)


async def test_a_decision_is_about_the_flag_that_was_looked_at(world: World) -> None:
    """The second operator looked before the first one's retry met the next flag."""
    view = await unpaid(world)
    await decide(world, view, Decision.RETRY)
    await acted_on(world, view.request_id)
    with pytest.raises(errors.FailedPrecondition, match="now flag 2 is open") as refused:
        await decide(world, view, Decision.CLOSE, flag=1)
    assert refused.value.reason == "FLAG_CHANGED"
    # As when the flag changes between the look and the note.
    closed = Resolve(Decision.CLOSE, "written off", flag=1)
    await world.store.observe(view.request_id, "bob", closed)
    dossier = await acted_on(world, view.request_id)
    assert (dossier.view.status, dossier.stage) == (Status.PENDING, "flagged")
    assert [flag.resolved_at is not None for flag in dossier.flags] == [True, False]
    await decide(world, view, Decision.CLOSE, flag=2)
    assert (await acted_on(world, view.request_id)).stage == "done"
    with pytest.raises(errors.FailedPrecondition, match="now none is open") as refused:
        await decide(world, view, Decision.CLOSE, flag=2)
    assert refused.value.reason == "FLAG_CHANGED"


async def test_a_decision_from_before_flags_were_named_is_about_any(world: World) -> None:
    view = await unpaid(world)
    await decide(world, view, Decision.CLOSE, flag=None)
    assert (await acted_on(world, view.request_id)).stage == "done"


async def test_what_is_written_off_is_over(world: World) -> None:
    view = await unpaid(world)
    await decide(world, view, Decision.CLOSE)
    dossier = await acted_on(world, view.request_id)
    assert (dossier.view.status, dossier.stage) == (Status.FAILED, "done")
    assert all(flag.resolved_at is not None for flag in dossier.flags)


async def test_a_payment_that_was_taken_by_hand_completes_the_purchase(world: World) -> None:
    view = await unpaid(world)
    await world.pool.execute(
        "UPDATE sandbox_provider.payment_authorization SET state = 'captured', captured_minor = 2000, captures = 1"
    )
    await decide(world, view, Decision.PAYMENT_SETTLED)
    dossier = await acted_on(world, view.request_id)
    assert (dossier.view.status, dossier.view.final_price) == (
        Status.PURCHASED,
        Money("USD", 2000),
    )
    await world.audit(view.request_id)


@pytest.mark.parametrize("decision", [Decision.REFUND, Decision.ORDER_STANDS])
async def test_a_decision_that_does_not_fit_is_refused_and_not_kept(
    world: World, decision: Decision
) -> None:
    view = await unpaid(world)
    with pytest.raises(errors.FailedPrecondition) as caught:
        await decide(world, view, decision)
    assert caught.value.reason == "DECISION_DOES_NOT_FIT"
    assert (await world.operators.inspect(view.request_id)).observations == ()


async def test_a_total_in_another_currency_is_refused_and_not_kept(world: World) -> None:
    """Amounts are kept without it: 1,500 yen would be 15 dollars."""
    view = await unpaid(world)
    with pytest.raises(errors.InvalidArgument, match="in USD, not in JPY") as caught:
        await decide(world, view, Decision.ORDER_STANDS, order_id="o", total=Money("JPY", 1500))
    assert [violation.field for violation in caught.value.fields] == ["total"]
    assert (await world.operators.inspect(view.request_id)).observations == ()


async def test_nothing_can_be_decided_about_a_purchase_without_a_flag(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    for decision in Decision:
        with pytest.raises(errors.FailedPrecondition):
            await decide(world, view, decision, order_id="o", total=Money("USD", 2000))


async def test_an_order_of_unknown_fate_is_flagged_in_the_end_and_decided(world: World) -> None:
    """The seller never answers again; the operator finds out from it by telephone."""
    world.limits = replace(PATIENT, overdue_s=0.0)
    seller = ScriptedSeller("a", 2000, closes_unknown_keys=False)
    seller.script = {"order": [NOT_ARRIVED] * 100, "get_order": [NOT_ARRIVED] * 100}
    world.market = Market(seller)
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():

        async def unknown() -> bool:
            return await world.stage(view.request_id) == "resolve_order"

        await until(unknown)
    # A quarter of an hour later.
    await world.pool.execute("UPDATE orchestrator.purchase SET tries = 10")
    async with world.working():

        async def is_flagged() -> bool:
            return bool((await world.operators.inspect(view.request_id)).flags)

        await until(is_flagged)
        dossier = await world.operators.inspect(view.request_id)
        assert dossier.stage == "resolve_order", "it is asked on"
        assert dossier.view.status is Status.PENDING
        await decide(
            world, view, Decision.ORDER_STANDS, order_id="by-phone", total=Money("USD", 2000)
        )

        async def is_over() -> bool:
            return await world.stage(view.request_id) == "done"

        await until(is_over)
    bought = await world.purchases.get("alice", str(view.request_id))
    assert (bought.status, bought.confirmation, bought.final_price) == (
        Status.PURCHASED,
        "by-phone",
        Money("USD", 2000),
    )


async def told(world: World, view: PurchaseView, what: PaymentChanged | OrderChanged) -> Dossier:
    assert await world.store.observe(view.request_id, "reconciler", what)
    return await acted_on(world, view.request_id)


def order_of(view: PurchaseView) -> OrderChanged:
    return OrderChanged(f"{view.request_id}:a")


async def test_a_seller_that_takes_its_order_back_after_the_capture_is_refunded(
    world: World,
) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    world.market.sellers["a"].live.clear()
    dossier = await told(world, view, order_of(view))
    assert (dossier.view.status, dossier.view.refunded) == (Status.PURCHASED, Money("USD", 2000))
    assert (dossier.payment.state, dossier.stage) == ("refunded", "done")
    [flag] = dossier.flags
    assert flag.flag.invariant.value == "I8"
    assert flag.settled is not None
    assert flag.settled.by == "bookmesh"
    news = await world.pool.fetch("SELECT kind FROM orchestrator.outbox ORDER BY kind")
    assert [row["kind"] for row in news] == ["final", "refunded"]
    again = await told(world, view, order_of(view))
    assert len(again.flags) == 1
    refunded = await world.pool.fetchval(
        "SELECT refunded_minor FROM sandbox_provider.payment_authorization"
    )
    assert refunded == 2000


async def test_a_decision_counts_although_its_worker_has_raised_the_flag_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker goes on with what it has flagged, and the decision comes while it is at it."""
    view = await world.buy(ScriptedSeller("a", 2000))
    world.market.sellers["a"].live.clear()
    asked, decided = asyncio.Event(), asyncio.Event()
    refund = world.provider.refund

    async def refund_without_an_answer_at_first(
        key: str, provider_id: str, amount: Money
    ) -> RefundOutcome:
        if asked.is_set():
            return await refund(key, provider_id, amount)
        asked.set()
        await decided.wait()
        return Unknown("the answer was lost")

    monkeypatch.setattr(world.provider, "refund", refund_without_an_answer_at_first)
    await world.store.observe(view.request_id, "reconciler", order_of(view))
    async with world.working():
        await asked.wait()
        await decide(world, view, Decision.CLOSE, flag=1)
        decided.set()
        await world.reached(view.request_id, "done")
    dossier = await world.operators.inspect(view.request_id)
    assert dossier.payment.state == "captured"
    [flag] = dossier.flags
    assert flag.settled is not None
    assert flag.settled.by == "ann"


async def test_what_is_as_we_know_it_changes_nothing(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    for what in (order_of(view), PaymentChanged("evt_1")):
        dossier = await told(world, view, what)
        assert (dossier.stage, dossier.flags) == ("done", ())


async def test_a_refund_that_we_did_not_make_is_flagged(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    await world.pool.execute(
        "UPDATE sandbox_provider.payment_authorization SET refunded_minor = 2000"
    )
    dossier = await told(world, view, PaymentChanged())
    [flag] = dossier.flags
    assert (flag.flag.invariant.value, dossier.stage) == ("I12", "flagged")
    await decide(world, view, Decision.PAYMENT_SETTLED)
    settled = await acted_on(world, view.request_id)
    assert (settled.payment.state, settled.stage) == ("refunded", "done")


async def test_a_charge_that_turns_up_after_a_void_is_flagged_and_refunded(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", None))
    await world.pool.execute(
        "UPDATE sandbox_provider.payment_authorization SET state = 'captured', captured_minor = 500, captures = 1"
    )
    dossier = await told(world, view, PaymentChanged())
    assert [flag.flag.invariant.value for flag in dossier.flags] == ["I12"]
    await decide(world, view, Decision.REFUND)
    refunded = await acted_on(world, view.request_id)
    assert (refunded.payment.state, refunded.payment.refunded) == ("refunded", Money("USD", 500))
    assert refunded.view.status is Status.NOT_AVAILABLE


async def test_a_stray_order_is_cancelled(world: World) -> None:
    """The seller said "closed", and has sold the copy after all."""
    seller = ScriptedSeller("a", 2000, with_holds=False)

    async def sell_out() -> None:
        seller.stock = 0

    seller.before = {"order": sell_out}
    world.market = Market(seller)
    async with world.working():
        view = await world.purchases.submit(world.order(), 0)
        await world.settled(view.request_id)
    key = f"{view.request_id}:a"
    seller.sell_after_all(key, Money("USD", 2000))
    dossier = await told(world, view, OrderChanged(key))
    assert (dossier.stage, dossier.flags) == ("done", ())
    assert world.market.live_orders() == []


async def test_an_order_under_a_key_that_is_not_this_purchases_is_flagged(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    dossier = await told(world, view, OrderChanged("somebody-elses", "confirmed for 20.00 USD"))
    [flag] = dossier.flags
    assert flag.flag.invariant.value == "I2"
    assert "somebody-elses" in flag.flag.detail
    await decide(world, view, Decision.NO_ORDER)
    settled = await acted_on(world, view.request_id)
    assert (settled.stage, settled.view.status) == ("done", Status.PURCHASED)


async def test_what_is_told_while_a_worker_has_it_is_acted_on_afterwards(world: World) -> None:
    async def tell() -> None:
        assert await world.store.observe(view.request_id, "reconciler", PaymentChanged())

    world.market = Market(ScriptedSeller("a", 2000, before={"hold": tell}))
    view = await world.purchases.submit(world.order(), 0)
    dossier = await acted_on(world, view.request_id)
    assert dossier.view.status is Status.PURCHASED
    assert [o.consumed for o in dossier.observations] == [True]


async def test_nothing_is_told_of_a_purchase_that_does_not_exist(world: World) -> None:
    assert not await world.store.observe(uuid4(), "reconciler", PaymentChanged())


async def test_an_authorization_that_lapses_within_a_day_is_not_ordered_on(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_expires")
    assert view.failure_reason is FailureReason.AUTHORIZATION_EXPIRING
    assert ("hold", "a") not in world.market.log


async def test_a_refund_that_is_refused_is_for_an_operator(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_refund_fails")
    world.market.sellers["a"].live.clear()
    dossier = await told(world, view, order_of(view))
    assert dossier.stage == "flagged"
    assert "refuses the refund" in dossier.flags[-1].flag.detail
    await decide(world, view, Decision.CLOSE)
    closed = await acted_on(world, view.request_id)
    assert (closed.stage, closed.view.status) == ("done", Status.PURCHASED)
    assert all(flag.resolved_at is not None for flag in closed.flags)


async def test_a_refund_whose_answer_is_lost_is_made_once(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_lost_refund")
    world.market.sellers["a"].live.clear()
    assert (await told(world, view, order_of(view))).payment.state == "refunded"


async def stopped_in(world: World, stage: str, seller: ScriptedSeller) -> PurchaseView:
    """Give a purchase that is flagged because its worker stopped after this effect, before it could say so."""
    done = asyncio.Event()

    async def do_it_and_hang() -> None:
        key, total = f"{view.request_id}:{seller.seller_id}", Money("USD", 2000)
        if stage == "order":
            seller.sell_after_all(key, total)
        else:
            seller.holds[key] = Held("h", total, CLOCK.now() + timedelta(minutes=2))
            seller.held.add(key)
            seller.stock -= 1
        done.set()
        await asyncio.Event().wait()

    seller.before = {stage: do_it_and_hang}
    world.market = Market(seller)
    patient = world.worker_settings
    world.worker_settings = replace(patient, drain_s=0.0)
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        await done.wait()
    assert await world.stage(view.request_id) == stage
    seller.before = {}
    world.worker_settings = replace(patient, most_claims=0, poisonous_after_s=0.0)
    async with world.working():
        await world.reached(view.request_id, "flagged")
    world.worker_settings = patient
    return view


async def test_a_retry_of_an_order_that_stands_finds_it(world: World) -> None:
    seller = ScriptedSeller("a", 2000, with_holds=False)
    view = await stopped_in(world, "order", seller)
    # Not called at all, which says nothing of the call before.
    seller.script = {"order": [UNREACHED]}
    await decide(world, view, Decision.RETRY)
    dossier = await acted_on(world, view.request_id)
    assert dossier.view.status is Status.PURCHASED
    await world.audit(view.request_id)


async def test_a_cancel_that_was_refused_does_not_undo_an_order_that_is_tried_again(
    world: World,
) -> None:
    view = await stopped_in(world, "order", ScriptedSeller("a", 2000, with_holds=False))
    with pytest.raises(errors.FailedPrecondition) as caught:
        await world.purchases.cancel("alice", str(view.request_id), 0)
    assert caught.value.reason == "CANNOT_CANCEL"
    await decide(world, view, Decision.RETRY)
    dossier = await acted_on(world, view.request_id)
    assert dossier.view.status is Status.PURCHASED
    assert all(flag.resolved_at is not None for flag in dossier.flags)
    await world.audit(view.request_id)


async def test_a_retry_of_a_hold_gives_back_what_the_first_one_may_hold(world: World) -> None:
    seller = ScriptedSeller("a", 2000)
    view = await stopped_in(world, "hold", seller)
    seller.script = {"hold": [UNREACHED]}
    await decide(world, view, Decision.RETRY)
    await acted_on(world, view.request_id)
    assert ("release", "a") in world.market.log
    await world.audit(view.request_id)


async def test_an_order_above_what_was_agreed_is_taken_back(world: World) -> None:
    """A seller that does not heed max_total: its answer is refused, and asked for again it says the same."""
    dear = ScriptedSeller("a", 2000, with_holds=False, script={"order": [NOT_ARRIVED] * 2})

    async def sell_dear() -> None:
        dear.sell_after_all(f"{view.request_id}:a", Money("USD", 2900))

    dear.before = {"order": sell_dear}
    world.market = Market(dear, ScriptedSeller("b", 2500))
    view = await world.purchases.submit(world.order(), 0)
    async with world.working():
        bought = await world.settled(view.request_id)
    assert (bought.seller_id, bought.final_price) == ("b", Money("USD", 2500))


async def test_a_part_that_was_given_back_by_hand_is_flagged_once(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    await world.pool.execute(
        "UPDATE sandbox_provider.payment_authorization SET refunded_minor = 500"
    )
    assert (await told(world, view, PaymentChanged())).stage == "flagged"
    await decide(world, view, Decision.PAYMENT_SETTLED)
    settled = await acted_on(world, view.request_id)
    assert (settled.payment.state, settled.payment.refunded) == ("captured", Money("USD", 500))
    again = await told(world, view, PaymentChanged())
    assert (again.stage, len(again.flags)) == ("done", 1)


async def test_an_authorization_that_was_made_after_all_is_released(world: World) -> None:
    """Nobody knew its name when the purchase was over; whoever compares the books tells it."""
    view = await world.buy(ScriptedSeller("a", 2000), payment_token="tok_decline")
    made = await world.provider.authorize(
        "late", "tok_x", Money("USD", 2999), str(view.request_id), CLOCK.now()
    )
    assert isinstance(made, Authorized)
    dossier = await told(world, view, PaymentChanged("left", made.provider_id))
    assert (dossier.stage, dossier.payment.state) == ("done", "voided")
    await world.audit(view.request_id)


async def test_a_void_that_meets_a_charge_is_flagged(world: World) -> None:
    async def charge() -> None:
        await world.pool.execute(
            "UPDATE sandbox_provider.payment_authorization"
            " SET state = 'captured', captured_minor = 500, captures = 1"
        )

    seller = ScriptedSeller("a", 2000, with_holds=False, stock=1, before={"order": charge})
    seller.script = {"order": [UNREACHED] * 2}
    view = await world.buy(seller)
    dossier = await world.operators.inspect(view.request_id)
    assert (dossier.stage, dossier.payment.state) == ("flagged", "authorized")
    [flag] = dossier.flags
    assert flag.flag.invariant.value == "I9"
    await decide(world, view, Decision.REFUND)
    refunded = await acted_on(world, view.request_id)
    assert (refunded.payment.state, refunded.payment.refunded) == ("refunded", Money("USD", 500))


async def test_what_was_given_back_in_part_is_not_given_back_by_itself(world: World) -> None:
    view = await world.buy(ScriptedSeller("a", 2000))
    await world.pool.execute(
        "UPDATE sandbox_provider.payment_authorization SET refunded_minor = 500"
    )
    world.market.sellers["a"].live.clear()
    dossier = await told(world, view, order_of(view))
    assert dossier.stage == "flagged"
    assert "partly_refunded" in dossier.flags[-1].flag.detail
    refunded = await world.pool.fetchval(
        "SELECT refunded_minor FROM sandbox_provider.payment_authorization"
    )
    assert refunded == 500
