"""Customers' identities, from signed JSON Web Tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import structlog

from mesh import errors

CLOCK_SKEW_S = 5.0
"""How far an issuer's clock may be from ours, in seconds."""

_ALGORITHMS = ("ES256", "RS256")
_LONGEST_ID = 255

_log = structlog.get_logger(__name__)


class JwtIdentities:
    """Knows customers by tokens that were signed with one of the keys in a file (RFC 7519, RFC 7517).

    A token must be signed by ES256 or RS256, and have the right ``iss`` and ``aud``, an ``exp`` in the future and a
    ``sub`` of 1 to 255 printable characters, which is the customer. A ``kid`` names the key; without one any key will
    do. The file is read again when it has changed; one that cannot be read leaves the keys that were known in force.
    """

    def __init__(self, jwks_file: Path, *, issuer: str, audience: str) -> None:
        self._file = jwks_file
        self._issuer = issuer
        self._audience = audience
        self._keys: list[jwt.PyJWK] = []
        # No file has this one; None stands for a file that is not there.
        self._version: tuple[int, int, int] | None = (0, 0, 0)

    def loaded(self) -> bool:
        """Say whether there are keys to verify with."""
        self._refresh()
        return bool(self._keys)

    def customer_of(self, token: str) -> str:
        """Give the customer to whom a token was issued."""
        if not self.loaded():
            raise errors.Unavailable(
                "tokens cannot be verified at the moment: try again", retry_after_s=1.0
            )
        try:
            customer_id = str(self._claims(token)["sub"])
        except jwt.ExpiredSignatureError:
            raise errors.Unauthenticated(
                "the token has expired: get a new one", reason="TOKEN_EXPIRED"
            ) from None
        except jwt.InvalidTokenError as error:
            raise _invalid(str(error)) from None
        if not (1 <= len(customer_id) <= _LONGEST_ID and customer_id.isprintable()):
            raise _invalid(f"sub must have 1 to {_LONGEST_ID} printable characters")
        return customer_id

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        failure: jwt.InvalidTokenError = jwt.InvalidSignatureError(
            "it is not signed with a key that is known here"
        )
        for key in self._keys:
            if key.algorithm_name != header.get("alg") or not _may_be(
                key.key_id, header.get("kid")
            ):
                continue
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=_ALGORITHMS,
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=CLOCK_SKEW_S,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError as error:
                failure = error
        raise failure

    def _refresh(self) -> None:
        try:
            stat = self._file.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            version = None
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _usable(self._file.read_text())
        except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
            _log.error(
                "the keys for tokens cannot be read: it must be a JSON Web Key Set with an ES256 or RS256 key",
                file=str(self._file),
                error=str(error),
            )
        else:
            _log.info("keys read", file=str(self._file), keys=[key.key_id for key in self._keys])


def _usable(text: str) -> list[jwt.PyJWK]:
    keys = [
        key
        for key in jwt.PyJWKSet.from_dict(json.loads(text)).keys
        if key.algorithm_name in _ALGORITHMS and key.public_key_use in {None, "sig"}
    ]
    if not keys:
        raise jwt.PyJWKSetError("there is no key in it that could be used")
    return keys


def _may_be(key_id: str | None, wanted: str | None) -> bool:
    return key_id is None or wanted is None or key_id == wanted


def _invalid(problem: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(f"the token is not valid: {problem}", reason="TOKEN_INVALID")
