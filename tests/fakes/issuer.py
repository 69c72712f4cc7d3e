"""An issuer of customers' tokens, good and bad."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.test"
AUDIENCE = "bookmesh-test"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Issuer:
    """Signs tokens with its newest key, and publishes all its keys in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.keys: dict[str, Key] = {}
        self.add_key("first")

    def add_key(self, key_id: str, key: Key | None = None) -> None:
        self.keys[key_id] = key or ec.generate_private_key(ec.SECP256R1())
        self.publish()

    def publish(self) -> None:
        self.file.write_text(json.dumps(self.jwks()))

    def jwks(self) -> dict[str, Any]:
        return {"keys": [_jwk(key_id, key) for key_id, key in self.keys.items()]}

    def token(
        self,
        customer: str | None = "alice",
        *,
        expires_in: timedelta = timedelta(hours=1),
        header: dict[str, Any] | None = None,
        key: Key | None = None,
        claims: Mapping[str, object] | None = None,
    ) -> str:
        """Sign a token; ``claims`` replace the usual ones, those that are None are left out."""
        key_id, newest = list(self.keys.items())[-1]
        now = datetime.now(UTC)
        usual = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": customer,
            "iat": now,
            "exp": now + expires_in,
        }
        wanted = {
            name: value for name, value in {**usual, **(claims or {})}.items() if value is not None
        }
        signing = key or newest
        return jwt.encode(
            wanted, signing, algorithm=_algorithm(signing), headers=header or {"kid": key_id}
        )


def _algorithm(key: Key) -> str:
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def _jwk(key_id: str, key: Key) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": key_id, "use": "sig"}
