"""Writes ``gen/`` from ``protos/``, offline; with ``--check`` only compares.

``gen/bookmesh`` and ``gen/buf`` are Python stubs with their types. ``gen/customer.binpb`` is the
descriptor set with which Envoy turns REST into gRPC. The same protos always give the same bytes.
"""

import argparse
import filecmp
import os
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
    """Write ``out/gen``, removing what was there."""
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


def main() -> int:
    """Generate or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with gen/, write nothing")
    check = parser.parse_args().check
    try:
        if not check:
            generate(ROOT)
            return 0
        with tempfile.TemporaryDirectory() as scratch:
            generate(Path(scratch))
            stale = differences(ROOT / "gen", Path(scratch, "gen"))
    except subprocess.CalledProcessError as error:
        return error.returncode
    for path in stale:
        print(f"gen/{path} is not what protos/ gives: run `make gen` and commit gen/")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
