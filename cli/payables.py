"""``bookmesh payables``."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from importlib import resources
from pathlib import Path

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from cli import database, options
from mesh.money import Money


@click.command(name="payables", help="Print what is owed to sellers, by day (UTC) and currency.")
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Of this day alone.",
)
@database.url
@options.data
@options.output
def command(day: datetime | None, database_url: str | None, data: Path, output: str) -> None:
    """Read the view ``orchestrator.payable``."""
    rows = asyncio.run(_read(day.date() if day else None, database_url, data))
    if output == "json":
        options.print_json(
            [
                {
                    "day": row["day"].isoformat(),
                    "seller_id": row["seller_id"],
                    "currency": row["currency"],
                    "orders": row["orders"],
                    "ordered": str(_money(row, "ordered").decimal()),
                    "taken_back_orders": row["taken_back"],
                    "taken_back": str(_money(row, "taken_back").decimal()),
                    "owed": str(_money(row, "owed").decimal()),
                }
                for row in rows
            ]
        )
    elif rows:
        Console(highlight=False).print(_table(rows))
    else:
        click.echo("nothing is owed")


async def _read(day: date | None, database_url: str | None, data: Path) -> list[asyncpg.Record]:
    query = resources.files("cli").joinpath("sql", "payables.sql").read_text()
    async with database.opened(database_url, data) as (pool, _):
        return await pool.fetch(query, day)


def _money(row: asyncpg.Record, what: str) -> Money:
    return Money(row["currency"], row[f"{what}_minor"])


def _table(rows: list[asyncpg.Record]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("day", "seller"):
        table.add_column(name)
    for name in ("orders", "ordered", "taken back", "", "owed"):
        table.add_column(name, justify="right")
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["currency"]] = totals.get(row["currency"], 0) + row["owed_minor"]
        table.add_row(
            str(row["day"]),
            row["seller_id"],
            str(row["orders"]),
            str(_money(row, "ordered")),
            str(row["taken_back"]),
            str(_money(row, "taken_back")),
            str(_money(row, "owed")),
        )
    for currency, minor in sorted(totals.items()):
        table.add_row("all", "", "", "", "", "", str(Money(currency, minor)), style="bold")
    return table
