"""Which database a command works on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import click

from deploy.local import postgres
from deploy.local.data import DataFolder
from mesh.postgres import DOWN

url = click.option(
    "--database-url",
    envvar=["BOOKMESH_DATABASE_URL", "DATABASE_URL"],
    show_envvar=True,
    help="postgresql://user:password@host:port/database; that of the mesh on --data when not given.",
)


@asynccontextmanager
async def opened(database_url: str | None, data: Path) -> AsyncIterator[tuple[asyncpg.Pool, str]]:
    """Give a pool of connections to the database, and its connection string.

    Raises:
        click.ClickException: when there is none, or it does not answer.

    """
    dsn = database_url or _local(data)
    try:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=2, timeout=5) as pool:
            yield pool, dsn
    except (*DOWN, ValueError) as error:
        raise click.ClickException(f"cannot reach the database: {error}") from None


def _local(data: Path) -> str:
    ports = DataFolder(data).ports
    try:
        port = json.loads(ports.read_text())[postgres.NAME]
    except (OSError, ValueError, KeyError):
        raise click.ClickException(
            f"no mesh was started on {data}: name its folder with --data, or a database with --database-url"
        ) from None
    return postgres.dsn(port)
