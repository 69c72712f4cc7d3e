"""``bookmesh reconcile``."""

from __future__ import annotations

import asyncio
import getpass
import re
import socket
import sys
from datetime import datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any
from uuid import UUID

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from cli import database, options
from mesh.clock import SystemClock
from mesh.errors import Unavailable
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.reconciliation import FoundRow, PostgresReconciliation, RunRow
from orchestrator.app.reconcile.model import Done, Mode, Verdict

CLEAN, LEFT, NOT_COMPARED = 0, 1, 2
"""Exit codes: all agrees; something does not; not everything could be compared."""

_UNATTENDED_S = 30.0
_POLL_S = 0.2
_WIDTH_OF_A_LOG = 160
_WIDE = 140
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_STYLES = {Done.LEFT: "yellow", Done.TOLD: "yellow", Done.RESOLVED: "green"}

_VERDICTS = {
    Verdict.CLEAN: Text("Everything agrees.", style="green"),
    Verdict.FINDINGS: Text("Not everything agrees.", style="yellow"),
    Verdict.PARTIAL: Text("Not everything could be compared.", style="red"),
    Verdict.FAILED: Text("The comparison came to no end.", style="red"),
}


class _NotCompared(click.ClickException):
    """Nothing could be compared; the message says why."""

    exit_code = NOT_COMPARED


class Since(click.ParamType[datetime]):
    """A moment in the past: ``90m``, ``24h``, ``7d``, or an ISO time."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
        if ago:
            return SystemClock().now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither like 90m, 24h or 7d nor an ISO time", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{text!r} has no time zone: add Z or an offset", param, ctx)
        return moment


@click.command(
    name="reconcile",
    help="Compare our books with the payment provider's and every seller's. Changes nothing without --apply."
    " An orchestrator does the work: one has to run."
    "\n\nExit code: 0 all agrees, 1 something does not, 2 not everything could be compared.",
)
@click.option(
    "--apply",
    is_flag=True,
    help="Have workers look at what they can put right, and take back strays that are certainly ours.",
)
@click.option(
    "--since",
    type=Since(),
    default="24h",
    show_default=True,
    help="Compare what was committed, paid or ordered since then: 90m, 24h, 7d, or an ISO time.",
)
@database.url
@options.data
@options.output
def command(
    *, apply: bool, since: datetime, database_url: str | None, data: Path, output: str
) -> None:
    """Ask for a comparison, wait for it, and print it."""
    mode = Mode.APPLY if apply else Mode.REPORT
    try:
        run, findings = asyncio.run(_compare(mode, since, database_url, data))
    except (Unavailable, ValueError) as error:
        raise _NotCompared(str(error)) from None
    except click.ClickException as error:
        raise _NotCompared(error.message) from None
    if output == "json":
        options.print_json(_as_json(run, findings))
    else:
        _print(run, findings)
    sys.exit(_exit_code(run, findings))


async def _compare(
    mode: Mode, since: datetime, database_url: str | None, data: Path
) -> tuple[RunRow, list[FoundRow]]:
    clock = SystemClock()
    async with database.opened(database_url, data) as (pool, dsn):
        runs = PostgresReconciliation(pool, dsn)
        run_id = uuid7_factory(clock, SystemRandom())()
        try:
            await runs.request(run_id, f"{getpass.getuser()}@{socket.gethostname()}", mode, since)
            with Console(stderr=True).status("comparing") as status:
                run = await _ended(runs, run_id, clock, status)
        finally:
            # Whoever gives up wants nothing done later on.
            await runs.withdraw(run_id)
        return run, await runs.findings(run_id)


async def _ended(
    runs: PostgresReconciliation, run_id: UUID, clock: SystemClock, status: Status
) -> RunRow:
    """Wait for the end of a run.

    Raises:
        click.ClickException: when nobody is comparing, neither this nor another.

    """
    give_up_at = clock.monotonic() + _UNATTENDED_S
    while (run := await _known(runs, run_id)).verdict is None:
        if run.attended:
            give_up_at = clock.monotonic() + _UNATTENDED_S
        elif clock.monotonic() > give_up_at:
            raise _NotCompared(
                f"no orchestrator has been comparing for {_UNATTENDED_S:.0f} s: does one run on this database?"
            )
        waits = run.begun_by is None and run.waits
        status.update("waiting for the end of another comparison" if waits else "comparing")
        await clock.sleep(_POLL_S)
    return run


async def _known(runs: PostgresReconciliation, run_id: UUID) -> RunRow:
    run = await runs.get(run_id)
    if run is None:
        raise click.ClickException(f"the run {run_id} is gone from the database")
    return run


def _exit_code(run: RunRow, findings: list[FoundRow]) -> int:
    if run.verdict in {Verdict.PARTIAL, Verdict.FAILED}:
        return NOT_COMPARED
    return LEFT if any(finding.done is not Done.RESOLVED for finding in findings) else CLEAN


def _print(run: RunRow, findings: list[FoundRow]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_LOG)
    since, until = (f"{t:%Y-%m-%d %H:%M}" for t in (run.period.since, run.period.until))
    console.print(
        f"{since} to {until} UTC: {_count(run.purchases, 'purchase')}, {_count(run.payments, 'payment')},"
        f" {_count(run.orders, 'order')} at {_count(run.sellers, 'seller')}"
    )
    if findings:
        console.print(_count(len(findings), "finding"), style="italic")
        show = _table if console.width >= _WIDE else _paragraphs
        console.print(show(run, findings))
    for gap in run.gaps:
        console.print(Text(f"Not compared: {gap.who}: {gap.why}", style="red"))
    if run.verdict is not None:
        console.print(_VERDICTS[run.verdict])
    if run.mode is Mode.REPORT and findings:
        console.print(
            "Nothing was changed. --apply has workers look, and takes strays of ours back."
        )


def _table(run: RunRow, findings: list[FoundRow]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("", "what", "purchase", "with"):
        table.add_column(name, no_wrap=True)
    for name in ("amount", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seen, and what to do")
    for finding in findings:
        table.add_row(*_heading(finding), _body(run, finding))
    return table


def _paragraphs(run: RunRow, findings: list[FoundRow]) -> Text:
    """Show findings where there is no room for a table."""
    shown = [
        Text.assemble(
            ("  ".join(word for word in _heading(finding) if word), "bold"), "\n"
        ).append_text(_body(run, finding))
        for finding in findings
    ]
    return Text("\n\n").join(shown)


def _heading(finding: FoundRow) -> tuple[str, str, str, str, str, str]:
    return (
        finding.invariant,
        finding.kind.replace("_", " "),
        str(finding.request_id or finding.order_key or ""),
        finding.seller_id or ("provider" if finding.provider_id else ""),
        str(finding.amount or ""),
        _age(SystemClock().now() - finding.began_at),
    )


def _body(run: RunRow, finding: FoundRow) -> Text:
    return Text(f"{finding.detail}\n").append(_todo(run, finding), style=_STYLES[finding.done])


def _todo(run: RunRow, finding: FoundRow) -> str:
    if finding.done is Done.RESOLVED:
        return "resolved"
    if finding.note and run.mode is Mode.APPLY:
        return f"{finding.note}; {finding.advice}"
    return finding.advice


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _age(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 2 * 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 2 * 24 else f"{hours // 24} d"


def _as_json(run: RunRow, findings: list[FoundRow]) -> dict[str, Any]:
    return {
        "run_id": str(run.run_id),
        "mode": run.mode.value,
        "since": run.period.since.isoformat(),
        "until": run.period.until.isoformat(),
        "outcome": run.verdict.value if run.verdict else None,
        "compared": {
            "purchases": run.purchases,
            "payments": run.payments,
            "orders": run.orders,
            "sellers": run.sellers,
        },
        "not_compared": [{"who": gap.who, "why": gap.why} for gap in run.gaps],
        "findings": [
            {
                "kind": finding.kind,
                "invariant": finding.invariant,
                "request_id": str(finding.request_id) if finding.request_id else None,
                "seller_id": finding.seller_id,
                "provider_id": finding.provider_id,
                "order_key": finding.order_key,
                "amount": _amount(finding.amount),
                "began_at": finding.began_at.isoformat(),
                "detail": finding.detail,
                "advice": finding.advice,
                "done": finding.done.value,
                "note": finding.note,
            }
            for finding in findings
        ],
    }


def _amount(amount: Money | None) -> dict[str, str] | None:
    if amount is None:
        return None
    return {"currency": amount.currency, "amount": str(amount.decimal())}
