"""Options that several commands have, and how they print."""

from __future__ import annotations

import json
from pathlib import Path

import click

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


def print_json(value: object) -> None:
    """Print a value as JSON, for people and programs alike."""
    click.echo(json.dumps(value, indent=2))
