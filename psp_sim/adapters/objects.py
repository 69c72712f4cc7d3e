"""Stripe's objects, as far as our adapter and people who look at them need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psp_sim.domain.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psp_sim.domain.model import ApiError, Intent, Refund

Object = dict[str, Any]


def payment_intent(intent: Intent, refunds: Iterable[Refund], *, expand_charge: bool) -> Object:
    """Give an intent, with its charge in full or by its id."""
    open_ = intent.status is Status.REQUIRES_CAPTURE
    charge = _charge(intent, refunds) if expand_charge and intent.charge_id else intent.charge_id
    return {
        "id": intent.intent_id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_capturable": intent.amount if open_ else 0,
        "amount_received": intent.captured,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": "manual",
        "created": intent.created,
        "currency": intent.currency,
        "last_payment_error": _card_error(intent) if intent.failure else None,
        "latest_charge": charge,
        "livemode": False,
        "metadata": dict(intent.metadata),
        "next_action": {"type": "use_stripe_sdk"}
        if intent.status is Status.REQUIRES_ACTION
        else None,
        "payment_method_types": ["card"],
        "status": intent.status.value,
    }


def refund_object(refund: Refund, intent: Intent) -> Object:
    """Give a refund."""
    return {
        "id": refund.refund_id,
        "object": "refund",
        "amount": refund.amount,
        "charge": intent.charge_id,
        "created": refund.created,
        "currency": intent.currency,
        "failure_reason": "lost_or_stolen_card" if refund.status == "failed" else None,
        "metadata": dict(refund.metadata),
        "payment_intent": refund.intent_id,
        "status": refund.status,
    }


def event(event_id: str, kind: str, about: Object, created: int, key: str | None) -> Object:
    """Give an event about an object."""
    return {
        "id": event_id,
        "object": "event",
        "created": created,
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": key},
        "type": kind,
    }


def listed(url: str, data: list[Object], *, has_more: bool) -> Object:
    """Give a page of a list."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def error(fault: ApiError) -> Object:
    """Give the refusal of a request."""
    facts = {"code": fault.code, "message": fault.message, "param": fault.param, "type": fault.kind}
    return {"error": {name: value for name, value in facts.items() if value is not None}}


def declined(intent: Intent) -> Object:
    """Give the refusal of a card, with the intent that it leaves behind."""
    return {
        "error": _card_error(intent)
        | {"payment_intent": payment_intent(intent, (), expand_charge=False)}
    }


def _charge(intent: Intent, refunds: Iterable[Refund]) -> Object:
    captured = intent.status is Status.SUCCEEDED
    # What is released without having been captured counts as refunded, as it does at Stripe.
    released = 0 if intent.status is Status.REQUIRES_CAPTURE else intent.amount - intent.captured
    refunded = released + sum(r.amount for r in refunds if r.status == "succeeded")
    return {
        "id": intent.charge_id,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.captured,
        "amount_refunded": refunded,
        "captured": captured,
        "created": intent.created,
        "currency": intent.currency,
        "payment_intent": intent.intent_id,
        "payment_method_details": {
            "card": {"brand": "visa", "capture_before": intent.capture_before, "last4": "4242"},
            "type": "card",
        },
        "refunded": refunded == intent.amount,
        "status": "succeeded",
    }


def _card_error(intent: Intent) -> Object:
    failure = intent.failure
    return {
        "code": failure.code if failure else None,
        "decline_code": failure.decline_code if failure else None,
        "message": "Your card was declined.",
        "type": "card_error",
    }
