"""``bookmesh watch``."""

from __future__ import annotations

import click
from rich.console import Console

from bookmesh.customer.v1.customer_pb2 import WatchPurchaseRequestResponse
from bookmesh_client import Client
from cli import door as doors
from cli import telling
from cli.door import Door
from cli.exits import HELP, OF_STATUS, Exit
from cli.live import PurchaseView


@click.command(
    name="watch",
    help="Show everything that happens in a purchase, from its beginning to its end, as it happens. With -o json each"
    " event is a line of JSON." + HELP,
)
@click.argument("request_id")
@doors.way_in
def command(*, door: Door, request_id: str) -> None:
    """Follow a purchase to its end."""
    console = Console(highlight=False)
    view = PurchaseView(request_id)

    def print_step(event: WatchPurchaseRequestResponse) -> None:
        if line := view.apply(telling.as_json(event)):
            console.print(line)

    async def watch(client: Client) -> Exit:
        if door.output == "json":
            purchase = await telling.follow(client, request_id, telling.print_line)
            return OF_STATUS[purchase.status]
        if console.is_terminal:
            with telling.shown_live(view, door.output) as tell:
                purchase = await telling.follow(client, request_id, tell)
        else:
            purchase = await telling.follow(client, request_id, print_step)
        return telling.conclude(purchase, door.output)

    door.run(watch, unknown=lambda: doors.goes_on(request_id))
