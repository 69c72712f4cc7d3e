"""``tools/breaking.sh`` where something that it needs is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).parents[3] / "tools" / "breaking.sh")
GIT, SH = shutil.which("git"), shutil.which("sh")

pytestmark = pytest.mark.skipif(GIT is None or SH is None, reason="needs git and sh")


def run(*command: str, at: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": str(path),
        "HOME": str(at),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(at.parent),
    }
    return subprocess.run(
        command, cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Give a folder of programs with git alone."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").symlink_to(str(GIT))
    return tools


@pytest.fixture
def repository(tmp_path: Path, tools: Path) -> Path:
    """Give a repository of two commits, of which the first has contracts."""
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "buf.yaml").write_text("version: v2\n")
    me = ("-c", "user.name=me", "-c", "user.email=me@example.com")
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "buf.yaml"),
        (*me, "commit", "--quiet", "--message", "one"),
        (*me, "commit", "--quiet", "--message", "two", "--allow-empty"),
    ):
        assert run(str(GIT), *command, at=repository, path=tools).stderr == ""
    return repository


def test_without_buf_it_says_what_is_missing_and_how_to_come_by_it(
    repository: Path, tools: Path
) -> None:
    ended = run(str(SH), SCRIPT, at=repository, path=tools)
    assert ended.returncode == 1
    assert "no buf on the PATH" in ended.stderr
    assert "make breaking" in ended.stderr


def test_without_a_history_it_is_content(tmp_path: Path, tools: Path) -> None:
    ended = run(str(SH), SCRIPT, at=tmp_path, path=tools)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "skipped" in ended.stdout
