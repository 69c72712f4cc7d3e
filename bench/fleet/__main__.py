"""Tries policies on the same simulated day: ``python -m bench.fleet --policy thompson --policy random``.

Prints a table, writes ``build/fleet.json``, and draws regret and reliability into ``build/``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.drawing import draw
from bench.fleet.charts import regret_chart, reliability_chart
from bench.fleet.policies import POLICIES
from bench.fleet.replay import WHOLE_DAY, Plan
from bench.fleet.scores import Summary, scaled
from bench.fleet.trial import trials
from bench.fleet.world import WORLDS

BUILD = Path("build")


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__)
    parser.add_argument(
        "--policy",
        action="append",
        help=f"{', '.join(POLICIES)}, or module:Class; may be repeated; all three by default",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sellers", type=int, default=10_000)
    parser.add_argument(
        "--requests",
        type=int,
        default=20_000,
        help=f"in the simulated time; {WHOLE_DAY:,} are a day at 20 a second (default: 20000)",
    )
    parser.add_argument("--days", type=float, default=1.0, help="the simulated time (default: 1)")
    parser.add_argument(
        "--books",
        type=int,
        help="how many there are; by default as many as are asked for as often each as a million at 20 a second",
    )
    parser.add_argument("--world", choices=WORLDS, default="usual")
    parser.add_argument(
        "--demand", type=Path, help="a CSV with a column demand, in place of Zipf's law"
    )
    parser.add_argument(
        "--untold", action="store_true", help="policies are not told which sellers refuse to sell"
    )
    given = parser.parse_args()
    world = scaled(WORLDS[given.world], given.requests, given.days)
    weights = None if given.demand is None else _weights(given.demand)
    books = given.books if weights is None else len(weights)
    plan = Plan(
        requests=given.requests,
        seed=given.seed,
        sellers=given.sellers,
        world=world if books is None else replace(world, books=books),
        days=given.days,
        weights=weights,
        told_of_refusals=not given.untold,
    )
    names = given.policy or list(POLICIES)
    summaries = asyncio.run(trials(plan, names))
    _show(summaries)
    BUILD.mkdir(exist_ok=True)
    file = BUILD / "fleet.json"
    rows = {name: asdict(result) for name, result in summaries.items()}
    file.write_text(json.dumps(rows, indent=2) + "\n")
    drawn = [
        draw(chart, BUILD) for chart in (regret_chart(summaries), reliability_chart(summaries))
    ]
    Console().print("written to", file, *drawn)


def _weights(file: Path) -> NDArray[np.float64]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            weights = np.array([float(row["demand"]) for row in csv.DictReader(lines)])
    except (OSError, KeyError, ValueError) as error:
        raise SystemExit(
            f"--demand {file}: {error!r}; it must be a CSV with a column demand"
        ) from error
    if not len(weights) or weights.min() <= 0:
        raise SystemExit(f"--demand {file}: it has no books, or one without demand")
    return weights


def _show(summaries: dict[str, Summary]) -> None:
    table = Table(
        caption="the last fifth of the simulated time; calls at most and discovery: all of it"
    )
    table.add_column("")
    for name in summaries:
        table.add_column(name.rpartition(":")[2], justify="right")
    for label, text in _ROWS.items():
        table.add_row(label, *(text(result) for result in summaries.values()))
    Console().print(table)
    for name, result in summaries.items():
        _show_parts(name.rpartition(":")[2], result)


def _show_parts(name: str, result: Summary) -> None:
    table = Table(title=f"{name}, by how often the book had been asked for before")
    for label in (
        "at least",
        "of requests",
        "mean regret",
        "cheapest asked",
        "mean calls",
        "said",
        "true",
    ):
        table.add_column(label, justify="right")
    for group in result.groups:
        table.add_row(
            str(group.least),
            f"{group.part:.0%}",
            f"{group.regret:.2%}",
            f"{group.found:.1%}",
            f"{group.calls:.0f}",
            f"{group.said:.1%}",
            f"{group.true:.1%}",
        )
    Console().print(table)
    reasons = Table(title=f"{name}: why the cheapest was not asked")
    for label in ("", "of requests", "of the mean regret"):
        reasons.add_column(label, justify="right")
    for reason, (part, regret) in result.missed.items():
        reasons.add_row(reason.value, f"{part:.1%}", f"{regret:.2%}")
    Console().print(reasons)


_ROWS: dict[str, Callable[[Summary], str]] = {
    "mean regret": lambda s: f"{s.regret:.2%}",
    "regret@10, 50": lambda s: f"{s.regret_at[10]:.2%}, {s.regret_at[50]:.2%}",
    "nobody asked had it": lambda s: f"{s.nothing:.2%}",
    "cheapest among those asked": lambda s: f"{s.found:.1%}",
    "recall@10, 50": lambda s: f"{s.found_at[10]:.1%}, {s.found_at[50]:.1%}",
    "calls: median, mean, most": lambda s: (
        f"{s.calls_median:.0f}, {s.calls_mean:.0f}, {s.calls_max}"
    ),
    "phases": lambda s: f"{s.phases:.2f}",
    "wait: median, p99": lambda s: f"{s.wait_median_s:.1f} s, {s.wait_p99_s:.1f} s",
    "calibration error": lambda s: f"{s.calibration_error:.2%}",
    "saving, where there is one: said, true": lambda s: f"{s.said_saving:.1%}, {s.saving:.1%}",
    "requests until a niche's new cheapest is asked": lambda s: (
        " ".join(map(str, s.discovered)) + f"; {s.undecided} undecided, {s.too_late} too late"
    ),
    "CPU of all choices of a request: median, p99": lambda s: (
        f"{s.choosing_median_s * 1e3:.1f} ms, {s.choosing_p99_s * 1e3:.1f} ms"
    ),
}


if __name__ == "__main__":
    main()
