"""The data folder: one mesh at a time, and keys that are made once."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from jwt import PyJWK

from deploy.local.data import DataFolder
from deploy.local.keys import AUDIENCE, ISSUER, ensure_keys, sign_token
from deploy.local.problem import MeshProblem
from mesh.clock import SystemClock

HOLD = """
import sys
from pathlib import Path
from deploy.local.data import DataFolder
with DataFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_mesh_on_a_folder_is_told_who_has_it(data: DataFolder) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, data.base], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(MeshProblem, match=rf"another mesh \(process {holder.pid}\) runs on"),
            data.locked(),
        ):
            pass
        holder.kill()
    with data.locked():
        """The lock has ended with its holder."""


def test_logs_of_the_last_mesh_are_kept(data: DataFolder) -> None:
    data.log("gateway-1").write_text("old")
    data.turn_logs()
    assert not data.log("gateway-1").exists()
    assert Path(f"{data.log('gateway-1')}.1").read_text() == "old"


def test_keys_are_made_once_and_are_private(data: DataFolder) -> None:
    ensure_keys(data)
    before = data.issuer_key.read_bytes(), data.token_keyring.read_bytes()
    ensure_keys(data)
    assert (data.issuer_key.read_bytes(), data.token_keyring.read_bytes()) == before
    assert stat.S_IMODE(data.issuer_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.token_keyring.stat().st_mode) == 0o600
    assert stat.S_IMODE(data.keys.stat().st_mode) == 0o700
    [key] = json.loads(before[1])["keys"]
    assert set(key) == {"id", "key"}
    assert len(base64.b64decode(key["key"])) == 32


def test_a_token_can_be_verified_with_the_published_key(data: DataFolder) -> None:
    ensure_keys(data)
    now = SystemClock().now()
    token = sign_token(data, "alice", now, timedelta(minutes=1))
    [key] = json.loads(data.jwks.read_text())["keys"]
    claims = jwt.decode(
        token,
        PyJWK(key),
        algorithms=["ES256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        options={"require": ["exp", "iat", "sub"]},
    )
    assert claims["sub"] == "alice"
    assert claims["exp"] == int(now.timestamp()) + 60
    assert jwt.get_unverified_header(token)["kid"] == key["kid"]


def test_a_token_needs_a_mesh_that_was_started(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "nowhere")
    with pytest.raises(MeshProblem, match=r"there is no issuer key in .*: `make up` makes one"):
        sign_token(data, "alice", SystemClock().now(), timedelta(minutes=1))


@pytest.mark.parametrize("content", [b"", b"not a key"])
def test_a_spoilt_issuer_key_is_a_problem(data: DataFolder, content: bytes) -> None:
    data.issuer_key.write_bytes(content)
    with pytest.raises(MeshProblem, match=r"remove it, and `make up` makes a new one"):
        ensure_keys(data)


def test_nothing_is_left_of_a_key_that_was_half_written(data: DataFolder) -> None:
    draft = data.token_keyring.with_suffix(".new")
    draft.write_text("half")
    draft.chmod(0o644)
    ensure_keys(data)
    assert not draft.exists()
    assert stat.S_IMODE(data.token_keyring.stat().st_mode) == 0o600
