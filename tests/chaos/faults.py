"""What is done to the mesh, and when: drawn from the seed alone."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from deploy.local.mesh import LocalMesh
from mesh.clock import Clock


class Fault(StrEnum):
    """The kinds of faults. A kill is SIGKILL; the supervisor starts again what was killed."""

    ORCHESTRATOR_KILLED = "orchestrator killed"
    ORCHESTRATOR_STOPPED = "orchestrator stopped"
    """For longer than its lease; then it goes on, as if nothing had been."""
    AGGREGATOR_KILLED = "aggregator killed"
    GATEWAY_KILLED = "gateway killed"
    SELLERS_KILLED = "sellers killed"
    VALKEY_KILLED = "Valkey killed"
    """Its memory is gone with it."""
    POSTGRES_KILLED = "PostgreSQL killed"
    """With all its backends; it recovers from its log."""
    ENVOY_KILLED = "Envoy killed"


_TARGETS = {
    Fault.ORCHESTRATOR_KILLED: "orchestrator",
    Fault.ORCHESTRATOR_STOPPED: "orchestrator",
    Fault.AGGREGATOR_KILLED: "aggregator",
    Fault.GATEWAY_KILLED: "gateway",
    Fault.SELLERS_KILLED: "seller_sim",
    Fault.VALKEY_KILLED: "valkey",
    Fault.POSTGRES_KILLED: "postgres",
    Fault.ENVOY_KILLED: "envoy",
}
A_ROUND = (
    *[Fault.ORCHESTRATOR_KILLED] * 6,
    *[Fault.AGGREGATOR_KILLED, Fault.GATEWAY_KILLED] * 3,
    *[Fault.ORCHESTRATOR_STOPPED, Fault.VALKEY_KILLED, Fault.POSTGRES_KILLED] * 2,
    *[Fault.SELLERS_KILLED, Fault.ENVOY_KILLED],
)
"""Kinds in the numbers in which a long run has them: workers most of all; the sellers seldom, as all of them are gone
then, and for a while nothing is bought that could go wrong."""

_BEYOND_LEASE_S = (1.0, 4.0)
_LOOK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: how long to wait before it, its kind, and two numbers from 0 to 1 that decide the rest."""

    after_s: float
    fault: Fault
    which: float
    how_long: float


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault that was made: when (monotonic), its kind, and the child that it hit."""

    at: float
    fault: Fault
    name: str


def plan(seed: int, every_s: float, a_round: Sequence[Fault] = A_ROUND) -> Iterator[Planned]:
    """Draw faults without end, one round of them after the other, each in an order of its own."""
    rng = Random(f"faults {seed}")
    while True:
        for kind in rng.sample(a_round, len(a_round)):
            yield Planned(every_s * rng.uniform(0.5, 1.5), kind, rng.random(), rng.random())


class Storm:
    """Makes faults in a mesh.

    Attributes:
        happened: what was done so far.

    """

    def __init__(
        self, mesh: LocalMesh, faults: Iterable[Planned], lease_s: float, clock: Clock
    ) -> None:
        self.happened: list[Happened] = []
        self._mesh = mesh
        self._faults = faults
        self._lease_s = lease_s
        self._clock = clock
        self._stopped: set[str] = set()

    @property
    def counts(self) -> Counter[Fault]:
        """How many of each kind there were."""
        return Counter(made.fault for made in self.happened)

    async def rage(self, over: asyncio.Event, least: int) -> None:
        """Make one fault after the other, at least so many and until it is ``over``; return when nothing is stopped."""
        async with asyncio.TaskGroup() as stops:
            for planned in self._faults:
                await self._clock.sleep(planned.after_s)
                if over.is_set() and len(self.happened) >= least:
                    return
                name = await self._choose(planned)
                self.happened.append(Happened(self._clock.monotonic(), planned.fault, name))
                if planned.fault is Fault.ORCHESTRATOR_STOPPED:
                    low, high = _BEYOND_LEASE_S
                    stop_s = self._lease_s + low + (high - low) * planned.how_long
                    stops.create_task(self._stop(name, stop_s))
                elif planned.fault is Fault.POSTGRES_KILLED:
                    self._mesh.kill_family(name)
                else:
                    self._mesh.kill(name)

    async def _choose(self, planned: Planned) -> str:
        """Choose whom it hits, among those that run; wait for one if there is none."""
        kind = _TARGETS[planned.fault]
        while True:
            names = sorted(
                name
                for name in self._mesh.up() - self._stopped
                if name == kind or name.startswith(f"{kind}-")
            )
            if names:
                return names[int(planned.which * len(names))]
            await self._clock.sleep(_LOOK_AGAIN_S)

    async def _stop(self, name: str, stop_s: float) -> None:
        self._stopped.add(name)
        self._mesh.kill(name, signal.SIGSTOP)
        try:
            await self._clock.sleep(stop_s)
        finally:
            self._mesh.kill(name, signal.SIGCONT)
            self._stopped.discard(name)
