"""Stripe's adapter with our simulator, which is told to misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import SystemRandom

import pytest

from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.stripe import StripePaymentProvider
from orchestrator.ports import Authorized, AuthorizeOutcome, ProviderPayment
from tests.fakes.psp import API_KEY, PspSim, running_psp_sim

CLOCK = SystemClock()
MAX_PRICE = Money("USD", 2999)
TOTAL = Money("USD", 2499)
HOUR = timedelta(hours=1)
_new_id = uuid7_factory(CLOCK, SystemRandom())


class LaterClock(SystemClock):
    """The machine's clock, set forward."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


@dataclass
class Desk:
    """Where a test pays: the simulator, an adapter, and keys of its own."""

    sim: PspSim
    provider: StripePaymentProvider
    reference: str

    def key(self, verb: str) -> str:
        return f"{self.reference}:{verb}"

    async def authorize(
        self,
        token: str = "pm_card_visa",
        *,
        by: StripePaymentProvider | None = None,
        intended_at: datetime | None = None,
    ) -> AuthorizeOutcome:
        return await (by or self.provider).authorize(
            self.key("authorize"), token, MAX_PRICE, self.reference, intended_at or CLOCK.now()
        )

    async def authorized(self, token: str = "pm_card_visa") -> str:
        outcome = await self.authorize(token)
        assert isinstance(outcome, Authorized)
        return outcome.provider_id

    async def captured(self) -> str:
        name = await self.authorized()
        await self.provider.capture(self.key("capture"), name, TOTAL)
        return name

    async def now(self, name: str) -> ProviderPayment:
        found = await self.provider.get(name)
        assert isinstance(found, ProviderPayment)
        return found

    async def all(self) -> list[ProviderPayment]:
        since = CLOCK.now() - 30 * 24 * HOUR
        return [payment async for payment in self.provider.list_since(since)]


def stripe_at(
    url: str,
    *,
    api_key: str = API_KEY,
    timeout_s: float = 10,
    ahead: timedelta = timedelta(0),
) -> StripePaymentProvider:
    """Make another adapter."""
    return StripePaymentProvider(api_key, LaterClock(ahead), api_base=url, timeout_s=timeout_s)


@pytest.fixture(scope="session")
def running_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PspSim]:
    """Run our simulator for all tests."""
    with running_psp_sim(tmp_path_factory.mktemp("psp")) as sim:
        yield sim


@pytest.fixture
async def desk(running_sim: PspSim) -> AsyncIterator[Desk]:
    """Give a simulator with nothing in it."""
    await running_sim.forget()
    async with stripe_at(running_sim.url) as provider:
        yield Desk(running_sim, provider, str(_new_id()))
