"""Payment tokens at rest."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag

from orchestrator.adapters.vault import CHECK_INTERVAL_S, AesTokenVault, KeyringError
from tests.fakes.manual_clock import ManualClock

ONE, TWO = UUID(int=1), UUID(int=2)


def keyring(path: Path, *ids: str) -> Path:
    keys = [{"id": name, "key": base64.b64encode(name.encode().ljust(32)).decode()} for name in ids]
    path.write_text(json.dumps({"keys": keys}))
    return path


def test_opens_what_it_sealed(tmp_path: Path) -> None:
    vault = AesTokenVault(keyring(tmp_path / "k", "k1"), ManualClock())
    sealed = vault.seal("tok_secret", ONE)
    assert b"tok_secret" not in sealed.sealed
    assert vault.open(sealed, ONE) == "tok_secret"


def test_a_sealed_token_is_of_no_use_in_another_purchase(tmp_path: Path) -> None:
    vault = AesTokenVault(keyring(tmp_path / "k", "k1"), ManualClock())
    with pytest.raises(InvalidTag):
        vault.open(vault.seal("tok_secret", ONE), TWO)


def test_a_new_key_in_front_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    old = AesTokenVault(keyring(tmp_path / "k", "k1"), ManualClock())
    new = AesTokenVault(keyring(tmp_path / "k", "k2", "k1"), ManualClock())
    assert new.open(old.seal("tok_secret", ONE), ONE) == "tok_secret"
    assert new.seal("tok_secret", ONE).key_id == "k2"
    assert new.digest(b"content", "k1") == old.digest(b"content")
    assert new.digest(b"content") != old.digest(b"content")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"keys": []}',
        '{"keys": [{"id": "a", "key": "c2hvcnQ="}]}',
        '{"keys": [{"id": "a", "key": "?"}]}',
    ],
)
def test_a_keyring_that_cannot_be_used_is_refused_without_showing_keys(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(content)
    with pytest.raises(KeyringError, match=r"keyring\.json") as caught:
        AesTokenVault(path, ManualClock())
    assert "c2hvcnQ" not in str(caught.value)


def test_a_missing_keyring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="No such file"):
        AesTokenVault(tmp_path / "none", ManualClock())


def test_a_keyring_that_changes_is_read_again(tmp_path: Path) -> None:
    path, clock = keyring(tmp_path / "k", "k1"), ManualClock()
    vault = AesTokenVault(path, clock)
    old = vault.seal("tok_secret", ONE)
    keyring(path, "k2", "k1")
    clock.advance(CHECK_INTERVAL_S)
    new = vault.seal("tok_secret", ONE)
    assert (old.key_id, new.key_id) == ("k1", "k2")
    assert vault.open(old, ONE) == vault.open(new, ONE) == "tok_secret"


def test_a_key_that_another_replica_has_first_is_looked_for_at_once(tmp_path: Path) -> None:
    path = keyring(tmp_path / "k", "k1")
    late = AesTokenVault(path, ManualClock())
    sealed = AesTokenVault(keyring(tmp_path / "other", "k2", "k1"), ManualClock()).seal("tok", ONE)
    with pytest.raises(KeyError):
        late.open(sealed, ONE)
    keyring(path, "k2", "k1")
    assert late.open(sealed, ONE) == "tok"
    assert late.digest(b"content", "k2")


def test_a_key_that_was_taken_away_opens_nothing(tmp_path: Path) -> None:
    path, clock = keyring(tmp_path / "k", "k1"), ManualClock()
    vault = AesTokenVault(path, clock)
    sealed = vault.seal("tok_secret", ONE)
    keyring(path, "k2")
    clock.advance(CHECK_INTERVAL_S)
    with pytest.raises(KeyError, match="k1"):
        vault.open(sealed, ONE)


@pytest.mark.parametrize("broken", ["{", None])
def test_a_keyring_that_breaks_later_leaves_the_keys_that_were_read(
    tmp_path: Path, broken: str | None
) -> None:
    path, clock = keyring(tmp_path / "k", "k1"), ManualClock()
    vault = AesTokenVault(path, clock)
    sealed = vault.seal("tok_secret", ONE)
    path.write_text(broken) if broken else path.unlink()
    clock.advance(CHECK_INTERVAL_S)
    assert vault.open(sealed, ONE) == "tok_secret"
    keyring(path, "k2", "k1")
    clock.advance(CHECK_INTERVAL_S)
    assert vault.seal("tok_secret", ONE).key_id == "k2"
