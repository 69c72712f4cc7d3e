"""Stripe at its worst: nothing is done twice, and nothing is taken for done or not done that nobody knows."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from mesh.errors import Unavailable
from mesh.money import Money
from orchestrator.domain.purchase import FailureReason
from orchestrator.ports import (
    Authorized,
    Captured,
    Declined,
    PaymentState,
    Refunded,
    Refused,
    Unknown,
    Voided,
)
from tests.fakes.psp import API_KEY, running_psp_sim
from tests.integration.stripe.conftest import CLOCK, HOUR, MAX_PRICE, TOTAL, stripe_at

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.stripe.conftest import Desk


async def test_a_500_after_the_effect_is_unknown_and_then_found(desk: Desk) -> None:
    await desk.sim.plan("authorize", "error_after")
    assert await desk.authorize() == Unknown("status 500")
    outcome = await desk.authorize()
    assert isinstance(outcome, Authorized)
    assert outcome.capture_before is not None
    assert [payment.provider_id for payment in await desk.all()] == [outcome.provider_id]


async def test_a_500_before_the_effect_stays_unknown_until_nothing_can_arrive_any_more(
    desk: Desk,
) -> None:
    await desk.sim.plan("authorize", "error_before")
    for _ in range(2):
        assert isinstance(await desk.authorize(), Unknown)
    async with stripe_at(desk.sim.url, ahead=23 * HOUR) as later:
        declined = Declined(FailureReason.PAYMENT_UNAVAILABLE)
        assert await desk.authorize(by=later, intended_at=CLOCK.now() - HOUR) == declined
    assert await desk.all() == []


@pytest.mark.parametrize("kind", ["error_before", "error_after", "cut_before", "cut_after"])
async def test_a_capture_that_nobody_answered_is_resolved_under_its_key(
    desk: Desk, kind: str
) -> None:
    name = await desk.authorized()
    await desk.sim.plan("capture", kind)
    assert isinstance(await desk.provider.capture(desk.key("capture"), name, TOTAL), Unknown)
    assert await desk.provider.capture(desk.key("capture"), name, TOTAL) == Captured()
    assert (await desk.now(name)).captured == TOTAL


async def test_a_capture_that_is_declined_after_a_500_is_refused(desk: Desk) -> None:
    """The 500 is kept under the key, and the decline comes under the next one."""
    name = await desk.authorized("pm_card_captureFails")
    await desk.sim.plan("capture", "error_before")
    assert isinstance(await desk.provider.capture(desk.key("capture"), name, TOTAL), Unknown)
    for _ in range(2):
        assert await desk.provider.capture(desk.key("capture"), name, TOTAL) == Refused(
            "card_declined"
        )


@pytest.mark.parametrize("kind", ["error_before", "error_after", "cut_before", "cut_after"])
async def test_a_void_that_nobody_answered_is_resolved_under_its_key(desk: Desk, kind: str) -> None:
    name = await desk.authorized()
    await desk.sim.plan("cancel", kind)
    assert isinstance(await desk.provider.void(desk.key("void"), name), Unknown)
    assert await desk.provider.void(desk.key("void"), name) == Voided()
    assert (await desk.now(name)).state is PaymentState.VOIDED


@pytest.mark.parametrize("kind", ["error_after", "cut_before", "cut_after"])
async def test_a_refund_that_nobody_answered_is_resolved_under_its_key(
    desk: Desk, kind: str
) -> None:
    name = await desk.captured()
    await desk.sim.plan("refund", kind)
    assert isinstance(await desk.provider.refund(desk.key("refund"), name, TOTAL), Unknown)
    assert await desk.provider.refund(desk.key("refund"), name, TOTAL) == Refunded()
    assert (await desk.now(name)).refunded == TOTAL


async def test_a_refund_that_failed_before_its_effect_is_made_once_its_key_is_free(
    desk: Desk,
) -> None:
    name = await desk.captured()
    await desk.sim.plan("refund", "error_before")
    for _ in range(2):
        assert isinstance(await desk.provider.refund(desk.key("refund"), name, TOTAL), Unknown)
    await desk.sim.advance(25 * 3600)
    assert await desk.provider.refund(desk.key("refund"), name, TOTAL) == Refunded()
    assert (await desk.now(name)).refunded == TOTAL


async def test_a_refund_that_failed_is_tried_again(desk: Desk) -> None:
    name = await desk.authorized("pm_card_refundFail")
    await desk.provider.capture(desk.key("capture"), name, TOTAL)
    for tries in (1, 2, 3):
        outcome = await desk.provider.refund(desk.key("refund"), name, TOTAL)
        assert outcome == Refused("lost_or_stolen_card")
        async with desk.sim.client() as client:
            listed = await client.get("/v1/refunds", params={"payment_intent": name})
        assert [refund["status"] for refund in listed.json()["data"]] == ["failed"] * tries


async def test_a_refund_is_not_made_again_when_its_key_is_forgotten(desk: Desk) -> None:
    name = await desk.captured()
    part = Money("USD", 500)
    await desk.provider.refund(desk.key("refund"), name, part)
    await desk.sim.advance(25 * 3600)
    assert await desk.provider.refund(desk.key("refund"), name, part) == Refunded()
    assert (await desk.now(name)).refunded == part


@pytest.mark.parametrize("hours", [0, 5, 22])
async def test_an_authorization_is_not_made_again_when_its_key_may_be_forgotten(
    desk: Desk, hours: int
) -> None:
    """It is found wherever it was made in the time between."""
    name = await desk.authorized()
    intended_at = CLOCK.now() - hours * HOUR
    await desk.sim.advance(25 * 3600)
    async with stripe_at(desk.sim.url, ahead=25 * HOUR) as later:
        outcome = await desk.authorize(by=later, intended_at=intended_at)
    assert isinstance(outcome, Authorized)
    assert [payment.provider_id for payment in await desk.all()] == [outcome.provider_id] == [name]


async def test_an_old_authorization_that_was_never_made_is_not_made(desk: Desk) -> None:
    async with stripe_at(desk.sim.url, ahead=24 * HOUR) as later:
        outcome = await desk.authorize(by=later)
    assert outcome == Declined(FailureReason.PAYMENT_UNAVAILABLE)
    assert await desk.all() == []


async def test_an_old_authorization_stays_unknown_while_stripe_does_not_list(desk: Desk) -> None:
    await desk.authorized()
    await desk.sim.plan("list", "unavailable")
    async with stripe_at(desk.sim.url, ahead=24 * HOUR) as later:
        assert isinstance(await desk.authorize(by=later), Unknown)
        assert isinstance(await desk.authorize(by=later), Authorized)


async def test_a_captured_payment_is_captured_when_the_key_is_forgotten(desk: Desk) -> None:
    name = await desk.captured()
    await desk.sim.advance(25 * 3600)
    assert await desk.provider.capture(desk.key("capture"), name, TOTAL) == Captured()
    assert (await desk.now(name)).captured == TOTAL


async def test_another_amount_that_was_captured_is_nothing_to_be_sure_of(desk: Desk) -> None:
    name = await desk.authorized()
    await desk.provider.capture("somebody else's", name, MAX_PRICE)
    assert isinstance(await desk.provider.capture(desk.key("capture"), name, TOTAL), Unknown)


async def test_a_key_in_use_is_waited_for(desk: Desk) -> None:
    await desk.sim.plan("authorize", "delay_before", delay_s=0.3)
    outcomes = await asyncio.gather(*(desk.authorize() for _ in range(4)))
    assert len(set(outcomes)) == 1
    assert isinstance(outcomes[0], Authorized)
    assert len(await desk.all()) == 1


async def test_too_many_calls_are_made_again(desk: Desk) -> None:
    await desk.sim.plan("authorize", "rate_limited", times=2)
    assert isinstance(await desk.authorize(), Authorized)


async def test_no_service_is_unknown(desk: Desk) -> None:
    await desk.sim.plan("authorize", "unavailable")
    assert await desk.authorize() == Unknown("status 503")
    assert isinstance(await desk.authorize(), Authorized)


@pytest.mark.parametrize("kind", ["delay_before", "delay_after"])
async def test_a_late_answer_is_unknown_and_resolved_under_the_key(desk: Desk, kind: str) -> None:
    await desk.sim.plan("authorize", kind, delay_s=1.0)
    async with stripe_at(desk.sim.url, timeout_s=0.3) as hasty:
        assert isinstance(await desk.authorize(by=hasty), Unknown)
    assert isinstance(await desk.authorize(), Authorized)
    assert len(await desk.all()) == 1


async def test_nobody_there_is_unknown(tmp_path: Path) -> None:
    with running_psp_sim(tmp_path) as sim:
        sim.process.kill()
        sim.process.wait()
        async with stripe_at(sim.url) as provider:
            assert await provider.void("v", "pi_1") == Unknown("no answer: ConnectError")
            assert isinstance(await provider.capture("c", "pi_1", TOTAL), Unknown)
            assert isinstance(await provider.refund("r", "pi_1", TOTAL), Unknown)
            assert isinstance(await provider.get("pi_1"), Unknown)
            with pytest.raises(Unavailable, match="Stripe does not list"):
                [payment async for payment in provider.list_since(CLOCK.now())]


async def test_a_key_of_another_account_resolves_nothing(desk: Desk) -> None:
    name = await desk.authorized()
    async with stripe_at(desk.sim.url, api_key="sk_test_other") as stranger:
        assert await stranger.void(desk.key("void"), name) == Unknown("status 401")
        assert await desk.authorize(by=stranger) == Unknown("status 401")
    for outcome in (
        await desk.provider.void(desk.key("void"), "pi_nobodys"),
        await desk.provider.capture(desk.key("capture"), "pi_nobodys", TOTAL),
    ):
        assert isinstance(outcome, Unknown)


async def test_a_card_that_wants_action_leaves_nothing_that_could_still_be_confirmed(
    desk: Desk,
) -> None:
    await desk.sim.plan("cancel", "cut_before")
    assert isinstance(await desk.authorize("pm_card_actionRequired"), Unknown)
    declined = Declined(FailureReason.ACTION_REQUIRED)
    assert await desk.authorize("pm_card_actionRequired") == declined
    assert [payment.state for payment in await desk.all()] == [PaymentState.VOIDED]


async def test_a_card_that_wants_a_holder_who_is_not_there_is_declined(desk: Desk) -> None:
    declined = Declined(FailureReason.ACTION_REQUIRED)
    assert await desk.authorize("pm_card_authenticationRequired") == declined


@pytest.mark.parametrize(
    ("amount", "units"),
    [
        (Money("JPY", 3000), 3000),
        (Money("ISK", 3000), 300_000),
        (Money("MGA", 300_000), 3000),
        (Money("KWD", 3000), 3000),
    ],
    ids=str,
)
async def test_counts_as_stripe_does(desk: Desk, amount: Money, units: int) -> None:
    outcome = await desk.provider.authorize(
        desk.key("authorize"), "pm_card_visa", amount, desk.reference, CLOCK.now()
    )
    assert isinstance(outcome, Authorized)
    async with desk.sim.client() as client:
        response = await client.get(f"/v1/payment_intents/{outcome.provider_id}")
    assert response.json()["amount"] == units
    name = outcome.provider_id
    assert await desk.provider.capture(desk.key("capture"), name, amount) == Captured()
    assert (await desk.now(name)).captured == amount


async def test_charges_nothing_that_it_cannot_charge_exactly(desk: Desk) -> None:
    odd = Money("KWD", 3001)
    outcome = await desk.provider.authorize("k", "pm_card_visa", odd, desk.reference, CLOCK.now())
    assert outcome == Declined(FailureReason.PAYMENT_UNAVAILABLE)
    assert await desk.provider.capture("k", "pi_1", odd) == Refused("amount_not_chargeable")
    assert await desk.provider.refund("k", "pi_1", odd) == Refused("amount_not_chargeable")


@pytest.mark.parametrize(
    "answer",
    [
        web.json_response({}),
        web.json_response({"id": "pi_1", "status": "a new word", "amount": 1}),
        web.Response(text="<html>it works!</html>"),
        web.Response(status=302, headers={"Location": "https://example.com"}),
        web.json_response({"error": "a text"}, status=400),
    ],
    ids=["empty", "new", "html", "redirect", "error"],
)
async def test_what_is_no_answer_of_stripes_is_unknown(answer: web.Response) -> None:
    async def give(_request: web.Request) -> web.Response:
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", give)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with stripe_at(url) as provider:
            now = CLOCK.now()
            for outcome in (
                await provider.authorize("k", "pm_card_visa", MAX_PRICE, "r", now),
                await provider.capture("k", "pi_1", TOTAL),
                await provider.void("k", "pi_1"),
                await provider.refund("k", "pi_1", TOTAL),
                await provider.get("pi_1"),
            ):
                assert isinstance(outcome, Unknown)
            with pytest.raises(Unavailable):
                [payment async for payment in provider.list_since(now)]
    finally:
        await runner.cleanup()


async def test_neither_token_nor_key_is_ever_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even with everything logged that the libraries have to say."""
    caplog.set_level(logging.DEBUG)
    for token in ("pm_card_visa", "pm_card_chargeDeclined", "pm_card_nobodys"):
        reference = f"{desk.reference}{token[-4:]}"
        args = token, MAX_PRICE, reference, CLOCK.now()
        await desk.sim.plan("authorize", "error_after")
        for _ in range(2):
            await desk.provider.authorize(reference, *args)
        async with stripe_at(desk.sim.url, api_key="sk_test_other") as stranger:
            await stranger.authorize(reference, *args)
        with pytest.raises(ValueError, match="other content") as caught:
            await desk.provider.authorize(reference, "pm_card_amex", *args[1:])
        assert "pm_card" not in repr(caught.value)
    written = caplog.text + "".join(capfd.readouterr())
    assert "stripe did not do it" in written
    for secret in ("pm_card", API_KEY, "sk_test_other"):
        assert secret not in written
