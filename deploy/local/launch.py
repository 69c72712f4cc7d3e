"""Becomes a child of the mesh that cannot outlive its supervisor.

``python -I -S launch.py PARENT DEATH_SIGNAL USER GROUP PROGRAM [ARGUMENT…]``: PARENT is the supervisor's process id; on
Linux, DEATH_SIGNAL is sent to the program when the supervisor dies, however it dies (prctl(2), PR_SET_PDEATHSIG;
elsewhere there is no such thing). USER and GROUP are ids to become, or ``-``.

Started by root, PostgreSQL must become somebody else. It keeps one right of root then, to go through folders that
belong to others (capabilities(7), CAP_DAC_OVERRIDE): the project may well lie below /root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main(parent: str, death_signal: str, user: str, group: str, *command: str) -> None:
    """Become ``command``, with as many open files as there may be: each connection of a customer is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no limit in name, the system has one, and does not take more than that.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    linux = ctypes.CDLL(None) if sys.platform == "linux" else None
    if user != "-":
        if linux is not None:
            linux.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
        if linux is not None:
            _keep_the_way_in(linux)
    if linux is not None:
        # After the change of user, which would undo it.
        linux.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit(f"the supervisor (process {parent}) is gone")
    os.execv(command[0], command)  # noqa: S606  becoming it is the purpose


def _keep_the_way_in(linux: ctypes.CDLL) -> None:
    """Keep CAP_DAC_OVERRIDE over the coming execv. Where root does not have it, the file permissions decide."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable
    linux.capset(header, sets)
    linux.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
