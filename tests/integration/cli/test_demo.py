"""The demo: three purchases through the whole mesh, and an exit code that says whether they went as they have to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(180)
def test_the_demo_buys_and_does_not_buy_and_shows_it(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    for status in ("purchased", "price_not_met", "not_available"):
        assert f'"status": "{status}"' in result.stdout
    assert "Best price ($34.99) exceeds your max ($29.99)" in result.stdout
    assert result.stdout.count("Of 50 sellers 50 were asked") == 3
    assert "captured   2499" in result.stdout
