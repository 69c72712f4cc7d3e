"""The keys of a local mesh: the development issuer of customers' tokens, and the keyring for payment tokens.

They are made once per data folder, readable by its owner only, and never leave it.
"""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from deploy.local.data import DataFolder
from deploy.local.files import write
from deploy.local.problem import MeshProblem

ISSUER = "https://issuer.bookmesh.local"
"""The ``iss`` of tokens made here."""
AUDIENCE = "bookmesh"
"""The ``aud`` of tokens made here."""

_KEY_ID = "development"


def ensure_keys(data: DataFolder) -> None:
    """Make the keys that are missing."""
    if not data.issuer_key.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write(data.issuer_key, pem)
    public = ECAlgorithm.to_jwk(_issuer_key(data.issuer_key).public_key(), as_dict=True)
    jwks = {"keys": [{**public, "kid": _KEY_ID, "alg": "ES256", "use": "sig"}]}
    # Moved into place: Envoy notices moves, and nobody reads half of it.
    write(data.jwks, json.dumps(jwks).encode())
    if not data.token_keyring.exists():
        # The first key encrypts, all decrypt.
        key_text = base64.b64encode(secrets.token_bytes(32)).decode()
        keyring = {"keys": [{"id": "k1", "key": key_text}]}
        write(data.token_keyring, json.dumps(keyring).encode())


def sign_token(
    data: DataFolder, subject: str, now: datetime, ttl: timedelta, scope: str = "customer"
) -> str:
    """Give a bearer token with which ``subject`` may call the mesh that runs on this data folder, until now + ttl.

    Raises:
        MeshProblem: if no mesh has been started there yet, or its key cannot be read.

    """
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "scope": scope,
        "iat": now,
        "exp": now + ttl,
    }
    return jwt.encode(
        claims, _issuer_key(data.issuer_key), algorithm="ES256", headers={"kid": _KEY_ID}
    )


def _issuer_key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except FileNotFoundError:
        msg = f"there is no issuer key in {file.parent}: `make up` makes one (--data if it is elsewhere)"
        raise MeshProblem(msg) from None
    except OSError as error:
        msg = f"cannot read the issuer key {file}: {error.strerror}"
        raise MeshProblem(msg) from None
    except ValueError as error:
        msg = (
            f"cannot read the issuer key {file} ({error}): remove it, and `make up` makes a new one"
        )
        raise MeshProblem(msg) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = f"{file} is not a key on the curve P-256: remove it, and `make up` makes a new one"
        raise MeshProblem(msg)
    return key
