"""The outcome of a purchase in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh.money import Money

NOT_AVAILABLE: Final = "No sellers had this book in stock at the time of request"
CANCELLED: Final = "You cancelled this request in time; nothing was charged"
RESUBMIT: Final = "resubmit_with_higher_max_price"
"""What to do about a price that is too high, for programs."""

FAILURES: Final = {
    "card_declined": "The card was declined; nothing was charged. Try another card",
    "action_required": (
        "The card wants an action of its holder, which cannot be asked for here; nothing was charged. Try another card"
    ),
    "payment_token_invalid": (
        "The payment token is unknown or cannot be used; nothing was charged. Send a fresh one"
    ),
    "payment_unavailable": (
        "The payment provider could not be reached in time; nothing was charged. Try again"
    ),
    "no_seller_answered": (
        "Too few of the sellers answered to say whether the book can be had; nothing was charged. Try again later"
    ),
    "capture_refused": (
        "The card refused the charge, so the order was cancelled; nothing was charged. Try another card"
    ),
    "out_of_time": "The purchase could not be finished in time; nothing was charged. Try again",
    "authorization_expiring": (
        "The card reserves the amount for too short a time; nothing was charged. Try another card"
    ),
}
"""By the word for why it failed."""


def price_not_met(lowest: Money, max_price: Money) -> str:
    """Say how far the lowest price is from what the customer would pay."""
    return f"Best price ({lowest}) exceeds your max ({max_price})"
