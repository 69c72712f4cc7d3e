"""One child process: started, asked for its health, started again when it dies, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.local.probes import NotReady
from deploy.local.problem import MeshProblem
from mesh.clock import Clock

_LAUNCH = Path(__file__).with_name("launch.py")
_POLL_S = 0.05
_HEALTHY_WITHIN_S = 60.0
_CHECK_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STABLE_AFTER_S = 10.0
_MOST_FAILED_STARTS = 5
_ENDING = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_LAST_LINES = 8
_LONGEST_LINE = 400


async def _nothing() -> None:
    """Do nothing: what most programs need before a start, after it, and before a stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the system to run a program as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run.

    Attributes:
        name: its name in the mesh (``gateway-1``).
        command: program and arguments; the program as a path.
        environment: all of its environment.
        log: file to which its output is added.
        death_signal: what it is sent when the supervisor has died.
        user: whom to run it as; as whoever runs the mesh when None.

    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    death_signal: signal.Signals = signal.SIGKILL
    user: User | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Command):
    """A command that runs as long as the mesh does, and how to treat it.

    Attributes:
        address: where it can be reached, for people.
        check: returns if the program does what it is for; raises NotReady if not yet.
        stop_signal: what asks it to end in good order.
        stop_within_s: after how many seconds it is killed instead.
        first_tries: how many times it may die in the start of the mesh before that is given up.
        first_environment: what its very first start is told besides.
        first_arguments: arguments of its very first start besides.
        before_start: awaited before each start.
        after_return: awaited when it is healthy again after a death.
        before_stop: awaited before it is asked to end.

    """

    address: str
    check: Callable[[], Awaitable[None]]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 10.0
    first_tries: int = 1
    first_environment: Mapping[str, str] = field(default_factory=dict)
    first_arguments: tuple[str, ...] = ()
    before_start: Callable[[], Awaitable[None]] = field(default=_nothing)
    after_return: Callable[[], Awaitable[None]] = field(default=_nothing)
    before_stop: Callable[[], Awaitable[None]] = field(default=_nothing)


async def run(command: Command) -> None:
    """Run a command to its end.

    Raises:
        MeshProblem: if it fails.

    """
    log_start = _size(command.log)
    process = await _spawn(command)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if code != 0:
        raise _problem(command, log_start, _ended(code))


class Child:
    """Runs a program for as long as the mesh runs.

    Use: ``start``, then ``keep_alive`` in a task, which ends only by ``stop`` or because the program cannot be kept
    alive.
    """

    def __init__(self, program: Program, clock: Clock, report: Callable[[str], None]) -> None:
        self.program = program
        self._clock = clock
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self._healthy = asyncio.Event()
        self._stopping = False
        self._first_environment = program.first_environment
        self._first_arguments = program.first_arguments

    @property
    def pid(self) -> int | None:
        """The process id while the program runs."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    @property
    def up(self) -> bool:
        """Whether it runs and was healthy when it was last asked."""
        return self.pid is not None and self._healthy.is_set()

    async def start(self) -> None:
        """Start the program and return when it is healthy.

        Raises:
            MeshProblem: if it dies or does not get healthy in time.

        """
        for tries_left in reversed(range(self.program.first_tries)):
            try:
                await self._start_once()
            except MeshProblem:
                if tries_left == 0:
                    raise
            else:
                return

    async def keep_alive(self) -> None:
        """Start the program again whenever it dies, each time after a longer pause if it dies soon.

        Raises:
            MeshProblem: if it dies several times in a row before it was healthy.

        """
        pause_s = _FIRST_PAUSE_S
        failed_starts = 0
        while True:
            started_at = self._clock.monotonic()
            code = await self._exit_code()
            if self._stopping:
                return
            self._healthy.clear()
            if self._clock.monotonic() - started_at > _STABLE_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            self._report(f"{self.program.name} {_ended(code)}: starting it again")
            while not self._stopping:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                died_at = self._clock.monotonic()
                try:
                    await self._start_once()
                except MeshProblem:
                    failed_starts += 1
                    if failed_starts == _MOST_FAILED_STARTS:
                        raise
                else:
                    failed_starts = 0
                    await self.program.after_return()
                    took_s = self._clock.monotonic() - died_at
                    self._report(f"{self.program.name} is back after {took_s:.1f} s")
                    break

    async def wait_healthy(self) -> None:
        """Return when the program is healthy, as far as is known, and answers a check now."""
        await self._healthy.wait()
        while True:
            with contextlib.suppress(NotReady, TimeoutError):
                async with asyncio.timeout(_CHECK_TIMEOUT_S):
                    await self.program.check()
                return
            await self._clock.sleep(_POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal, if it runs. After one that ends it, it is not healthy until it is back."""
        if number in _ENDING:
            self._healthy.clear()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_family(self) -> None:
        """Kill the program and all processes below it; it alone where the system does not list them in /proc."""
        if self.pid is None:
            return
        family = _below(self.pid)
        # First the parent, which would look after its children.
        self.signal(signal.SIGKILL)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def release(self) -> None:
        """Let the program end when it likes, and do not start it again: it has a successor."""
        self._stopping = True

    async def wait_ended(self) -> None:
        """Return when the program has ended."""
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """Ask the program to end, wait for that, and kill it if it takes too long."""
        self._stopping = True
        if self.pid is None or self._process is None:
            return
        if self._healthy.is_set():
            await self.program.before_stop()
        self.signal(self.program.stop_signal)
        try:
            async with asyncio.timeout(self.program.stop_within_s):
                await self._process.wait()
        except TimeoutError:
            self._report(
                f"{self.program.name} did not end within {self.program.stop_within_s:.0f} s: killing it"
            )
            self.signal(signal.SIGKILL)
            await self._process.wait()

    async def _exit_code(self) -> int:
        if self._process is None:
            msg = f"{self.program.name} has not been started"
            raise RuntimeError(msg)
        return await self._process.wait()

    async def _start_once(self) -> None:
        program = self.program
        await program.before_start()
        self._log_start = _size(program.log)
        environment = {**program.environment, **self._first_environment}
        command = (*program.command, *self._first_arguments)
        self._first_environment, self._first_arguments = {}, ()
        self._process = await _spawn(replace(program, command=command, environment=environment))
        await self._until_healthy(self._process)
        self._healthy.set()

    async def _until_healthy(self, process: asyncio.subprocess.Process) -> None:
        exited = asyncio.ensure_future(process.wait())
        give_up_at = self._clock.monotonic() + _HEALTHY_WITHIN_S
        reason = "it was not asked"
        try:
            while not exited.done():
                try:
                    async with asyncio.timeout(_CHECK_TIMEOUT_S):
                        await self.program.check()
                except NotReady as not_ready:
                    reason = str(not_ready)
                except TimeoutError:
                    reason = "it did not answer"
                else:
                    return
                if self._clock.monotonic() > give_up_at:
                    self.signal(signal.SIGKILL)
                    await exited
                    raise self._problem(
                        f"did not get healthy within {_HEALTHY_WITHIN_S:.0f} s ({reason})"
                    )
                await asyncio.wait([exited], timeout=_POLL_S)
            raise self._problem(f"{_ended(exited.result())} before it was healthy")
        finally:
            exited.cancel()

    def _problem(self, what: str) -> MeshProblem:
        return _problem(self.program, self._log_start, what)


async def _spawn(command: Command) -> asyncio.subprocess.Process:
    user = ("-", "-") if command.user is None else (command.user.uid, command.user.gid)
    with command.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(command.death_signal))),
            *(str(part) for part in user),
            *command.command,
            env=command.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            # A Ctrl-C at the terminal is for the supervisor, which then stops the children in order.
            start_new_session=True,
        )


def _below(pid: int) -> list[int]:
    """Give the ids of a process's children, their children and so on."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *_below(child))]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _problem(command: Command, log_start: int, what: str) -> MeshProblem:
    with command.log.open("rb") as log:
        log.seek(log_start)
        text = log.read().decode(errors="replace")
    lines = text.splitlines()[-_LAST_LINES:] or ["(nothing was written)"]
    excerpt = "\n".join(f"    {line[:_LONGEST_LINE]}" for line in lines)
    return MeshProblem(f"{command.name} {what}; the end of {command.log}:\n{excerpt}")


def _ended(code: int) -> str:
    if code < 0:
        return f"was killed ({signal.Signals(-code).name})"
    return f"ended with code {code}"
