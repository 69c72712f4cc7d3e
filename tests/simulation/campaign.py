"""Everything that is simulated, in several processes: faults, seeds, bugs; shown as tables and written down."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing import Queue
from pathlib import Path
from threading import Thread

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.servers import PostgresServer, running_postgres
from tests.simulation.bugs import BUGS, Bug
from tests.simulation.explore import Explored, Hunted, Run, explore, hunt, sample, singles
from tests.simulation.faults import Schedule
from tests.simulation.postgres import prepare, simulate_in_postgres
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.world import simulate

FILE = Path("build/simulate.json")
LEAST = 10_000
MOST_S = 180.0

_PART = 4
_RUNS_OBJECTS = 5_000
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Job:
    """Work for a process: schedules of a scenario, seeds, some of them over PostgreSQL too, or a bug to hunt."""

    scenario: str
    schedules: tuple[tuple[Schedule, bool], ...] = ()
    seeds: tuple[int, ...] = ()
    in_postgres: tuple[int, ...] = ()
    bug: str | None = None


def work(job: Job) -> Explored | Hunted:
    """Do a job."""
    scenario = SCENARIOS[job.scenario]
    if job.bug is not None:
        return hunted(BUGS[job.bug], _dsn)
    explored = explore(scenario, job.schedules)
    undisturbed = simulate(scenario, ()).crossings if job.seeds else ()
    sampled = {seed: sample(scenario, seed, undisturbed) for seed in job.seeds}
    explored.add(explore(scenario, [(schedule, False) for schedule in sampled.values()]))
    some = [(sampled[seed], False) for seed in job.in_postgres]
    over_postgres = partial(simulate_in_postgres, dsn=_dsn)
    explored.add(explore(scenario, some, over_postgres, in_postgres=True))
    return explored


def hunted(bug: Bug, dsn: str) -> Hunted:
    """Hunt a planted bug, in the prepared database if it is in the SQL."""
    run: Run = (
        partial(simulate, parts=bug.parts)
        if bug.sql is None
        else partial(simulate_in_postgres, dsn=dsn, parts=bug.parts, make_store=bug.sql.store)
    )
    return hunt(SCENARIOS[bug.scenario], run, bug.caught_by, bug.faults)


def jobs(names: list[str], seeds: range, in_postgres: int) -> Iterator[Job]:
    """Give all there is to do, the longest first, what can happen at one crossing together."""
    for bug in sorted(BUGS.values(), key=lambda bug: (bug.sql is None, -bug.faults)):
        if bug.scenario in names:
            yield Job(bug.scenario, bug=bug.name)
    for name in names:
        for first in range(0, len(seeds), _PART):
            some = seeds[first : first + _PART]
            over_postgres = tuple(seed for seed in some if seed in seeds[:in_postgres])
            yield Job(name, seeds=tuple(some), in_postgres=over_postgres)
    for name in names:
        yield Job(name, schedules=(((), False),))
        for _, some_faults in groupby(
            singles(SCENARIOS[name]), lambda single: single[0][0].crossing
        ):
            yield Job(name, schedules=tuple(some_faults))


def run(names: list[str], seeds: range, in_postgres: int, processes: int, console: Console) -> bool:
    """Do everything, show it, write it down; say whether all is as it should be."""
    began_s = time.monotonic()
    explored = {name: Explored() for name in names}
    hunted: dict[str, Hunted] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    context = multiprocessing.get_context("spawn")
    databases: Queue[str] = context.Queue()
    with running_postgres() as server, Progress(*columns, console=console) as progress:
        for _ in range(processes):
            databases.put(asyncio.run(_prepared(server)))
        pool = ProcessPoolExecutor(processes, context, begin, (databases,))
        try:
            waiting: dict[Future[Explored | Hunted], Job] = {
                pool.submit(work, job): job for job in jobs(names, seeds, in_postgres)
            }
            task = progress.add_task("faults", total=len(waiting))
            told = 0
            for done, future in enumerate(as_completed(waiting), start=1):
                job, found = waiting[future], future.result()
                match found:
                    case Explored():
                        explored[job.scenario].add(found)
                    case Hunted():
                        assert job.bug is not None
                        hunted[job.bug] = found
                progress.advance(task)
                if not console.is_terminal and done * 10 // len(waiting) > told:
                    told = done * 10 // len(waiting)
                    elapsed_s = time.monotonic() - began_s
                    console.print(f"{10 * told} % after {elapsed_s:.0f} s")
        except BaseException:
            # What is under way or waits is of no use to one who has stopped it.
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    elapsed_s = time.monotonic() - began_s
    show(explored, hunted, console)
    return write(explored, hunted, elapsed_s, console)


def begin(databases: Queue[str]) -> None:
    """Make a process ready: a database of its own, no log, and no life after the one that has started it."""
    global _dsn  # noqa: PLW0603  what a process of a pool knows can be nowhere else
    # Control-C reaches all processes at once: the one that has started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    _dsn = databases.get()
    be_quiet()
    # What is there by now stays: looking through it for garbage time and again is of no use. Nor is it while a run goes
    # on: nearly all of its garbage comes with its end.
    gc.freeze()
    gc.set_threshold(_RUNS_OBJECTS, 10, 10)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


_dsn = ""


async def _prepared(server: PostgresServer) -> str:
    dsn = await server.create()
    await prepare(dsn)
    return dsn


def show(explored: dict[str, Explored], hunted: dict[str, Hunted], console: Console) -> None:
    """Print the tables."""
    table = Table("scenario", "schedules", "crossings", "violations")
    for name, found in explored.items():
        violations = sum(len(failure.violations) for failure in found.failures)
        table.add_row(name, f"{found.schedules:,}", f"{found.crossings:,}", f"{violations:,}")
    console.print(table)
    bugs = Table("planted bug", "caught", "by", "after", "under")
    for name, bug in sorted(BUGS.items()):
        if name in hunted:
            failure = hunted[name].failure
            line = failure.line if failure else ""
            by = ", ".join(sorted(bug.caught_by))
            bugs.add_row(name, "yes" if failure else "NO", by, str(hunted[name].schedules), line)
    console.print(bugs)
    failures = [failure for found in explored.values() for failure in found.failures]
    for failure in sorted(failures, key=lambda failure: len(failure.schedule))[:_SHOWN]:
        console.print(str(failure), markup=False, highlight=False, soft_wrap=True)
    if len(failures) > _SHOWN:
        console.print(f"... and {len(failures) - _SHOWN} more schedules")


def write(
    explored: dict[str, Explored], hunted: dict[str, Hunted], elapsed_s: float, console: Console
) -> bool:
    """Write the results down."""
    schedules = sum(found.schedules for found in explored.values())
    violations = sum(
        len(failure.violations) for found in explored.values() for failure in found.failures
    )
    caught = sum(found.failure is not None for found in hunted.values())
    results = [
        _result("schedules simulated", schedules, "", LEAST, schedules >= LEAST),
        _result("invariants violated", violations, "", 0, violations == 0),
        _result(
            "planted bugs caught", caught, f"of {len(hunted)}", len(hunted), caught == len(hunted)
        ),
        _result("time", round(elapsed_s, 1), "s", MOST_S, elapsed_s <= MOST_S),
    ]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(results, indent=2) + "\n")
    console.print(
        f"{schedules:,} schedules, {violations} violations, {caught} of {len(hunted)} planted bugs "
        f"caught in {elapsed_s:.0f} s; written to {FILE}"
    )
    return violations == 0 and caught == len(hunted)


def be_quiet() -> None:
    """Have the orchestrator's log say nothing: faults are all it would report."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("critical"),
        cache_logger_on_first_use=True,
    )


def _result(name: str, ours: float, unit: str, aim: float, met: bool) -> dict[str, object]:  # noqa: FBT001  a column
    return {
        "name": name,
        "ours": ours,
        "naive": None,
        "ratio": None,
        "unit": unit,
        "aim": aim,
        "met": met,
    }
