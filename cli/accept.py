"""``bookmesh accept``."""

from __future__ import annotations

import click

from bookmesh_client import Client, PaymentRefused
from cli import door as doors
from cli import telling
from cli.buy import within_option
from cli.door import Door
from cli.exits import HELP, Exit
from cli.live import PurchaseView
from cli.options import again


@click.command(
    name="accept",
    help="Take the offer of a purchase that ended as price not met: buy at the offered price, once however often this"
    " is said. It is paid as the first one was, or with a payment token from stdin or BOOKMESH_PAYMENT_TOKEN."
    + HELP,
)
@click.argument("request_id")
@doors.card_from_stdin
@click.option("--no-wait", is_flag=True, help="Print the request's id and do not wait for the end.")
@within_option
@doors.way_in
def command(
    *, door: Door, request_id: str, from_stdin: bool, no_wait: bool, within_s: float
) -> None:
    """Accept, watch the new purchase, and tell the outcome."""
    card = door.given_card(from_stdin=from_stdin)
    begun = ""

    async def accept(client: Client) -> Exit:
        nonlocal begun
        try:
            accepted = await client.accept_offer(request_id, payment_token=card)
        except PaymentRefused as refused:
            return telling.conclude(await client.get(refused.request_id), door.output)
        begun = accepted.request_id
        if no_wait:
            return telling.begun(accepted, door.output)
        view = PurchaseView(f"the offer of {request_id}")
        with telling.shown_live(view, door.output) as tell:
            purchase = await telling.follow(client, begun, tell, within_s)
        return telling.conclude(purchase, door.output)

    door.run(accept, unknown=lambda: doors.goes_on(begun) or _maybe_accepted(request_id))


def _maybe_accepted(request_id: str) -> str:
    return (
        "Whether the offer was accepted is not known: the same command never buys a second time, and"
        f" `{again(f'bookmesh status {request_id}')}` shows what came of it"
    )
