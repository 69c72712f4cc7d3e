"""``bookmesh buy``."""

from __future__ import annotations

import secrets
from decimal import Decimal, InvalidOperation
from typing import get_args

import click

from bookmesh_client import Client, PaymentRefused
from bookmesh_client.client import Condition
from cli import door as doors
from cli import telling
from cli.door import Door
from cli.exits import HELP, Exit
from cli.live import PurchaseView
from cli.options import again


class Price(click.ParamType[Decimal]):
    """An amount such as ``29.99``."""

    name = "amount"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        try:
            price = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount such as 29.99", param, ctx)
        if not price.is_finite() or price <= 0:
            self.fail(f"{value!r} is not above 0", param, ctx)
        return price


currency_option = click.option(
    "--currency", default="USD", show_default=True, help="Of the prices, ISO 4217."
)

conditions_option = click.option(
    "--condition",
    "conditions",
    type=click.Choice(get_args(Condition)),
    multiple=True,
    help="One that will do; may be given several times. Only new copies when not given.",
)

within_option = click.option(
    "--within",
    "within_s",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="How long to wait for the end, in seconds.",
)


@click.command(
    name="buy",
    help="Buy a BOOK, an ISBN in any spelling, from the cheapest seller that can deliver, for at most --max."
    "\n\nThe payment token is never on the command line: it is BOOKMESH_PAYMENT_TOKEN, or read from stdin; for a local"
    " mesh it is one of the sandbox's." + HELP,
)
@click.argument("book")
@click.option(
    "--max", "max_price", type=Price(), required=True, help="The most to pay, shipping included."
)
@currency_option
@conditions_option
@doors.card_from_stdin
@click.option(
    "--idempotency-key",
    help="Of your own: the same key never buys twice. A fresh one when not given.",
)
@click.option("--no-wait", is_flag=True, help="Print the request's id and do not wait for the end.")
@within_option
@doors.way_in
def command(
    *,
    door: Door,
    book: str,
    max_price: Decimal,
    currency: str,
    conditions: tuple[Condition, ...],
    from_stdin: bool,
    idempotency_key: str | None,
    no_wait: bool,
    within_s: float,
) -> None:
    """Submit, watch, and tell the outcome."""
    card = door.card(from_stdin=from_stdin)
    key = secrets.token_urlsafe(18) if idempotency_key is None else idempotency_key
    begun = ""

    async def buy(client: Client) -> Exit:
        nonlocal begun
        try:
            accepted = await client.submit(
                book,
                max_price=max_price,
                payment_token=card,
                currency_code=currency,
                conditions=conditions,
                idempotency_key=key,
            )
        except PaymentRefused as refused:
            purchase = await client.get(refused.request_id)
            return telling.conclude(purchase, door.output, currency)
        begun = accepted.request_id
        if no_wait:
            return telling.begun(accepted, door.output)
        title = f"{book}, for at most {telling.amount(float(max_price), currency)}"
        with telling.shown_live(PurchaseView(title, float(max_price)), door.output) as tell:
            purchase = await telling.follow(client, begun, tell, within_s)
        return telling.conclude(purchase, door.output, currency)

    door.run(buy, unknown=lambda: doors.goes_on(begun) or _maybe_begun(key))


def _maybe_begun(key: str) -> str:
    return (
        f"Whether the purchase was begun is not known: `{again('bookmesh list')}` shows it if so; the same command with"
        f" --idempotency-key {key} never buys a second time"
    )
