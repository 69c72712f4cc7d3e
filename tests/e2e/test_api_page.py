"""The examples of docs/api.md run as they stand, in their order."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from deploy.local.mesh import LocalMesh

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]


async def test_the_examples_of_the_page_run(mesh: LocalMesh) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is missing: the examples need both")
    page = (ROOT / "docs" / "api.md").read_text()
    # Whose token it is: that of a mesh on its usual folder, which the tests have not.
    page, found = re.subn(
        r"(bookmesh token )(.*?)\)\}", rf"\1\2 --data '{mesh.data.root}')}}", page
    )
    assert found == 1
    examples = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 5
    script = "set -euo pipefail\n" + "\n".join(examples)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=ROOT,
        env={
            **os.environ,
            "BOOKMESH": mesh.rest_url,
            "NO_PROXY": "*",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    assert '"best_total":24.99' in text
    assert "202 Accepted" in text
    assert '"status":"purchased"' in text
    assert "event: end" in text
    assert "INTERNAL" not in text
