"""``bookmesh operator``, as an operator types it, against a running mesh."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Doors
from tests.e2e.customers import Json, final

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

WISH: Json = {"book_id": "nowhere", "max_price": 29.99, "payment_token": "tok_ok"}
NEVER_MADE = "01980000-0000-7000-8000-000000000000"


async def operator(*arguments: str) -> tuple[int | None, str, str]:
    """Run the command; give its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "operator", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, said = await process.communicate()
    return process.returncode, printed.decode(), said.decode()


async def test_a_purchase_is_inspected_whosever_it_is(mesh: LocalMesh, doors: Doors) -> None:
    alice = await doors.rest("alice")
    request_id = (await alice.create(WISH))["request_id"]
    await final(alice, request_id)
    data = ("--data", str(mesh.data.root))
    code, printed, _ = await operator("inspect", request_id, "-o", "json", *data)
    seen: dict[str, Any] = json.loads(printed)
    assert code == 0
    assert seen["customer_id"] == "alice"
    assert seen["purchase"]["max_price"] == {"currency": "USD", "amount": "29.99"}
    code, printed, _ = await operator("inspect", request_id, *data)
    assert code == 0
    for shown in (request_id, "alice", "not available", "submitted"):
        assert shown in printed


async def test_flags_are_listed(mesh: LocalMesh) -> None:
    data = ("--data", str(mesh.data.root))
    code, printed, _ = await operator("flags", "-o", "json", *data)
    assert code == 0
    assert isinstance(json.loads(printed), list)
    code, printed, _ = await operator("flags", *data)
    assert code == 0
    assert printed


@pytest.mark.parametrize(
    ("request_id", "more", "said"),
    [
        (NEVER_MADE, ["retry"], "Error: "),
        ("nonsense", ["retry"], "is not a valid UUID"),
        (NEVER_MADE, ["order-stands", "--total", "dear"], "Invalid value for --total"),
        (NEVER_MADE, ["order_stands", "--total", "24.99"], "needs --order-id and --total"),
        (NEVER_MADE, ["guess"], "'guess' is not one of"),
    ],
)
async def test_a_decision_that_cannot_be_taken_is_refused_in_a_line(
    mesh: LocalMesh, request_id: str, more: list[str], said: str
) -> None:
    code, printed, why = await operator(
        *("resolve", request_id, *more, "--reason", "test", "--data", str(mesh.data.root)),
        *("--flag", "1"),
    )
    assert (code, printed) == (1 if said == "Error: " else 2, "")
    assert said in why
    assert "Traceback" not in why


async def test_whoever_is_no_operator_is_told_so(mesh: LocalMesh) -> None:
    data = mesh.data
    shown = ("--certificate", str(data.certificate("gateway")))
    key = ("--key", str(data.certificate_key("gateway")))
    code, printed, why = await operator("flags", "--data", str(data.root), *shown, *key)
    assert (code, printed) == (1, "")
    assert "is not for gateway" in why


async def test_whoever_has_a_token_for_something_else_is_told_so(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKMESH_OPERATOR_TOKEN", mesh.token("ann"))
    code, printed, why = await operator("flags", "--data", str(mesh.data.root))
    assert (code, printed) == (1, "")
    assert "does not have the scope operator" in why
    monkeypatch.setenv("BOOKMESH_OPERATOR_TOKEN", mesh.token("ann", scope="operator"))
    code, _, _ = await operator("flags", "--data", str(mesh.data.root))
    assert code == 0


async def test_without_a_mesh_there_is_nobody_to_ask(mesh: LocalMesh) -> None:
    code, _, why = await operator("flags", "--data", "/nowhere")
    assert code == 1
    assert "--data the folder of a local mesh" in why
    target = ("--target", "ipv4:127.0.0.1:1")
    code, _, why = await operator("flags", "--data", str(mesh.data.root), *target)
    assert code == 1
    assert why.startswith("Error: no orchestrator at ipv4:127.0.0.1:1 answers")
