"""A worker that is woken and cannot claim: it pauses all the same."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, NoReturn

import pytest

from bench.virtual_time import VirtualClock, run_virtually
from mesh.errors import Unavailable
from orchestrator.app.worker import Worker, WorkerSettings
from tests.fakes.purchase_store import MemoryPurchaseStore

FOR_S = 10.0
MOST = 40
"""Looks in that time that are no spinning; one takes at least 3/8 of a second."""


class Looks:
    """Counts how often a worker looks for work."""

    def __init__(self) -> None:
        self.made = 0

    def look(self) -> None:
        self.made += 1
        if self.made > MOST:
            pytest.fail("it looks again and again without a pause")


class NoDatabase(MemoryPurchaseStore):
    """A store whose database does not answer."""

    def __init__(self, clock: VirtualClock, looks: Looks) -> None:
        super().__init__(clock)
        self._looks = looks

    def session(self) -> NoReturn:
        self._looks.look()
        raise Unavailable("switched off")


class Counted(Random):
    """The jitter of the pauses of a worker."""

    def __init__(self, looks: Looks) -> None:
        super().__init__(1)
        self._looks = looks

    def uniform(self, a: float, b: float) -> float:
        self._looks.look()
        return super().uniform(a, b)


def looked(*, database: bool) -> int:
    """Give how often a worker without room, or without a database, looks for work in ten seconds, woken at once."""
    looks = Looks()

    async def main() -> None:
        clock = VirtualClock()
        nothing: Any = None  # it never comes to a purchase
        worker = Worker(
            MemoryPurchaseStore(clock) if database else NoDatabase(clock, looks),
            nothing,
            nothing,
            nothing,
            settings=WorkerSettings(concurrency=0),
            clock=clock,
            rng=Counted(looks),
        )
        running = asyncio.create_task(worker.run())
        worker.wake()
        await asyncio.wait([running], timeout=FOR_S)
        await worker.drain()
        await running

    run_virtually(main())
    return looks.made


@pytest.mark.parametrize("database", [True, False])
def test_who_is_woken_and_cannot_claim_pauses(*, database: bool) -> None:
    assert 10 < looked(database=database) <= MOST
