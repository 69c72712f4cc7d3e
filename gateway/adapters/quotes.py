"""Quotes from the aggregators, over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from gateway.adapters.answers import answered

if TYPE_CHECKING:
    from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceAsyncStub

SERVICE = pb.DESCRIPTOR.services_by_name["QuoteService"].full_name

BOOK_ID_HEADER = "book-id"
"""By this metadata collections of one book go to one replica."""

_MERGE_S = 0.15
"""What the aggregator keeps of a call's time to hand on the last answers."""


class GrpcQuotes:
    """Calls the aggregator that has the book."""

    def __init__(self, stub: QuoteServiceAsyncStub) -> None:
        self._stub = stub

    async def collect(
        self, request: pb.CollectQuotesRequest, wait_s: float
    ) -> AsyncIterator[pb.CollectQuotesResponse]:
        metadata = ((BOOK_ID_HEADER, quote(request.book_id, safe="")),)
        call = self._stub.CollectQuotes(request, timeout=wait_s + _MERGE_S, metadata=metadata)
        try:
            with answered("prices are out of reach at the moment: try again"):
                async for response in call:
                    yield response
        finally:
            call.cancel()
