"""``bookmesh list``."""

from __future__ import annotations

from contextlib import aclosing
from typing import get_args

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bookmesh_client import Client, PurchaseRequestSummary, PurchaseStatus
from bookmesh_client.client import Status
from cli import door as doors
from cli import options, telling
from cli.door import Door
from cli.exits import Exit

_WIDTH_OF_A_LOG = 160
_WIDE = 110
_MOST_A_PAGE = 100


@click.command(
    name="list",
    help="List your purchases, the newest first."
    "\n\nExit code: 0 it could be told, 2 wrong usage, 7 refused, 8 not reached.",
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(get_args(Status)),
    multiple=True,
    help="Only those that stand there; may be given several times.",
)
@click.option("--book", default="", help="Only those of this book.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How many at most.",
)
@doors.way_in
def command(*, door: Door, statuses: tuple[Status, ...], book: str, limit: int) -> None:
    """Fetch as many pages as it takes."""

    async def show(client: Client) -> Exit:
        found: list[PurchaseRequestSummary] = []
        pages = client.list(statuses=statuses, book_id=book, page_size=min(limit, _MOST_A_PAGE))
        async with aclosing(pages) as purchases:
            async for purchase in purchases:
                found.append(purchase)
                if len(found) == limit:
                    break
        if door.output == "json":
            options.print_json([telling.as_json(purchase) for purchase in found])
        elif found:
            console = Console(highlight=False)
            if not console.is_terminal:
                console = Console(highlight=False, width=_WIDTH_OF_A_LOG)
            console.print(as_table(found, console.width))
        else:
            click.echo("there are none")
        return Exit.DONE

    door.run(show)


def as_table(purchases: list[PurchaseRequestSummary], width: int) -> Table:
    """Give a table in which each id is in one piece, to be copied; in a narrow one something else is left out."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    wide = width >= _WIDE
    table.add_column("begun", width=None if wide else len("2026-01-01"))
    table.add_column("request", no_wrap=True)
    table.add_column("book", overflow="fold", min_width=len("9780134685991"))
    table.add_column("status", width=None if wide else len("purchased"))
    for name in ("at most", "price") if wide else ("price",):
        table.add_column(name, justify="right", no_wrap=True)
    for purchase in purchases:
        price = purchase.final_price or purchase.lowest_price
        table.add_row(
            telling.local_time(purchase.create_time),
            purchase.request_id,
            Text(purchase.book_id),
            PurchaseStatus.Word.Name(purchase.status).replace("_", " "),
            *([telling.amount(purchase.max_price, purchase.currency_code)] if wide else []),
            telling.amount(price, purchase.currency_code) if price else "",
        )
    return table
