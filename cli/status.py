"""``bookmesh status``."""

from __future__ import annotations

import click

from bookmesh_client import Client
from cli import door as doors
from cli import telling
from cli.door import Door
from cli.exits import Exit


@click.command(
    name="status",
    help="Tell where a purchase stands."
    "\n\nExit code: 0 it could be told, 9 no such purchase of yours, 2 wrong usage, 7 refused, 8 not reached.",
)
@click.argument("request_id")
@doors.way_in
def command(*, door: Door, request_id: str) -> None:
    """Ask once."""

    async def status(client: Client) -> Exit:
        telling.conclude(await client.get(request_id), door.output)
        return Exit.DONE

    door.run(status)
