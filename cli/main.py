"""The ``bookmesh`` command."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

_COMMANDS = {
    "accept": "Take the offer of a purchase: buy at the offered price.",
    "buy": "Buy a book from the cheapest seller that can deliver.",
    "cancel": "Cancel a purchase, as far as that is still possible.",
    "demo": "Buy three books from 50 sellers through the whole mesh, then exit.",
    "list": "List your purchases.",
    "market": "See what is remembered of prices and stock, or work it out anew.",
    "migrate": "Bring a database up to date.",
    "operator": "See and decide what no rule can: flagged purchases.",
    "payables": "Print what is owed to sellers, by day.",
    "quotes": "Compare the prices of a book without buying.",
    "reconcile": "Compare our books with the payment provider's and every seller's.",
    "restart": "Restart a running mesh, part by part; customers notice nothing.",
    "sellers": "Register sellers, and say which of them are asked.",
    "status": "Tell where a purchase stands.",
    "token": "Print a bearer token for a local mesh.",
    "up": "Run the whole mesh on this machine until Ctrl-C.",
    "watch": "Show everything that happens in a purchase, as it happens.",
}

_INTERRUPTED = 130

_OF_CUSTOMERS = {"accept", "buy", "cancel", "list", "quotes", "status", "watch"}
"""Those that tell what went wrong in a line, which has what gRPC's own log would say."""


class _Commands(click.Group):
    """Loads a command's module (``cli.up`` for ``up``) only when it is used, so that each starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in _COMMANDS:
            return None
        if cmd_name in _OF_CUSTOMERS:
            # Read when grpc is loaded.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            command = import_module(f"cli.{cmd_name}").command
        except KeyboardInterrupt:
            # As everywhere else; click would make 1 of it.
            click.echo("\ninterrupted.", err=True)
            sys.exit(_INTERRUPTED)
        if not isinstance(command, click.Command):
            msg = f"cli.{cmd_name}.command is not a command"
            raise TypeError(msg)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookmesh")
def bookmesh() -> None:
    """Buy books at the lowest price among many sellers."""


def main() -> None:
    """Run the command; a failure is one line on stderr and an exit code above 0."""
    try:
        bookmesh()
    except Exception as error:  # noqa: BLE001  nobody at a terminal is helped by a traceback
        click.echo(f"Error: {type(error).__name__}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
