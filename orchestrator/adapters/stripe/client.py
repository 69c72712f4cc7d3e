"""Stripe's library, so that it gives an answer, a definite refusal, or says that nobody knows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
import stripe
import structlog
from pydantic import BaseModel, ValidationError

from orchestrator.adapters.stripe.answers import Intent, Page, Refund, Refunds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from stripe import PaymentIntent, RequestOptions, StripeClient
    from stripe.params import (
        PaymentIntentCreateParams,
        PaymentIntentListParams,
        RefundCreateParams,
    )

    from mesh.clock import Clock

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5
_CONFLICT = 409
_TOO_MANY = 429
_SERVER_ERROR = 500
_MOST_CONNECTIONS = 200

_log = structlog.get_logger(__name__)

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


class NoAnswer(Exception):
    """Nobody knows what happened. The message says what Stripe answered instead, without anything secret.

    ``replayed`` says that the key is of no more use: Stripe has kept a 500 under it and will give no other answer.
    """

    def __init__(self, detail: str, *, replayed: bool = False) -> None:
        """Keep what is known."""
        super().__init__(detail)
        self.detail = detail
        self.replayed = replayed


class Client:
    """Calls Stripe. The library's own retries are off: it would repeat inside the time that a caller has left.

    While a key is in use (409), or Stripe asks for fewer calls (429), the call is made again until the caller gives up.
    Besides what each method says, all raise ``NoAnswer`` when the outcome is unknown, ``ValueError`` when the key was
    used with other content, and ``stripe.CardError`` or ``stripe.InvalidRequestError`` for a definite refusal. The
    messages of these two may have the token in them: take their codes alone.
    """

    def __init__(
        self, api_key: str, clock: Clock, *, api_base: str | None, timeout_s: float
    ) -> None:
        """Call Stripe itself, or what is at ``api_base``; each request takes ``timeout_s`` at most."""
        # At its lower levels the library logs what it sends, and that has the token in it.
        logging.getLogger("stripe").setLevel(logging.WARNING)
        stripe.enable_telemetry = False
        self._clock = clock
        self._http = _Http(timeout_s)
        self._client: StripeClient = stripe.StripeClient(
            api_key,
            http_client=self._http,
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=0,
        )

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.close_async()

    async def create(self, key: str, params: PaymentIntentCreateParams) -> Intent:
        """Make and confirm a payment."""
        intents = self._client.v1.payment_intents
        return await self._intent(lambda: intents.create_async(params, _under(key)))

    async def capture(self, key: str, intent_id: str, units: int) -> Intent:
        """Charge some or all of what is reserved."""
        intents = self._client.v1.payment_intents
        return await self._intent(
            lambda: intents.capture_async(intent_id, {"amount_to_capture": units}, _under(key))
        )

    async def cancel(self, key: str, intent_id: str) -> Intent:
        """Release what is reserved."""
        intents = self._client.v1.payment_intents
        return await self._intent(lambda: intents.cancel_async(intent_id, {}, _under(key)))

    async def retrieve(self, intent_id: str) -> Intent:
        """Give a payment with its charge."""
        intents = self._client.v1.payment_intents
        return await self._intent(
            lambda: intents.retrieve_async(intent_id, {"expand": ["latest_charge"]})
        )

    async def page(self, params: PaymentIntentListParams) -> Page:
        """Give a page of payments with their charges."""
        intents = self._client.v1.payment_intents
        params = {**params, "expand": ["data.latest_charge"]}
        return _checked(Page, await self._send(lambda: intents.list_async(params)))

    async def refund(self, key: str, params: RefundCreateParams) -> Refund:
        """Give money back."""
        refunds = self._client.v1.refunds
        return _checked(Refund, await self._send(lambda: refunds.create_async(params, _under(key))))

    async def refunds(self, intent_id: str) -> list[Refund]:
        """Give the refunds of a payment: the last hundred, and nobody makes more of one."""
        refunds = self._client.v1.refunds
        found = await self._send(
            lambda: refunds.list_async({"payment_intent": intent_id, "limit": 100})
        )
        return _checked(Refunds, found).data

    async def _intent(self, send: Callable[[], Awaitable[PaymentIntent]]) -> Intent:
        return _checked(Intent, await self._send(send))

    async def _send(self, send: Callable[[], Awaitable[T]]) -> T:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await send()
            except (stripe.CardError, stripe.InvalidRequestError):
                raise
            except stripe.IdempotencyError:
                raise ValueError("the idempotency key was used with other content") from None
            except stripe.StripeError as error:
                if error.http_status not in {_CONFLICT, _TOO_MANY}:
                    raise _no_answer(error) from None
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # The library takes for granted that every answer is of Stripe's form.
                raise NoAnswer(f"not Stripe's form: {type(error).__name__}") from None
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


class _Http(stripe.HTTPClient):
    """Carries the library's requests by httpx; the library's own way uses a part of httpx that is to be removed."""

    name = "httpx"

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
        self._http = httpx.AsyncClient(timeout=timeout_s, limits=limits)

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: str | None = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send a request; every failure to get an answer is a connection error."""
        try:
            response = await self._http.request(method, url, headers=headers, content=post_data)
        except (httpx.HTTPError, OSError) as error:
            raise stripe.APIConnectionError("no answer") from error
        return response.content, response.status_code, response.headers

    async def close_async(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _under(key: str) -> RequestOptions:
    return {"idempotency_key": key}


def _checked(kind: type[ModelT], answer: stripe.StripeObject) -> ModelT:
    try:
        return kind.model_validate(answer.to_dict())
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False))
        raise NoAnswer(f"an answer with missing or wrong fields: {where}") from None


def _no_answer(error: stripe.StripeError) -> NoAnswer:
    status = error.http_status
    if status is None:
        # Of a connection that failed, httpx's exception is the cause; its name says how.
        return NoAnswer(f"no answer: {type(error.__cause__ or error).__name__}")
    headers: Any = error.headers
    replayed = status >= _SERVER_ERROR and headers.get("idempotent-replayed") == "true"
    _log.warning("stripe did not do it", status=status, stripe_request=error.request_id)
    return NoAnswer(f"status {status}", replayed=replayed)
