"""What every payment provider does, the sandbox and Stripe alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mesh.money import Money
from orchestrator.domain.purchase import FailureReason
from orchestrator.ports import (
    AlreadyCaptured,
    Authorized,
    Captured,
    Declined,
    PaymentState,
    Refunded,
    Refused,
    Unknown,
    Voided,
)
from tests.contract.payment.conftest import CLOCK

if TYPE_CHECKING:
    from tests.contract.payment.conftest import Pay, Payment, Subject

TOTAL = Money("USD", 2499)

no_keys = pytest.mark.not_localstripe("localstripe ignores idempotency keys")
no_amount = pytest.mark.not_localstripe("localstripe does not say how much was received")
no_lapse = pytest.mark.not_localstripe("localstripe's authorizations do not lapse")
no_such_card = pytest.mark.not_localstripe("localstripe has no such card")
no_list = pytest.mark.not_localstripe("localstripe does not list by the time of creation")
no_cut = pytest.mark.not_localstripe("localstripe cuts no connections")


async def references(subject: Subject) -> list[str | None]:
    since = CLOCK.now() - timedelta(minutes=5)
    return [payment.reference async for payment in subject.provider.list_since(since)]


async def test_reserves_the_amount(pay: Pay, subject: Subject) -> None:
    payment = await pay()
    now = await payment.now()
    assert (now.state, now.reference) == (PaymentState.AUTHORIZED, payment.reference)
    assert (now.authorized, now.captured.minor, now.refunded.minor) == (payment.amount, 0, 0)


@pytest.mark.not_localstripe("localstripe does not say when an authorization lapses")
async def test_says_when_the_reservation_lapses(unpaid: Payment) -> None:
    outcome = await unpaid.authorize("short")
    assert isinstance(outcome, Authorized)
    assert outcome.capture_before is not None
    left = outcome.capture_before - CLOCK.now()
    assert timedelta(hours=11) < left < timedelta(hours=13)
    assert (await replace(unpaid, provider_id=outcome.provider_id).now()).capture_before is not None


@no_keys
async def test_the_same_key_gives_the_first_answer(unpaid: Payment, subject: Subject) -> None:
    first = await unpaid.authorize()
    assert isinstance(first, Authorized)
    assert await unpaid.authorize() == first
    assert await references(subject) == [unpaid.reference]


@no_keys
async def test_the_same_key_with_other_content_is_a_fault_of_ours(unpaid: Payment) -> None:
    await unpaid.authorize()
    with pytest.raises(ValueError, match="other content") as caught:
        await replace(unpaid, amount=Money("USD", 3000)).authorize()
    assert "visa" not in str(caught.value)


@no_keys
async def test_duplicates_at_the_same_time_reserve_once(unpaid: Payment, subject: Subject) -> None:
    token = await subject.card("good")
    outcomes = await asyncio.gather(*(unpaid.authorize_again(token) for _ in range(5)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Authorized)
    assert await references(subject) == [unpaid.reference]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("declined", FailureReason.CARD_DECLINED),
        ("wants_action", FailureReason.ACTION_REQUIRED),
        ("unknown", FailureReason.PAYMENT_TOKEN_INVALID),
    ],
)
async def test_says_why_nothing_is_reserved(
    unpaid: Payment, word: str, reason: FailureReason
) -> None:
    assert await unpaid.authorize(word) == Declined(reason)


@no_keys
@no_list
@pytest.mark.parametrize("word", ["declined", "wants_action", "unknown"])
async def test_a_decline_is_for_good_and_leaves_nothing_reserved(
    unpaid: Payment, subject: Subject, word: str
) -> None:
    first = await unpaid.authorize(word)
    assert await unpaid.authorize(word) == first
    since = CLOCK.now() - timedelta(minutes=5)
    states = {payment.state async for payment in subject.provider.list_since(since)}
    assert states <= {PaymentState.DECLINED, PaymentState.VOIDED}


@no_amount
async def test_captures_a_part_and_releases_the_rest(pay: Pay, subject: Subject) -> None:
    payment = await pay()
    outcome = await subject.provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert outcome == Captured()
    now = await payment.now()
    assert (now.state, now.captured) == (PaymentState.CAPTURED, TOTAL)
    assert now.refunded.minor == 0


@no_amount
async def test_captures_once(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    for _ in range(2):
        assert (
            await provider.capture(payment.key("capture"), payment.provider_id, TOTAL) == Captured()
        )
    await provider.capture("another key", payment.provider_id, TOTAL)
    assert (await payment.now()).captured == TOTAL


@no_amount
async def test_captures_once_at_the_same_time(pay: Pay, subject: Subject) -> None:
    payment = await pay()
    outcomes = await asyncio.gather(
        *(
            subject.provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
            for _ in range(4)
        )
    )
    assert set(outcomes) == {Captured()}
    assert (await payment.now()).captured == TOTAL


@no_keys
async def test_captures_no_other_amount_under_a_used_key(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    with pytest.raises(ValueError, match="other content"):
        await provider.capture(payment.key("capture"), payment.provider_id, payment.amount)


async def test_captures_no_more_than_is_reserved(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    outcome = await provider.capture(
        payment.key("capture"), payment.provider_id, Money("USD", 3000)
    )
    assert isinstance(outcome, Refused)
    assert await provider.void(payment.key("void"), payment.provider_id) == Voided()


@no_such_card
async def test_a_refused_capture_charges_nothing(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay("capture_fails"), subject.provider
    for _ in range(2):
        outcome = await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
        assert isinstance(outcome, Refused)
    assert (await payment.now()).captured.minor == 0
    assert await provider.void(payment.key("void"), payment.provider_id) == Voided()


async def test_releases_what_is_reserved(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    assert await provider.void(payment.key("void"), payment.provider_id) == Voided()
    assert (await payment.now()).state is PaymentState.VOIDED


async def test_what_is_released_may_be_released_again(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    for key in (payment.key("void"), payment.key("void"), "another key"):
        assert await provider.void(key, payment.provider_id) == Voided()


@pytest.mark.not_localstripe("localstripe captures what was canceled")
async def test_captures_nothing_that_was_released(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.void(payment.key("void"), payment.provider_id)
    outcome = await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert isinstance(outcome, Refused)
    assert (await payment.now()).captured.minor == 0


@no_lapse
async def test_what_has_lapsed_is_as_good_as_released(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await subject.lapse()
    assert (await payment.now()).state is PaymentState.VOIDED
    outcome = await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert isinstance(outcome, Refused)
    assert await provider.void(payment.key("void"), payment.provider_id) == Voided()


@no_amount
async def test_what_was_charged_cannot_be_released(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert await provider.void(payment.key("void"), payment.provider_id) == AlreadyCaptured()
    assert (await payment.now()).captured == TOTAL


@no_amount
async def test_gives_back_once(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    for _ in range(2):
        assert (
            await provider.refund(payment.key("refund"), payment.provider_id, TOTAL) == Refunded()
        )
    now = await payment.now()
    assert (now.state, now.captured, now.refunded) == (PaymentState.CAPTURED, TOTAL, TOTAL)


@no_amount
async def test_gives_back_a_part(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    part = Money("USD", 500)
    assert await provider.refund(payment.key("refund"), payment.provider_id, part) == Refunded()
    assert (await payment.now()).refunded == part


@no_amount
async def test_gives_back_no_other_amount_under_a_used_key(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    await provider.refund(payment.key("refund"), payment.provider_id, Money("USD", 500))
    with pytest.raises(ValueError, match="other content"):
        await provider.refund(payment.key("refund"), payment.provider_id, Money("USD", 600))


@pytest.mark.not_localstripe("localstripe refunds more than was captured")
async def test_gives_back_no_more_than_was_charged(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay(), subject.provider
    assert isinstance(await provider.refund("early", payment.provider_id, TOTAL), Refused)
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    too_much = Money("USD", TOTAL.minor + 1)
    assert isinstance(await provider.refund("too much", payment.provider_id, too_much), Refused)
    assert await provider.refund(payment.key("refund"), payment.provider_id, TOTAL) == Refunded()
    assert isinstance(await provider.refund("twice", payment.provider_id, TOTAL), Refused)
    assert (await payment.now()).refunded == TOTAL


@no_such_card
async def test_a_refund_may_be_refused(pay: Pay, subject: Subject) -> None:
    payment, provider = await pay("refund_fails"), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    for _ in range(2):
        outcome = await provider.refund(payment.key("refund"), payment.provider_id, TOTAL)
        assert isinstance(outcome, Refused)
    assert (await payment.now()).refunded.minor == 0


async def test_knows_nothing_of_what_it_has_not(subject: Subject) -> None:
    assert await subject.provider.get("pi_nobodys") is None


@no_list
async def test_lists_all_payments_since_a_time(pay: Pay, subject: Subject) -> None:
    before = CLOCK.now() - timedelta(minutes=5)
    payments = [await pay() for _ in range(5)]
    await subject.provider.capture("capture", payments[0].provider_id, TOTAL)
    await subject.provider.void("void", payments[1].provider_id)
    listed = {p.provider_id: p async for p in subject.provider.list_since(before, page_size=2)}
    assert set(listed) == {p.provider_id for p in payments}
    states = [listed[p.provider_id].state for p in payments[:3]]
    assert states == [PaymentState.CAPTURED, PaymentState.VOIDED, PaymentState.AUTHORIZED]
    assert listed[payments[0].provider_id] == await payments[0].now()
    later = CLOCK.now() + timedelta(minutes=5)
    assert [p async for p in subject.provider.list_since(later)] == []


@no_list
async def test_lists_what_lapsed_as_released(pay: Pay, subject: Subject) -> None:
    await pay()
    await subject.lapse()
    since = CLOCK.now() - timedelta(minutes=5)
    states = [payment.state async for payment in subject.provider.list_since(since)]
    assert states == [PaymentState.VOIDED]


@no_cut
async def test_the_same_key_resolves_an_authorization_whose_answer_was_lost(
    unpaid: Payment, subject: Subject
) -> None:
    token = await subject.card("loses_authorize")
    assert isinstance(await unpaid.authorize_again(token), Unknown)
    assert isinstance(await unpaid.authorize_again(token), Authorized)
    assert await references(subject) == [unpaid.reference]


@no_cut
async def test_the_same_key_resolves_a_capture_whose_answer_was_lost(
    pay: Pay, subject: Subject
) -> None:
    payment, provider = await pay("loses_capture"), subject.provider
    first = await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert isinstance(first, Unknown)
    second = await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    assert second == Captured()
    assert (await payment.now()).captured == TOTAL


@no_cut
async def test_the_same_key_resolves_a_void_whose_answer_was_lost(
    pay: Pay, subject: Subject
) -> None:
    payment, provider = await pay("loses_void"), subject.provider
    assert isinstance(await provider.void(payment.key("void"), payment.provider_id), Unknown)
    assert await provider.void(payment.key("void"), payment.provider_id) == Voided()


@no_cut
async def test_the_same_key_resolves_a_refund_whose_answer_was_lost(
    pay: Pay, subject: Subject
) -> None:
    payment, provider = await pay("loses_refund"), subject.provider
    await provider.capture(payment.key("capture"), payment.provider_id, TOTAL)
    first = await provider.refund(payment.key("refund"), payment.provider_id, TOTAL)
    assert isinstance(first, Unknown)
    second = await provider.refund(payment.key("refund"), payment.provider_id, TOTAL)
    assert second == Refunded()
    assert (await payment.now()).refunded == TOTAL
