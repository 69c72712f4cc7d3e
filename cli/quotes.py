"""``bookmesh quotes``."""

from __future__ import annotations

import shlex

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bookmesh.customer.v1.customer_pb2 import ListQuotesResponse, Quote
from bookmesh_client import BookCondition, Client
from bookmesh_client.client import Condition
from cli import door as doors
from cli import options, telling
from cli.buy import conditions_option, currency_option
from cli.door import Door
from cli.exits import Exit
from cli.live import QuotesView, coverage_words
from mesh.money import DECIMALS

_WIDTH_OF_A_LOG = 120


@click.command(
    name="quotes",
    help="Compare the prices of a BOOK without buying, the lowest first."
    "\n\nExit code: 0 there are prices, 4 there is none, 2 wrong usage, 7 refused, 8 not reached.",
)
@click.argument("book")
@currency_option
@conditions_option
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.001, 10),
    default=3.0,
    show_default=True,
    help="How long to wait for sellers, in seconds.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many at most.",
)
@doors.way_in
def command(
    *,
    door: Door,
    book: str,
    currency: str,
    conditions: tuple[Condition, ...],
    wait_s: float,
    limit: int,
) -> None:
    """Show prices as they arrive on a terminal, then the best ones."""
    console = Console(highlight=False)
    live = door.output == "text" and console.is_terminal
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_LOG)
    max_wait_ms = round(wait_s * 1000)

    async def show_arrivals(client: Client) -> None:
        view = QuotesView(book)
        with Live(
            view,
            console=console,
            refresh_per_second=telling.FRAMES_PER_SECOND,
            transient=True,
        ):
            async for event in client.stream_quotes(
                book, currency_code=currency, conditions=conditions, max_wait_ms=max_wait_ms
            ):
                view.board.apply(telling.as_json(event.quotes))

    async def quotes(client: Client) -> Exit:
        if live:
            await show_arrivals(client)
        # What has just been said is known: this asks nobody again.
        answer = await client.quotes(
            book,
            currency_code=currency,
            conditions=conditions,
            max_wait_ms=max_wait_ms,
            max_quotes=limit,
        )
        if door.output == "json":
            options.print_json(telling.as_json(answer))
        else:
            if answer.quotes:
                console.print(_table(answer))
            click.echo(_summary(answer))
        return Exit.DONE if answer.quotes else Exit.NOT_AVAILABLE

    door.run(quotes)


def _table(answer: ListQuotesResponse) -> Table:
    table = Table(box=None, padding=(0, 1))
    table.add_column("seller")
    for name in ("total", "price", "shipping"):
        table.add_column(name, justify="right")
    table.add_column("condition")
    table.add_column("said", justify="right")
    for quote in answer.quotes:
        table.add_row(
            Text(quote.seller_id),
            *(
                telling.amount(value, answer.currency_code)
                for value in (quote.total, quote.price, quote.shipping)
            ),
            BookCondition.Word.Name(quote.condition).replace("_", " "),
            _said(quote),
        )
    return table


def _said(quote: Quote) -> str:
    return f"{quote.age_ms / 1000:.0f} s ago" if quote.age_ms else "now"


def _summary(answer: ListQuotesResponse) -> str:
    summary = answer.summary
    counts = (
        f"Of {summary.sellers} sellers {summary.answered} answered, {summary.quoted} with a price."
    )
    if summary.HasField("coverage"):
        words = coverage_words(telling.as_json(summary.coverage))
        counts += f"\n{words[0].upper()}{words[1:]}."
    if not answer.quotes:
        return counts
    best, currency = answer.quotes[0].total, answer.currency_code
    in_currency = "" if currency == "USD" else f" --currency {currency}"
    buy = f"bookmesh buy {shlex.quote(answer.book_id)} --max {best:.{DECIMALS[currency]}f}{in_currency}"
    return f"{counts}\nThe best is {telling.amount(best, currency)}; to buy: {options.again(buy)}"
