"""Runs measurements: ``python -m bench [NAME ...]``, all of them without a name.

Prints a table, writes ``build/bench.json``, and draws what it has measured into ``docs/bench/``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import (
    calls,
    capacity,
    early_stop,
    front_door,
    history,
    last_quote,
    lone_collection,
    many_books,
    memory,
    one_book,
    purchase_time,
    remembered,
    selection,
    ten_thousand,
    throughput,
    watches,
)
from bench.drawing import draw
from bench.harness import Result, show, write
from bench.workers import quiet

MEASUREMENTS: dict[str, ModuleType] = {
    module.__name__.removeprefix("bench."): module
    for module in (
        capacity,
        lone_collection,
        many_books,
        last_quote,
        one_book,
        calls,
        early_stop,
        memory,
        ten_thousand,
        remembered,
        selection,
        history,
        throughput,
        purchase_time,
        front_door,
        watches,
    )
}
FILE = Path("build/bench.json")
DRAWINGS = Path("docs/bench")
_WIDE = 150
"""Columns of the table where there is no terminal."""


async def main(names: list[str]) -> None:
    """Measure one after the other."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise SystemExit(
            f"no measurement is called {' or '.join(unknown)}: there are {', '.join(MEASUREMENTS)}"
        )
    quiet()
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    results: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name in names or MEASUREMENTS:
            measurement = MEASUREMENTS[name]
            task = progress.add_task(measurement.TITLE, total=1.0)
            results += await measurement.measure(
                lambda part, task=task: progress.update(task, completed=part)
            )
    show(results, console)
    write(results, FILE)
    drawn = [draw(result.chart, DRAWINGS) for result in results if result.chart]
    console.print("written to", FILE, *drawn)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
