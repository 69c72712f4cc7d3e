"""Stripe's events, from the simulator to what the orchestrator makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.adapters.stripe import StripePaymentProvider
from orchestrator.adapters.stripe.webhooks import NotStripesWord, StripeWebhooks
from orchestrator.ports import Authorized, PaymentState, ProviderEvent, ProviderPayment
from tests.fakes.psp import WEBHOOK_SECRET, PspSim, running_psp_sim
from tests.integration.stripe.conftest import CLOCK, MAX_PRICE, TOTAL, stripe_at

Delivery = tuple[bytes, str]


@asynccontextmanager
async def receiving(statuses: list[int]) -> AsyncIterator[tuple[str, asyncio.Queue[Delivery]]]:
    """Take deliveries, answering with these statuses first, then with 200."""
    deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        deliveries.put_nowait((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response(status=statuses.pop(0) if statuses else 200)

    application = web.Application()
    application.router.add_post("/events", take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events", deliveries
    finally:
        await runner.cleanup()


@asynccontextmanager
async def psp_sim(
    folder: Path, url: str, **settings: str
) -> AsyncIterator[tuple[PspSim, StripePaymentProvider]]:
    """Run a simulator that sends events to ``url``, and an adapter."""
    with running_psp_sim(folder, psp_webhook_url=url, **settings) as sim:
        async with stripe_at(sim.url) as provider:
            yield sim, provider


async def test_an_event_names_the_payment_which_is_then_fetched(tmp_path: Path) -> None:
    webhooks = StripeWebhooks(WEBHOOK_SECRET)
    async with receiving([]) as (url, deliveries), psp_sim(tmp_path, url) as (_, provider):
        outcome = await provider.authorize("k", "pm_card_visa", MAX_PRICE, "request-1", CLOCK.now())
        assert isinstance(outcome, Authorized)
        event = webhooks.verify_event(*await deliveries.get())
        assert event is not None
        assert event == ProviderEvent(event.event_id, outcome.provider_id, "request-1")
        await provider.capture("c", outcome.provider_id, TOTAL)
        await provider.refund("r", outcome.provider_id, TOTAL)
        for _ in range(2):
            event = webhooks.verify_event(*await deliveries.get())
            assert event is not None
            assert event.provider_id == outcome.provider_id
        found = await provider.get(event.provider_id)
        assert isinstance(found, ProviderPayment)
        assert (found.state, found.refunded) == (PaymentState.CAPTURED, TOTAL)


async def test_an_event_keeps_its_id_however_often_it_comes(tmp_path: Path) -> None:
    webhooks = StripeWebhooks(WEBHOOK_SECRET)
    async with (
        receiving([500]) as (url, deliveries),
        psp_sim(tmp_path, url, psp_webhook_copies="2") as (sim, provider),
    ):
        await provider.authorize("k", "pm_card_visa", MAX_PRICE, "request-1", CLOCK.now())
        first = [webhooks.verify_event(*await deliveries.get()) for _ in range(4)]
        assert first[0] is not None
        await sim.post(f"/_sim/events/{first[0].event_id}/resend", {})
        again = [webhooks.verify_event(*await deliveries.get()) for _ in range(2)]
        assert {*first, *again} == {first[0]}


async def test_what_others_sign_is_not_stripes_word(tmp_path: Path) -> None:
    async with (
        receiving([]) as (url, deliveries),
        psp_sim(tmp_path, url, psp_webhook_secret="whsec_other") as (_, provider),
    ):
        await provider.authorize("k", "pm_card_visa", MAX_PRICE, "request-1", CLOCK.now())
        payload, signature = await deliveries.get()
        with pytest.raises(NotStripesWord, match="not signed"):
            StripeWebhooks(WEBHOOK_SECRET).verify_event(payload, signature)
