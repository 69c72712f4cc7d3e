"""``bookmesh token``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from cli import options
from deploy.local.data import DataFolder
from deploy.local.keys import sign_token
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

SCOPES = ["customer", "internal", "operator"]


@click.command(name="token", help="Print a bearer token for the mesh that runs on a data folder.")
@click.option(
    "--sub",
    "subject",
    default="alice",
    show_default=True,
    help="The customer, service or operator it is for.",
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default=SCOPES[0],
    show_default=True,
    help="What it is for: to buy, to call for others (metadata on-behalf-of) as a service of the house, to operate.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(1, 365 * 86_400),
    default=3600,
    show_default=True,
    help="How long it is good for, in seconds.",
)
@options.data
@options.output
def command(subject: str, scope: str, ttl_s: int, data: Path, output: str) -> None:
    """Sign a token with the issuer key of the data folder."""
    if not subject.strip():
        raise click.BadParameter("must not be empty", param_hint="--sub")
    now = SystemClock().now()
    try:
        token = sign_token(DataFolder(data), subject, now, timedelta(seconds=ttl_s), scope)
    except MeshProblem as problem:
        raise click.ClickException(str(problem)) from None
    if output == "json":
        expires_at = (now + timedelta(seconds=ttl_s)).isoformat(timespec="seconds")
        options.print_json(
            {"token": token, "sub": subject, "scope": scope, "expires_at": expires_at}
        )
    else:
        click.echo(token)
