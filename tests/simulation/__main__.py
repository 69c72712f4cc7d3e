"""Simulates: ``make simulate``, or ``python -m tests.simulation`` with options.

    --replay 'SCENARIO SCHEDULE'  run one schedule and print its trace
    --postgres                    over real PostgreSQL (for --replay)
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
import signal
import sys

from rich.console import Console

from tests.simulation.bugs import BUGS
from tests.simulation.campaign import be_quiet, run
from tests.simulation.replay import replay
from tests.simulation.scenarios import SCENARIOS


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--replay", metavar="'SCENARIO SCHEDULE'")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--in-postgres", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.replay is None and (options.bug or options.postgres):
        parser.error("--bug and --postgres are for --replay")
    console = Console()
    be_quiet()
    if options.replay is not None:
        try:
            right = replay(options.replay, options.bug, console, in_postgres=options.postgres)
        except ValueError as error:
            parser.exit(2, f"{error}\n")
    else:
        # Whoever ends it ends all that it has started: processes, and PostgreSQL.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        seeds = range(options.from_seed, options.from_seed + options.seeds)
        right = run(options.only, seeds, options.in_postgres, options.processes, console)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
