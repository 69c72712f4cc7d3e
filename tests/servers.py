"""Fixtures: real PostgreSQL and Valkey, one of each for a run of the tests, clean for every test.

``postgres_dsn`` is a fresh database with all migrations applied; ``valkey_url`` an empty Valkey. Neither server is
started before a test asks for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from deploy.local import postgres, valkey
from deploy.local.child import Child, Program
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.ports import Ports
from mesh.clock import SystemClock
from mesh.postgres import migrate

OWNERS_OF_SCHEMAS = ("aggregator", "orchestrator")
_TEMPLATE = "template_migrated"


@dataclasses.dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running PostgreSQL with a migrated template database."""

    port: int
    _numbers: Iterator[int] = dataclasses.field(default_factory=count, repr=False)

    async def clone(self) -> str:
        """Make a fresh migrated database; give its connection string."""
        name = f"test_{next(self._numbers)}"
        await self._run(f'CREATE DATABASE "{name}" TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY')
        return postgres.dsn(self.port, name)

    async def create(self) -> str:
        """Make an empty database; give its connection string."""
        name = f"test_{next(self._numbers)}"
        await self._run(f'CREATE DATABASE "{name}"')
        return postgres.dsn(self.port, name)

    async def drop(self, dsn: str) -> None:
        """Drop a clone, whoever is still connected to it."""
        name = dsn.rsplit("/", 1)[1].split("?", maxsplit=1)[0]
        await self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def prepare(self) -> None:
        """Make the template."""
        await self._run(f"CREATE DATABASE {_TEMPLATE}")
        await migrate(postgres.dsn(self.port, _TEMPLATE), OWNERS_OF_SCHEMAS)

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(postgres.dsn(self.port, "postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run PostgreSQL without the care for data that only a crash of the machine could harm."""
    with _data_folder() as data, Ports(data.ports) as ports, asyncio.Runner() as runner:
        port = ports.take(postgres.NAME)
        runner.run(postgres.initialise(data, os.environ))
        program = postgres.program(data, port, os.environ, SystemClock())
        careless = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
        program = dataclasses.replace(program, command=program.command + careless)
        with _running(program, runner):
            server = PostgresServer(port)
            runner.run(server.prepare())
            yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Run PostgreSQL for all tests."""
    with running_postgres() as server:
        yield server


@pytest.fixture
async def postgres_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Give the connection string of a fresh database with all migrations applied."""
    dsn = await postgres_server.clone()
    yield dsn
    await postgres_server.drop(dsn)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[str]:
    """Run Valkey for all tests; give its URL."""
    with _data_folder() as data, Ports(data.ports) as ports, asyncio.Runner() as runner:
        port = ports.take(valkey.NAME)
        with _running(valkey.program(data, port, os.environ), runner):
            yield f"redis://{HOST}:{port}/0"


@pytest.fixture
async def valkey_url(valkey_server: str) -> str:
    """Give the URL of an empty Valkey."""
    async with redis.asyncio.from_url(valkey_server) as client:
        await client.flushall()
    return valkey_server


@contextmanager
def _data_folder() -> Iterator[DataFolder]:
    # Not below pytest's own folder, which other users may not enter: as root, PostgreSQL runs as `nobody`.
    root = Path(tempfile.mkdtemp(prefix="bookmesh-test-"))
    root.chmod(0o711)
    try:
        data = DataFolder(root)
        data.prepare()
        yield data
    finally:
        shutil.rmtree(root)


@contextmanager
def _running(program: Program, runner: asyncio.Runner) -> Iterator[None]:
    child = Child(program, SystemClock(), report=print)
    runner.run(child.start())
    try:
        yield
    finally:
        runner.run(child.stop())
