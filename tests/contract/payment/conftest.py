"""The payment providers that one behavioural suite runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random, SystemRandom

import pytest

from mesh import postgres
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.sandbox import SandboxPaymentProvider
from orchestrator.adapters.stripe import StripePaymentProvider
from orchestrator.ports import (
    Authorized,
    AuthorizeOutcome,
    PaymentProvider,
    ProviderPayment,
)
from tests.fakes.psp import (
    API_KEY,
    PspSim,
    empty_localstripe,
    localstripe_card,
    running_localstripe,
    running_psp_sim,
)

CLOCK = SystemClock()
DAY_S = 24 * 3600
_new_id = uuid7_factory(CLOCK, SystemRandom())


class HurriedClock(SystemClock):
    """Nobody waits by it, and it may be set forward."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Subject:
    """A provider under test.

    Attributes:
        provider: the way to it.
        card: gives a token with which is going to happen what a word says.
        lapse: lets a week pass.

    """

    provider: PaymentProvider
    card: Callable[[str], Awaitable[str]]
    lapse: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that a test makes, under keys of its own."""

    subject: Subject
    reference: str
    amount: Money
    provider_id: str = ""

    async def authorize(self, word: str = "good") -> AuthorizeOutcome:
        token = await self.subject.card(word)
        return await self.authorize_again(token)

    async def authorize_again(self, token: str) -> AuthorizeOutcome:
        return await self.subject.provider.authorize(
            self.key("authorize"), token, self.amount, self.reference, CLOCK.now()
        )

    def key(self, verb: str) -> str:
        return f"{self.reference}:{verb}"

    async def now(self) -> ProviderPayment:
        found = await self.subject.provider.get(self.provider_id)
        assert isinstance(found, ProviderPayment)
        return found


Pay = Callable[..., Awaitable[Payment]]

_SANDBOX = {
    "good": "tok_abc123",
    "declined": "tok_decline",
    "wants_action": "tok_action_required",
    "unknown": "tok_invalid",
    "capture_fails": "tok_capture_fails",
    "refund_fails": "tok_refund_fails",
    "short": "tok_expires",
    "loses_authorize": "tok_lost_authorize",
    "loses_capture": "tok_lost_capture",
    "loses_void": "tok_lost_void",
    "loses_refund": "tok_lost_refund",
}
_PSP_SIM = {
    "good": "pm_card_visa",
    "declined": "pm_card_chargeDeclined",
    "wants_action": "pm_card_actionRequired",
    "unknown": "pm_card_nobodys",
    "capture_fails": "pm_card_captureFails",
    "refund_fails": "pm_card_refundFail",
    "short": "pm_card_expires",
}
_LOSES = {
    "loses_authorize": "authorize",
    "loses_capture": "capture",
    "loses_void": "cancel",
    "loses_refund": "refund",
}
_LOCALSTRIPE = {
    "good": "4242424242424242",
    "declined": "4000000000000341",
    "wants_action": "4000002500003155",
}


@pytest.fixture(params=["sandbox", "psp_sim", "localstripe"])
def subject(request: pytest.FixtureRequest) -> Subject:
    """Give a provider with nothing in it: the sandbox, or Stripe's adapter with one of its stand-ins."""
    unfit = request.node.get_closest_marker("not_localstripe")
    if unfit is not None and request.param == "localstripe":
        pytest.skip(unfit.args[0])
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Subject)
    return found


@pytest.fixture
async def sandbox(postgres_dsn: str) -> AsyncIterator[Subject]:
    """Give the sandbox over real PostgreSQL."""
    clock = HurriedClock()

    async def card(word: str) -> str:
        return _SANDBOX[word]

    async def lapse() -> None:
        clock.ahead += timedelta(days=7)

    async with await postgres.open_pool(
        postgres_dsn, max_size=10, application_name="tests"
    ) as pool:
        provider = SandboxPaymentProvider(pool, clock, uuid7_factory(clock, Random(7)))
        yield Subject(provider, card, lapse)


@pytest.fixture(scope="session")
def running_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PspSim]:
    """Run our simulator for all tests."""
    with running_psp_sim(tmp_path_factory.mktemp("psp")) as sim:
        yield sim


@pytest.fixture
async def psp_sim(running_sim: PspSim) -> AsyncIterator[Subject]:
    """Give Stripe's adapter with our simulator."""

    async def card(word: str) -> str:
        if word in _LOSES:
            await sim.plan(_LOSES[word], "cut_after")
            return _PSP_SIM["good"]
        return _PSP_SIM[word]

    async def lapse() -> None:
        await sim.advance(7 * DAY_S)

    sim = running_sim
    await sim.forget()
    async with StripePaymentProvider(API_KEY, CLOCK, api_base=sim.url, timeout_s=10) as provider:
        yield Subject(provider, card, lapse)


@pytest.fixture(scope="session")
def running_other() -> Iterator[str]:
    """Run localstripe for all tests."""
    with running_localstripe() as url:
        yield url


@pytest.fixture
async def localstripe(running_other: str) -> AsyncIterator[Subject]:
    """Give Stripe's adapter with localstripe."""

    async def card(word: str) -> str:
        number = _LOCALSTRIPE.get(word)
        return "pm_nobodys" if number is None else await localstripe_card(url, number)

    async def lapse() -> None:
        raise NotImplementedError("its authorizations do not lapse")

    async with (
        empty_localstripe(running_other) as url,
        StripePaymentProvider(API_KEY, CLOCK, api_base=url, timeout_s=10) as provider,
    ):
        yield Subject(provider, card, lapse)


@pytest.fixture
def pay(subject: Subject) -> Pay:
    """Give what makes a payment of 29.99 that is authorized, on a card that the word tells of."""

    async def make(word: str = "good", minor: int = 2999) -> Payment:
        payment = Payment(subject, str(_new_id()), Money("USD", minor))
        outcome = await payment.authorize(word)
        assert isinstance(outcome, Authorized)
        return Payment(subject, payment.reference, payment.amount, outcome.provider_id)

    return make


@pytest.fixture
def unpaid(subject: Subject) -> Payment:
    """Give a payment of 29.99 that is to be authorized."""
    return Payment(subject, str(_new_id()), Money("USD", 2999))
