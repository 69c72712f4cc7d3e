"""``bookmesh restart``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from cli import options
from deploy.local.data import DataFolder
from deploy.local.problem import MeshProblem


@click.command(
    name="restart",
    help="Restart every service and Envoy of a mesh that `bookmesh up` runs, one after the other; customers notice "
    "nothing.",
)
@options.data
def command(data: Path) -> None:
    """Tell the mesh on a data folder."""
    try:
        supervisor = DataFolder(data).owner()
        os.kill(supervisor, signal.SIGUSR1)
    except (MeshProblem, OSError) as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"process {supervisor} restarts its mesh; it says there how far it is")
