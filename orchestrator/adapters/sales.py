"""Tells the aggregator whether sellers stand by what they quote, where nobody waits for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh.errors import MeshError
from mesh.grpc.errors import translated
from orchestrator.adapters.aggregator import BOOK_ID_HEADER

if TYPE_CHECKING:
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceAsyncStub

_MOST_WAITING = 1000
_TIMEOUT_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sale:
    """A seller sold a book as it had quoted it, or did not."""

    book_id: str
    seller_id: str
    refused: bool


class SaleReports:
    """Passes sales on. What the aggregator cannot be told within a moment is dropped: it only makes its choice worse.

    ``run`` must be running.
    """

    def __init__(self, stub: QuoteServiceAsyncStub) -> None:
        """Use a stub whose channel goes round the aggregator's replicas."""
        self._stub = stub
        self._waiting: asyncio.Queue[Sale] = asyncio.Queue(_MOST_WAITING)

    def tell(self, sale: Sale) -> None:
        """Pass a sale on, some time. Returns at once."""
        with suppress(asyncio.QueueFull):
            self._waiting.put_nowait(sale)

    async def run(self) -> None:
        """Pass on what is told, one after the other, until cancelled."""
        while True:
            sale = await self._waiting.get()
            outcome = (
                pb.ReportSaleRequest.OUTCOME_REFUSED
                if sale.refused
                else pb.ReportSaleRequest.OUTCOME_SOLD
            )
            # To the replica that chooses whom to ask for this book.
            metadata = ((BOOK_ID_HEADER, quote(sale.book_id, safe="")),)
            try:
                with translated():
                    await self._stub.ReportSale(
                        pb.ReportSaleRequest(seller_id=sale.seller_id, outcome=outcome),
                        timeout=_TIMEOUT_S,
                        metadata=metadata,
                    )
            except MeshError as error:
                _log.info("the aggregator was not told of a sale", error=error.message)
