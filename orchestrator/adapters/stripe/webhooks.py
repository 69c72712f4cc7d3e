"""Stripe's events: whose word they are, and which payment they are about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import stripe
from pydantic import BaseModel, ValidationError

from orchestrator.adapters.stripe.answers import REFERENCE
from orchestrator.ports import ForgedEvent, ProviderEvent

if TYPE_CHECKING:
    from typing import Any


class NotStripesWord(ForgedEvent):
    """An event that is not signed with the secret, too old, or not of Stripe's form: answer 400 and forget it."""


class _Data(BaseModel):
    """What an event is about."""

    object: dict[str, object]


class _Event(BaseModel):
    """An event."""

    id: str
    data: _Data


class StripeWebhooks:
    """Tells Stripe's events from others'."""

    def __init__(self, secret: str, tolerance_s: int = 300) -> None:
        """Keep the secret of the endpoint; an event older than ``tolerance_s`` may be a replay and is refused."""
        self._secret = secret
        self._tolerance_s = tolerance_s

    def verify_event(self, payload: bytes, signature: str) -> ProviderEvent | None:
        """Give what an event says; None when it is about no payment.

        ``payload`` is the body as it came; ``signature`` the header ``Stripe-Signature``.

        Raises:
            NotStripesWord: if it is not Stripe who says it.

        """
        try:
            stripe.WebhookSignature.verify_header(
                payload, signature, self._secret, self._tolerance_s
            )
            event = _Event.model_validate(json.loads(payload))
        except stripe.SignatureVerificationError:
            raise NotStripesWord("the event is not signed with our secret, or too old") from None
        except (UnicodeDecodeError, json.JSONDecodeError, ValidationError):
            raise NotStripesWord("the event is not of Stripe's form") from None
        provider_id = _payment_of(event.data.object)
        if provider_id is None:
            return None
        return ProviderEvent(event.id, provider_id, _reference_of(event.data.object))


def _payment_of(about: dict[str, Any]) -> str | None:
    """Give the payment that an object is, or belongs to: charges, refunds and disputes name theirs."""
    name = (
        about.get("id") if about.get("object") == "payment_intent" else about.get("payment_intent")
    )
    return name if isinstance(name, str) else None


def _reference_of(about: dict[str, Any]) -> str | None:
    metadata = about.get("metadata")
    reference = metadata.get(REFERENCE) if isinstance(metadata, dict) else None
    return reference if isinstance(reference, str) else None
