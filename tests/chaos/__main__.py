"""``python -m tests.chaos``: buy while everything is killed, compare all books; then measure how soon work goes on.

Prints how far it is, a table at the end, and the seed; writes ``build/chaos.json`` and ``docs/chaos.svg``. Ends with
status 1, and says what to look at, when anything is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

import click
import structlog
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.harness import show, write
from tests.chaos import report
from tests.chaos.faults import plan
from tests.chaos.run import Options, Outcome, Progress, run
from tests.chaos.takeover import measure

FILE = Path("build/chaos.json")
VIOLATIONS = Path("build/chaos-violations.json")
DATA = Path("build/chaos")
DRAWING = Path("docs/chaos.svg")

_LINE_EVERY_S = 10.0
_DRAWN_EVERY_S = 0.25


@click.command()
@click.option("--purchases", default=1000, show_default=True, help="How many are asked for.")
@click.option("--rate", default=7.0, show_default=True, help="How many of them in a second.")
@click.option("--every", default=1.0, show_default=True, help="Seconds from fault to fault.")
@click.option("--replicas", default=3, show_default=True, help="Of each service.")
@click.option("--takeovers", default=20, show_default=True, help="Workers killed to measure that.")
@click.option("--seed", type=int, help="Replays the wishes and the faults of a run, in order.")
def command(  # noqa: PLR0917  click names them all
    purchases: int, rate: float, every: float, replicas: int, takeovers: int, seed: int | None
) -> None:
    """Run it all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if seed is None:
        seed = SystemRandom().randrange(1_000_000)
    # An old ledger would be full of strays.
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    console = Console(highlight=False)
    console.print(
        f"seed {seed}: --seed {seed} brings the same wishes and faults, in the same order"
    )
    options = Options(
        seed=seed, purchases=purchases, rate=rate, replicas=replicas, data=DATA / "mesh"
    )
    outcome = asyncio.run(_storm(options, every, console))
    lines = report.results(outcome)
    report.draw(outcome, DRAWING)
    if outcome.violations:
        report.show_violations(outcome, seed, options.data, VIOLATIONS, console)
    if takeovers and not outcome.violations:
        taken_s = asyncio.run(_takeovers(takeovers, seed, console))
        lines += report.takeover_results(taken_s)
    show(lines, console)
    write(lines, FILE)
    console.print("written to", FILE, DRAWING)
    if outcome.violations or any(line.met is False for line in lines):
        raise SystemExit(1)


async def _storm(options: Options, every_s: float, console: Console) -> Outcome:
    progress = Progress(options.purchases)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run(options, plan(options.seed, every_s), progress))
        await _drawn(running, lambda: report.live_line(progress), console)
    return running.result()


async def _takeovers(kills: int, seed: int, console: Console) -> list[float]:
    line = Text("killing workers, to see how soon their purchases go on")

    def on_progress(done: int, taken: int) -> None:
        line.plain = f"workers killed {done}/{kills}, purchases of theirs that went on {taken}"

    async with asyncio.TaskGroup() as group:
        running = group.create_task(measure(DATA / "takeover", kills, seed, on_progress))
        await _drawn(running, lambda: line, console)
    return running.result()


async def _drawn(running: asyncio.Task[object], line: Callable[[], Text], console: Console) -> None:
    """Show a line until something is over: drawn again and again on a terminal, printed now and then elsewhere."""
    if not console.is_terminal:
        while not running.done():
            await asyncio.wait([running], timeout=_LINE_EVERY_S)
            console.print(line(), soft_wrap=True)
        return
    with Live(line(), console=console, auto_refresh=False) as live:
        while not running.done():
            await asyncio.wait([running], timeout=_DRAWN_EVERY_S)
            live.update(line(), refresh=True)


if __name__ == "__main__":
    command()
