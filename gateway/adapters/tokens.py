"""Callers' identities, from signed JSON Web Tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt

from gateway.adapters.keys import ALGORITHMS, Keys
from gateway.ports import CUSTOMER, Caller, is_id
from mesh import errors

CLOCK_SKEW_S = 5.0
"""How far an issuer's clock may be from ours, in seconds."""

LONGEST_TOKEN = 6 * 1024
"""Longer ones are not looked at."""


class JwtIdentities:
    """Knows callers by tokens that were signed with one of the issuer's keys (RFC 7519).

    A token must be signed by ES256 or RS256, and have the right ``iss`` and ``aud``, an ``exp`` in the future, no
    ``iat`` or ``nbf`` in the future, and a ``sub`` of 1 to 255 printable characters. Its ``scope`` is words with spaces
    between them (RFC 8693, 4.2); a token without one is a customer's. A ``kid`` names the key; without one any key will
    do.
    """

    def __init__(self, keys: Keys, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def loaded(self) -> bool:
        """Say whether there are keys to verify with."""
        return bool(self._keys.known())

    async def caller_of(self, token: str) -> Caller:
        """Give whom a token was issued to, and what for."""
        if not self.loaded():
            raise errors.Unavailable(
                "tokens cannot be verified at the moment: try again", retry_after_s=1.0
            )
        if len(token) > LONGEST_TOKEN:
            raise _invalid(f"it has more than {LONGEST_TOKEN} characters")
        try:
            claims = await self._claims(token)
        except jwt.ExpiredSignatureError:
            raise errors.Unauthenticated(
                "the token has expired: get a new one", reason="TOKEN_EXPIRED"
            ) from None
        except jwt.InvalidTokenError as error:
            raise _invalid(str(error)) from None
        return Caller(_subject(claims), _scopes(claims))

    async def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if not self._fitting(header) and header.get("alg") in ALGORITHMS:
            await self._keys.look_again()
        failure: jwt.InvalidTokenError = jwt.InvalidSignatureError(
            "it is not signed with a key that is known here"
        )
        for key in self._fitting(header):
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=ALGORITHMS,
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=CLOCK_SKEW_S,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError as error:
                failure = error
        raise failure

    def _fitting(self, header: dict[str, Any]) -> Sequence[jwt.PyJWK]:
        """Give the keys that may have signed a token: never one made for another algorithm than it names."""
        key_id = header.get("kid")
        return [
            key
            for key in self._keys.known()
            if key.algorithm_name == header.get("alg")
            and (key.key_id is None or key_id is None or key.key_id == key_id)
        ]


def _subject(claims: dict[str, Any]) -> str:
    subject = str(claims["sub"])
    if not is_id(subject):
        raise _invalid("sub must have 1 to 255 printable characters")
    return subject


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    scope = claims.get("scope", CUSTOMER)
    if not isinstance(scope, str):
        raise _invalid("scope must be words with spaces between them")
    return frozenset(scope.split())


def _invalid(problem: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(f"the token is not valid: {problem}", reason="TOKEN_INVALID")
