"""Runs all measurements: ``python -m bench``. Prints a table and writes ``build/bench.json``."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import Progress

from bench import history, lone_collection
from bench.harness import Result, show, write

MEASUREMENTS = (lone_collection, history)
FILE = Path("build/bench.json")


async def main() -> None:
    """Measure one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    console = Console()
    results: list[Result] = []
    with Progress(console=console, transient=True) as progress:
        for measurement in MEASUREMENTS:
            task = progress.add_task(measurement.TITLE, total=1.0)
            results += await measurement.measure(
                lambda part, task=task: progress.update(task, completed=part)
            )
    show(results, console)
    write(results, FILE)
    console.print(f"written to {FILE}")


if __name__ == "__main__":
    asyncio.run(main())
