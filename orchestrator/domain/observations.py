"""What others tell of a purchase. They only write it down: the worker that claims the purchase acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mesh.money import Money


class Decision(StrEnum):
    """What an operator may decide about a purchase with an open flag."""

    RETRY = "retry"
    """Take the step again that led to the flag."""
    ORDER_STANDS = "order_stands"
    """The seller has confirmed the order, whatever it answered to us: under which name and for which total."""
    NO_ORDER = "no_order"
    """There is no order at the seller, and there will be none."""
    PAYMENT_SETTLED = "payment_settled"
    """The payment was settled by hand: what the provider says now is taken as it is."""
    REFUND = "refund"
    """Give back what was charged."""
    CLOSE = "close"
    """All is settled by hand, or written off: nothing is left to do."""


@dataclass(frozen=True, slots=True)
class PaymentChanged:
    """Something about the payment has changed at the provider; ``detail`` is for people.

    ``provider_id`` is the provider's name for it, where whoever tells knows that: the purchase may not.
    """

    detail: str = ""
    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """Something about the order under ``key`` has changed at its seller; ``detail`` is for people."""

    key: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Resolve:
    """An operator's decision and the reason for it; ``order_id`` and ``total`` with ``ORDER_STANDS``.

    ``flag`` is the number of the flag that the operator looked at; None in decisions from before that was asked for.
    """

    decision: Decision
    reason: str
    order_id: str | None = None
    total: Money | None = None
    flag: int | None = None


Told: TypeAlias = PaymentChanged | OrderChanged | Resolve


@dataclass(frozen=True, slots=True)
class Observation:
    """Something that was told of a purchase: the how manieth, by whom, and what."""

    number: int
    by: str
    what: Told
