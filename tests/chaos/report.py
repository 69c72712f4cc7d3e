"""What is said of a chaos run: the live line, the table and its file, the picture, and what to look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.harness import Result, exactly
from tests.chaos.books import QUIET_STAGES, story
from tests.chaos.drawing import Dot, Row, timeline
from tests.chaos.faults import Fault
from tests.chaos.run import Outcome, Progress
from tests.chaos.takeover import percentile

_MOST_SHOWN = 20


def live_line(progress: Progress) -> Text:
    """Show how far a run is."""
    width = 24
    filled = round(width * progress.done / progress.wanted)
    faults = ", ".join(f"{fault} {number}" for fault, number in sorted(progress.faults.items()))
    line = Text("━" * filled, style="green")
    line.append("━" * (width - filled), style="dim")
    line.append(f" {progress.done}/{progress.wanted} final  ")
    line.append(progress.doing, style="bold")
    line.append(f"\n{sum(progress.faults.values())} faults: {faults or 'none yet'}")
    return line


def results(outcome: Outcome) -> list[Result]:
    """Give the lines of the table."""
    rules = Counter(violation.rule for violation in outcome.violations)
    special = {"lost", "double", "stray", "I7"}
    purchases = outcome.books.purchases
    flagged = sum(row.stage == "flagged" for row in purchases)
    settled = sum(row.stage in QUIET_STAGES for row in purchases)
    faults = Counter(made.fault for made in outcome.faults)
    statuses = Counter(row.status for row in purchases)
    return [
        _exactly(
            "purchases asked for under faults, final or flagged",
            settled,
            len(outcome.books.told),
            "purchases",
        ),
        _none("lost purchases", rules["lost"], "purchases"),
        _none("double purchases", rules["double"], "purchases"),
        _none("stray purchases, payments, orders, holds", rules["stray"], "entries"),
        _none("neither final nor rightly flagged", rules["I7"], "purchases"),
        _none("ledgers apart, of four", outcome.totals.apart, "cents"),
        _none(
            "other violations of I1 to I12 and of what customers were told",
            sum(number for rule, number in rules.items() if rule not in special),
            "violations",
        ),
        _plain(
            "faults made",
            len(outcome.faults),
            "faults",
            ", ".join(f"{fault} {number}" for fault, number in sorted(faults.items())),
        ),
        _plain(
            "purchases that were bought",
            statuses["purchased"],
            "purchases",
            ", ".join(f"{status} {number}" for status, number in sorted(statuses.items()))
            + f"; flagged for an operator {flagged}; paid {outcome.totals.ours / 100:,.2f}",
        ),
        _plain(
            "from the last fault to nothing left to do",
            outcome.quiet_at - outcome.calm_at,
            "s",
            "",
        ),
    ]


def takeover_results(taken_s: Sequence[float]) -> list[Result]:
    """Give the lines about purchases whose worker was killed."""
    note = (
        f"{len(taken_s)} purchases under way at a worker when it was killed: from the SIGKILL to the next event that "
        "another one committed, with the effect in between (150 ms at a seller)"
    )
    return [
        Result(
            name=f"kill -9 of a worker to its purchase going on, p{round(part * 100)}",
            ours=exactly(percentile(taken_s, part)),
            naive=None,
            ratio=None,
            unit="s",
            aim=aim,
            absolute=True,
            note=note if part == 0.5 else "",
        )
        for part, aim in ((0.5, 0.5), (0.99, 2.0))
    ]


def show_violations(outcome: Outcome, seed: int, data: Path, file: Path, console: Console) -> None:
    """Say what is wrong and where to look; write all that is known of it into a file."""
    table = Table(box=SIMPLE, title=f"{len(outcome.violations)} violations")
    for heading in ("rule", "request", "what"):
        table.add_column(heading, overflow="fold")
    for violation in outcome.violations[:_MOST_SHOWN]:
        table.add_row(violation.rule, violation.request_id, violation.detail)
    console.print(table)
    stories = {
        violation.request_id: story(outcome.books, violation.request_id)
        for violation in outcome.violations
    }
    listed = [
        {"rule": violation.rule, "request_id": violation.request_id, "detail": violation.detail}
        for violation in outcome.violations
    ]
    faults = [
        {"at_s": round(made.at - outcome.began_at, 3), "fault": made.fault, "child": made.name}
        for made in outcome.faults
    ]
    content = {"seed": seed, "violations": listed, "purchases": stories, "faults": faults}
    file.write_text(json.dumps(content, indent=2) + "\n")
    console.print(
        f"Everything that anybody has of these purchases: {file}. The services' logs: {data / 'logs'}. "
        f"The same mesh again, to look into its database: bookmesh up --data {data} --http-port 0 --grpc-port 0.",
        markup=False,
        soft_wrap=True,
    )


def draw(outcome: Outcome, file: Path) -> None:
    """Draw the run."""
    began_at = outcome.began_at
    dots = [
        Dot(
            told.accepted_at - began_at, told.final_at - told.accepted_at, told.answers[0]["status"]
        )
        for told in outcome.books.told
        if told.accepted_at is not None and told.final_at is not None
    ]
    rows = [
        Row(fault, [made.at - began_at for made in outcome.faults if made.fault is fault])
        for fault in Fault
    ]
    title = f"{len(outcome.books.told):,} purchases under {len(outcome.faults)} faults"
    file.parent.mkdir(exist_ok=True)
    file.write_text(timeline(title, dots, rows), encoding="utf-8")


def _exactly(name: str, value: float, aim: float, unit: str) -> Result:
    return Result(name, exactly(value), None, None, unit, aim, absolute=True, at_least=True)


def _none(name: str, value: float, unit: str) -> Result:
    return Result(name, exactly(value), None, None, unit, 0, absolute=True)


def _plain(name: str, value: float, unit: str, note: str) -> Result:
    return Result(name, exactly(value), None, None, unit, None, note=note)
