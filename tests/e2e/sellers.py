"""The simulated sellers behind the mesh: what tests change and read of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from bookmesh.sellersim.v1 import control_pb2 as pb

if TYPE_CHECKING:
    from bookmesh.sellersim.v1.control_pb2_grpc import ControlServiceAsyncStub


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """An order in a seller's books; ``state`` as the contract calls it, ``total_minor`` of a confirmed one."""

    seller_id: str
    request_id: str
    state: str
    total_minor: int | None
    order_id: str


@dataclass(frozen=True, slots=True)
class LedgerHold:
    """A hold in a seller's books."""

    seller_id: str
    request_id: str
    state: str


class SimulatedSellers:
    """All sellers of the simulator; ``restore`` puts back what ``change`` changed."""

    def __init__(self, stub: ControlServiceAsyncStub) -> None:
        self._stub = stub
        self._before: dict[str, Struct] = {}

    async def change(self, seller_ids: Iterable[str] = (), **settings: object) -> None:
        """Change settings of some sellers, all without ids."""
        ids = list(seller_ids)
        listed = await self._stub.ListSellers(pb.ListSellersRequest())
        for seller in listed.sellers:
            if not ids or seller.seller_id in ids:
                self._before.setdefault(seller.seller_id, seller.behaviour)
        request = pb.ChangeBehaviourRequest(seller_ids=ids, behaviour=ParseDict(settings, Struct()))
        await self._stub.ChangeBehaviour(request)

    async def restore(self) -> None:
        for seller_id, behaviour in self._before.items():
            await self._stub.ChangeBehaviour(
                pb.ChangeBehaviourRequest(seller_ids=[seller_id], behaviour=behaviour)
            )

    async def ledger(self) -> tuple[list[LedgerOrder], list[LedgerHold]]:
        """Give all orders and holds."""
        orders, holds = [], []
        async for part in self._stub.ReadLedger(pb.ReadLedgerRequest()):
            orders += [_order(entry) for entry in part.orders]
            holds += [
                LedgerHold(hold.seller_id, hold.idempotency_key.split(":")[0], hold.state)
                for hold in part.holds
            ]
        return orders, holds


def _order(entry: pb.LedgerOrder) -> LedgerOrder:
    order = entry.order
    confirmed = order.confirmed if order.HasField("confirmed") else None
    return LedgerOrder(
        seller_id=entry.seller_id,
        request_id=order.idempotency_key.split(":")[0],
        state=order.WhichOneof("state") or "",
        total_minor=(
            confirmed.total.units * 100 + confirmed.total.nanos // 10_000_000 if confirmed else None
        ),
        order_id=confirmed.order_id if confirmed else "",
    )
