"""Who is called, and whether it takes the call: before anything else looks at a call."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc

from mesh import errors
from mesh.errors import MeshError
from mesh.grpc.errors import abort
from mesh.grpc.interceptor import Context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from seller_sim.app import Simulation
    from seller_sim.domain.seller import Seller

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_called: ContextVar[Seller] = ContextVar("called")


def called_seller() -> Seller:
    """Give the seller whose call this task works on."""
    return _called.get()


class SellerGate(grpc.aio.ServerInterceptor):
    """Finds the seller by the credential that a caller shows, and has it count the call.

    No credential or one of a seller that is not at this address is UNAUTHENTICATED; a call too many is
    RESOURCE_EXHAUSTED. Both come before validation, as at a seller whose front door is a proxy.
    """

    def __init__(self, simulation: Simulation, sellers: Iterable[Seller]) -> None:
        """Guard the address of these sellers."""
        self._simulation = simulation
        self._by_token = {f"Bearer {seller.credential}": seller for seller in sellers}

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Let a call in, or give a handler that refuses it."""
        seller = None
        for key, value in handler_call_details.invocation_metadata or ():
            if key == "authorization" and isinstance(value, str):
                seller = self._by_token.get(value)
        if seller is None:
            return _refusal(
                errors.Unauthenticated("authorization: no seller here knows this credential")
            )
        try:
            self._simulation.admit(seller, handler_call_details.method.rpartition("/")[2])
        except MeshError as error:
            return _refusal(error)
        _called.set(seller)
        return await continuation(handler_call_details)


def _refusal(error: MeshError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_request: bytes, context: Context) -> NoReturn:
        await abort(context, error)

    return grpc.unary_unary_rpc_method_handler(refuse)
