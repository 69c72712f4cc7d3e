"""Calls to sellers over gRPC.

``SellerTransport`` turns each method of ``bookmesh.seller.v1.SellerService`` into a function from values to values. It
raises nothing for what a seller or the network does: that is a ``CallFailed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from types import TracebackType
from typing import Self, TypeVar

import grpc
from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert, telemetry
from mesh.clock import Clock
from mesh.grpc.errors import from_rpc
from mesh.money import Money
from sellers import answers
from sellers.answers import InvalidAnswerError
from sellers.connections import SERVICE, Connections, ConnectionSettings
from sellers.credentials import Credentials, Metadata
from sellers.model import (
    BatchOutcome,
    CallFailed,
    CancelOutcome,
    CapabilitiesOutcome,
    Condition,
    FailureKind,
    GetOrderOutcome,
    HoldOutcome,
    HoldRef,
    ListOrdersOutcome,
    OrderNotFound,
    OrderSource,
    PlaceOutcome,
    QuoteOutcome,
    ReleaseOutcome,
    Seller,
    Unavailable,
    UnavailableReason,
)

_MAX_DETAIL = 200
_LONGEST_RETRY_AFTER_S = 3600.0

_FAILURES: dict[grpc.StatusCode, FailureKind] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: FailureKind.TIMED_OUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: FailureKind.RATE_LIMITED,
    grpc.StatusCode.UNAUTHENTICATED: FailureKind.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: FailureKind.REFUSED,
    grpc.StatusCode.INVALID_ARGUMENT: FailureKind.NOT_UNDERSTOOD,
    grpc.StatusCode.UNIMPLEMENTED: FailureKind.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: FailureKind.KEY_MISMATCH,
    grpc.StatusCode.ABORTED: FailureKind.IN_FLIGHT,
    grpc.StatusCode.NOT_FOUND: FailureKind.NOT_FOUND,
}
"""Kinds of failure by status; any other is the seller's own error."""

_WITHOUT_EFFECT = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
    }
)
"""Statuses by which a seller promises that the call changed nothing (rule 2 of the seller contract)."""

_OUR_LIMITS = ("received message larger than max", "received metadata size exceeds")
"""What grpc itself says, as RESOURCE_EXHAUSTED, of an answer that is too large: the seller has done the work."""

_NO_CONNECTION = ("failed to connect", "errors resolving", "dns resolution failed")
"""How grpc's own UNAVAILABLE begins when there is no connection."""

_TLS_REASON = "OPENSSL_internal:"
"""What stands before the reason in grpc's long tale of a TLS handshake that failed."""

_calls = metrics.get_meter(__name__).create_counter(
    "bookmesh.seller.calls",
    unit="{call}",
    description="Calls to sellers by how they ended; those that were cancelled are not among them",
)

_NOT_CARRIED = Unavailable(UnavailableReason.NOT_CARRIED)

_AnswerT = TypeVar("_AnswerT")


class SellerTransport:
    """The one way by which this process calls sellers.

    Its channels are those of ``sellers.connections``. Calls under way are cancelled with the task that awaits them. Use
    it as an async context manager; at the end all channels are closed.

    Every call goes through ``_call``, which is the place to decide whether it may be made at all.

    Timeouts are in seconds and include the time to connect. ``key`` is our idempotency key.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        *,
        connections: ConnectionSettings | None = None,
        on_rate_limited: Callable[[Seller, float | None], None] | None = None,
    ) -> None:
        """Make one without channels.

        Args:
            credentials: by which sellers know us.
            clock: tells the time.
            connections: how many there are, and for how long; the usual if not told.
            on_rate_limited: told of each seller that says it is called too often, and for how many seconds it asks to
                be left alone, if it does.

        """
        self._on_rate_limited = on_rate_limited
        self._credentials = credentials
        self._clock = clock
        self._connections = Connections(clock, connections or ConnectionSettings())
        self._traced = telemetry.exporting()
        self._tracer = trace.get_tracer(__name__)

    async def __aenter__(self) -> Self:
        """Be ready."""
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all channels; calls under way are cancelled."""
        await self._connections.__aexit__(exc_type, exc, traceback)

    def retain(self, sellers: Iterable[Seller]) -> None:
        """Close the channels that none of these sellers needs, once the calls under way on them have ended."""
        self._connections.retain(sellers)

    async def get_capabilities(self, seller: Seller, *, timeout_s: float) -> CapabilitiesOutcome:
        """Ask what the seller can do."""
        return await self._ask(
            seller, "GetCapabilities", b"", timeout_s, answers.capabilities_answer
        )

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        """Ask for the price of one copy, in this currency and one of these conditions."""
        outcome = await self._ask(
            seller,
            "GetQuote",
            _quote_request(book_id, currency, conditions),
            timeout_s,
            lambda answer: answers.quote(
                answer,
                book_id=book_id,
                currency=currency,
                conditions=conditions,
                now=self._clock.now(),
            ),
        )
        # Not as the contract has it, but there is no doubt about what the seller means.
        return _NOT_CARRIED if _is_not_found(outcome) else outcome

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        """Ask for the prices of several books in one call; give one outcome a book, in their order."""
        items = await self._ask(
            seller,
            "BatchGetQuotes",
            _batch_request(tuple(book_ids), currency, conditions),
            timeout_s,
            lambda answer: answers.quote_batch(
                answer,
                book_ids=book_ids,
                currency=currency,
                conditions=conditions,
                now=self._clock.now(),
            ),
        )
        if isinstance(items, CallFailed):
            return items
        return tuple(
            _invalid(item) if isinstance(item, InvalidAnswerError) else item for item in items
        )

    async def hold_book(
        self,
        seller: Seller,
        key: str,
        *,
        quote_id: str,
        book_id: str,
        currency: str,
        not_after: datetime,
        timeout_s: float,
    ) -> HoldOutcome:
        """Set one copy aside from a quote. A hold in another currency than ``currency`` is an invalid answer."""
        request = pb.HoldBookRequest(
            idempotency_key=key,
            quote_id=quote_id,
            book_id=book_id,
            not_after=convert.timestamp(not_after),
        )
        return await self._ask(
            seller,
            "HoldBook",
            request.SerializeToString(),
            timeout_s,
            lambda answer: answers.hold(answer, currency=currency, now=self._clock.now()),
        )

    async def release_hold(self, seller: Seller, key: str, *, timeout_s: float) -> ReleaseOutcome:
        """Give a held copy back, or close the key of a hold that may still arrive. Safe to repeat."""
        request = pb.ReleaseHoldRequest(idempotency_key=key)
        return await self._ask(
            seller, "ReleaseHold", request.SerializeToString(), timeout_s, answers.release
        )

    async def place_order(
        self,
        seller: Seller,
        key: str,
        *,
        source: OrderSource,
        book_id: str,
        buyer_reference: str,
        delivery_reference: str,
        max_total: Money,
        not_after: datetime,
        timeout_s: float,
    ) -> PlaceOutcome:
        """Buy one copy for at most ``max_total``. An order that is confirmed above it is an invalid answer."""
        request = pb.PlaceOrderRequest(
            idempotency_key=key,
            book_id=book_id,
            buyer_reference=buyer_reference,
            delivery_reference=delivery_reference,
            max_total=convert.money_to_proto(max_total),
            not_after=convert.timestamp(not_after),
        )
        if isinstance(source, HoldRef):
            request.hold_id = source.hold_id
        else:
            request.quote_id = source.quote_id
        return await self._ask(
            seller,
            "PlaceOrder",
            request.SerializeToString(),
            timeout_s,
            lambda answer: answers.placed(answer, max_total=max_total, now=self._clock.now()),
        )

    async def get_order(self, seller: Seller, key: str, *, timeout_s: float) -> GetOrderOutcome:
        """Ask what became of the order under a key."""
        request = pb.GetOrderRequest(idempotency_key=key)
        outcome = await self._ask(
            seller,
            "GetOrder",
            request.SerializeToString(),
            timeout_s,
            lambda answer: answers.order(answer, key=key, now=self._clock.now()),
        )
        return OrderNotFound() if _is_not_found(outcome) else outcome

    async def cancel_order(self, seller: Seller, key: str, *, timeout_s: float) -> CancelOutcome:
        """Cancel the order under a key, or close the key before there is one. Safe to repeat."""
        request = pb.CancelOrderRequest(idempotency_key=key)
        outcome = await self._ask(
            seller,
            "CancelOrder",
            request.SerializeToString(),
            timeout_s,
            lambda answer: answers.cancel(answer, key=key, now=self._clock.now()),
        )
        return OrderNotFound() if _is_not_found(outcome) else outcome

    async def list_orders(
        self,
        seller: Seller,
        *,
        updated_from: datetime,
        page_size: int,
        page_token: str,
        timeout_s: float,
    ) -> ListOrdersOutcome:
        """List our orders that changed at or after a time, oldest change first; ``page_token`` is empty at first."""
        request = pb.ListOrdersRequest(
            update_time_from=convert.timestamp(updated_from),
            page_size=page_size,
            page_token=page_token,
        )
        return await self._ask(
            seller,
            "ListOrders",
            request.SerializeToString(),
            timeout_s,
            lambda answer: answers.order_page(answer, now=self._clock.now()),
        )

    async def _ask(
        self,
        seller: Seller,
        method: str,
        request: bytes,
        timeout_s: float,
        read: Callable[[bytes], _AnswerT],
    ) -> _AnswerT | CallFailed:
        answer = await self._call(seller, method, request, timeout_s)
        outcome: _AnswerT | CallFailed
        if isinstance(answer, CallFailed):
            outcome = answer
        elif answer is None:
            outcome = _invalid(InvalidAnswerError("the status is OK, but there is no answer"))
        else:
            try:
                outcome = read(answer)
            except InvalidAnswerError as error:
                outcome = _invalid(error)
        ended = "answered"
        if isinstance(outcome, CallFailed):
            ended = outcome.kind.value
            if outcome.kind is FailureKind.RATE_LIMITED and self._on_rate_limited is not None:
                self._on_rate_limited(seller, outcome.retry_after_s)
        _calls.add(1, {"rpc.method": method, "bookmesh.outcome": ended})
        return outcome

    async def _call(
        self, seller: Seller, method: str, request: bytes, timeout_s: float
    ) -> bytes | CallFailed | None:
        """Make one call: every call to a seller passes here. None where OK came without a message."""
        metadata = self._credentials.metadata(seller.credential_reference)
        if metadata is None:
            detail = f"we have no credential {seller.credential_reference!r}"
            return CallFailed(FailureKind.NO_CREDENTIAL, definitely_not_done=True, detail=detail)
        if timeout_s <= 0:
            return CallFailed(
                FailureKind.TIMED_OUT, definitely_not_done=True, detail="no time was left"
            )
        if self._traced:
            return await self._call_traced(seller, method, request, timeout_s, metadata)
        try:
            return await self._connections.link(seller).call(method, request, timeout_s, metadata)
        except grpc.aio.AioRpcError as error:
            return _failed(error)

    async def _call_traced(
        self,
        seller: Seller,
        method: str,
        request: bytes,
        timeout_s: float,
        metadata: Metadata,
    ) -> bytes | CallFailed | None:
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": SERVICE,
            "rpc.method": method,
            "bookmesh.seller_id": seller.seller_id,
        }
        with self._tracer.start_as_current_span(
            f"{SERVICE}/{method}", kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            traceparent = telemetry.current_traceparent()
            if traceparent is not None:
                metadata = Metadata(*metadata, ("traceparent", traceparent))
            try:
                return await self._connections.link(seller).call(
                    method, request, timeout_s, metadata
                )
            except grpc.aio.AioRpcError as error:
                failed = _failed(error)
                span.set_attribute("rpc.grpc.status_code", error.code().value[0])
                span.set_status(Status(StatusCode.ERROR, failed.kind))
                return failed


def _quote_message(
    book_id: str, currency: str, conditions: frozenset[Condition]
) -> pb.GetQuoteRequest:
    return pb.GetQuoteRequest(
        book_id=book_id,
        currency_code=currency,
        conditions=[
            number for number, condition in answers.CONDITIONS.items() if condition in conditions
        ],
    )


# The many sellers of a collection are all sent the same bytes, and so are those of collections that go together.
@lru_cache(maxsize=128)
def _quote_request(book_id: str, currency: str, conditions: frozenset[Condition]) -> bytes:
    return _quote_message(book_id, currency, conditions).SerializeToString()


@lru_cache(maxsize=32)
def _batch_request(
    book_ids: tuple[str, ...], currency: str, conditions: frozenset[Condition]
) -> bytes:
    return pb.BatchGetQuotesRequest(
        requests=[_quote_message(book_id, currency, conditions) for book_id in book_ids]
    ).SerializeToString()


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    code = error.code()
    detail = error.details() or code.name
    kind = _FAILURES.get(code, FailureKind.SELLER_ERROR)
    without_effect = code in _WITHOUT_EFFECT
    retry_after_s = None
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if any(words in detail.lower() for words in _OUR_LIMITS):
            kind, without_effect = FailureKind.INVALID_ANSWER, False
        else:
            retry_after_s = from_rpc(error).retry_after_s
            if retry_after_s is not None:
                retry_after_s = min(max(retry_after_s, 0.0), _LONGEST_RETRY_AFTER_S)
    elif code is grpc.StatusCode.UNAVAILABLE and detail.lower().startswith(_NO_CONNECTION):
        kind = FailureKind.UNREACHABLE
        _, failed, reason = detail.partition(_TLS_REASON)
        detail = f"TLS: {reason}" if failed else detail
    return CallFailed(kind, without_effect, _printable(detail), retry_after_s)


def _invalid(error: InvalidAnswerError) -> CallFailed:
    return CallFailed(
        FailureKind.INVALID_ANSWER, definitely_not_done=False, detail=_printable(str(error))
    )


def _is_not_found(outcome: object) -> bool:
    return isinstance(outcome, CallFailed) and outcome.kind is FailureKind.NOT_FOUND


def _printable(text: str) -> str:
    text = text[:_MAX_DETAIL]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
