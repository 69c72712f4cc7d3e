"""Writes ``gen/`` from ``protos/``, offline; with ``--check`` only compares.

``gen/bookmesh`` and ``gen/buf`` are Python stubs with their types. ``gen/customer.binpb`` is the
descriptor set with which Envoy turns REST into gRPC. The same protos always give the same bytes.
"""

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTOR_SET = "gen/customer.binpb"
# Envoy prints the details of an error only if it knows their types.
DESCRIBED = (
    "protos/bookmesh/customer",
    "third_party/googleapis/google/rpc/error_details.proto",
)


def buf(*arguments: str) -> None:
    """Run buf at the root of the repository, with this environment's plugins in reach.

    Raises:
        subprocess.CalledProcessError: buf refused; it has said why on stderr.
    """
    bin_dir = Path(sys.executable).parent
    path = f"{bin_dir}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [bin_dir / "buf", *arguments], cwd=ROOT, env={**os.environ, "PATH": path}, check=True
    )


def generate(out: Path) -> None:
    """Write ``out/gen``, which is not there yet."""
    buf("generate", "--output", str(out))
    described = [argument for path in DESCRIBED for argument in ("--path", path)]
    buf(
        "build",
        *described,
        "--as-file-descriptor-set",
        "--exclude-source-info",
        "--output",
        str(out / DESCRIPTOR_SET),
    )
    # mypy-protobuf types a module even for a file without services, which gets none.
    for stub in (out / "gen").rglob("*_pb2_grpc.pyi"):
        if not stub.with_suffix(".py").exists():
            stub.unlink()


def files_below(root: Path) -> Iterator[Path]:
    """Every file below ``root``, relative to it, save Python's caches."""
    for path in root.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":
            yield path.relative_to(root)


def differences(ours: Path, fresh: Path) -> list[Path]:
    """Files that only one of two folders has, or that differ; sorted."""
    every = set(files_below(ours)) | set(files_below(fresh))
    same, _, _ = filecmp.cmpfiles(ours, fresh, sorted(map(str, every)), shallow=False)
    return sorted(every - set(map(Path, same)))


def update(ours: Path, fresh: Path, changed: list[Path]) -> None:
    """Make ``changed`` files of ``ours`` what they are in ``fresh``, and touch no other."""
    for path in changed:
        if (fresh / path).exists():
            (ours / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, ours / path)
        else:
            (ours / path).unlink()


def main() -> int:
    """Generate or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with gen/, write nothing")
    check = parser.parse_args().check
    ours = ROOT / "gen"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch, "gen")
        try:
            generate(Path(scratch))
        except subprocess.CalledProcessError as error:
            return error.returncode
        changed = differences(ours, fresh)
        if not check:
            update(ours, fresh, changed)
            return 0
    for path in changed:
        print(f"gen/{path} is not what protos/ gives: run `make gen` and commit gen/")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
