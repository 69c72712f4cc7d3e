"""Settings that cannot work are told in one line each, before anything begins."""

from __future__ import annotations

import pytest

from mesh.settings import SellerCallerSettings, load


@pytest.fixture(autouse=True)
def _right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "VALKEY_URL": "redis://localhost:6379/0",
        "SELLER_CREDENTIALS_FILE": "credentials.json",
        "PROCESSES": "3",
        "PROCESS_INDEX": "2",
    }.items():
        monkeypatch.setenv(f"BOOKMESH_{name}", value)


@pytest.mark.parametrize(
    "url", ["redis://valkey:6379", "rediss://:secret@valkey", "unix:///run/valkey.sock"]
)
def test_settings_that_work_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BOOKMESH_VALKEY_URL", url)
    settings = load(SellerCallerSettings)
    assert (settings.valkey_url, settings.process_index) == (url, 2)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("PROCESS_INDEX", "3", "must be below BOOKMESH_PROCESSES, which is 3"),
        ("VALKEY_URL", "localhost:6379", "must be redis://host:port"),
        ("VALKEY_URL", "http://valkey:6379", "must be redis://host:port"),
        ("VALKEY_URL", "redis://:6379", "must be redis://host:port"),
        ("VALKEY_URL", "redis://valkey:port", "must be redis://host:port"),
        ("VALKEY_URL", "redis://valkey:99999", "must be redis://host:port"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_program_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    problem: str,
) -> None:
    monkeypatch.setenv(f"BOOKMESH_{name}", value)
    with pytest.raises(SystemExit):
        load(SellerCallerSettings)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"BOOKMESH_{name}: ")
    assert problem in line
