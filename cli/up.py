"""``bookmesh up``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from cli import options
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

_PORT = click.IntRange(0, 65535)
_EXIT_AT_ONCE = 130

_READY = """
Bookmesh is ready: {sellers} sellers, {replicas} gateways, orchestrators and aggregators each.

  REST        {rest_url}
  gRPC        {grpc_address}
  API page    {rest_url}/docs
  PostgreSQL  {dsn}
  logs        {logs}

Buy a book, in another terminal (the command is in .venv/bin):

  bookmesh buy 978-0134685991 --max 29.99{data}

or as programs do (the token is good for a day; `bookmesh token{data}` prints another):

  curl -i {rest_url}/api/v1/purchase-requests {believing}\\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"book_id": "isbn-978-0134685991", "max_price": 29.99, "payment_token": "tok_abc123"}}'

Ctrl-C stops everything.
"""


@click.command(name="up", help="Run the whole mesh on this machine until Ctrl-C.")
@click.option(
    "--http-port",
    type=_PORT,
    default=8080,
    show_default=True,
    help="Port of the REST API; 0 for any.",
)
@click.option(
    "--grpc-port",
    type=_PORT,
    default=9090,
    show_default=True,
    help="Port of the gRPC API; 0 for any.",
)
@click.option(
    "--sellers",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="How many simulated sellers there are.",
)
@click.option(
    "--scenario",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How they behave; the demo's scenario if not given.",
)
@click.option(
    "--tls",
    is_flag=True,
    help="Have customers speak TLS, with a certificate of the mesh's own CA.",
)
@options.data
def command(
    *, http_port: int, grpc_port: int, sellers: int, scenario: Path | None, tls: bool, data: Path
) -> None:
    """Run the mesh until a signal or a problem."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    mesh_options = MeshOptions(
        data=data,
        http_port=http_port,
        grpc_port=grpc_port,
        sellers=sellers,
        scenario=scenario,
        tls=tls,
    )
    click.echo(f"starting Bookmesh on {data}")
    try:
        asyncio.run(_run(mesh_options, _timed_lines()))
    except MeshProblem as problem:
        raise click.ClickException(str(problem)) from None


async def _run(mesh_options: MeshOptions, report: Callable[[str], None]) -> None:
    mesh = LocalMesh(mesh_options, report=report)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            mesh.kill_all()
            os._exit(_EXIT_AT_ONCE)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    # What `bookmesh restart` sends.
    wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, wanted.set)
    running = asyncio.create_task(_run_until_broken(mesh, wanted, report))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stop.is_set():
        report("stopping; Ctrl-C again kills everything at once")
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    report("stopped")


async def _run_until_broken(
    mesh: LocalMesh, wanted: asyncio.Event, report: Callable[[str], None]
) -> None:
    async with mesh:
        folder = mesh.data.root
        click.echo(
            _READY.format(
                sellers=mesh.sellers,
                replicas=mesh.options.replicas,
                rest_url=mesh.rest_url,
                grpc_address=mesh.grpc_address,
                dsn=mesh.dsn,
                logs=folder / "logs",
                data="" if folder == Path(".local") else f" --data {folder}",
                token=mesh.token(),
                believing=f"--cacert {mesh.data.authority} " if mesh.options.tls else "",
            )
        )
        restarting = asyncio.create_task(_restart_when(wanted, mesh, report))
        try:
            await mesh.broken()
        finally:
            restarting.cancel()


async def _restart_when(
    wanted: asyncio.Event, mesh: LocalMesh, report: Callable[[str], None]
) -> None:
    while await wanted.wait():
        wanted.clear()
        report("restarting everything, one after the other")
        try:
            await mesh.rolling_restart()
        except MeshProblem as problem:
            report(f"the restart was given up: {problem}")
        else:
            report("everything was restarted")


def _timed_lines() -> Callable[[str], None]:
    clock = SystemClock()
    started_at = clock.monotonic()

    def report(line: str) -> None:
        click.echo(f"{clock.monotonic() - started_at:6.1f} s  {line}")
        sys.stdout.flush()

    return report
