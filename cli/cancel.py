"""``bookmesh cancel``."""

from __future__ import annotations

import click

from bookmesh_client import Client
from cli import door as doors
from cli import telling
from cli.door import Door
from cli.exits import Exit


@click.command(
    name="cancel",
    help="Cancel a purchase, as far as that is still possible."
    "\n\nExit code: 0 cancelled, or being cancelled; 9 too late, or no such purchase; 2 wrong usage, 7 refused,"
    " 8 not reached.",
)
@click.argument("request_id")
@doors.way_in
def command(*, door: Door, request_id: str) -> None:
    """Cancel, and tell how it then stands."""

    async def cancel(client: Client) -> Exit:
        telling.conclude(await client.cancel(request_id), door.output)
        return Exit.DONE

    door.run(cancel)
