"""Payment tokens at rest: AES-256-GCM under a keyring that is mounted as a file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.ports import SealedToken

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from mesh.clock import Clock

CHECK_INTERVAL_S = 1.0
"""How often the keyring is looked at, at most."""

_KEY_BYTES = 32
_NONCE_BYTES = 12

_log = structlog.get_logger(__name__)


class KeyringError(Exception):
    """A keyring that cannot be used; the message says why, without the keys."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """A keyring as it is used: which key seals, and what each does."""

    sealing: str
    ciphers: dict[str, AESGCM]
    digest_keys: dict[str, bytes]


class AesTokenVault:
    """Seals tokens with the first key of a keyring and opens what any of its keys has sealed.

    AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce before the ciphertext and the request id as associated
    data, so that a sealed token is of no use in another purchase. Digests are HMAC-SHA-256 under a key derived from the
    same one (HKDF, RFC 5869).

    The file is read again when it has changed, looked at no more than once a second, and at once when a key is wanted
    that is not known. To rotate, add a key behind the others in every replica's file, then move it to the front. An old
    one may go when no purchase that it has sealed is under way or has an open offer, and nobody repeats a call of that
    time any more: such a call is refused. A file that cannot be read leaves what was known in force.
    """

    def __init__(self, keyring: Path, clock: Clock) -> None:
        """Read the keyring: JSON ``{"keys": [{"id": "k1", "key": "<base64 of 32 bytes>"}, ...]}``.

        Raises:
            KeyringError: when it is not there or not of that form.

        """
        self._path = keyring
        self._clock = clock
        self._version = _version(keyring)
        self._keys = _keys(_read(keyring))
        self._look_again_at = clock.monotonic() + CHECK_INTERVAL_S

    def seal(self, token: str, request_id: UUID) -> SealedToken:
        """Encrypt a token for one purchase."""
        keys = self._present()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = keys.ciphers[keys.sealing].encrypt(nonce, token.encode(), request_id.bytes)
        return SealedToken(keys.sealing, nonce + sealed)

    def open(self, token: SealedToken, request_id: UUID) -> str:
        """Decrypt the token of a purchase.

        Raises:
            KeyError: when the keyring has no key of that id any more.

        """
        nonce, sealed = token.sealed[:_NONCE_BYTES], token.sealed[_NONCE_BYTES:]
        cipher = self._present(token.key_id).ciphers[token.key_id]
        return cipher.decrypt(nonce, sealed, request_id.bytes).decode()

    def digest(self, content: bytes, key_id: str | None = None) -> bytes:
        """Give the HMAC-SHA-256 of some content under the key that seals, or under the one named.

        Raises:
            KeyError: when the keyring has no key of that id any more.

        """
        keys = self._present(key_id)
        return hmac.digest(keys.digest_keys[key_id or keys.sealing], content, hashlib.sha256)

    def _present(self, wanted: str | None = None) -> _Keys:
        """Give the keys as they are now; another replica may have sealed with one that is ``wanted`` here first."""
        missing = wanted is not None and wanted not in self._keys.ciphers
        if missing or self._clock.monotonic() >= self._look_again_at:
            self._look_again_at = self._clock.monotonic() + CHECK_INTERVAL_S
            self._refresh()
        return self._keys

    def _refresh(self) -> None:
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _keys(_read(self._path))
        except KeyringError as error:
            _log.error("the keyring is used as it was read before", problem=str(error))
            return
        _log.info("keyring read", file=str(self._path), keys=list(self._keys.ciphers))


def _keys(keys: dict[str, bytes]) -> _Keys:
    return _Keys(
        sealing=next(iter(keys)),
        ciphers={key_id: AESGCM(key) for key_id, key in keys.items()},
        digest_keys={
            key_id: HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"bookmesh content digest").derive(
                key
            )
            for key_id, key in keys.items()
        },
    )


def _version(path: Path) -> tuple[int, int, int] | None:
    """Give what changes when the file does; None when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> dict[str, bytes]:
    try:
        entries = json.loads(path.read_text())["keys"]
        keys = {entry["id"]: base64.b64decode(entry["key"], validate=True) for entry in entries}
    except OSError as error:
        msg = f"the keyring {path} cannot be read: {error.strerror}"
        raise KeyringError(msg) from None
    except (ValueError, KeyError, TypeError):
        msg = f'the keyring {path} is not {{"keys": [{{"id": ..., "key": <base64>}}, ...]}}'
        raise KeyringError(msg) from None
    if not keys or any(len(key) != _KEY_BYTES for key in keys.values()):
        msg = f"the keyring {path} must have at least one key, each of {_KEY_BYTES} bytes"
        raise KeyringError(msg)
    return keys
