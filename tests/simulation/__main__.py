"""Simulates: ``make simulate``, or ``python -m tests.simulation`` with options.

    --replay 'SCENARIO SCHEDULE'  run one schedule and print its trace
    --bug NAME                    with this bug planted (for --replay)
    --seeds N                     deeper schedules by seed, so many a scenario
    --from-seed N                 the first seed
    --in-postgres N               so many of these seeds over real PostgreSQL too
    --only NAME ...               these scenarios alone
    --processes N                 how many at once

Without ``--replay``: all single and double faults of every scenario, deeper ones by seed, and the planted bugs. Prints
a table, writes ``build/simulate.json``, and ends with 1 when an invariant does not hold or a bug was not caught.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import be_quiet, run
from tests.simulation.faults import from_text
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.world import REAL, simulate


def replay(line: str, bug: str | None, console: Console) -> bool:
    """Run one schedule and print what happens; say whether all invariants hold.

    Raises:
        ValueError: when there is no such scenario, or the schedule is not one that happens in it.

    """
    name, _, text = line.partition(" ")
    if name not in SCENARIOS:
        raise ValueError(f"no scenario is called {name!r}: there are {', '.join(SCENARIOS)}")
    schedule = from_text(text.strip() or "-")
    outcome = simulate(SCENARIOS[name], schedule, BUGS[bug].parts if bug else REAL)
    last = len(outcome.crossings) - 1
    if schedule and max(planned.crossing for planned in schedule) > last:
        raise ValueError(f"{text}: the last crossing of this run is {last}")
    for crossing in outcome.crossings:
        console.print(str(crossing), markup=False, highlight=False, soft_wrap=True)
    for row in outcome.rows.values():
        purchase = row.purchase
        reason = f" ({purchase.failure_reason.value})" if purchase.failure_reason else ""
        console.print(
            f"{purchase.request_id}: {purchase.status.value}{reason}, {purchase.stage.value}"
        )
    for violation in outcome.violations:
        console.print(str(violation), markup=False, style="red", soft_wrap=True)
    return not outcome.violations


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--replay", metavar="'SCENARIO SCHEDULE'")
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--in-postgres", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    console = Console()
    be_quiet()
    if options.replay:
        try:
            right = replay(options.replay, options.bug, console)
        except ValueError as error:
            parser.error(str(error))
    else:
        seeds = range(options.from_seed, options.from_seed + options.seeds)
        right = run(options.only, seeds, options.in_postgres, options.processes, console)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
