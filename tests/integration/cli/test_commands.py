"""The commands as a person types them: what they print, and one line when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import asyncpg
import jwt
import pytest

from deploy.local import postgres
from deploy.local.data import DataFolder
from deploy.local.keys import ensure_keys
from tests.servers import PostgresServer


def bookmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, check=False
    )


def failure(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a command failed with one line on stderr; give it."""
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    ensure_keys(folder)
    return folder


@pytest.fixture
async def empty_dsn(postgres_server: PostgresServer) -> str:
    connection = await asyncpg.connect(postgres.dsn(postgres_server.port, "postgres"))
    try:
        await connection.execute("DROP DATABASE IF EXISTS empty")
        await connection.execute("CREATE DATABASE empty")
    finally:
        await connection.close()
    return postgres.dsn(postgres_server.port, "empty")


def test_a_token_is_printed_alone(data: DataFolder) -> None:
    result = bookmesh("token", "--data", str(data.base), "--sub", "bob", "--ttl", "60")
    claims = jwt.decode(result.stdout.strip(), options={"verify_signature": False})
    assert claims["sub"] == "bob"
    assert claims["exp"] - claims["iat"] == 60


def test_a_token_as_json_says_when_it_ends(data: DataFolder) -> None:
    result = bookmesh("token", "--data", str(data.base), "-o", "json")
    assert set(json.loads(result.stdout)) == {"token", "sub", "scope", "expires_at"}


def test_a_token_may_be_for_a_service(data: DataFolder) -> None:
    result = bookmesh("token", "--data", str(data.base), "--sub", "billing", "--scope", "internal")
    claims = jwt.decode(result.stdout.strip(), options={"verify_signature": False})
    assert (claims["sub"], claims["scope"]) == ("billing", "internal")


def test_a_token_without_a_mesh_is_refused_in_a_line(tmp_path: Path) -> None:
    line = failure(bookmesh("token", "--data", str(tmp_path)))
    assert line.startswith("Error: there is no issuer key in")


def test_without_a_mesh_there_is_nothing_to_restart(data: DataFolder) -> None:
    line = failure(bookmesh("restart", "--data", str(data.base)))
    assert line.startswith("Error: no mesh runs on")


def test_migrate_brings_a_database_up_to_date_once(empty_dsn: str) -> None:
    first = bookmesh("migrate", "--database-url", empty_dsn, "-o", "json")
    assert "orchestrator/0001_purchases.sql" in json.loads(first.stdout)["applied"]
    second = bookmesh("migrate", "--database-url", empty_dsn)
    assert second.stdout == "0 migrations applied; the database is up to date\n"


@pytest.mark.parametrize("dsn", ["postgresql://127.0.0.1:1/nowhere", "nonsense"])
def test_migrate_without_a_database_is_refused_in_a_line(dsn: str) -> None:
    line = failure(bookmesh("migrate", "--database-url", dsn))
    assert line.startswith("Error: cannot migrate: ")


def test_a_decision_may_be_typed_as_its_flag_advises_it(data: DataFolder) -> None:
    """The words are understood: what is missing is the mesh."""
    for word in ("payment_settled", "payment-settled"):
        decided = bookmesh(
            *("operator", "resolve", "01980000-0000-7000-8000-000000000000", word),
            *("--flag", "1", "--reason", "test", "--data", str(data.base)),
        )
        assert "operator.pem" in failure(decided)
