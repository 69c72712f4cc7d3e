"""A supervised program: started, kept alive, stopped."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import child as child_module
from deploy.local.child import Command, run
from deploy.local.data import DataFolder
from deploy.local.options import inherited_environment
from deploy.local.problem import MeshProblem
from tests.integration.local.conftest import UNTIL_TOLD, MakeChild

LAUNCH = Path(child_module.__file__).with_name("launch.py")


async def test_it_is_started_when_it_is_healthy(make_child: MakeChild) -> None:
    child = make_child("time.sleep(0.1); ready.touch()\n" + UNTIL_TOLD)
    await child.start()
    assert child.pid is not None


async def test_it_may_have_as_many_files_open_as_anybody_may(
    make_child: MakeChild, data: DataFolder
) -> None:
    """Whatever the shell, or the supervisor, was content with."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most - 1, most))
    try:
        child = make_child(
            "import resource, signal; print(resource.getrlimit(resource.RLIMIT_NOFILE), flush=True); ready.touch();"
            f" {UNTIL_TOLD}"
        )
        await child.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))
    assert str((most, most)) in data.log("program").read_text()


async def test_one_that_dies_while_it_starts_is_a_problem_with_its_last_words(
    make_child: MakeChild, data: DataFolder
) -> None:
    child = make_child("print('the port is taken', flush=True); sys.exit(3)")
    with pytest.raises(MeshProblem) as problem:
        await child.start()
    first, *excerpt = str(problem.value).splitlines()
    assert first == (
        f"program ended with code 3 before it was healthy; the end of {data.log('program')}:"
    )
    assert excerpt == ["    the port is taken"]


async def test_one_that_may_die_at_first_is_tried_again(make_child: MakeChild) -> None:
    script = "flag = ready.with_name('flag'); seen = flag.exists(); flag.touch()\n"
    child = make_child(
        script + "ready.touch() if seen else sys.exit(1)\n" + UNTIL_TOLD, first_tries=2
    )
    await child.start()
    assert child.pid is not None


async def test_one_that_never_gets_healthy_is_killed_and_a_problem(
    make_child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "_HEALTHY_WITHIN_S", 0.2)
    child = make_child(UNTIL_TOLD)
    with pytest.raises(MeshProblem, match=r"did not get healthy within 0 s \(there is no file\)"):
        await child.start()
    assert child.pid is None


async def test_one_that_is_killed_comes_back(make_child: MakeChild, reports: list[str]) -> None:
    returned = asyncio.Event()

    async def after_return() -> None:
        returned.set()

    child = make_child("ready.touch()\n" + UNTIL_TOLD, after_return=after_return)
    await child.start()
    first = child.pid
    keeper = asyncio.create_task(child.keep_alive())
    child.signal(signal.SIGKILL)
    await returned.wait()
    await child.wait_healthy()
    assert child.pid not in {None, first}
    assert reports[0] == "program was killed (SIGKILL): starting it again"
    await child.stop()
    await keeper
    assert child.pid is None


async def test_one_that_cannot_come_back_is_a_problem(
    make_child: MakeChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "_LONGEST_PAUSE_S", 0.01)
    script = "flag = ready.with_name('flag'); seen = flag.exists(); flag.touch()\n"
    child = make_child(script + "sys.exit('no more') if seen else ready.touch()\n" + UNTIL_TOLD)
    await child.start()
    child.signal(signal.SIGKILL)
    with pytest.raises(MeshProblem, match=r"ended with code 1 before it was healthy.*\n.*no more"):
        await child.keep_alive()


async def test_one_that_does_not_end_when_asked_is_killed(
    make_child: MakeChild, reports: list[str]
) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); ready.touch()\n"
    child = make_child(script + "while True: time.sleep(1)", stop_within_s=0.1)
    await child.start()
    await child.stop()
    assert child.pid is None
    assert reports == ["program did not end within 0 s: killing it"]


async def test_a_command_that_fails_is_a_problem(data: DataFolder) -> None:
    command = Command(
        name="failing",
        command=(sys.executable, "-c", "import sys; sys.exit('bad luck')"),
        environment=inherited_environment(),
        log=data.log("failing"),
    )
    with pytest.raises(MeshProblem, match=r"failing ended with code 1; the end of .*\n.*bad luck"):
        await run(command)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a parent's death")
def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """The supervisor is killed with SIGKILL, so nothing but the kernel can tell its child."""
    supervisor = f"""
import os, subprocess, sys
command = [sys.executable, "-I", "-S", {str(LAUNCH)!r}, str(os.getpid()), "15", "-", "-"]
program = "import signal; print('up', flush=True); signal.pause()"
subprocess.run([*command, sys.executable, "-c", program])
"""
    process = subprocess.Popen([sys.executable, "-c", supervisor], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"up\n"
        process.kill()
        # The child holds the other end of the pipe until it has ended.
        assert process.stdout.read() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this")
def test_a_child_whose_supervisor_is_gone_does_not_start() -> None:
    not_the_parent = "1" if os.getpid() != 1 else "2"
    result = subprocess.run(
        [sys.executable, "-I", "-S", LAUNCH, not_the_parent, "9", "-", "-", "/bin/true"],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1
    assert b"the supervisor (process" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says in /proc who started whom")
async def test_a_family_is_killed_with_all_that_it_has_started(
    make_child: MakeChild, tmp_path: Path
) -> None:
    """As PostgreSQL, whose processes are sessions of their own and outlive it for a moment when it alone is killed."""
    pids = tmp_path / "pids"
    script = f"""
import signal
with open({str(pids)!r}, "a") as pids:
    for generation in range(3):
        print(os.getpid(), file=pids, flush=True)
        if generation == 2:
            ready.touch()
        elif os.fork():
            break
        os.setsid()
signal.pause()
"""
    child = make_child(script)
    await child.start()
    family = [int(pid) for pid in pids.read_text().split()]
    assert len(family) == 3
    child.kill_family()
    assert not child.up
    for _ in range(200):
        if not any(_runs(pid) for pid in family):
            return
        await asyncio.sleep(0.05)
    pytest.fail("some of it is left")


def _runs(pid: int) -> bool:
    """Whether it is there, and more than an entry that nobody has asked for yet."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
