"""A client of ``bookmesh.customer.v1`` with deadlines, keys and retries as they should be."""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from typing import Literal, NotRequired, Self, TypedDict, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh_client.channel import open_channel
from bookmesh_client.errors import (
    BookmeshError,
    InvalidArgument,
    PaymentRefused,
    Unauthorized,
    Unavailable,
    translated,
)

Condition = Literal["new", "like_new", "very_good", "good", "acceptable"]
Status = Literal["pending", "purchased", "price_not_met", "not_available", "failed", "cancelled"]
Answer = TypeVar("Answer", bound=Message)

_QUOTES_MARGIN_S = 5.0
_DEFAULT_QUOTES_WAIT_MS = 3_000

_REOPENED = 10
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class Wish(TypedDict):
    """What to buy a book by.

    Attributes:
        max_price: the most to pay, all in.
        payment_token: the payment provider's token for the card.
        currency_code: ISO 4217; USD unless given.
        conditions: those that will do; only new copies unless given.
        idempotency_key: the same key never buys twice; a fresh one unless given or if None, so that a call that is
            tried again by the client does not.

    """

    max_price: Decimal | float
    payment_token: str
    currency_code: NotRequired[str]
    conditions: NotRequired[Sequence[Condition]]
    idempotency_key: NotRequired[str | None]


class Client:
    """A customer of Bookmesh, or a service that acts for customers. Make it in a coroutine, close it in the end.

    Every call raises ``BookmeshError`` (bookmesh_client.errors). Calls that found nobody are tried again for about 2 s.

    Args:
        address: of the gRPC API: ``https://api.bookmesh.example`` or ``host:port`` with TLS, ``http://host:port``
            without. Without a scheme, this machine (``localhost:9090``) is called without TLS.
        token: the bearer token, or what gives a fresh one for each call.
        timeout_s: how long a call may take, in seconds.
        credentials: for TLS with roots or a certificate of one's own (``grpc.ssl_channel_credentials``).
        server_name: the name to look for in the server's certificate, where it is not the address.

    """

    def __init__(
        self,
        address: str,
        token: str | Callable[[], str],
        *,
        timeout_s: float = 10.0,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str = "",
    ) -> None:
        self._token = token
        self._timeout_s = timeout_s
        self._on_behalf_of = ""
        self._channel = open_channel(address, credentials, server_name)
        self._purchases = customer_pb2_grpc.PurchaseServiceStub(self._channel)
        self._quotes = customer_pb2_grpc.QuoteServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    def acting_for(self, customer_id: str) -> Self:
        """Give a client that acts for a customer, over the same connection. Its token must have the scope internal."""
        client = copy.copy(self)
        client._on_behalf_of = customer_id  # noqa: SLF001  its own, of the same class
        return client

    async def buy(
        self, book_id: str, *, within_s: float = 60.0, **wish: Unpack[Wish]
    ) -> pb.PurchaseRequest:
        """Buy a book and wait for the outcome, a refused card included: ``wait`` on what ``submit`` gives."""
        try:
            accepted = await self.submit(book_id, **wish)
        except PaymentRefused as refused:
            return await self.get(refused.request_id)
        return await self.wait(accepted.request_id, within_s=within_s)

    async def submit(self, book_id: str, **wish: Unpack[Wish]) -> pb.CreatePurchaseRequestResponse:
        """Ask for a book to be bought, an ISBN in any spelling or what else sellers know it by; it goes on by itself.

        Raises:
            PaymentRefused: when the card was refused before the answer.

        """
        request = pb.CreatePurchaseRequestRequest(
            book_id=book_id,
            max_price=float(wish["max_price"]),
            payment_token=wish["payment_token"],
            currency_code=wish.get("currency_code", ""),
            conditions=_conditions(wish.get("conditions", ())),
        )
        key = wish.get("idempotency_key")
        if key is None:
            key = secrets.token_urlsafe(18)
        return await self._call(
            self._purchases.CreatePurchaseRequest, request, ("idempotency-key", key)
        )

    async def wait(self, request_id: str, *, within_s: float = 60.0) -> pb.PurchaseRequest:
        """Give how a purchase request ends, or ``pending`` if that is still open after ``within_s`` seconds."""
        try:
            async with asyncio.timeout(within_s), aclosing(self.watch(request_id)) as events:
                async for event in events:
                    if event.HasField("result"):
                        return event.result
        except TimeoutError:
            pass
        return await self.get(request_id)

    async def get(self, request_id: str) -> pb.PurchaseRequest:
        """Tell where a purchase request stands."""
        request = pb.GetPurchaseRequestRequest(request_id=request_id)
        return await self._call(self._purchases.GetPurchaseRequest, request)

    async def list(
        self,
        *,
        statuses: Sequence[Status] = (),
        book_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[pb.PurchaseRequestSummary, None]:
        """Give one's purchase requests, newest first: all, or those that fit; pages are fetched as they are needed."""
        request = pb.ListPurchaseRequestsRequest(
            page_size=page_size,
            statuses=[pb.PurchaseStatus.Word.Value(status) for status in statuses],
            book_id=book_id,
        )
        if created_after is not None:
            request.created_after.FromDatetime(created_after)
        if created_before is not None:
            request.created_before.FromDatetime(created_before)
        while True:
            page = await self._call(self._purchases.ListPurchaseRequests, request)
            for summary in page.purchase_requests:
                yield summary
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(self, request_id: str) -> AsyncGenerator[pb.WatchPurchaseRequestResponse, None]:
        """Give all that happens in a purchase request, from its beginning, each event once; end after its ``result``.

        A stream that is interrupted is opened again, up to ten times without anything new.
        """
        request = pb.WatchPurchaseRequestRequest(request_id=request_id)
        seen: set[str] = set()
        failures = 0
        while True:
            call = self._purchases.WatchPurchaseRequest(request, metadata=self._metadata())
            try:
                with translated():
                    async for event in call:
                        if event.event_id not in seen:
                            seen.add(event.event_id)
                            failures = 0
                            yield event
                        if event.HasField("result"):
                            return
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, "the stream was cut off")
            except BookmeshError as error:
                if failures == _REOPENED or not _interrupted(error):
                    raise
            finally:
                call.cancel()
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures)
            await asyncio.sleep(pause_s)  # noqa: TID251  mesh.clock is the services'; a client has the stubs alone
            failures += 1

    async def cancel(self, request_id: str) -> pb.PurchaseRequest:
        """Cancel a purchase request as far as that is still possible; give it as it then is."""
        request = pb.CancelPurchaseRequestRequest(request_id=request_id)
        return await self._call(self._purchases.CancelPurchaseRequest, request)

    async def accept_offer(
        self, request_id: str, *, payment_token: str = ""
    ) -> pb.AcceptOfferResponse:
        """Buy at the price that was offered: give the new purchase request, one however often an offer is accepted.

        Args:
            request_id: the purchase request that ended as ``price_not_met``.
            payment_token: the first one when empty, where the payment provider allows that.

        """
        request = pb.AcceptOfferRequest(request_id=request_id, payment_token=payment_token)
        return await self._call(self._purchases.AcceptOffer, request)

    async def quotes(
        self,
        book_id: str,
        *,
        currency_code: str = "",
        conditions: Sequence[Condition] = (),
        max_wait_ms: int = 0,
        max_quotes: int = 0,
    ) -> pb.ListQuotesResponse:
        """Compare prices without buying, after at most ``max_wait_ms`` (3,000 when 0), the lowest first."""
        request = pb.ListQuotesRequest(
            book_id=book_id,
            currency_code=currency_code,
            conditions=_conditions(conditions),
            max_wait_ms=max_wait_ms,
            max_quotes=max_quotes,
        )
        return await self._call(
            self._quotes.ListQuotes, request, timeout_s=_quotes_timeout_s(max_wait_ms)
        )

    async def stream_quotes(
        self,
        book_id: str,
        *,
        currency_code: str = "",
        conditions: Sequence[Condition] = (),
        max_wait_ms: int = 0,
    ) -> AsyncGenerator[pb.StreamQuotesResponse, None]:
        """Compare prices as they arrive; the last event is ``summary``."""
        request = pb.StreamQuotesRequest(
            book_id=book_id,
            currency_code=currency_code,
            conditions=_conditions(conditions),
            max_wait_ms=max_wait_ms,
        )
        call = self._quotes.StreamQuotes(
            request, metadata=self._metadata(), timeout=_quotes_timeout_s(max_wait_ms)
        )
        try:
            with translated():
                async for event in call:
                    yield event
        finally:
            call.cancel()

    async def _call(
        self,
        rpc: Callable[..., Awaitable[Answer]],
        request: Message,
        *more: tuple[str, str],
        timeout_s: float | None = None,
    ) -> Answer:
        metadata = self._metadata(*more)
        with translated():
            return await rpc(request, timeout=timeout_s or self._timeout_s, metadata=metadata)

    def _metadata(self, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """Give what a call carries; refuse what cannot be sent, of which gRPC says neither what nor why."""
        why = "must be visible ASCII characters"
        token = (self._token if isinstance(self._token, str) else self._token()).strip()
        if not _visible(token):
            problem = f"the token is not valid: it {why}"
            raise Unauthorized(grpc.StatusCode.UNAUTHENTICATED, problem, "TOKEN_INVALID")
        if self._on_behalf_of:
            more = (("on-behalf-of", self._on_behalf_of), *more)
        if wrong := {name: why for name, value in more if not _visible(value)}:
            problem = "; ".join(f"{name}: {why}" for name in wrong)
            raise InvalidArgument(grpc.StatusCode.INVALID_ARGUMENT, problem, fields=wrong)
        return (("authorization", f"Bearer {token}"), *more)


def _interrupted(error: BookmeshError) -> bool:
    # What gRPC makes of a stream whose way breaks, with the edge or a gateway gone, is of either kind.
    return isinstance(error, Unavailable) or "RST_STREAM" in error.message


def _visible(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _conditions(words: Sequence[Condition]) -> Sequence[pb.BookCondition.Word.ValueType]:
    return [pb.BookCondition.Word.Value(word) for word in words]


def _quotes_timeout_s(max_wait_ms: int) -> float:
    return (max_wait_ms or _DEFAULT_QUOTES_WAIT_MS) / 1000 + _QUOTES_MARGIN_S
