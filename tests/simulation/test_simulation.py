"""The simulator's part of the tests: all single faults, the pairs of one scenario, and every planted bug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.simulation import explore
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.faults import Fault, Planned, from_text, to_text
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.world import simulate

PAIRED = ("nobody_has_it",)
SEEDS = 3

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
    statuses = tuple(row.purchase.status for row in outcome.rows.values())
    assert statuses == scenario.expected


@every_scenario
def test_no_single_fault_violates_an_invariant(scenario: Scenario) -> None:
    alone = [(schedule, False) for schedule, _ in explore.singles(scenario)]
    assert_holds(explore.explore(scenario, alone))


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
@pytest.mark.parametrize("bug", BUGS.values(), ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    hunted = explore.hunt(SCENARIOS[bug.scenario], bug.parts, bug.caught_by, bug.faults)
    assert hunted.failure is not None
    assert bug.caught_by <= {violation.invariant for violation in hunted.failure.violations}


def test_the_same_schedule_gives_the_same_run() -> None:
    scenario = SCENARIOS["two_careless_sellers"]
    schedule = explore.sample(scenario, 1)
    one, other = simulate(scenario, schedule), simulate(scenario, schedule)
    assert [str(c) for c in one.crossings] == [str(c) for c in other.crossings]


def test_a_schedule_reads_as_it_was_written() -> None:
    schedule = (Planned(3, Fault.LATE, 2.5), Planned(12, Fault.CRASH_AFTER))
    assert to_text(schedule) == "3:late=2.5,12:crash_after"
    assert from_text(to_text(schedule)) == schedule
    assert from_text(to_text(())) == ()


def assert_holds(explored: explore.Explored) -> None:
    assert explored.schedules > 0
    assert not explored.failures, "\n".join(map(str, explored.failures[:5]))
