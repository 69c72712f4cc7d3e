"""Keeps a directory of sellers up to date from the aggregator's registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import structlog

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh.clock import Clock
from sellers.registration import from_proto
from sellers.registry import Directory, Snapshot

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import RegistryServiceAsyncStub

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0

_log = structlog.get_logger(__name__)


async def follow_registry(
    registry: RegistryServiceAsyncStub,
    directory: Directory,
    clock: Clock,
    on_change: Callable[[Snapshot], None],
) -> None:
    """Bring every change of the registry into the directory, until cancelled.

    The directory changes as a whole, and not before all sellers of a revision have arrived. While the registry cannot
    be reached the directory stays as it was; afterwards all of it is read again. ``on_change`` is told each new
    snapshot: ``SellerTransport.retain`` wants to know.
    """
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            first, chunks = True, list[pb.Seller]()
            async for chunk in registry.WatchSellers(pb.WatchSellersRequest(), wait_for_ready=True):
                chunks.extend(chunk.sellers)
                if not chunk.complete:
                    continue
                sellers = [from_proto(message) for message in chunks]
                put = directory.replace if first else directory.apply
                on_change(put(sellers, chunk.revision))
                first, chunks, pause_s = False, [], _FIRST_PAUSE_S
        except grpc.aio.AioRpcError as error:
            _log.warning(
                "the registry of sellers cannot be read: going on with what is known",
                status=error.code().name,
                detail=error.details(),
            )
        await clock.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
