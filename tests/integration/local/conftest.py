"""Programs to supervise, and a place for their data."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local.child import Child, Program
from deploy.local.data import DataFolder
from deploy.local.options import inherited_environment
from deploy.local.probes import NotReady
from mesh.clock import SystemClock

UNTIL_TOLD = "import signal; signal.pause()"
"""A program that runs until it is told to end."""


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


@pytest.fixture
def reports() -> list[str]:
    """What the supervisor said."""
    return []


MakeChild = Callable[..., Child]


@pytest.fixture
async def make_child(data: DataFolder, reports: list[str]) -> AsyncIterator[MakeChild]:
    """Make children that run a Python script and are healthy once the script has made the file ``ready``."""
    made: list[Child] = []
    ready = data.base / "ready"

    def make(script: str, **how: object) -> Child:
        async def check() -> None:
            if not ready.exists():
                msg = "there is no file"
                raise NotReady(msg)

        async def clear() -> None:
            ready.unlink(missing_ok=True)

        preamble = f"import pathlib, os, sys, time; ready = pathlib.Path({str(ready)!r})\n"
        defaults: dict[str, object] = {
            "name": "program",
            "command": (sys.executable, "-c", preamble + script),
            "environment": inherited_environment(),
            "log": data.log("program"),
            "address": "nowhere",
            "check": check,
            "before_start": clear,
        }
        program = Program(**{**defaults, **how})  # type: ignore[arg-type]  # the tests name the fields
        child = Child(program, SystemClock(), reports.append)
        made.append(child)
        return child

    yield make
    for child in made:
        await child.stop()
