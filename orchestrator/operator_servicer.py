"""The operators' RPCs: convert, call the use case, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from mesh import errors
from mesh.tokens.identities import OPERATOR, bearer
from orchestrator import operator_convert as convert

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

    from mesh.grpc.interceptor import Context
    from mesh.tokens.identities import Identities
    from orchestrator.app.operators import Operators

_log = structlog.get_logger(__name__)


class OperatorServicer(pb_grpc.OperatorServiceServicer):
    """``bookmesh.orchestrator.v1.OperatorService``, for those whose token has the scope ``operator``."""

    def __init__(self, operators: Operators, identities: Identities) -> None:
        """Answer from these use cases those whom ``identities`` knows as operators."""
        self._operators = operators
        self._identities = identities

    async def ListFlags(
        self,
        request: pb.ListFlagsRequest,
        context: grpc.aio.ServicerContext[pb.ListFlagsRequest, pb.ListFlagsResponse],
    ) -> pb.ListFlagsResponse:
        """List what waits for a decision."""
        await self._operator(request, context)
        page = await self._operators.flags(request.page_size, request.page_token)
        return pb.ListFlagsResponse(
            flags=[convert.flag(record) for record in page.flags],
            next_page_token=page.next_page_token,
        )

    async def InspectPurchase(
        self,
        request: pb.InspectPurchaseRequest,
        context: grpc.aio.ServicerContext[pb.InspectPurchaseRequest, pb.InspectPurchaseResponse],
    ) -> pb.InspectPurchaseResponse:
        """Show all that is known of a purchase."""
        await self._operator(request, context)
        return convert.inspection(await self._operators.inspect(UUID(request.request_id)))

    async def ResolvePurchase(
        self,
        request: pb.ResolvePurchaseRequest,
        context: grpc.aio.ServicerContext[pb.ResolvePurchaseRequest, pb.ResolvePurchaseResponse],
    ) -> pb.ResolvePurchaseResponse:
        """Keep a decision, and whose it is."""
        operator = await self._operator(request, context)
        await self._operators.resolve(UUID(request.request_id), operator, convert.decision(request))
        return pb.ResolvePurchaseResponse()

    async def _operator(self, request: Message, context: Context) -> str:
        """Give who calls; with what is asked, that is in the log."""
        caller = await self._identities.caller_of(bearer(context))
        if OPERATOR not in caller.scopes:
            raise errors.PermissionDenied(
                f"the token is not for this: it does not have the scope {OPERATOR}",
                reason="SCOPE_MISSING",
            )
        _log.info("called by an operator", operator=caller.subject, request=type(request).__name__)
        return caller.subject
