"""Payment tokens at rest: AES-256-GCM under a keyring that is mounted as a file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.ports import SealedToken

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

_KEY_BYTES = 32
_NONCE_BYTES = 12


class KeyringError(Exception):
    """A keyring that cannot be used; the message says why, without the keys."""


class AesTokenVault:
    """Seals tokens with the first key of a keyring and opens what any of its keys has sealed.

    AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce before the ciphertext and the request id as associated
    data, so that a sealed token is of no use in another purchase. Digests are HMAC-SHA-256 under a key derived from the
    same one (HKDF, RFC 5869).
    """

    def __init__(self, keyring: Path) -> None:
        """Read the keyring: JSON ``{"keys": [{"id": "k1", "key": "<base64 of 32 bytes>"}, ...]}``.

        Raises:
            KeyringError: when it is not there or not of that form.

        """
        keys = _read(keyring)
        self._sealing = next(iter(keys))
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._digest_keys = {
            key_id: HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"bookmesh content digest").derive(
                key
            )
            for key_id, key in keys.items()
        }

    def seal(self, token: str, request_id: UUID) -> SealedToken:
        """Encrypt a token for one purchase."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._sealing].encrypt(nonce, token.encode(), request_id.bytes)
        return SealedToken(self._sealing, nonce + sealed)

    def open(self, token: SealedToken, request_id: UUID) -> str:
        """Decrypt the token of a purchase.

        Raises:
            KeyError: when the keyring has no key of that id any more.

        """
        nonce, sealed = token.sealed[:_NONCE_BYTES], token.sealed[_NONCE_BYTES:]
        return self._ciphers[token.key_id].decrypt(nonce, sealed, request_id.bytes).decode()

    def digest(self, content: bytes, key_id: str | None = None) -> bytes:
        """Give the HMAC-SHA-256 of some content under the key that seals, or under the one named."""
        return hmac.digest(self._digest_keys[key_id or self._sealing], content, hashlib.sha256)


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
