"""What becomes of a payment intent, as Stripe documents it."""

from __future__ import annotations

from dataclasses import replace

from psp_sim.domain.cards import CARDS
from psp_sim.domain.model import ApiError, Failure, Intent, Status, wrong


def confirmed(intent: Intent, charge_id: str, now: int, *, off_session: bool) -> Intent:
    """Reserve the amount, or say why not."""
    card = CARDS[intent.card]
    if card.decline is not None:
        return replace(intent, failure=card.decline)
    if card.wants_action and off_session and not card.insists:
        return replace(
            intent, failure=Failure("authentication_required", "authentication_required")
        )
    if card.wants_action:
        return replace(intent, status=Status.REQUIRES_ACTION)
    return replace(
        intent,
        status=Status.REQUIRES_CAPTURE,
        charge_id=charge_id,
        capture_before=now + card.life_s,
    )


def captured(intent: Intent, amount: int | None) -> Intent:
    """Charge some or all of what is reserved and release the rest.

    Raises:
        ApiError: if it cannot be captured, or not so much.

    """
    if intent.status is not Status.REQUIRES_CAPTURE:
        raise unexpected_state("captured", intent)
    amount = intent.amount if amount is None else amount
    if not 0 < amount <= intent.amount:
        raise wrong(
            "The amount to capture must be above 0 and at most what is capturable.",
            "amount_to_capture",
            "amount_too_large",
        )
    if CARDS[intent.card].capture_fails:
        raise ApiError(
            402, "card_error", "Your card was declined.", code="card_declined", kept=True
        )
    return replace(intent, status=Status.SUCCEEDED, captured=amount)


def canceled(intent: Intent) -> Intent:
    """Release what is reserved.

    Raises:
        ApiError: if it was charged, or canceled before.

    """
    if intent.status in {Status.SUCCEEDED, Status.CANCELED}:
        raise unexpected_state("canceled", intent)
    return replace(intent, status=Status.CANCELED, cancellation_reason="requested_by_customer")


def lapsed(intent: Intent, now: int) -> Intent:
    """Give the intent as it is now: the provider itself cancels a reservation that was not captured in time."""
    if (
        intent.status is Status.REQUIRES_CAPTURE
        and intent.capture_before is not None
        and intent.capture_before <= now
    ):
        return replace(intent, status=Status.CANCELED, cancellation_reason="automatic")
    return intent


def refundable(intent: Intent, refunded: int, amount: int | None) -> int:
    """Give the amount to give back; all that is left when none is named.

    Raises:
        ApiError: if nothing was charged, or less is left.

    """
    if intent.status is not Status.SUCCEEDED:
        raise ApiError(
            400,
            "invalid_request_error",
            f"This PaymentIntent ({intent.intent_id}) does not have a successful charge to refund.",
            param="payment_intent",
            kept=True,
        )
    left = intent.captured - refunded
    if left == 0:
        raise ApiError(
            400,
            "invalid_request_error",
            f"Charge {intent.charge_id} has already been refunded.",
            code="charge_already_refunded",
            kept=True,
        )
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        raise ApiError(
            400,
            "invalid_request_error",
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            param="amount",
            kept=True,
        )
    return amount


def unexpected_state(verb: str, intent: Intent) -> ApiError:
    """Make the refusal of what cannot be done in this state."""
    return ApiError(
        400,
        "invalid_request_error",
        f"This PaymentIntent could not be {verb} because it has a status of {intent.status}.",
        code="payment_intent_unexpected_state",
        kept=True,
    )
