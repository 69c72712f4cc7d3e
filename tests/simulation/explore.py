"""All single and all double faults of a scenario, deeper schedules by seed, and the hunt for a planted bug."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.simulation.faults import ALL, PAIRED, Fault, Kind, Planned, Schedule, to_text
from tests.simulation.invariants import Violation
from tests.simulation.scenarios import Scenario
from tests.simulation.seam import Crossing
from tests.simulation.world import Outcome, simulate

Run = Callable[[Scenario, Schedule], Outcome]
"""Runs a scenario under a schedule, over whichever store, with or without a bug."""

_SUBMITTING = frozenset({"submit", "find_submitted", "get", "offered"})

_STOPS = frozenset({Fault.CRASH_AFTER, Fault.FREEZE_AFTER, Fault.LOST_ANSWER, Fault.DRAIN})
_FINDING = frozenset({"claim", "free_dead"})

_DEEPEST = 6
_REACH = 20
"""How many crossings at the most lie between two faults of a deeper schedule."""

_VARIED_S = {
    Fault.LATE: (0.5, 90.0),
    Fault.FREEZE_BEFORE: (1.0, 60.0),
    Fault.FREEZE_AFTER: (1.0, 60.0),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule under which invariants do not hold, and whether it ran over PostgreSQL."""

    scenario: str
    schedule: Schedule
    violations: tuple[Violation, ...]
    in_postgres: bool = False

    @property
    def line(self) -> str:
        """Name the run in one line."""
        return f"{self.scenario} {to_text(self.schedule)}"

    def replay(self) -> str:
        """Give the command that shows it again."""
        where = " --postgres" if self.in_postgres else ""
        return f"python -m tests.simulation --replay '{self.line}'{where}"

    def __str__(self) -> str:
        return "\n".join([self.replay(), *(f"    {violation}" for violation in self.violations)])


@dataclass(slots=True)
class Explored:
    """What an exploration has shown."""

    schedules: int = 0
    crossings: int = 0
    in_postgres: bool = False
    failures: list[Failure] = field(default_factory=list)

    def take(self, scenario: Scenario, schedule: Schedule, outcome: Outcome) -> None:
        """Count a run."""
        self.schedules += 1
        self.crossings += len(outcome.crossings)
        violations = outcome.violations + (() if schedule else unexpected(scenario, outcome))
        if violations:
            self.failures.append(Failure(scenario.name, schedule, violations, self.in_postgres))

    def add(self, other: Explored) -> None:
        """Add what another one has shown."""
        self.schedules += other.schedules
        self.crossings += other.crossings
        self.failures += other.failures


@dataclass(frozen=True, slots=True)
class Hunted:
    """After how many schedules a planted bug was caught, and under which; None when it was not."""

    schedules: int
    failure: Failure | None


def unexpected(scenario: Scenario, outcome: Outcome) -> tuple[Violation, ...]:
    """Say when purchases without faults end otherwise than they should: nothing bought violates no invariant."""
    statuses = tuple(row.purchase.status for row in outcome.rows.values())
    if statuses == scenario.expected:
        return ()
    words = [status.value for status in statuses]
    return (Violation("expected", f"without faults it ends as {', '.join(words) or 'nothing'}"),)


def longer(
    scenario: Scenario, schedule: Schedule, crossings: Sequence[Crossing], *, paired: bool
) -> Iterator[Schedule]:
    """Give a schedule with each fault at each crossing after its last one, as a run under it has shown them."""
    first = schedule[-1].crossing + 1 if schedule else 0
    for crossing in crossings[first:]:
        if paired and crossing.name in _SUBMITTING and not scenario.submitting:
            continue
        for fault in faults_at(crossing, scenario, PAIRED if paired else ALL):
            yield (*schedule, Planned(crossing.number, fault))


def faults_at(
    crossing: Crossing, scenario: Scenario, of: Mapping[Kind, Sequence[Fault]]
) -> Iterator[Fault]:
    """Give what can happen at a crossing."""
    yield from of[crossing.kind]
    if crossing.kind not in {Kind.LOOK, Kind.WAKE}:
        yield from scenario.events


def changes_nothing(scenario: Scenario, crossings: Sequence[Crossing], planned: Planned) -> bool:
    """Say whether a fault at a crossing gives the same run again: that which has shown these crossings.

    It does when it stops a process that was at its end: it had nothing claimed or under way any more, it has never
    crossed the seam again, and nobody has ever found anything to do again, so that neither is it missed, nor does the
    one that is started in its place find anything.
    """
    at = crossings[planned.crossing]
    if scenario.told or planned.fault not in _STOPS or not at.leaves_nothing:
        return False
    return _of_worker(at) and not any(
        later.process == at.process or later.name in _FINDING
        for later in crossings[planned.crossing + 1 :]
    )


def _of_worker(crossing: Crossing) -> bool:
    return crossing.name.startswith("commit ") or crossing.name == "claim"


def singles(scenario: Scenario) -> list[tuple[Schedule, bool]]:
    """Give all single faults, and whether each is one of those that are tried in pairs."""
    crossings = simulate(scenario, ()).crossings
    pairs = set(longer(scenario, (), crossings, paired=True))
    return [(one, one in pairs) for one in longer(scenario, (), crossings, paired=False)]


def explore(
    scenario: Scenario,
    schedules: Iterable[tuple[Schedule, bool]],
    run: Run = simulate,
    *,
    in_postgres: bool = False,
) -> Explored:
    """Run schedules, and those of which it is said also with one more fault, each of them."""
    explored = Explored(in_postgres=in_postgres)
    known: dict[Schedule, tuple[Crossing, ...]] = {}

    def crossings_of(schedule: Schedule) -> tuple[Crossing, ...]:
        crossings = known.pop(schedule, None)
        if crossings is not None:
            explored.schedules += 1
            return crossings
        outcome = run(scenario, schedule)
        explored.take(scenario, schedule, outcome)
        known.update(outcome.also)
        return outcome.crossings

    deepened = dict(schedules)
    for schedule in sorted(deepened, key=_late_first):
        crossings = crossings_of(schedule)
        if deepened[schedule]:
            more = longer(scenario, schedule, crossings, paired=True)
            for deeper in sorted(more, key=_late_first):
                if changes_nothing(scenario, crossings, deeper[-1]):
                    explored.schedules += 1
                else:
                    crossings_of(deeper)
    return explored


def _late_first(schedule: Schedule) -> list[tuple[int, bool]]:
    """Have requests that are late tried before requests that are lost: a run of those is often one of these too."""
    return [(planned.crossing, planned.fault is Fault.LOST_REQUEST) for planned in schedule]


def sample(scenario: Scenario, seed: int, undisturbed: Sequence[Crossing] = ()) -> Schedule:
    """Make up a schedule of three to six faults, the same for the same seed.

    ``undisturbed`` are the crossings without any fault, for who knows them.
    """
    rng = Random(f"{scenario.name} {seed}")
    schedule: Schedule = ()
    crossings = undisturbed
    for _ in range(rng.randint(3, _DEEPEST)):
        if schedule or not crossings:
            crossings = simulate(scenario, schedule).crossings
        first = schedule[-1].crossing + 1 if schedule else 0
        if first >= len(crossings):
            break
        crossing = rng.choice(crossings[first : first + _REACH])
        fault = rng.choice([*faults_at(crossing, scenario, ALL)])
        varied = _VARIED_S.get(fault)
        seconds = round(rng.uniform(*varied), 1) if varied and rng.random() < 0.5 else None
        schedule = (*schedule, Planned(crossing.number, fault, seconds))
    return schedule


def hunt(scenario: Scenario, run: Run, caught_by: frozenset[str], faults: int) -> Hunted:
    """Try no fault, single ones, pairs, until these invariants are violated under one schedule."""
    tried = 0
    frontier: list[Schedule] = [()]
    for depth in range(faults + 1):
        following: list[Schedule] = []
        for schedule in frontier:
            tried += 1
            outcome = run(scenario, schedule)
            if caught_by <= {violation.invariant for violation in outcome.violations}:
                return Hunted(tried, Failure(scenario.name, schedule, outcome.violations))
            if depth < faults:
                # What goes wrong late in a purchase goes wrong with money: those schedules first.
                more = [*longer(scenario, schedule, outcome.crossings, paired=depth > 0)]
                following += reversed(more)
        frontier = following
    return Hunted(tried, None)
