"""What all tests share, and how they are given to processes that run them at the same time."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import hypothesis
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

pytest_plugins = ("tests.servers",)

# A slow machine is no defect.
hypothesis.settings.register_profile(
    "bookmesh", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("bookmesh")

# Whoever runs the tests in the background may have had SIGINT ignored, and what they start would inherit that: the
# commands that they interrupt as Ctrl-C does would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)

_E2E = "tests/e2e/"
_WITH_A_MESH_OF_THEIR_OWN = {f"{_E2E}test_{name}.py" for name in ("limits", "selection", "stripe")}


def _together(nodeid: str) -> str:
    """Say what a test runs together with: its file, or all that share the one mesh."""
    file = nodeid.split("::", maxsplit=1)[0]
    shared = file.startswith(_E2E) and file not in _WITH_A_MESH_OF_THEIR_OWN
    return _E2E if shared else file


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return _together(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling:
    """Give each process one file after the other."""
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest and cannot be divided."""
    items.sort(key=lambda item: _together(item.nodeid) != _E2E)
