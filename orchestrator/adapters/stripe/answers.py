"""What Stripe answers, as far as it is needed, checked on arrival."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import stripe
from pydantic import BaseModel

from orchestrator.adapters.stripe.amounts import from_units
from orchestrator.domain.purchase import FailureReason
from orchestrator.ports import PaymentState, ProviderPayment

REFERENCE = "request_id"
"""The name of our reference in the metadata of a payment."""

_AUTHENTICATION = "authentication_required"

_STATES = {
    "requires_capture": PaymentState.AUTHORIZED,
    "succeeded": PaymentState.CAPTURED,
    "canceled": PaymentState.VOIDED,
    "processing": PaymentState.UNDECIDED,
    "requires_payment_method": PaymentState.DECLINED,
    "requires_confirmation": PaymentState.DECLINED,
    "requires_action": PaymentState.DECLINED,
}


class Card(BaseModel):
    """The card of a charge."""

    capture_before: int | None = None


class MethodDetails(BaseModel):
    """How a charge was paid."""

    card: Card = Card()


class Charge(BaseModel):
    """The charge of a payment."""

    amount: int
    amount_captured: int = 0
    amount_refunded: int = 0
    payment_method_details: MethodDetails | None = None


class PaymentError(BaseModel):
    """Why a card was declined."""

    code: str | None = None
    decline_code: str | None = None


class Intent(BaseModel):
    """A payment, with its charge where that was asked for."""

    id: str
    status: Literal[
        "requires_capture",
        "succeeded",
        "canceled",
        "processing",
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
    ]
    amount: int
    amount_received: int = 0
    currency: str
    created: int
    metadata: dict[str, str] = {}
    latest_charge: Charge | str | None = None
    last_payment_error: PaymentError | None = None

    @property
    def capture_before(self) -> datetime | None:
        """When the reservation lapses."""
        charge = self.latest_charge
        if not isinstance(charge, Charge) or charge.payment_method_details is None:
            return None
        seconds = charge.payment_method_details.card.capture_before
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def payment(self) -> ProviderPayment:
        """Give it as the port has it.

        Raises:
            ValueError: if an amount cannot be money.

        """
        refunded = 0
        if isinstance(self.latest_charge, Charge):
            # Stripe counts what was released at the capture as refunded too.
            released = self.latest_charge.amount - self.latest_charge.amount_captured
            refunded = max(0, self.latest_charge.amount_refunded - released)
        return ProviderPayment(
            provider_id=self.id,
            reference=self.metadata.get(REFERENCE),
            state=_STATES[self.status],
            authorized=from_units(self.currency, self.amount),
            captured=from_units(self.currency, self.amount_received),
            refunded=from_units(self.currency, refunded),
            capture_before=self.capture_before,
            created_at=datetime.fromtimestamp(self.created, UTC),
        )


class Refund(BaseModel):
    """Money given back, or on its way, or not."""

    id: str
    amount: int
    currency: str
    status: str
    failure_reason: str | None = None
    metadata: dict[str, str] = {}


class Page(BaseModel):
    """Some payments, newest first, and whether there are older ones."""

    data: list[Intent]
    has_more: bool


class Refunds(BaseModel):
    """The refunds of a payment, newest first."""

    data: list[Refund]


def declined_because(error: PaymentError | None) -> FailureReason:
    """Give our word for why a card was declined."""
    if error is not None and _AUTHENTICATION in {error.code, error.decline_code}:
        return FailureReason.ACTION_REQUIRED
    return FailureReason.CARD_DECLINED


def why_declined(error: stripe.CardError) -> PaymentError:
    """Give Stripe's words for why a card was declined."""
    decline_code = getattr(error.error, "decline_code", None)
    return PaymentError(code=error.code, decline_code=decline_code)


def refused_because(error: stripe.InvalidRequestError) -> FailureReason:
    """Give our word for why Stripe will not even try: nothing but the payment method may be missing."""
    about_token = str(error.param or "").startswith("payment_method")
    missing = error.http_status == 404 or error.code == "resource_missing"  # noqa: PLR2004  HTTP's
    if about_token or missing:
        return FailureReason.PAYMENT_TOKEN_INVALID
    return FailureReason.PAYMENT_UNAVAILABLE
