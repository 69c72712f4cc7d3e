"""``bookmesh sellers``, as an operator types it, against a running mesh."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from deploy.local.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def sellers(mesh: LocalMesh, *arguments: str) -> tuple[int | None, str, str]:
    """Run the command; give its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "sellers", *arguments),
        *("--data", str(mesh.data.root)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await process.communicate()
    return process.returncode, printed.decode(), said.decode()


async def test_a_seller_is_registered_shown_and_disabled(mesh: LocalMesh, tmp_path: Path) -> None:
    """It is one that nobody can call, so that no other test meets it."""
    registration = {
        "seller_id": "corner-shop",
        "display_name": "The Corner Shop",
        "endpoint": "localhost:1",
        "credential_reference": "corner-shop",
        "state": "STATE_DRAINING",
        "capabilities": {
            "currency_codes": ["USD"],
            "calls_per_minute": 60,
            "min_quote_life": "60s",
            "key_retention": "604800s",
            "supports_get_order": True,
            "contract_versions": ["v1"],
        },
    }
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(registration))
    assert await sellers(mesh, "register", str(file)) == (0, "Registered: corner-shop\n", "")
    code, printed, _ = await sellers(mesh, "show", "corner-shop")
    shown = json.loads(printed)
    assert (code, shown["state"], shown["endpoint"]) == (0, "STATE_DRAINING", "localhost:1")
    code, printed, _ = await sellers(mesh, "disable", "corner-shop")
    assert (code, printed) == (0, "Now disabled: corner-shop\n")
    code, printed, _ = await sellers(mesh, "list")
    [line] = [line for line in printed.splitlines() if "corner-shop" in line]
    assert (code, "disabled" in line) == (0, True)
    # What is shown can be registered.
    file.write_text(json.dumps([{**shown, "state": "STATE_DISABLED"}]))
    assert (await sellers(mesh, "register", str(file)))[0] == 0


async def test_the_health_of_sellers_is_shown(mesh: LocalMesh) -> None:
    code, printed, _ = await sellers(mesh, "health", "-o", "json")
    assert code == 0
    [first, *_] = json.loads(printed)
    code, printed, _ = await sellers(mesh, "health", first["seller_id"])
    assert code == 0
    assert first["seller_id"] in printed


async def test_what_is_wrong_is_told_in_a_line(mesh: LocalMesh, tmp_path: Path) -> None:
    code, _, said = await sellers(mesh, "disable", "nobody")
    assert (code, said) == (1, "Error: not registered: nobody\n")
    code, _, said = await sellers(mesh, "show", "nobody")
    assert (code, said) == (1, "Error: not registered: nobody\n")
    file = tmp_path / "shop.json"
    file.write_text('[{"seller": "x"}]')
    code, _, said = await sellers(mesh, "register", str(file))
    assert code != 0
    assert "it is no list of sellers" in said
