"""Callers' identities, from signed JSON Web Tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jwt

from mesh import errors
from mesh.tokens.keys import ALGORITHMS, Keys

if TYPE_CHECKING:
    from mesh.grpc.interceptor import Context

CUSTOMER = "customer"
"""The scope of a token with which a customer buys."""

INTERNAL = "internal"
"""The scope of a token with which a service of the house acts for customers."""

OPERATOR = "operator"
"""The scope of a token with which somebody decides about purchases."""

CLOCK_SKEW_S = 5.0
"""How far an issuer's clock may be from ours, in seconds."""

LONGEST_TOKEN = 6 * 1024
"""Longer ones are not looked at."""


_LONGEST_ID = 255


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token was issued to.

    Attributes:
        subject: the id of a customer, a service or an operator.
        scopes: what it was issued for.

    """

    subject: str
    scopes: frozenset[str]


class Identities(Protocol):
    """Knows callers by the tokens that they carry."""

    async def caller_of(self, token: str) -> Caller:
        """Give whom a token was issued to.

        Raises:
            Unauthenticated: reason TOKEN_EXPIRED or TOKEN_INVALID, when it proves nothing.
            Unavailable: while the keys are not known.

        """
        ...


def is_id(text: str) -> bool:
    """Say whether a text can be the id of a caller: 1 to 255 printable characters."""
    return 1 <= len(text) <= _LONGEST_ID and text.isprintable()


def bearer(context: Context) -> str:
    """Give the token that a call carries.

    Raises:
        Unauthenticated: reason TOKEN_MISSING, or TOKEN_INVALID when it carries something else, or several.

    """
    match [value for key, value in context.invocation_metadata() or () if key == "authorization"]:
        case []:
            raise errors.Unauthenticated(
                "no token: send metadata authorization: Bearer <token>", reason="TOKEN_MISSING"
            )
        case [str(value)] if value[:7].lower() == "bearer ":
            return value[7:].strip()
        case _:
            raise errors.Unauthenticated(
                "the authorization must be one Bearer token", reason="TOKEN_INVALID"
            )


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
        fitting = self._fitting(header)
        if not fitting and header.get("alg") in ALGORITHMS:
            await self._keys.look_again()
            fitting = self._fitting(header)
        failure: jwt.InvalidTokenError = jwt.InvalidSignatureError(
            "it is not signed with a key that is known here"
        )
        for key in fitting:
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
