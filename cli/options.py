"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click
from click.core import ParameterSource

_WHERE = {"data": "--data", "given_address": "--address", "roots": "--roots"}
"""Parameters that say where Bookmesh is, and their options."""

data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".local"),
    show_default=True,
    help="Folder of a local mesh's data.",
)

output = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print the result.",
)


def again(command: str) -> str:
    """Give a command for people to type next, with the options by which this one was told where Bookmesh is."""
    context = click.get_current_context(silent=True)
    if context is None:
        return command
    given = (
        f" {option} {shlex.quote(str(context.params[name]))}"
        for name, option in _WHERE.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )
    return command + "".join(given)


def print_json(value: object) -> None:
    """Print a value as JSON, for people and programs alike."""
    click.echo(json.dumps(value, indent=2))
