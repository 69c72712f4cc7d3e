"""Quotes from the aggregator."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from mesh import convert as mesh_convert
from mesh import errors
from mesh.grpc.errors import translated
from orchestrator import convert
from orchestrator.domain.purchase import Candidate
from orchestrator.ports import Gathered

if TYPE_CHECKING:
    from collections.abc import Callable

    from bookmesh.aggregator.v1.aggregator_pb2_grpc import QuoteServiceAsyncStub
    from orchestrator.domain.events import AnswerBatch
    from orchestrator.domain.purchase import Purchase


BOOK_ID_HEADER = "book-id"
"""By this metadata collections of one book go to one replica."""


class AggregatorQuotes:
    """The way to prices, through the aggregator's stream."""

    def __init__(self, stub: QuoteServiceAsyncStub, policy: str) -> None:
        """Use a stub whose channel goes round the aggregator's replicas; ``policy`` is how a purchase first asks."""
        self._stub = stub
        self._policy = pb.Policy.Value(f"POLICY_{policy.upper()}")

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        """Ask all sellers for the purchase's book; ``on_batch`` is called with answers as they arrive.

        Raises:
            MeshError: when the aggregator could not be asked, or broke off.

        """
        request = pb.CollectQuotesRequest(
            book_id=purchase.book_id,
            currency_code=purchase.max_price.currency,
            conditions=convert.conditions(purchase.conditions),
            # Who has tried in vain wants to know everything.
            policy=pb.POLICY_BEST_PRICE if purchase.plan.collections else self._policy,
            affordable=mesh_convert.money_to_proto(purchase.max_price),
            customer_id=purchase.customer_id,
            # What was known the first time has not held.
            fresh=purchase.plan.collections > 0,
        )
        metadata = ((BOOK_ID_HEADER, quote(purchase.book_id, safe="")),)
        candidates: list[Candidate] = []
        collection_id = ""
        gathered: Gathered | None = None
        with translated():
            # To its very end: a stream that is left earlier never ends its span.
            async for response in self._stub.CollectQuotes(
                request, timeout=timeout_s, metadata=metadata
            ):
                match response.WhichOneof("part"):
                    case "started":
                        collection_id = response.started.collection_id
                    case "batch":
                        candidates.extend(map(convert.candidate, response.batch.quotes))
                        on_batch(convert.answer_batch(collection_id, response.batch))
                    case "summary":
                        summary = convert.collected(response.summary)
                        gathered = Gathered(tuple(candidates), summary)
                    case None:
                        continue
        if gathered is None:
            msg = "the aggregator ended a collection without its summary"
            raise errors.Internal(msg)
        return gathered
