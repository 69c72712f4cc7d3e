"""Credentials come from a file that may change at any time, and are shown to nobody but the seller."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sellers.credentials import CHECK_INTERVAL_S, Credentials
from tests.fakes.manual_clock import ManualClock

SECRET = "s3cr3t"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def write(path: Path, text: str) -> None:
    path.write_text(text)
    # A file system may keep times in steps that are longer than a test.
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def test_a_reference_becomes_a_bearer_token(tmp_path: Path, clock: ManualClock) -> None:
    write(tmp_path / "c.json", json.dumps({"acme": SECRET}))
    credentials = Credentials(tmp_path / "c.json", clock)
    assert credentials.metadata("acme") == (("authorization", f"Bearer {SECRET}"),)


def test_a_changed_file_is_read_again(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "c.json"
    write(path, json.dumps({"acme": SECRET}))
    credentials = Credentials(path, clock)
    assert credentials.metadata("acme") is not None
    path.unlink()
    write(path, json.dumps({"acme": "another"}))
    clock.advance(CHECK_INTERVAL_S)
    assert credentials.metadata("acme") == (("authorization", "Bearer another"),)


def test_a_file_that_appears_later_is_read_then(tmp_path: Path, clock: ManualClock) -> None:
    credentials = Credentials(tmp_path / "c.json", clock)
    assert credentials.metadata("acme") is None
    write(tmp_path / "c.json", json.dumps({"acme": SECRET}))
    clock.advance(CHECK_INTERVAL_S)
    assert credentials.metadata("acme") is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '"acme"', '{"acme": '])
def test_a_broken_file_leaves_in_force_what_was_known(
    tmp_path: Path, clock: ManualClock, text: str
) -> None:
    path = tmp_path / "c.json"
    write(path, json.dumps({"acme": SECRET}))
    credentials = Credentials(path, clock)
    assert credentials.metadata("acme") is not None
    write(path, text)
    clock.advance(CHECK_INTERVAL_S)
    with capture_logs() as logs:
        assert credentials.metadata("acme") is not None
    assert [entry["log_level"] for entry in logs] == ["error"]


@pytest.mark.parametrize("secret", ["", "two\nlines", "schlüssel", None, 7])
def test_a_secret_that_cannot_be_sent_is_a_missing_one(
    tmp_path: Path, clock: ManualClock, secret: object
) -> None:
    write(tmp_path / "c.json", json.dumps({"acme": secret}))
    assert Credentials(tmp_path / "c.json", clock).metadata("acme") is None


def test_a_missing_reference_is_logged_once(tmp_path: Path, clock: ManualClock) -> None:
    write(tmp_path / "c.json", json.dumps({"other": SECRET}))
    credentials = Credentials(tmp_path / "c.json", clock)
    with capture_logs() as logs:
        for _ in range(3):
            assert credentials.metadata("acme") is None
            clock.advance(CHECK_INTERVAL_S)
    assert [entry.get("reference") for entry in logs if entry["log_level"] == "error"] == ["acme"]


def test_no_secret_is_logged(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "c.json"
    with capture_logs() as logs:
        for text in (json.dumps({"acme": SECRET}), f'{{"acme": "{SECRET}"', json.dumps([SECRET])):
            write(path, text)
            Credentials(path, clock).metadata("acme")
            Credentials(path, clock).metadata("nobody")
    assert SECRET not in repr(logs)
