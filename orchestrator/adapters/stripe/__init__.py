"""Stripe as the payment provider: PaymentIntents that are captured by hand, by Stripe's own library.

Stripe keeps the first answer under an idempotency key, a 500 too, for at least 24 hours. Then the key is forgotten, and
the same request would run **again**: for a capture or a void that is harmless, since the state of the payment allows
each once; for an authorization it would reserve a second time, and for a refund give back a second time. So an
authorization that was intended 23 hours ago is never sent again but looked for among the payments of that time, by our
reference; and a refund is looked for before it is made.

"Not found" means "no" only in the first case: by then nothing that was sent can still arrive.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar, assert_never

import stripe
import structlog

from mesh.errors import Unavailable
from orchestrator.adapters.stripe.amounts import AmountError, to_units
from orchestrator.adapters.stripe.answers import (
    REFERENCE,
    declined_because,
    refused_because,
    why_declined,
)
from orchestrator.adapters.stripe.client import Client, NoAnswer
from orchestrator.domain.purchase import FailureReason
from orchestrator.ports import (
    AlreadyCaptured,
    Authorized,
    AuthorizeOutcome,
    Captured,
    CaptureOutcome,
    Declined,
    ProviderPayment,
    Refunded,
    RefundOutcome,
    Refused,
    Unknown,
    Voided,
    VoidOutcome,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from types import TracebackType

    from stripe.params import PaymentIntentCreateParams, PaymentIntentListParams

    from mesh.clock import Clock
    from mesh.money import Money
    from orchestrator.adapters.stripe.answers import Intent, Refund

TIMEOUT_S = 2.0
"""How long a call may take, with all that it takes to resolve it."""

KEYS_HOLD = timedelta(hours=23)
"""For how long a key surely stands for one authorization: Stripe keeps it for 24 hours at least."""

_CLOCKS_DIFFER = timedelta(minutes=10)
_WINDOW = timedelta(hours=1)
_REFUND_KEY = "idempotency_key"
_NOT_MADE = {"failed", "canceled"}
_NOT_FOUND = 404

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class StripePaymentProvider:
    """Payments at Stripe: ``async with StripePaymentProvider(...) as provider``."""

    reusable_tokens = False
    """A payment method that belongs to no customer of ours at Stripe may be used once."""

    def __init__(
        self,
        api_key: str,
        clock: Clock,
        *,
        api_base: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Show this key, to Stripe or to what is at ``api_base``."""
        self._client = Client(api_key, clock, api_base=api_base, timeout_s=timeout_s)
        self._clock = clock
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._client.__aexit__(exc_type, exc, traceback)

    async def authorize(
        self, key: str, token: str, amount: Money, reference: str, intended_at: datetime
    ) -> AuthorizeOutcome:
        """Reserve an amount on the card behind a token, which is the id of a payment method (``pm_...``)."""
        try:
            units = to_units(amount)
        except AmountError as error:
            _log.error("an amount cannot be authorized", problem=str(error))
            return Declined(FailureReason.PAYMENT_UNAVAILABLE)
        if self._clock.now() - intended_at >= KEYS_HOLD:
            return await self._looked_up(key, reference, intended_at)
        params: PaymentIntentCreateParams = {
            # Other kinds of methods may send the customer elsewhere first, or take days to decide.
            "allowed_payment_method_types": ["card"],
            "amount": units,
            "capture_method": "manual",
            "confirm": True,
            "currency": amount.currency.lower(),
            "expand": ["latest_charge"],
            "metadata": {REFERENCE: reference},
            "off_session": True,
            "payment_method": token,
        }
        return await self._bounded(self._authorize(key, params, reference, intended_at))

    async def capture(self, key: str, provider_id: str, amount: Money) -> CaptureOutcome:
        """Charge at most what is reserved, once, and release the rest."""
        try:
            units = to_units(amount)
        except AmountError:
            return Refused("amount_not_chargeable")
        return await self._bounded(self._capture(key, provider_id, units))

    async def void(self, key: str, provider_id: str) -> VoidOutcome:
        """Release what is reserved."""
        return await self._bounded(self._void(key, provider_id))

    async def refund(self, key: str, provider_id: str, amount: Money) -> RefundOutcome:
        """Give back at most what was charged and not given back before."""
        try:
            units = to_units(amount)
        except AmountError:
            return Refused("amount_not_chargeable")
        return await self._bounded(self._refund(key, provider_id, units))

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        """Give a payment as it is now."""
        return await self._bounded(self._get(provider_id))

    async def list_since(
        self, since: datetime, page_size: int = 100
    ) -> AsyncIterator[ProviderPayment]:
        """Give all payments made since then, newest first; those that have no reference of ours are not ours."""
        try:
            async for intent in self._made(since, None, page_size):
                if REFERENCE in intent.metadata:
                    yield _payment(intent)
        except NoAnswer as error:
            raise Unavailable(f"Stripe does not list its payments: {error.detail}") from None

    # Each within the time of a call

    async def _authorize(
        self, key: str, params: PaymentIntentCreateParams, reference: str, intended_at: datetime
    ) -> AuthorizeOutcome:
        try:
            intent = await self._client.create(key, params)
        except stripe.CardError as error:
            return Declined(declined_because(why_declined(error)))
        except stripe.InvalidRequestError as error:
            reason = refused_because(error)
            _log.warning(
                "stripe refused an authorization",
                reason=reason.value,
                code=error.code,
                stripe_request=error.request_id,
            )
            return Declined(reason)
        except NoAnswer as error:
            if not error.replayed:
                raise
            # The key will give no other answer. If the payment was made all the same, it is there by now; if it is not,
            # Stripe's own repair after the failure may still make it.
            found = await self._find(reference, intended_at, self._clock.now())
            if found is None:
                raise
            intent = found
        return await self._authorized(key, intent)

    async def _authorized(self, key: str, intent: Intent) -> AuthorizeOutcome:
        match intent.status:
            case "requires_capture" | "succeeded":
                return Authorized(intent.id, intent.capture_before)
            case "requires_action" | "requires_confirmation":
                # Nobody is there to act; left alone it could still be confirmed later.
                voided = await self._void(f"{key}:cancel", intent.id)
                return (
                    voided
                    if isinstance(voided, Unknown)
                    else Declined(FailureReason.ACTION_REQUIRED)
                )
            case "requires_payment_method":
                return Declined(declined_because(intent.last_payment_error))
            case "canceled":
                return Declined(FailureReason.PAYMENT_UNAVAILABLE)
            case "processing":
                return Unknown("Stripe has not decided yet")
            case _:
                assert_never(intent.status)

    async def _capture(self, key: str, provider_id: str, units: int) -> CaptureOutcome:
        try:
            return await self._capture_under(key, provider_id, units)
        except NoAnswer as error:
            if not error.replayed:
                raise
        intent = await self._client.retrieve(provider_id)
        if intent.status == "requires_capture":
            # The key gives no other answer; another is safe, since a payment can be captured once.
            return await self._capture_under(f"{key}:2", provider_id, units)
        return _captured(intent, units)

    async def _capture_under(self, key: str, provider_id: str, units: int) -> CaptureOutcome:
        try:
            intent = await self._client.capture(key, provider_id, units)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            word = error.code or "refused"
            intent = await self._client.retrieve(provider_id)
            if intent.status == "requires_capture":
                return Refused(word)
        return _captured(intent, units)

    async def _void(self, key: str, provider_id: str) -> VoidOutcome:
        try:
            intent = await self._client.cancel(key, provider_id)
        except (stripe.CardError, stripe.InvalidRequestError):
            intent = await self._client.retrieve(provider_id)
        except NoAnswer as error:
            if not error.replayed:
                raise
            intent = await self._client.retrieve(provider_id)
            if intent.status not in {"canceled", "succeeded"}:
                # The key gives no other answer; another is safe, since a payment can be canceled once.
                intent = await self._client.cancel(f"{key}:2", provider_id)
        match intent.status:
            case "canceled":
                return Voided()
            case "succeeded":
                return AlreadyCaptured()
            case _:
                return Unknown(f"the payment is {intent.status} after a cancel")

    async def _refund(self, key: str, provider_id: str, units: int) -> RefundOutcome:
        before = await self._refunds_under(key, provider_id)
        made = next((refund for refund in before if refund.status not in _NOT_MADE), None)
        if made is None:
            # A key stands for one refund. One that has failed is over, and the next one has the next key.
            try:
                made = await self._client.refund(
                    f"{key}:{len(before) + 1}" if before else key,
                    {
                        "payment_intent": provider_id,
                        "amount": units,
                        "metadata": {_REFUND_KEY: key},
                    },
                )
            except (stripe.CardError, stripe.InvalidRequestError) as error:
                return Refused(error.code or "refused")
        if made.amount != units:
            raise ValueError(f"{key} was used with other content: another amount")
        if made.status in _NOT_MADE:
            return Refused(made.failure_reason or made.status)
        return Refunded()

    async def _get(self, provider_id: str) -> ProviderPayment | None:
        try:
            intent = await self._client.retrieve(provider_id)
        except stripe.InvalidRequestError as error:
            if error.http_status == _NOT_FOUND:
                return None
            raise
        return _payment(intent)

    # Looking

    async def _looked_up(self, key: str, reference: str, intended_at: datetime) -> AuthorizeOutcome:
        """Resolve an authorization whose key may be forgotten. Each request has its time; there may be many."""
        try:
            found = await self._find(reference, intended_at, intended_at + KEYS_HOLD)
            if found is None:
                _log.warning("an old authorization was never made", reference=reference)
                return Declined(FailureReason.PAYMENT_UNAVAILABLE)
            return await self._authorized(key, found)
        except NoAnswer as error:
            return Unknown(error.detail)

    async def _find(self, reference: str, since: datetime, until: datetime) -> Intent | None:
        """Give the payment with our reference that was made in a time, looking at the first hours first."""
        begin, end = since - _CLOCKS_DIFFER, until + _CLOCKS_DIFFER
        while begin < end:
            async for intent in self._made(begin, min(begin + _WINDOW, end)):
                if intent.metadata.get(REFERENCE) == reference:
                    return intent
            begin += _WINDOW
        return None

    async def _made(
        self, since: datetime, before: datetime | None, page_size: int = 100
    ) -> AsyncIterator[Intent]:
        """Give the payments made from one time on and, where the other is known, before it."""
        params: PaymentIntentListParams = {
            "created": {"gte": int(since.timestamp())},
            "limit": page_size,
        }
        if before is not None:
            params["created"] = {"gte": int(since.timestamp()), "lt": int(before.timestamp()) + 1}
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    page = await self._client.page(params)
            except TimeoutError:
                raise NoAnswer(f"no answer within {self._timeout_s} s") from None
            except stripe.InvalidRequestError as error:
                raise NoAnswer(f"the list was refused: {error.code}") from None
            for intent in page.data:
                yield intent
            if not page.has_more or not page.data:
                return
            params["starting_after"] = page.data[-1].id

    async def _refunds_under(self, key: str, provider_id: str) -> list[Refund]:
        """Give the refunds that were made under a key: keys are forgotten after a day, refunds are not."""
        try:
            refunds = await self._client.refunds(provider_id)
        except stripe.InvalidRequestError as error:
            raise NoAnswer(f"the refunds were not listed: {error.code}") from None
        return [refund for refund in refunds if refund.metadata.get(_REFUND_KEY) == key]

    async def _bounded(self, work: Awaitable[T]) -> T | Unknown:
        """Give what comes of it in the time of a call."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work
        except TimeoutError:
            return Unknown(f"no answer within {self._timeout_s} s")
        except NoAnswer as error:
            return Unknown(error.detail)
        except (stripe.CardError, stripe.InvalidRequestError) as error:
            # Of a payment that we know Stripe knows nothing: most likely the key is of another account.
            _log.error("stripe does not know this payment", code=error.code)
            return Unknown(f"Stripe refused to say: {error.code}")


def _payment(intent: Intent) -> ProviderPayment:
    try:
        return intent.payment()
    except ValueError as error:
        raise NoAnswer(f"{intent.id} has an amount that cannot be read: {error}") from None


def _captured(intent: Intent, units: int) -> CaptureOutcome:
    match intent.status:
        case "succeeded" if intent.amount_received == units:
            return Captured()
        case "succeeded":
            _log.error("another amount was captured", payment=intent.id)
            return Unknown("another amount was captured: somebody has to look")
        case "canceled" | "requires_payment_method" | "requires_action" | "requires_confirmation":
            return Refused(intent.status)
        case "requires_capture" | "processing":
            return Unknown(f"the payment is {intent.status} after a capture")
        case _:
            assert_never(intent.status)
