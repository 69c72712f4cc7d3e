"""``bookmesh market``."""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path

import asyncpg
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aggregator.adapters.market import PostgresMarketStore
from aggregator.adapters.postgres import PostgresSellerStore
from aggregator.app.market import Market, MarketSettings, rebuild
from aggregator.selection.categories import category_of
from aggregator.selection.statistics import Statistics, StatisticsSettings
from cli import database, options
from mesh.clock import SystemClock
from mesh.errors import Unavailable

_PROCESS = 0
"""Those who have learned nothing themselves begin with what the last one has, so any will do."""


@click.group(name="market", help="What is remembered of sellers' prices and stock.")
def command() -> None:
    """Hold the commands."""


@command.command(name="status", help="Print of how much there is a memory, and what it takes.")
@database.url
@options.data
@options.output
def status(database_url: str | None, data: Path, output: str) -> None:
    """Read the counts."""
    found = asyncio.run(_counts(database_url, data))
    if output == "json":
        options.print_json(found)
        return
    click.echo(
        f"{found['books']} books, {found['answers']} answers of sellers about them,"
        f" {found['stored_bytes']} bytes"
    )
    if found["answers"]:
        click.echo(f"{found['stored_bytes'] / found['answers']:.1f} bytes an answer")


@command.command(name="rebuild")
@click.option(
    "--currency",
    default="USD",
    show_default=True,
    help="Whose prices are learned: BOOKMESH_MARKET_CURRENCY of the aggregators.",
)
@database.url
@options.data
def rebuild_command(currency: str, database_url: str | None, data: Path) -> None:
    """Forget what was learned, and learn it again from the history of quotes.

    The aggregators find it when they are started the next time; what they write meanwhile is newer and stays.
    """
    try:
        learned, books = asyncio.run(_rebuild(currency, database_url, data))
    except Unavailable as error:
        raise click.ClickException(error.message) from None
    click.echo(f"learned from {learned} collections of {books} books; restart the aggregators")


async def _counts(database_url: str | None, data: Path) -> dict[str, int]:
    query = resources.files("cli").joinpath("sql", "market.sql").read_text()
    async with database.opened(database_url, data) as (pool, _):
        try:
            [row] = await pool.fetch(query)
        except asyncpg.UndefinedTableError:
            raise click.ClickException(
                "the tables are not there yet: run `bookmesh migrate`"
            ) from None
    return {name: int(row[name]) for name in row.keys()}  # noqa: SIM118  a row iterates over its values


async def _rebuild(currency: str, database_url: str | None, data: Path) -> tuple[int, int]:
    async with database.opened(database_url, data) as (pool, _):
        store = PostgresMarketStore(pool, _PROCESS)
        market = Market(
            Statistics(StatisticsSettings()),
            store,
            category_of,
            SystemClock(),
            MarketSettings(currency=currency),
        )
        market.know(seller.seller_id for seller in await PostgresSellerStore(pool).since(0))
        learned = 0
        with Progress(
            TextColumn("learning"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as progress:
            task = progress.add_task("learning", total=await store.count_past())

            def on_progress(collections: int) -> None:
                nonlocal learned
                learned += collections
                progress.advance(task, collections)

            await store.forget()
            await rebuild(market, store, currency, on_progress)
    return learned, (await _counts(database_url, data))["books"]
