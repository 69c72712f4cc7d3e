"""One schedule again, step by step, as a line that was printed for it says."""

from __future__ import annotations

import asyncio

from rich.console import Console

from tests.servers import running_postgres
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.explore import unexpected
from tests.simulation.faults import ALL, EVENTS, Schedule, from_text
from tests.simulation.postgres import prepare, simulate_in_postgres
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.world import REAL, Outcome, simulate


def replay(line: str, bug: str | None, console: Console, *, in_postgres: bool) -> bool:
    """Run a schedule, with a bug if one is named, and print what happens; say whether all invariants hold.

    A bug that is planted into the SQL is run over PostgreSQL in any case.

    Raises:
        ValueError: when there is no such scenario, or the schedule is not one that happens in it.

    """
    name, _, text = line.strip().partition(" ")
    if name not in SCENARIOS:
        raise ValueError(f"no scenario is called {name!r}: there are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    schedule = from_text(text.strip() or "-")
    planted = BUGS[bug] if bug else None
    if in_postgres or (planted is not None and planted.sql is not None):
        outcome = _in_a_postgres_of_its_own(scenario, schedule, planted)
    else:
        outcome = simulate(scenario, schedule, planted.parts if planted else REAL)
    _must_have_happened(schedule, outcome)
    for crossing in outcome.crossings:
        console.print(str(crossing), markup=False, highlight=False, soft_wrap=True)
    for row in outcome.rows.values():
        purchase = row.purchase
        reason = f" ({purchase.failure_reason.value})" if purchase.failure_reason else ""
        console.print(
            f"{purchase.request_id}: {purchase.status.value}{reason}, {purchase.stage.value}"
        )
    violations = outcome.violations + (() if schedule else unexpected(scenario, outcome))
    for violation in violations:
        console.print(str(violation), markup=False, style="red", soft_wrap=True)
    return not violations


def _in_a_postgres_of_its_own(scenario: Scenario, schedule: Schedule, bug: Bug | None) -> Outcome:
    with running_postgres() as server:

        async def prepared() -> str:
            dsn = await server.create()
            await prepare(dsn)
            return dsn

        dsn = asyncio.run(prepared())
        parts = bug.parts if bug else REAL
        if bug is not None and bug.sql is not None:
            return simulate_in_postgres(scenario, schedule, dsn, parts, bug.sql.store)
        return simulate_in_postgres(scenario, schedule, dsn, parts)


def _must_have_happened(schedule: Schedule, outcome: Outcome) -> None:
    last = len(outcome.crossings) - 1
    for planned in schedule:
        if planned.crossing > last:
            raise ValueError(f"{planned}: the last crossing of this run is {last}")
        crossing = outcome.crossings[planned.crossing]
        possible = (*ALL[crossing.kind], *EVENTS)
        if planned.fault not in possible:
            raise ValueError(
                f"{planned}: crossing {planned.crossing} is {crossing.name!r}, where there can be"
                f" {', '.join(possible)}"
            )
