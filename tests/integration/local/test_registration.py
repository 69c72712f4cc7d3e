"""The simulated sellers of a local mesh come and go; those that somebody has registered stay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.sellersim.v1 import control_pb2
from deploy.local import registration
from deploy.local.data import DataFolder

ACTIVE, DISABLED = pb.Seller.STATE_ACTIVE, pb.Seller.STATE_DISABLED


class Simulator:
    """Has the sellers that the test says."""

    def __init__(self) -> None:
        self.sellers: list[str] = []

    async def list_sellers(
        self, request: control_pb2.ListSellersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> control_pb2.ListSellersResponse:
        return control_pb2.ListSellersResponse(
            sellers=[control_pb2.SimulatedSeller(seller_id=name) for name in self.sellers]
        )


class Aggregator:
    """Knows what was registered."""

    def __init__(self) -> None:
        self.sellers: dict[str, pb.Seller] = {}

    def states(self) -> dict[str, pb.Seller.State.ValueType]:
        return {name: seller.state for name, seller in self.sellers.items()}

    async def register_sellers(
        self, request: pb.RegisterSellersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RegisterSellersResponse:
        self.sellers |= {seller.seller_id: seller for seller in request.sellers}
        return pb.RegisterSellersResponse(revision=1)

    async def watch_sellers(
        self, request: pb.WatchSellersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchSellersResponse]:
        yield pb.WatchSellersResponse(sellers=self.sellers.values(), complete=True, revision=1)


async def test_only_sellers_that_were_simulated_are_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator, aggregator = Simulator(), Aggregator()
    aggregator.sellers["corner-shop"] = pb.Seller(seller_id="corner-shop", state=ACTIVE)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "bookmesh.sellersim.v1.ControlService",
                {
                    "ListSellers": grpc.unary_unary_rpc_method_handler(
                        simulator.list_sellers,
                        control_pb2.ListSellersRequest.FromString,
                        control_pb2.ListSellersResponse.SerializeToString,
                    )
                },
            ),
            grpc.method_handlers_generic_handler(
                "bookmesh.aggregator.v1.RegistryService",
                {
                    "RegisterSellers": grpc.unary_unary_rpc_method_handler(
                        aggregator.register_sellers,
                        pb.RegisterSellersRequest.FromString,
                        pb.RegisterSellersResponse.SerializeToString,
                    ),
                    "WatchSellers": grpc.unary_stream_rpc_method_handler(
                        aggregator.watch_sellers,
                        pb.WatchSellersRequest.FromString,
                        pb.WatchSellersResponse.SerializeToString,
                    ),
                },
            ),
        )
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()

    @asynccontextmanager
    async def plain(*_: object, **__: object) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(address) as channel:
            yield channel

    monkeypatch.setattr(registration, "connect", plain)
    try:
        for now in (["a", "b"], ["b", "c"]):
            simulator.sellers = now
            await registration.register_sellers(DataFolder(tmp_path), address, [address])
    finally:
        await server.stop(None)
    assert aggregator.states() == {
        "corner-shop": ACTIVE,
        "a": DISABLED,
        "b": ACTIVE,
        "c": ACTIVE,
    }
