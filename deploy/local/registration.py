"""Makes the simulated sellers known to the mesh, as an operator would make real ones known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence

import grpc

from bookmesh.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from deploy.local.certificates import connect
from deploy.local.data import DataFolder
from deploy.local.files import write
from deploy.local.problem import MeshProblem

_TIMEOUT_S = 20.0
_MOST_AT_ONCE = 1000
_REMEMBERED = "simulated-sellers.json"


async def register_sellers(
    data: DataFolder,
    control: str,
    aggregators: Sequence[str],
    report: Callable[[str], None] = lambda _line: None,
) -> int:
    """Register the sellers of the simulator, disable its sellers of earlier runs, and give how many are active.

    Returns when every aggregator knows. Sellers that somebody else has registered are left alone.

    Args:
        data: where the operator's certificate is.
        control: ``host:port`` of the simulator's control.
        aggregators: ``host:port`` of each aggregator.
        report: is told how far it has come, where they are thousands.

    Raises:
        MeshProblem: if the simulator or an aggregator refuses.

    """
    try:
        async with connect(data, control, "sellersim") as channel:
            sellers = [seller async for seller in _simulated(channel)]
        known = await _registry(data, aggregators[0], revision=0)
        active = {seller.seller_id for seller in sellers}
        for seller_id in simulated_sellers(data) - active:
            if seller_id in known:
                known[seller_id].state = aggregator_pb2.Seller.STATE_DISABLED
                sellers.append(known[seller_id])
        # Before they are registered: what is not told here can never be disabled.
        every = sorted(simulated_sellers(data) | active)
        write(data.base / _REMEMBERED, json.dumps(every).encode())
        revision = 0
        async with connect(data, aggregators[0], "aggregator") as channel:
            registry = aggregator_pb2_grpc.RegistryServiceStub(channel)
            for start in range(0, len(sellers), _MOST_AT_ONCE):
                request = aggregator_pb2.RegisterSellersRequest(
                    sellers=sellers[start : start + _MOST_AT_ONCE]
                )
                response = await registry.RegisterSellers(request, timeout=_TIMEOUT_S)
                revision = response.revision
                if len(sellers) > _MOST_AT_ONCE:
                    done = min(start + _MOST_AT_ONCE, len(sellers))
                    report(f"{'sellers':<15} {done} of {len(sellers)} registered")
        for aggregator in aggregators:
            await _registry(data, aggregator, revision)
    except grpc.aio.AioRpcError as error:
        msg = f"the sellers could not be registered: {error.code().name}: {error.details()}"
        raise MeshProblem(msg) from None
    return len(active)


async def _simulated(channel: grpc.aio.Channel) -> AsyncIterator[aggregator_pb2.Seller]:
    """Give what is to be registered of each simulated seller."""
    stub = control_pb2_grpc.ControlServiceStub(channel)
    token = ""
    while True:
        request = control_pb2.ListSellersRequest(page_token=token)
        page = await stub.ListSellers(request, timeout=_TIMEOUT_S)
        for seller in page.sellers:
            yield _registration(seller)
        token = page.next_page_token
        if not token:
            return


def simulated_sellers(data: DataFolder) -> set[str]:
    """Give the ids of all sellers that the simulator has ever had here."""
    file = data.base / _REMEMBERED
    return set(json.loads(file.read_text())) if file.exists() else set()


def _registration(seller: control_pb2.SimulatedSeller) -> aggregator_pb2.Seller:
    return aggregator_pb2.Seller(
        seller_id=seller.seller_id,
        display_name=seller.display_name,
        endpoint=seller.endpoint,
        credential_reference=seller.credential_reference,
        capabilities=seller.capabilities,
        state=aggregator_pb2.Seller.STATE_ACTIVE,
    )


async def _registry(
    data: DataFolder, aggregator: str, revision: int
) -> dict[str, aggregator_pb2.Seller]:
    """Give what an aggregator knows, once it knows that revision of the registry."""
    sellers: dict[str, aggregator_pb2.Seller] = {}
    async with connect(data, aggregator, "aggregator") as channel:
        watch = aggregator_pb2_grpc.RegistryServiceStub(channel).WatchSellers(
            aggregator_pb2.WatchSellersRequest(), timeout=_TIMEOUT_S
        )
        async for chunk in watch:
            sellers.update({seller.seller_id: seller for seller in chunk.sellers})
            if chunk.complete and chunk.revision >= revision:
                watch.cancel()
                break
    return sellers
