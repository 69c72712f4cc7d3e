"""What follows from what: each function takes a purchase and the outcome of an effect and gives what to commit.

The worker runs one effect, calls the function for its outcome and commits what comes back. Nothing else changes a
purchase. The intent of the next effect is part of that commit: when the stage is ``HOLD``, the attempt to hold stands
in the purchase before the seller is called.

terms     what decisions are made of, and what they give
moves     the small moves that they are put together from
deciding  what all of them share, and what nobody can decide
buying    quotes, holds, orders; the next seller, or the answer
paying    authorization, charge, release, refund; the customer's cancel
hearing   what the provider, the reconciler and operators tell
"""

from __future__ import annotations

from orchestrator.domain.saga.hearing import Hearing, fits
from orchestrator.domain.saga.moves import begins_order, settled_by_itself, without_releases
from orchestrator.domain.saga.terms import (
    MOST_COLLECTIONS,
    MOST_FAULTS,
    MOST_SILENT_COLLECTIONS,
    MOST_TRIES_AT_A_SELLER,
    Limits,
    Moment,
    Next,
    PaymentFound,
    Resolution,
    SellerKind,
)


class Saga(Hearing):
    """The decisions of purchases, under given limits and with what is known of the sellers."""


__all__ = [
    "MOST_COLLECTIONS",
    "MOST_FAULTS",
    "MOST_SILENT_COLLECTIONS",
    "MOST_TRIES_AT_A_SELLER",
    "Limits",
    "Moment",
    "Next",
    "PaymentFound",
    "Resolution",
    "Saga",
    "SellerKind",
    "begins_order",
    "fits",
    "settled_by_itself",
    "without_releases",
]
