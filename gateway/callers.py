"""Who calls, and for whom, from the metadata of a call."""

from __future__ import annotations

import structlog

from gateway.limits import Limits
from mesh import errors
from mesh.grpc.interceptor import Context
from mesh.tokens.identities import CUSTOMER, INTERNAL, Identities, bearer, is_id

ON_BEHALF_OF = "on-behalf-of"
"""Metadata by which a service of the house names the customer for whom it calls."""

_log = structlog.get_logger(__name__)


class Callers:
    """Knows who calls, and keeps each caller within the limits. Every RPC of a customer asks it first."""

    def __init__(self, identities: Identities, limits: Limits) -> None:
        self._identities = identities
        self._limits = limits

    async def customer(self, context: Context) -> str:
        """Give the customer for whom a call is made, as ``customer_of`` does.

        Raises:
            ResourceExhausted: when the customer has too many calls open.

        """
        customer_id = await customer_of(self._identities, context)
        self._limits.call(customer_id)
        return customer_id

    async def watcher(self, context: Context) -> str:
        """Give the customer for whom a stream is opened, as ``customer_of`` does.

        Raises:
            ResourceExhausted: when the customer, or all together, have too many streams open.

        """
        customer_id = await customer_of(self._identities, context)
        self._limits.stream(customer_id)
        return customer_id


async def customer_of(identities: Identities, context: Context) -> str:
    """Give the id of the customer who calls, or for whom a service of the house calls.

    A token of scope ``customer`` is its subject's own. With one of scope ``internal``, metadata ``on-behalf-of`` names
    the customer; nobody else may send that.

    Raises:
        Unauthenticated: reason TOKEN_MISSING, TOKEN_EXPIRED or TOKEN_INVALID.
        PermissionDenied: reason SCOPE_MISSING, ON_BEHALF_OF_MISSING or ON_BEHALF_OF_NOT_ALLOWED.
        InvalidArgument: when ``on-behalf-of`` is no customer id.
        Unavailable: while the keys for tokens are not known.

    """
    caller = await identities.caller_of(bearer(context))
    if caller.scopes.isdisjoint({CUSTOMER, INTERNAL}):
        raise errors.PermissionDenied(
            f"the token is not for this: it does not have the scope {CUSTOMER}",
            reason="SCOPE_MISSING",
        )
    on_behalf_of = metadata(context, ON_BEHALF_OF)
    if not on_behalf_of:
        if CUSTOMER in caller.scopes:
            return caller.subject
        raise errors.PermissionDenied(
            f"a service must name the customer: send metadata {ON_BEHALF_OF}: <customer id>",
            reason="ON_BEHALF_OF_MISSING",
        )
    if INTERNAL not in caller.scopes:
        raise errors.PermissionDenied(
            f"only a token with the scope {INTERNAL} may act for others: leave {ON_BEHALF_OF} out",
            reason="ON_BEHALF_OF_NOT_ALLOWED",
        )
    match on_behalf_of:
        case [customer_id] if is_id(customer_id):
            _log.info("called on behalf of a customer", by=caller.subject, customer=customer_id)
            return customer_id
        case _:
            raise errors.InvalidArgument(f"{ON_BEHALF_OF} must be one customer id")


def metadata(context: Context, key: str) -> list[str]:
    """Give the values that a call carries under a key."""
    return [str(value) for name, value in context.invocation_metadata() or () if name == key]
