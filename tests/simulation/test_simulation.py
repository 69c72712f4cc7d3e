"""The simulator's part of the tests: some faults of every scenario, all of one, and every planted bug."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
import structlog
from rich.console import Console

from orchestrator.domain.purchase import Status
from tests.servers import PostgresServer
from tests.simulation import explore
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.campaign import hunted
from tests.simulation.faults import Fault, Planned, Schedule, from_text, to_text
from tests.simulation.loop import LeanLoop
from tests.simulation.postgres import prepare, simulate_in_postgres
from tests.simulation.replay import replay
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.seam import Crossing
from tests.simulation.world import Outcome, simulate

PAIRED = ("declined",)
SEEDS = 1
ONE_IN = 4
"""One single fault in so many is tried here, each by ``make simulate``."""
COMPARED = 20
"""So many schedules are tried until one goes the same way in both."""

STARTS_A_WORKER = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from tests.simulation.campaign import begin

context = multiprocessing.get_context("spawn")
databases = context.Queue()
databases.put("")
pool = ProcessPoolExecutor(1, context, begin, (databases,))
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(signal.pause).result()
"""

every_scenario = pytest.mark.parametrize(
    "scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults are all that the orchestrator would log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.configure(**before)


@every_scenario
def test_ends_as_expected_without_faults(scenario: Scenario) -> None:
    outcome = simulate(scenario, ())
    assert outcome.violations == ()
    assert tuple(statuses(outcome)) == scenario.expected


@every_scenario
def test_no_single_fault_violates_an_invariant(scenario: Scenario) -> None:
    singles = explore.singles(scenario)
    begin = len(scenario.name) % ONE_IN
    some = [(schedule, False) for schedule, _ in singles[begin::ONE_IN]]
    assert_holds(explore.explore(scenario, some))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PAIRED)
def test_no_two_faults_violate_an_invariant(name: str) -> None:
    scenario = SCENARIOS[name]
    assert_holds(explore.explore(scenario, explore.singles(scenario)))


@every_scenario
def test_no_deeper_schedule_violates_an_invariant(scenario: Scenario) -> None:
    sampled = [(explore.sample(scenario, seed), False) for seed in range(SEEDS)]
    assert_holds(explore.explore(scenario, sampled))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS.values() if bug.sql is None], ids=lambda bug: bug.name
)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    assert_caught(bug, hunted(bug, dsn=""))


@pytest.fixture(scope="module")
def virtual_dsn(postgres_server: PostgresServer) -> str:
    """Give the connection string of a database that tells virtual time."""

    async def made() -> str:
        dsn = await postgres_server.create()
        await prepare(dsn)
        return dsn

    return asyncio.run(made())


@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS.values() if bug.sql is not None], ids=lambda bug: bug.name
)
def test_a_bug_planted_into_the_sql_is_caught(bug: Bug, virtual_dsn: str) -> None:
    assert_caught(bug, hunted(bug, virtual_dsn))


@every_scenario
def test_postgresql_does_as_memory_does(scenario: Scenario, virtual_dsn: str) -> None:
    for seed in range(COMPARED):
        schedule = explore.sample(scenario, seed)
        in_memory = simulate(scenario, schedule)
        in_postgres = simulate_in_postgres(scenario, schedule, virtual_dsn)
        assert in_postgres.violations == ()
        # What happens in the same instant may come in another order, and lead elsewhere.
        if passages(in_postgres) == passages(in_memory):
            assert statuses(in_postgres) == statuses(in_memory)
            return
    pytest.fail(f"none of {COMPARED} schedules went the same way")


def passages(outcome: Outcome) -> list[tuple[str, str]]:
    return [(crossing.process, crossing.name) for crossing in outcome.crossings]


def statuses(outcome: Outcome) -> list[Status]:
    return [row.purchase.status for _, row in sorted(outcome.rows.items())]


def test_the_same_schedule_gives_the_same_run() -> None:
    scenario = SCENARIOS["two_careless_sellers"]
    schedule = explore.sample(scenario, 1)
    one, other = simulate(scenario, schedule), simulate(scenario, schedule)
    assert [str(c) for c in one.crossings] == [str(c) for c in other.crossings]


@pytest.mark.parametrize("name", ["hold", "told"])
def test_a_run_with_late_requests_is_that_with_lost_ones_until_they_arrive(name: str) -> None:
    """What is taken for tried on the way goes the same way by itself."""
    scenario = SCENARIOS[name]
    late = [one for one, _ in explore.singles(scenario) if one[0].fault is Fault.LATE]
    also = {lost: seen for one in late for lost, seen in simulate(scenario, one).also.items()}
    assert also.keys() <= {(Planned(one.crossing, Fault.LOST_REQUEST),) for [one] in late}
    assert also
    for lost, seen in also.items():
        outcome = simulate(scenario, lost)
        assert outcome.violations == ()
        assert [as_passed(crossing) for crossing in outcome.crossings] == [
            as_passed(crossing) for crossing in seen
        ]


def as_passed(crossing: Crossing) -> tuple[object, ...]:
    return crossing.number, crossing.at_s, crossing.process, crossing.name, str(crossing.outcome)


def test_what_is_tried_on_the_way_is_not_tried_again_and_counts() -> None:
    scenario = SCENARIOS["hold"]
    at_one = [
        (one, True) for one, deepen in explore.singles(scenario) if deepen and one[0].crossing == 9
    ]
    ran: list[Schedule] = []

    def run(scenario: Scenario, schedule: Schedule) -> Outcome:
        ran.append(schedule)
        return simulate(scenario, schedule)

    explored = explore.explore(scenario, at_one, run)
    expected = set(ran)
    for one, _ in at_one:
        crossings = simulate(scenario, one).crossings
        expected |= {one, *explore.longer(scenario, one, crossings, paired=True)}
    assert len(ran) == len(set(ran)) < explored.schedules
    assert explored.schedules == len(expected)
    assert not explored.failures


@pytest.mark.parametrize("name", ["hold", "cancel_atomic", "two_purchases_last_copy"])
def test_a_fault_that_is_taken_for_none_changes_nothing(name: str) -> None:
    """What is not run because it would be the run without it is that run, save for renewals of what is over."""
    scenario = SCENARIOS[name]
    seen = simulate(scenario, ())
    left_out = [
        one
        for one, _ in explore.singles(scenario)
        if explore.changes_nothing(scenario, seen.crossings, one[0])
    ]
    assert {one[0].fault for one in left_out} >= {Fault.CRASH_AFTER, Fault.FREEZE_AFTER}
    for one in left_out:
        outcome = simulate(scenario, one)
        assert outcome.violations == ()
        assert passed(outcome) == passed(seen)
        assert outcome.rows == seen.rows


def passed(outcome: Outcome) -> list[tuple[object, ...]]:
    return [as_passed(crossing)[1:] for crossing in outcome.crossings if crossing.name != "renew"]


def test_what_is_due_at_once_is_done_in_the_order_in_which_it_was_asked_for() -> None:
    loop = LeanLoop()
    done: list[object] = []

    async def main() -> float:
        for number in range(20):
            loop.call_later(5.0, done.append, number)
        loop.call_later(1.0, done.append, "cancelled").cancel()
        await asyncio.sleep(60.0)
        return loop.time()

    assert loop.run_until_complete(main()) == 1060.0
    assert done == [*range(20)]


def test_waiting_for_nothing_ends_a_simulation() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        LeanLoop().run_until_complete(main())


def test_a_schedule_reads_as_it_was_written() -> None:
    schedule = (Planned(3, Fault.LATE, 2.5), Planned(12, Fault.CRASH_AFTER))
    assert to_text(schedule) == "3:late=2.5,12:crash_after"
    assert from_text(to_text(schedule)) == schedule
    assert from_text(to_text(())) == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nowhere -", "no scenario is called 'nowhere'"),
        ("hold", None),
        ("hold 3", "is not CROSSING:FAULT"),
        ("hold 3:late=1.2.3", "is not CROSSING:FAULT"),
        ("hold 3:lateness", "no fault is called so"),
        ("hold 3:crash_after=2", "take seconds"),
        ("hold 3:late,3:late", "crossings must go up"),
        ("hold 2:claimed", "crossing 2 is 'claim', where there can be"),
        ("hold 9999:late", "the last crossing of this run is"),
    ],
)
def test_a_line_that_cannot_be_replayed_is_told_why(line: str, problem: str | None) -> None:
    console = Console(quiet=True)
    if problem is None:
        assert replay(line, None, console, in_postgres=False)
        return
    with pytest.raises(ValueError, match=problem):
        replay(line, None, console, in_postgres=False)


def test_a_schedule_is_replayed_over_postgresql_with_a_bug_in_its_sql() -> None:
    told = StringIO()
    console = Console(file=told)
    assert not replay("hold 14:late", "no fence in the SQL", console, in_postgres=True)
    assert "I4: a commit of another epoch was accepted" in told.getvalue()


def test_a_process_ends_with_the_one_that_has_started_it() -> None:
    command = (sys.executable, "-c", STARTS_A_WORKER)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline().strip().isdigit()
        starter.kill()
        # Its output ends when all who could write to it have ended.
        assert starter.stdout.read() == ""


def assert_caught(bug: Bug, found: explore.Hunted) -> None:
    assert found.failure is not None, f"not caught in {found.schedules} schedules"
    assert bug.caught_by <= {violation.invariant for violation in found.failure.violations}


def assert_holds(explored: explore.Explored) -> None:
    assert explored.schedules > 0
    assert not explored.failures, "\n".join(map(str, explored.failures[:5]))
