"""The ports of a local mesh: chosen by the system, remembered, and never shared with another mesh."""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
import socket
from pathlib import Path
from typing import Self

from deploy.local.options import HOST
from deploy.local.problem import MeshProblem
from mesh.clock import Clock

HTTP, GRPC = "http", "grpc"
"""The names of the ports of the REST and the gRPC API."""

OURS = range(20_000, 25_000)
"""Below what systems, as they come, give to connections and to whoever asks for any port, and below what simulated
sellers choose from."""

_GIVE_UP_AFTER = 100
_MAX_PORT = 65535
_DYING_PREDECESSOR_S = 1.0


class Ports:
    """Gives each part of the mesh a port of its own.

    A port stays ours from here to the end of this process, also while nobody listens on it: its UDP twin is held,
    other meshes take a port only with its twin, and the system gives none of these to anybody. So a service that is
    started again finds its address free. What was given is remembered in a file, and given again next time if it is
    still free.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._twins: list[socket.socket] = []
        self._remembered = _read(file)
        self._given: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for twin in self._twins:
            twin.close()

    def take(self, name: str) -> int:
        """Give the port of the part ``name``.

        Raises:
            MeshProblem: if the system has none left.

        """
        port = self._remembered.get(name)
        if port is None or not (is_free(port) and self._hold(port)):
            port = self._choose()
        self._given[name] = port
        return port

    def chosen(self, name: str, port: int) -> int:
        """Give the port that somebody chose for the part ``name``, to be remembered with the others."""
        self._given[name] = port
        return port

    def remember(self) -> None:
        """Write what was given."""
        self._file.write_text(json.dumps(self._given, indent=2) + "\n")

    def _choose(self) -> int:
        for _ in range(_GIVE_UP_AFTER):
            port = secrets.choice(OURS)
            if _quietly_free(port) and self._hold(port):
                return port
        msg = f"found no free port on {HOST} from {OURS.start} to {OURS.stop - 1} in {_GIVE_UP_AFTER} tries"
        raise MeshProblem(msg)

    def _hold(self, port: int) -> bool:
        twin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            twin.bind((HOST, port))
        except OSError:
            twin.close()
            return False
        self._twins.append(twin)
        return True


def any_free() -> int:
    """Give a TCP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Say whether a server could listen on this TCP port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


async def demand(port: int, variable: str, purpose: str, clock: Clock) -> None:
    """Return if a server can listen on a port that somebody chose.

    Raises:
        MeshProblem: if it is taken, or not allowed.

    """
    give_up_at = clock.monotonic() + _DYING_PREDECESSOR_S
    while True:
        try:
            if is_free(port):
                return
        except OSError as error:
            msg = f"port {port} ({variable}, for {purpose}) cannot be used: {error.strerror}"
            raise MeshProblem(msg) from None
        if clock.monotonic() > give_up_at:
            break
        await clock.sleep(0.05)
    other = next((p for p in range(port + 1, _MAX_PORT) if _quietly_free(p)), any_free())
    msg = (
        f"port {port} ({variable}, for {purpose}) is taken by another program: stop that, "
        f"or choose another port, for example make up {variable}={other}"
    )
    raise MeshProblem(msg)


def _quietly_free(port: int) -> bool:
    with contextlib.suppress(OSError):
        return is_free(port)
    return False


def _read(file: Path) -> dict[str, int]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        name: port
        for name, port in content.items()
        if isinstance(port, int) and 0 < port <= _MAX_PORT
    }
