"""``bookmesh migrate``."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import click
import structlog

from cli import options
from deploy.schemas import OWNERS_OF_SCHEMAS
from mesh.postgres import MigrationError, migrate


@click.command(name="migrate", help="Apply the migrations that a database does not have yet.")
@click.option(
    "--database-url",
    envvar=["BOOKMESH_DATABASE_URL", "DATABASE_URL"],
    show_envvar=True,
    required=True,
    help="postgresql://user:password@host:port/database",
)
@options.output
def command(database_url: str, output: str) -> None:
    """Migrate all schemas."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        applied = asyncio.run(migrate(database_url, OWNERS_OF_SCHEMAS))
    except (
        MigrationError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        ValueError,
    ) as error:
        raise click.ClickException(f"cannot migrate: {error}") from None
    if output == "json":
        options.print_json({"applied": applied})
    else:
        for name in applied:
            click.echo(f"applied {name}")
        click.echo(f"{len(applied)} migrations applied; the database is up to date")
