"""The customer's RPCs of quotes: who is it, is it valid; then the aggregator."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.common.v1 import quote_pb2 as common_pb
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import QuoteServiceServicer
from gateway import convert, streams
from gateway.callers import Callers
from gateway.quote_ports import Quotes
from mesh import errors
from mesh.grpc import deadline
from mesh.grpc.interceptor import Context

DEFAULT_WAIT_S = 3.0
_DEFAULT_QUOTES = 100

_MARGIN_S = 0.2
"""What of a caller's time is left for the rest of the call."""


class QuoteServicer(QuoteServiceServicer):
    """Answers ``bookmesh.customer.v1.QuoteService``."""

    def __init__(
        self,
        callers: Callers,
        quotes: Quotes,
        *,
        default_currency: str,
        heartbeat_s: float = streams.HEARTBEAT_S,
    ) -> None:
        self._callers = callers
        self._quotes = quotes
        self._default_currency = default_currency
        self._heartbeat_s = heartbeat_s

    async def ListQuotes(
        self, request: pb.ListQuotesRequest, context: Context
    ) -> pb.ListQuotesResponse:
        """Give the prices of a book, the lowest first."""
        customer_id = await self._callers.customer(context)
        asked = convert.comparison(request, customer_id, self._default_currency)
        found: list[common_pb.Quote] = []
        summary = None
        async for response in self._quotes.collect(asked, _wait_s(request.max_wait_ms)):
            found.extend(response.batch.quotes)
            if response.HasField("summary"):
                summary = convert.collection(response.summary)
        if summary is None:
            raise _unfinished()
        return pb.ListQuotesResponse(
            book_id=asked.book_id,
            currency_code=asked.currency_code,
            quotes=convert.cheapest_first(found)[: request.max_quotes or _DEFAULT_QUOTES],
            summary=summary,
        )

    async def StreamQuotes(
        self, request: pb.StreamQuotesRequest, context: Context
    ) -> AsyncIterator[pb.StreamQuotesResponse]:
        """Pass on prices as they arrive."""
        customer_id = await self._callers.watcher(context)
        asked = convert.comparison(request, customer_id, self._default_currency)
        async for response in streams.in_band(
            self._compared(asked, request.max_wait_ms),
            context,
            lambda status: pb.StreamQuotesResponse(error=status),
            lambda _last: {"book_id": asked.book_id},
        ):
            yield response

    async def StreamQuotesEvents(
        self, request: pb.StreamQuotesEventsRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Pass on prices as they arrive, as server-sent events."""
        customer_id = await self._callers.watcher(context)
        asked = convert.comparison(request, customer_id, self._default_currency)
        if streams.last_event_id(context) == streams.END:
            await streams.nothing_more(context)
            return
        async for body in streams.server_sent(
            streams.with_heartbeat(
                _numbered(self._compared(asked, request.max_wait_ms)), self._heartbeat_s
            ),
            context,
            seen=lambda _: False,
        ):
            yield body

    async def _compared(
        self, asked: aggregator_pb2.CollectQuotesRequest, max_wait_ms: int
    ) -> AsyncIterator[pb.StreamQuotesResponse]:
        """Give batches, and the summary at last."""
        finished = False
        async for response in self._quotes.collect(asked, _wait_s(max_wait_ms)):
            match response.WhichOneof("part"):
                case "batch":
                    batch = response.batch
                    yield pb.StreamQuotesResponse(
                        quotes=pb.QuoteBatch(
                            quotes=convert.cheapest_first(batch.quotes),
                            misses=[convert.miss(miss) for miss in batch.misses],
                        )
                    )
                case "summary":
                    finished = True
                    yield pb.StreamQuotesResponse(summary=convert.collection(response.summary))
                case _:
                    continue
        if not finished:
            raise _unfinished()


async def _numbered(
    responses: AsyncIterator[pb.StreamQuotesResponse],
) -> AsyncIterator[streams.Event[pb.StreamQuotesResponse]]:
    number = 0
    async for response in responses:
        number += 1
        yield streams.Event(response.WhichOneof("event") or "", str(number), response)


def _wait_s(max_wait_ms: int) -> float:
    """Give how long the sellers have, in seconds: within the time of the call."""
    wait_s = max_wait_ms / 1000 or DEFAULT_WAIT_S
    return max(0.0, min(wait_s, deadline.timeout(wait_s + _MARGIN_S) - _MARGIN_S))


def _unfinished() -> errors.Internal:
    return errors.Internal("the aggregator ended a comparison without its summary")
