"""ControlService: reads and changes the simulated sellers."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from mesh import convert as mesh_convert
from mesh.grpc.interceptor import Context
from seller_sim import convert

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from seller_sim.app import Simulation

_ENTRIES_A_MESSAGE = 500
_SELLERS_A_PAGE = 1000


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """Answers tests and demos."""

    def __init__(self, simulation: Simulation) -> None:
        """Control this simulation."""
        self._simulation = simulation

    async def ListSellers(
        self, request: control_pb2.ListSellersRequest, context: Context
    ) -> control_pb2.ListSellersResponse:
        sellers = self._simulation.sellers
        # One more than a page, to know whether there is another.
        most = request.page_size or _SELLERS_A_PAGE
        later = (name for name in sellers if name > request.page_token)
        names = list(islice(later, most + 1))
        page = [sellers[name] for name in names[:most]]
        return control_pb2.ListSellersResponse(
            sellers=[
                convert.seller_to_proto(seller, self._simulation.endpoint_of(seller))
                for seller in page
            ],
            next_page_token=page[-1].seller_id if len(names) > most else "",
        )

    async def ChangeBehaviour(
        self, request: control_pb2.ChangeBehaviourRequest, context: Context
    ) -> control_pb2.ChangeBehaviourResponse:
        settings = dict(request.behaviour.items())
        changed = await self._simulation.change_behaviour(request.seller_ids, settings)
        return control_pb2.ChangeBehaviourResponse(changed=changed)

    async def GetCounters(
        self, request: control_pb2.GetCountersRequest, context: Context
    ) -> control_pb2.GetCountersResponse:
        sellers = self._simulation.sellers.values()
        return control_pb2.GetCountersResponse(
            sellers=[convert.counters_to_proto(seller) for seller in sellers],
            busy_time=mesh_convert.duration(self._simulation.busy_s),
        )

    async def ReadLedger(
        self, request: control_pb2.ReadLedgerRequest, context: Context
    ) -> AsyncIterator[control_pb2.ReadLedgerResponse]:
        for seller in self._simulation.sellers.values():
            orders, holds = self._simulation.ledger_of(seller)
            if request.buyer_reference:
                orders = [o for o in orders if o.buyer_reference == request.buyer_reference]
                holds = []
            order_entries = (convert.ledger_order_to_proto(seller.seller_id, o) for o in orders)
            hold_entries = (convert.ledger_hold_to_proto(seller.seller_id, h) for h in holds)
            while chunk := list(islice(order_entries, _ENTRIES_A_MESSAGE)):
                yield control_pb2.ReadLedgerResponse(orders=chunk)
            while chunk_of_holds := list(islice(hold_entries, _ENTRIES_A_MESSAGE)):
                yield control_pb2.ReadLedgerResponse(holds=chunk_of_holds)
