"""What measurements share: taking turns, medians with their spread, the table and the file."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.drawing import WHOLE_FROM, Chart

Side = Callable[[str], Awaitable[None]]
"""Does once what is measured, for the book given."""

OnProgress = Callable[[float], None]
"""Is told which part of a measurement is done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What doing it once took: time on the wall, and CPU time of this process, all its threads."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values and their middle half; three times the same for a value that comes out the same."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Give the median, and ``1.05 - 1.12`` in a second line where there is a spread."""
        if self.low == self.high:
            return _short(self.median)
        return f"{_short(self.median)}\n{_short(self.low)} - {_short(self.high)}"


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the table: ours and the straightforward one, both in ``unit``, and the ratio of the two.

    Attributes:
        name: what was measured.
        ours: our value.
        naive: that of the straightforward solution; None where it has none.
        ratio: of ours / naive in the same round; None where there is no naive value.
        unit: of both.
        aim: the most that the median of the ratio may be, or of ours where the aim is ``absolute``; None where there is
            no aim and the line is there to be read.
        absolute: whether the aim is for ours.
        at_least: whether the aim is the least instead.
        kept: whether what must hold besides did hold; ``note`` says what that is.
        note: what else there is to know.
        chart: a picture of it.

    """

    name: str
    ours: Spread
    naive: Spread | None
    ratio: Spread | None
    unit: str
    aim: float | None
    absolute: bool = False
    at_least: bool = False
    kept: bool = True
    note: str = ""
    chart: Chart | None = None

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None where there is none."""
        judged = self.ours if self.absolute else self.ratio
        if self.aim is None or judged is None:
            return None
        reached = judged.median >= self.aim if self.at_least else judged.median <= self.aim
        return reached and self.kept


async def take_turns(
    ours: Side,
    naive: Side,
    rounds: int,
    on_progress: OnProgress,
    *,
    warm_up_rounds: int = 0,
    pause_s: float = 0.0,
) -> tuple[list[Sample], list[Sample]]:
    """Let both do it once a round, for the same book, in the order A B, B A, A B, ...

    Each round is for a new book. The warm-up does not count; ``pause_s`` is waited before each turn, not measured.
    """
    samples_of_ours: list[Sample] = []
    samples_of_naive: list[Sample] = []
    for number in range(warm_up_rounds + rounds):
        turns = [(ours, samples_of_ours), (naive, samples_of_naive)]
        for side, samples in turns if number % 2 == 0 else reversed(turns):
            await asyncio.sleep(pause_s)
            samples.append(await _measured(side, f"book-{number}"))
        on_progress((number + 1) / (warm_up_rounds + rounds))
    return samples_of_ours[warm_up_rounds:], samples_of_naive[warm_up_rounds:]


def compared(
    name: str,
    ours: Sequence[float],
    naive: Sequence[float],
    *,
    unit: str,
    aim: float,
    absolute: bool = False,
    note: str = "",
    chart: Chart | None = None,
) -> Result:
    """Compare values of the same rounds."""
    return Result(
        name=name,
        ours=spread(ours),
        naive=spread(naive),
        ratio=spread([a / b for a, b in zip(ours, naive, strict=True)]),
        unit=unit,
        aim=aim,
        absolute=absolute,
        note=note,
        chart=chart,
    )


def spread(values: Sequence[float]) -> Spread:
    """Give the median of at least two values and their middle half."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, median, high)


def exactly(value: float) -> Spread:
    """Give a value that has no spread."""
    return Spread(value, value, value)


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE, caption="median, and the middle half where it was repeated")
    for heading in ("measure", "ours", "naive", "ratio", "aim", "met"):
        table.add_column(heading)
    for result in results:
        table.add_row(
            f"{result.name}, {result.unit}",
            str(result.ours),
            "" if result.naive is None else str(result.naive),
            "" if result.ratio is None else str(result.ratio),
            _aim(result),
            {True: "yes", False: "NO", None: ""}[result.met],
        )
    console.print(table)
    for result in results:
        if result.note:
            console.print(f"[bold]{result.name}[/]: {result.note}", highlight=False)


def write(results: Sequence[Result], file: Path) -> None:
    """Write the results as JSON."""
    file.parent.mkdir(exist_ok=True)
    rows = [
        {
            "name": result.name,
            "ours": result.ours.median,
            "naive": None if result.naive is None else result.naive.median,
            "ratio": None if result.ratio is None else result.ratio.median,
            "unit": result.unit,
            "aim": result.aim,
            "met": result.met,
        }
        for result in results
    ]
    file.write_text(json.dumps(rows, indent=2) + "\n")


def _aim(result: Result) -> str:
    if result.aim is None:
        return ""
    unit = f" {result.unit}" if result.absolute else ""
    return f"{'≥' if result.at_least else '≤'} {result.aim:g}{unit}"


async def _measured(side: Side, book_id: str) -> Sample:
    # What the other side left behind is not cleared away at this one's cost.
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await side(book_id)
    return Sample(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def _short(value: float) -> str:
    if value >= WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 or value == 0 else f"{value:.3g}"
