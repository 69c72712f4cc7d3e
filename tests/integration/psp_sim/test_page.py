"""What docs/stripe.md tells people to type works in a folder with nothing in it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from deploy.local.ports import Ports
from tests.e2e.waiting import eventually

ROOT = Path(__file__).parents[3]
STARTS_WITHIN_S = 30.0

MAKE = """make() { if [ "$1" = up ]; then env > telling && mv telling told && wait; fi; }"""
"""Instead of a mesh: writes down what one would be told, and stays."""


async def test_the_commands_start_the_simulator_and_name_it_to_the_mesh(tmp_path: Path) -> None:
    """All but the mesh itself, which the end-to-end tests run with these settings."""
    if shutil.which("bash") is None:
        pytest.skip("bash is missing: the commands need a shell with jobs")
    page = (ROOT / "docs" / "stripe.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    with Ports(tmp_path / "ports.json") as ports:
        port = str(ports.take("psp_sim"))
    assert commands.count("12111") == 2
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", MAKE + "\n" + commands.replace("12111", port)),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
        start_new_session=True,
    )
    told = tmp_path / "told"
    try:

        async def written() -> str | None:
            assert process.returncode is None, "a command has failed"
            return told.read_text() if told.exists() else None

        lines = (await eventually(written, STARTS_WITHIN_S)).splitlines()
        settings = dict(line.split("=", 1) for line in lines if line.startswith("BOOKMESH_"))
        assert settings["BOOKMESH_PAYMENT_PROVIDER"] == "stripe"
        base = settings["BOOKMESH_STRIPE_API_BASE"]
        key_file = tmp_path / ".local" / "stripe-key"
        assert settings["BOOKMESH_STRIPE_API_KEY_FILE"] == str(key_file)
        headers = {"Authorization": f"Bearer {key_file.read_text().strip()}"}

        async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as client:

            async def answered() -> httpx.Response | None:
                assert process.returncode is None, "the simulator has ended"
                try:
                    return await client.get("/v1/payment_intents")
                except httpx.TransportError:
                    return None

            assert (await eventually(answered, STARTS_WITHIN_S)).status_code == 200
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.wait()
