"""The crossings of processes: everything that a process asks of others passes here, and here the faults happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from uuid import UUID

from tests.simulation.faults import Fault, Kind, Planned, Schedule
from tests.simulation.loop import LoopClock, pass_time

T = TypeVar("T")

FREEZE_S = 25.0
"""Longer than a lease and the time in which others notice that it is over."""
STALL_S = 6.0
"""Shorter than a lease, and longer than sellers may work on a call after it was decided."""
LATE_S = 40.0
"""How late a late request arrives: after all that its sender tries instead."""

_LOST_ON_THE_WAY = frozenset({Fault.LOST_REQUEST, Fault.LATE})
_UNHEARD = frozenset({Fault.LOST_ANSWER, Fault.CLAIMED})
_OF_STORE = frozenset({Kind.COMMIT, Kind.FENCED, Kind.LOOK})

_CALL_S = 0.010
_STORE_S = 0.002
_SHOWN = 120


@dataclass(slots=True)
class Crossing:
    """One passage, for the trace.

    ``leaves_nothing`` says that after it, its process had nothing claimed and no other crossing under way.
    """

    number: int
    at_s: float
    process: str
    kind: Kind
    name: str
    fault: Fault | None
    outcome: object = ""
    leaves_nothing: bool = False

    def __str__(self) -> str:
        """Give it as a line of the trace."""
        fault = f"  <== {self.fault.value}" if self.fault else ""
        outcome = str(self.outcome)
        if len(outcome) > _SHOWN:
            outcome = f"{outcome[:_SHOWN]}..."
        return f"{self.number:4} {self.at_s:9.3f}s {self.process:6} {self.name:28}{fault} {outcome}"


class Process:
    """A process of the orchestrator. Once it is dead, none of its coroutines gets past the seam again."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.loop = loop
        self.died = asyncio.Event()
        # Nothing has ever stopped it: there is nothing to wait for.
        self.untouched = True
        self.owner: int | None = None
        # Until when the database leaves purchases to this process, by the last lease that it was given.
        self.leases: dict[UUID, float] = {}
        # How many of its crossings are under way.
        self.under_way = 0
        # The simulation has ended: what is still running is to end too.
        self.over = False
        self._frozen_until_s = 0.0
        # Coroutines that nobody refers to would be collected, and their `finally` would run.
        self._parked: list[asyncio.Future[None]] = []

    async def running(self) -> None:
        """Return when the process runs: later while it is frozen, never when it is dead."""
        if self.over:
            raise asyncio.CancelledError
        # It may be frozen again while it sleeps; an event would cost a task for each sleeper.
        while (left_s := self._frozen_until_s - self.loop.time()) > 0:  # noqa: ASYNC110  sleeps as long as is known
            await asyncio.sleep(left_s)
        if self.died.is_set():
            parked: asyncio.Future[None] = self.loop.create_future()
            self._parked.append(parked)
            await parked

    @property
    def stands_still(self) -> bool:
        """Whether it does nothing now: it is frozen, or dead."""
        return self.died.is_set() or self._frozen_until_s > self.loop.time()

    def freeze(self, for_s: float) -> None:
        """Stand still from now on."""
        self._frozen_until_s = self.loop.time() + for_s
        self.untouched = False

    def die(self) -> None:
        """Do nothing any more."""
        self.died.set()
        self.untouched = False

    def end(self) -> None:
        """End with the simulation."""
        self.over = True
        self.untouched = False

    @property
    def thaws_at_s(self) -> float:
        """When it goes on, 0 if it never stood still."""
        return 0.0 if self.died.is_set() else self._frozen_until_s


class ProcessClock(LoopClock):
    """The clock of one process: it sleeps on while the process is frozen or dead."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.loop)
        self._process = process

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if not self._process.untouched:
            await self._process.running()


@dataclass(frozen=True, slots=True)
class Passage:
    """What passes: its kind, its name for the trace, and how long the caller waits for an answer, in seconds."""

    kind: Kind
    name: str
    timeout_s: float


class Seam:
    """Numbers the crossings of all processes and has the planned faults happen.

    ``on_event`` is for faults that are no property of the crossing: a session that ends, a drain, a cancel.
    """

    def __init__(
        self, schedule: Schedule, on_event: Callable[[Fault, Process], Awaitable[None]]
    ) -> None:
        self.crossings: list[Crossing] = []
        self.kill: Callable[[Process], Awaitable[None]]
        self.has_claims: Callable[[Process], bool]
        self._planned = {planned.crossing: planned for planned in schedule}
        self._on_event = on_event
        self.late: dict[int, float] = {}
        """The crossings whose late requests are still on their way, and when each of them arrives."""
        self._arriving: set[asyncio.Task[None]] = set()

    async def cross(
        self,
        process: Process,
        passage: Passage,
        work: Callable[[], Awaitable[T]],
        failed: Callable[[Fault], T],
    ) -> T:
        """Have the other side do its work, or not, as it is planned.

        ``failed`` gives what the caller sees when it gets no answer, or raises it.
        """
        await process.running()
        process.under_way += 1
        try:
            return await self._cross(process, passage, work, failed)
        finally:
            process.under_way -= 1

    async def _cross(
        self,
        process: Process,
        passage: Passage,
        work: Callable[[], Awaitable[T]],
        failed: Callable[[Fault], T],
    ) -> T:
        planned = self._planned.get(len(self.crossings))
        crossing = self._record(process, passage, planned)
        if planned is not None:
            await self._before(process, planned)
            if planned.fault in _LOST_ON_THE_WAY:
                if planned.fault is Fault.LATE:
                    self._arrive(crossing, work, passage.timeout_s + (planned.seconds or LATE_S))
                await asyncio.sleep(passage.timeout_s)
                await process.running()
                return failed(planned.fault)
        await pass_time(process.loop, _STORE_S if passage.kind in _OF_STORE else _CALL_S)
        if not process.untouched:
            await process.running()
        if planned is not None and planned.fault is Fault.UNAVAILABLE:
            return failed(Fault.UNAVAILABLE)
        try:
            crossing.outcome = outcome = await work()
        except Exception as error:
            crossing.outcome = f"{type(error).__name__}: {error}"
            crossing.leaves_nothing = self._leaves_nothing(process)
            await process.running()
            raise
        crossing.leaves_nothing = self._leaves_nothing(process)
        if planned is not None:
            await self._after(process, planned, passage)
        if not process.untouched:
            await process.running()
        if planned is not None and planned.fault in _UNHEARD:
            return failed(planned.fault)
        return outcome

    def _leaves_nothing(self, process: Process) -> bool:
        return process.under_way == 1 and not self.has_claims(process)

    async def _before(self, process: Process, planned: Planned) -> None:
        match planned.fault:
            case Fault.CRASH_BEFORE:
                await self._crash(process)
            case Fault.FREEZE_BEFORE:
                process.freeze(planned.seconds or FREEZE_S)
                await process.running()
            case Fault.SESSION_LOST | Fault.DRAIN | Fault.CANCEL | Fault.VANISH | Fault.SHRINK:
                await self._on_event(planned.fault, process)
            case Fault.WEAR_OUT:
                await self._on_event(planned.fault, process)
                await self._crash(process)
            case _:
                pass

    async def _after(self, process: Process, planned: Planned, passage: Passage) -> None:
        match planned.fault:
            case Fault.CRASH_AFTER:
                await self._crash(process)
            case Fault.FREEZE_AFTER:
                process.freeze(planned.seconds or FREEZE_S)
            case Fault.STALL:
                process.freeze(planned.seconds or STALL_S)
            case Fault.LOST_ANSWER:
                await asyncio.sleep(passage.timeout_s)
            case _:
                pass

    def _record(self, process: Process, passage: Passage, planned: Planned | None) -> Crossing:
        fault = planned.fault if planned else None
        at_s = process.loop.time()
        number = len(self.crossings)
        crossing = Crossing(number, at_s, process.name, passage.kind, passage.name, fault)
        self.crossings.append(crossing)
        return crossing

    async def _crash(self, process: Process) -> NoReturn:
        await self.kill(process)
        await process.running()
        raise AssertionError("a dead process goes on")

    def _arrive(
        self, crossing: Crossing, work: Callable[[], Awaitable[object]], after_s: float
    ) -> None:
        """Have a request arrive after a while, from nobody who could be told what comes of it."""

        async def arrive() -> None:
            await asyncio.sleep(after_s)
            with suppress(Exception):
                await work()

        def arrived(task: asyncio.Task[None]) -> None:
            self._arriving.discard(task)
            del self.late[crossing.number]

        self.late[crossing.number] = asyncio.get_running_loop().time() + after_s
        task = asyncio.create_task(arrive())
        self._arriving.add(task)
        task.add_done_callback(arrived)
