"""A collection as a bare ``asyncio.gather`` over the sellers' stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bookmesh.seller.v1 import seller_pb2 as pb

if TYPE_CHECKING:
    # Exists for type checkers only.
    from bookmesh.seller.v1.seller_pb2_grpc import SellerServiceAsyncStub

SELLER_TIMEOUT_S = 3.0


async def collect(
    stubs: Sequence[SellerServiceAsyncStub],
    credential: str,
    book_id: str,
    timeout_s: float = SELLER_TIMEOUT_S,
) -> list[pb.GetQuoteResponse | BaseException]:
    """Ask all sellers at once and wait for the last; believe what they say."""
    request = pb.GetQuoteRequest(
        book_id=book_id, currency_code="USD", conditions=[pb.CONDITION_NEW]
    )
    metadata = (("authorization", f"Bearer {credential}"),)
    return await asyncio.gather(
        *(stub.GetQuote(request, timeout=timeout_s, metadata=metadata) for stub in stubs),
        return_exceptions=True,
    )
