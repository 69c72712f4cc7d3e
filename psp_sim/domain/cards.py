"""The cards of the simulator: payment methods ``pm_card_NAME``. Names that Stripe has too mean the same.

visa, mastercard, amex             authorized for 7 days
chargeDeclined                     declined, generic_decline
chargeDeclinedInsufficientFunds    declined, insufficient_funds
chargeDeclinedExpiredCard          declined, expired_card
authenticationRequired             wants an action of its holder; declined when that is off session
actionRequired                     wants an action of its holder, whatever the session
expires                            authorized for 12 hours
captureFails                       authorized; a capture is declined
refundFail                         authorized, captured; a refund fails
"""

from __future__ import annotations

from dataclasses import dataclass

from psp_sim.domain.model import Failure, wrong

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Card:
    """How a card behaves.

    Attributes:
        decline: why nothing is authorized; None when it is.
        wants_action: whether its holder has to act first, when they are there to do it.
        insists: whether that is so even when they are not.
        life_s: how long an authorization lasts, in seconds.
        capture_fails: whether a capture is declined.
        refund_fails: whether a refund fails.

    """

    decline: Failure | None = None
    wants_action: bool = False
    insists: bool = False
    life_s: int = 7 * _DAY_S
    capture_fails: bool = False
    refund_fails: bool = False


CARDS = {
    "visa": Card(),
    "mastercard": Card(),
    "amex": Card(),
    "chargeDeclined": Card(decline=Failure("card_declined", "generic_decline")),
    "chargeDeclinedInsufficientFunds": Card(decline=Failure("card_declined", "insufficient_funds")),
    "chargeDeclinedExpiredCard": Card(decline=Failure("expired_card", "expired_card")),
    "authenticationRequired": Card(wants_action=True),
    "actionRequired": Card(wants_action=True, insists=True),
    "expires": Card(life_s=12 * _HOUR_S),
    "captureFails": Card(capture_fails=True),
    "refundFail": Card(refund_fails=True),
}


def card_of(payment_method: str) -> str:
    """Give the name of a card by its payment method.

    Raises:
        ApiError: if there is no such card.

    """
    name = payment_method.removeprefix("pm_card_")
    if name == payment_method or name not in CARDS:
        message = f"No such PaymentMethod: '{payment_method}'"
        raise wrong(message, "payment_method", "resource_missing")
    return name
