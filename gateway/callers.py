"""Who calls, from the metadata of a call."""

from __future__ import annotations

from gateway.ports import Identities
from mesh import errors
from mesh.grpc.interceptor import Context


def customer_of(identities: Identities, context: Context) -> str:
    """Give the id of the customer who calls.

    Raises:
        Unauthenticated: reason TOKEN_MISSING, TOKEN_EXPIRED or TOKEN_INVALID.
        Unavailable: while the keys for tokens are not known.

    """
    match metadata(context, "authorization"):
        case []:
            raise errors.Unauthenticated(
                "no token: send metadata authorization: Bearer <token>", reason="TOKEN_MISSING"
            )
        case [value] if value[:7].lower() == "bearer ":
            return identities.customer_of(value[7:].strip())
        case _:
            raise errors.Unauthenticated(
                "the authorization must be one Bearer token", reason="TOKEN_INVALID"
            )


def metadata(context: Context, key: str) -> list[str]:
    """Give the values that a call carries under a key."""
    return [str(value) for name, value in context.invocation_metadata() or () if name == key]
