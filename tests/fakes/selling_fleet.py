"""A fleet of processes that call one seller as often as admission lets them, in virtual time, while things break.

The seller notes when each call arrives: some time between its grant and its end, drawn so that the worst cases are
frequent. What breaks: Valkey dies and comes back empty, hangs, is cut off from some processes, its clock is set back;
processes die and are started again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from bench.virtual_time import VirtualClock
from sellers.admission.admission import Admission, rules_of
from sellers.admission.ledger import Ledger, Report, Request, Standing, Verdict
from sellers.admission.model import (
    AdmissionSettings,
    Allowed,
    Ask,
    Grant,
    Limits,
    Outcome,
    Purpose,
)
from sellers.admission.valkey import FleetUnavailable
from tests.fakes.ledgers import AnyLedger

_AnswerT = TypeVar("_AnswerT")

PROCESSES = 3
_EPOCH_S = 1_700_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in a run.

    Attributes:
        seed: decides everything that is random.
        calls: the seller's limit a minute.
        books: its limit of books a minute; 0 for none.
        lasts_s: how long it goes on.
        faults: how many things break.
        failing: share of calls that fail.
        latency_s: the longest answer; calls time out after twice that.
        slow: share of calls that are sent late, up to 3 s after their grant.
        at_once: calls that each process wants to make at once.
        purposes: what for.

    """

    seed: int
    calls: int = 12
    books: int = 0
    lasts_s: float = 240.0
    faults: int = 6
    failing: float = 0.1
    latency_s: float = 1.5
    slow: float = 0.2
    at_once: int = 3
    purposes: tuple[Purpose, ...] = tuple(Purpose)


@dataclass(slots=True)
class Seen:
    """What came of it: arrivals (moment, books), and fleet-wide probes as (from, to)."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    probes: list[tuple[float, float]] = field(default_factory=list)
    started_at: float = 0.0
    ended_at: float = 0.0

    def most_in_a_minute(self) -> tuple[int, int]:
        """Give the most calls and the most books that any 60 s saw, wherever they start."""
        window: deque[tuple[float, int]] = deque()
        most_calls = most_books = books = 0
        for moment, count in sorted(self.arrivals):
            window.append((moment, count))
            books += count
            while window[0][0] < moment - 60.0:
                books -= window.popleft()[1]
            most_calls, most_books = max(most_calls, len(window)), max(most_books, books)
        return most_calls, most_books

    def probes_at_once(self) -> int:
        """Give the most probes that were under way at the same time."""
        edges = [(start, 1) for start, _ in self.probes] + [(end, -1) for _, end in self.probes]
        most = now = 0
        for _, step in sorted(edges):
            now += step
            most = max(most, now)
        return most


class _Valkey:
    """The server: a ledger, and what is wrong with it."""

    def __init__(self, make: Callable[[], AnyLedger], rng: Random) -> None:
        self._make = make
        self.rng = rng
        self.ledger = make()
        self.dead = False
        self.hung = False
        self.set_back_s = 0.0
        self.cut_off: set[int] = set()
        self._unread: list[Callable[[], object]] = []

    def now_ms(self) -> int:
        elapsed_s = asyncio.get_running_loop().time()
        return int((_EPOCH_S + elapsed_s - self.set_back_s) * 1000)

    def forget(self) -> None:
        self.ledger = self._make()
        self._unread.clear()

    def wake(self) -> None:
        self.hung = False
        for command in self._unread:
            command()
        self._unread.clear()

    def leave_unread(self, command: Callable[[], object]) -> None:
        self._unread.append(command)


class _Connection:
    """Implements ``FleetLedger`` for one process."""

    def __init__(self, valkey: _Valkey, process: int, timeout_s: float) -> None:
        self._valkey = valkey
        self._process = process
        self._timeout_s = timeout_s

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        valkey = self._valkey
        await self._send(lambda: valkey.ledger.admit(valkey.now_ms(), requests))
        return await self._answer(valkey.ledger.admit(valkey.now_ms(), requests))

    async def report(self, reports: Sequence[Report]) -> None:
        valkey = self._valkey
        await self._send(lambda: valkey.ledger.report(valkey.now_ms(), reports))
        valkey.ledger.report(valkey.now_ms(), reports)
        await self._answer([])

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        valkey = self._valkey
        await self._send(lambda: None)
        return await self._answer(valkey.ledger.standings(valkey.now_ms(), seller_ids))

    async def _send(self, command: Callable[[], object]) -> None:
        valkey = self._valkey
        if valkey.dead:
            raise FleetUnavailable("connection refused")
        if self._process in valkey.cut_off:
            await self._time_out()
        if valkey.hung:
            valkey.leave_unread(command)
            await self._time_out()
        await asyncio.sleep(valkey.rng.uniform(0, 0.003))

    async def _answer(self, answer: list[_AnswerT]) -> list[_AnswerT]:
        if self._valkey.rng.random() < 0.01:
            await self._time_out()
        await asyncio.sleep(self._valkey.rng.uniform(0, 0.003))
        return answer

    async def _time_out(self) -> None:
        await asyncio.sleep(self._timeout_s)
        raise FleetUnavailable("no answer")


class SellingFleet:
    """Runs a plan. The hooks that a test may replace are what a planted bug changes."""

    def __init__(
        self,
        plan: Plan,
        make_ledger: Callable[[], AnyLedger] | None = None,
        settings: AdmissionSettings | None = None,
    ) -> None:
        self._plan = plan
        self._settings = settings or AdmissionSettings(processes=PROCESSES, loop_beat_s=1.0)
        self._rng = Random(plan.seed)
        rules = rules_of(self._settings)
        self._valkey = _Valkey(make_ledger or (lambda: Ledger(rules)), self._rng)
        self._limits = Limits("seller", plan.calls, plan.books)
        self.seen = Seen()

    def still_good(self, grant: Grant, now: float) -> bool:
        return grant.still_good(now)

    def outcome(self, outcome: Outcome) -> Outcome:
        return outcome

    def past_is_known(self, *, first: bool) -> bool:
        """Whether a process that starts may take it that it has called nobody before."""
        return first

    def after_restart(self) -> None:
        """Valkey came back without its memory."""

    async def run(self) -> Seen:
        loop = asyncio.get_running_loop()
        self.seen.started_at = loop.time()
        self._valkey.ledger.declare_quiet(self._valkey.now_ms())
        processes = [
            loop.create_task(self._keep_process(index, first=True)) for index in range(PROCESSES)
        ]
        chaos = loop.create_task(self._break_things(processes))
        await asyncio.sleep(self._plan.lasts_s)
        self.seen.ended_at = loop.time()
        for task in [chaos, *processes]:
            task.cancel()
        results = await asyncio.gather(chaos, *processes, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self.seen

    async def _keep_process(self, index: int, *, first: bool) -> None:
        settings = AdmissionSettings(
            **{
                name: getattr(self._settings, name)
                for name in AdmissionSettings.__slots__
                if name != "process_index"
            },
            process_index=index,
        )
        admission = Admission(
            _Connection(self._valkey, index, settings.valkey_timeout_s),
            VirtualClock(),
            settings,
            sellers=lambda: [self._limits],
            quiet=self.past_is_known(first=first),
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(admission.run())
            for _ in range(self._plan.at_once):
                tasks.create_task(self._keep_calling(admission))

    async def _keep_calling(self, admission: Admission) -> None:
        loop, rng, plan = asyncio.get_running_loop(), self._rng, self._plan
        while True:
            books = rng.randint(0, 4) if plan.books else 0
            ask = Ask(self._limits, timeout_s=2 * plan.latency_s, books=books)
            purpose = rng.choice(plan.purposes)
            decision = await admission.acquire(ask, purpose, until=loop.time() + rng.uniform(1, 20))
            if isinstance(decision, Allowed):
                await self._use(admission, decision.grant, ask)
            else:
                await asyncio.sleep(rng.uniform(0, 1))

    async def _use(self, admission: Admission, grant: Grant, ask: Ask) -> None:
        loop, rng = asyncio.get_running_loop(), self._rng
        granted_at = loop.time()
        if rng.random() < self._plan.slow:
            await asyncio.sleep(rng.choice((rng.uniform(0, 0.25), rng.uniform(0, 3))))
        now = loop.time()
        if not self.still_good(grant, now):
            admission.report(grant, self.outcome(Outcome.NOT_SENT))
            return
        kind = rng.random()
        if kind < 0.1:
            outcome, takes_s, arrives_by_s = Outcome.OURS, rng.uniform(0, 0.3), ask.timeout_s
        elif kind < 0.15:
            outcome, takes_s, arrives_by_s = Outcome.SILENCE, ask.timeout_s, ask.timeout_s
        else:
            failed = rng.random() < self._plan.failing
            outcome = Outcome.FAILURE if failed else Outcome.SUCCESS
            takes_s = arrives_by_s = rng.uniform(0, self._plan.latency_s)
        where = rng.choice((0.0, 1.0, rng.random()))
        self.seen.arrivals.append((now + where * arrives_by_s, grant.books))
        if grant.probe and grant.from_fleet:
            self.seen.probes.append((granted_at, now + takes_s))
        await asyncio.sleep(takes_s)
        admission.report(grant, self.outcome(outcome))

    async def _break_things(self, processes: list[asyncio.Task[None]]) -> None:
        rng, valkey, plan = self._rng, self._valkey, self._plan
        for _ in range(plan.faults):
            await asyncio.sleep(rng.expovariate(plan.faults / plan.lasts_s))
            for_s = rng.choice((rng.uniform(0, 1), rng.uniform(1, 20)))
            match rng.choice(("kill", "kill", "hang", "cut", "set back", "restart", "restart")):
                case "kill":
                    valkey.dead = True
                    await asyncio.sleep(for_s)
                    valkey.forget()
                    self.after_restart()
                    valkey.dead = False
                case "hang":
                    valkey.hung = True
                    await asyncio.sleep(for_s)
                    valkey.wake()
                case "cut":
                    valkey.cut_off = set(rng.sample(range(PROCESSES), rng.randint(1, 2)))
                    await asyncio.sleep(for_s)
                    valkey.cut_off = set()
                case "set back":
                    valkey.set_back_s += rng.choice((1, 10, 100))
                case _:
                    index = rng.randrange(PROCESSES)
                    processes[index].cancel()
                    processes[index] = asyncio.get_running_loop().create_task(
                        self._keep_process(index, first=False)
                    )

    @property
    def valkey(self) -> _Valkey:
        return self._valkey
