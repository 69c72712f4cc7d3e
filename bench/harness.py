"""What measurements share: taking turns, medians with their spread, the table and the file."""

from __future__ import annotations

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

Side = Callable[[str], Awaitable[None]]
"""Does once what is measured, for the book given."""

_WHOLE_FROM = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """What doing it once took: time on the wall, and CPU time of this process, all its threads."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values and their middle half."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Give the median, and ``1.05 - 1.12`` in a second line."""
        return f"{_short(self.median)}\n{_short(self.low)} - {_short(self.high)}"


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the table: ours and the straightforward one, both in ``unit``, and the ratio of the two.

    The ratio is that of ours / naive in the same round; ``met`` says whether its median is at most ``aim``, or that of
    ours where the aim is ``absolute``.
    """

    name: str
    ours: Spread
    naive: Spread
    ratio: Spread
    unit: str
    aim: float
    absolute: bool = False

    @property
    def met(self) -> bool:
        return (self.ours if self.absolute else self.ratio).median <= self.aim


async def take_turns(
    ours: Side, naive: Side, rounds: int, on_round: Callable[[], None]
) -> tuple[list[Sample], list[Sample]]:
    """Let both do it once a round, for the same book, in the order A B, B A, A B, ..."""
    samples_of_ours: list[Sample] = []
    samples_of_naive: list[Sample] = []
    for number in range(rounds):
        turns = [(ours, samples_of_ours), (naive, samples_of_naive)]
        for side, samples in turns if number % 2 == 0 else reversed(turns):
            samples.append(await _measured(side, f"book-{number}"))
        on_round()
    return samples_of_ours, samples_of_naive


def compared(
    name: str,
    ours: Sequence[float],
    naive: Sequence[float],
    *,
    unit: str,
    aim: float,
    absolute: bool = False,
) -> Result:
    """Compare values of the same rounds."""
    return Result(
        name=name,
        ours=_spread(ours),
        naive=_spread(naive),
        ratio=_spread([a / b for a, b in zip(ours, naive, strict=True)]),
        unit=unit,
        aim=aim,
        absolute=absolute,
    )


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table."""
    table = Table(box=box.SIMPLE, caption="median, and the middle half of the rounds")
    for heading in ("measure", "ours", "naive", "ratio", "aim", "met"):
        table.add_column(heading)
    for result in results:
        table.add_row(
            f"{result.name}, {result.unit}",
            str(result.ours),
            str(result.naive),
            str(result.ratio),
            f"≤ {result.aim:g}{f' {result.unit}' if result.absolute else ''}",
            "yes" if result.met else "NO",
        )
    console.print(table)


def write(results: Sequence[Result], file: Path) -> None:
    """Write the results as JSON."""
    file.parent.mkdir(exist_ok=True)
    rows = [
        {
            "name": result.name,
            "ours": result.ours.median,
            "naive": result.naive.median,
            "ratio": result.ratio.median,
            "unit": result.unit,
            "aim": result.aim,
            "met": result.met,
        }
        for result in results
    ]
    file.write_text(json.dumps(rows, indent=2) + "\n")


async def _measured(side: Side, book_id: str) -> Sample:
    # What the other side left behind is not cleared away at this one's cost.
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await side(book_id)
    return Sample(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= _WHOLE_FROM else f"{value:.2f}"


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low, median, high)
