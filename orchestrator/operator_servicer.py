"""The operators' RPCs: convert, call the use case, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from bookmesh.orchestrator.v1 import orchestrator_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from orchestrator import operator_convert as convert

if TYPE_CHECKING:
    import grpc

    from orchestrator.app.operators import Operators


class OperatorServicer(pb_grpc.OperatorServiceServicer):
    """``bookmesh.orchestrator.v1.OperatorService``."""

    def __init__(self, operators: Operators) -> None:
        """Answer from these use cases."""
        self._operators = operators

    async def ListFlags(
        self,
        request: pb.ListFlagsRequest,
        context: grpc.aio.ServicerContext[pb.ListFlagsRequest, pb.ListFlagsResponse],
    ) -> pb.ListFlagsResponse:
        """List what waits for a decision."""
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
        return convert.inspection(await self._operators.inspect(UUID(request.request_id)))

    async def ResolvePurchase(
        self,
        request: pb.ResolvePurchaseRequest,
        context: grpc.aio.ServicerContext[pb.ResolvePurchaseRequest, pb.ResolvePurchaseResponse],
    ) -> pb.ResolvePurchaseResponse:
        """Keep a decision."""
        await self._operators.resolve(
            UUID(request.request_id), request.operator, convert.decision(request)
        )
        return pb.ResolvePurchaseResponse()
