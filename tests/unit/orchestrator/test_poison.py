"""A purchase that ends every worker that touches it, told from one whose workers are killed by something else."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from mesh.money import Money
from orchestrator.app.worker import WorkerSettings, poisonous
from orchestrator.domain.purchase import Purchase, Stage
from orchestrator.ports import Commit, SealedToken, Submission
from sellers.model import Condition
from tests.fakes.manual_clock import ManualClock
from tests.fakes.purchase_store import MemoryPurchaseStore

SETTINGS = WorkerSettings()


class Fleet:
    """Workers that die with the one purchase that there is, one after the other."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryPurchaseStore(self.clock)
        self.deaths = 0
        self.purchase = Purchase(
            request_id=UUID(int=1),
            customer_id="alice",
            book_id="9780134685991",
            max_price=Money("USD", 2999),
            conditions=(Condition.NEW,),
            created_at=self.clock.now(),
        )

    async def submit(self) -> None:
        """Have the purchase due."""
        token = SealedToken("k1", b"token")
        await self.store.submit(Submission(self.purchase, None, b"", token), [])

    async def die(self, restart_s: float, *, committing: bool = False) -> str:
        """Have a worker claim it, and die; give why it is left to an operator, when it is.

        The next one is there ``restart_s`` seconds later. With ``committing`` it has come to a commit first.
        """
        await self.store.free_dead()
        while not self.store.anything_due():
            self.clock.advance(SETTINGS.free_dead_s)
            await self.store.free_dead()
        async with self.store.session() as session:
            [claim] = await self.store.claim(session.owner, 1, SETTINGS.lease_s)
            loaded = await self.store.load(claim)
            assert loaded is not None
            if committing:
                going_on = replace(loaded.purchase, stage=Stage.COLLECT)
                await self.store.commit(
                    Commit(going_on, (), SETTINGS.lease_s, keep=True, erase_token=False)
                )
        self.deaths += 1
        self.clock.advance(restart_s)
        return poisonous(loaded, SETTINGS)


@pytest.mark.parametrize("restart_s", [0.25, 2.0, 15.0, 60.0])
async def test_what_ends_each_of_its_workers_is_left_to_an_operator_within_minutes(
    restart_s: float,
) -> None:
    """However soon the next worker is there; and they are not kept busy dying meanwhile."""
    fleet = Fleet()
    await fleet.submit()
    began_s = fleet.clock.monotonic()
    while not (problem := await fleet.die(restart_s)):
        assert fleet.clock.monotonic() - began_s < 8 * 60
    assert fleet.deaths <= 15
    assert "workers in a row" in problem


async def test_a_storm_of_a_minute_leaves_nothing_to_an_operator() -> None:
    fleet = Fleet()
    await fleet.submit()
    began_s = fleet.clock.monotonic()
    while fleet.clock.monotonic() - began_s < 60:
        assert not await fleet.die(0.5)


async def test_who_comes_to_a_commit_now_and_then_is_no_poison() -> None:
    fleet = Fleet()
    await fleet.submit()
    for number in range(200):
        assert not await fleet.die(3.0, committing=number % 4 == 0)
