"""SellerService of the simulated sellers. Which of them is called, the gate has found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1 import seller_pb2_grpc
from mesh import errors
from mesh.errors import FieldViolation
from mesh.grpc.interceptor import Context
from seller_sim import convert
from seller_sim.servicer.gate import called_seller

if TYPE_CHECKING:
    from seller_sim.app import Simulation


class SellerServicer(seller_pb2_grpc.SellerServiceServicer):
    """Answers for all simulated sellers."""

    def __init__(self, simulation: Simulation) -> None:
        """Answer with what the simulation says."""
        self._simulation = simulation

    async def GetCapabilities(
        self, request: pb.GetCapabilitiesRequest, context: Context
    ) -> pb.GetCapabilitiesResponse:
        seller = called_seller()
        await self._simulation.get_capabilities(seller)
        capabilities = convert.capabilities_to_proto(seller.behaviour)
        return pb.GetCapabilitiesResponse(capabilities=capabilities)

    async def GetQuote(self, request: pb.GetQuoteRequest, context: Context) -> pb.GetQuoteResponse:
        with self._simulation.at_work():
            wanted = convert.quote_request(request)
            (answer,) = await self._simulation.get_quotes(called_seller(), [wanted])
            return convert.quote_response(request.book_id, answer)

    async def BatchGetQuotes(
        self, request: pb.BatchGetQuotesRequest, context: Context
    ) -> pb.BatchGetQuotesResponse:
        seller = called_seller()
        limit = seller.behaviour.max_batch_size
        _require(limit > 0, "BatchGetQuotes")
        if len(request.requests) > limit:
            fault = FieldViolation("requests", f"at most {limit}, are {len(request.requests)}")
            raise errors.InvalidArgument(f"{fault.field}: {fault.description}", fields=(fault,))
        with self._simulation.at_work():
            wanted = [convert.quote_request(one) for one in request.requests]
            answers = await self._simulation.get_quotes(seller, wanted)
            return pb.BatchGetQuotesResponse(
                responses=[
                    convert.quote_response(one.book_id, answer)
                    for one, answer in zip(request.requests, answers, strict=True)
                ]
            )

    async def HoldBook(self, request: pb.HoldBookRequest, context: Context) -> pb.HoldBookResponse:
        seller = called_seller()
        _require(seller.behaviour.supports_holds, "HoldBook")
        with self._simulation.at_work():
            answer = await self._simulation.hold_book(seller, convert.hold_request(request))
            return convert.hold_response(answer)

    async def ReleaseHold(
        self, request: pb.ReleaseHoldRequest, context: Context
    ) -> pb.ReleaseHoldResponse:
        seller = called_seller()
        _require(seller.behaviour.supports_holds, "ReleaseHold")
        released = await self._simulation.release_hold(seller, request.idempotency_key)
        return convert.release_response(released)

    async def PlaceOrder(
        self, request: pb.PlaceOrderRequest, context: Context
    ) -> pb.PlaceOrderResponse:
        with self._simulation.at_work():
            order = convert.order_request(request)
            answer = await self._simulation.place_order(called_seller(), order)
            return convert.order_response(answer)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        seller = called_seller()
        _require(seller.behaviour.supports_get_order, "GetOrder")
        record = await self._simulation.get_order(seller, request.idempotency_key)
        return pb.GetOrderResponse(order=convert.order_to_proto(record))

    async def CancelOrder(
        self, request: pb.CancelOrderRequest, context: Context
    ) -> pb.CancelOrderResponse:
        key = request.idempotency_key
        result, record = await self._simulation.cancel_order(called_seller(), key)
        return convert.cancel_response(result, record)

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        from_us, after, size = convert.page_of(request)
        # One more than a page, to know whether there is another.
        records = await self._simulation.list_orders(called_seller(), from_us, after, size + 1)
        page = records[:size]
        return pb.ListOrdersResponse(
            orders=[convert.order_to_proto(record) for record in page],
            next_page_token=convert.page_token(from_us, page[-1]) if len(records) > size else "",
        )


def _require(supported: bool, method: str) -> None:  # noqa: FBT001  one flag, named by its use
    if not supported:
        raise errors.Unimplemented(f"this seller has no {method}: see its capabilities")
