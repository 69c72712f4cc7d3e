"""What people do by hand: at the provider, at sellers, and as operators, who decide about flagged purchases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.domain.observations import Decision, Resolve
from orchestrator.domain.purchase import Stage, Status
from sellers.model import Confirmed, OrderNotFound, Pending
from tests.simulation.invariants import Ledgers
from tests.simulation.ours import OurRow


class Hand(StrEnum):
    """What somebody does who is none of us."""

    RECALL = "recall"
    """The seller cancels the order that it has confirmed."""
    CHARGE = "charge"
    """All that is reserved is charged at the provider."""
    GIVE_BACK = "give_back"
    """All that was charged is given back at the provider."""
    GIVE_BACK_PART = "give_back_part"
    """A part of it is."""
    TELL = "tell"
    """Nothing is done: the provider only tells of the payment, as providers do of whatever they have done for us."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something done by hand.

    Attributes:
        after: the effect that it follows, by its name.
        does: what is done.
        in_s: how long after that, in seconds.
        told: whether the provider sends an event of it.

    """

    after: str
    does: Hand
    in_s: float = 2.0
    told: bool = False


PART = 500
"""How much is given back as a part, in minor units."""

Operator = Callable[[Ledgers, OurRow], Resolve]
"""Looks at a purchase that is flagged and at the other side, settles there what is to be settled, and decides."""


def retries(_ledgers: Ledgers, row: OurRow) -> Resolve:
    """Take the cause for gone."""
    return _decided(row, Decision.RETRY)


def has_it_cancelled(ledgers: Ledgers, row: OurRow) -> Resolve:
    """Have the seller cancel the order that it would not cancel for us."""
    _cancel_orders(ledgers, row)
    return _decided(row, Decision.NO_ORDER)


def writes_it_off(ledgers: Ledgers, row: OurRow) -> Resolve:
    """Have the seller cancel the order, and close the purchase; what is still reserved is the reconciler's."""
    _cancel_orders(ledgers, row)
    return _decided(row, Decision.CLOSE)


def charges(ledgers: Ledgers, row: OurRow) -> Resolve:
    """Charge at the provider what the seller charges."""
    attempt = row.purchase.attempt
    assert attempt is not None
    assert attempt.charged is not None
    ledgers.provider.charge_by_hand(row.purchase.request_id, attempt.charged.minor)
    return _decided(row, Decision.PAYMENT_SETTLED)


def settles(_ledgers: Ledgers, row: OurRow) -> Resolve:
    """Take what the provider says as it is."""
    return _decided(row, Decision.PAYMENT_SETTLED)


def gives_the_rest_back(ledgers: Ledgers, row: OurRow) -> Resolve:
    """Give back at the provider what was not given back yet."""
    ledgers.provider.give_back_by_hand(row.purchase.request_id)
    return _decided(row, Decision.PAYMENT_SETTLED)


def refunds(_ledgers: Ledgers, row: OurRow) -> Resolve:
    """Have us give it back."""
    return _decided(row, Decision.REFUND)


def asks_the_seller(ledgers: Ledgers, row: OurRow) -> Resolve:
    """Ask the seller what became of an order that may stand, and have its key closed if nothing has."""
    attempt, stage = row.purchase.attempt, row.purchase.resume
    if row.purchase.status is not Status.PENDING or attempt is None:
        return _decided(row, Decision.RETRY)
    if stage not in {Stage.ORDER, Stage.RESOLVE_ORDER}:
        return _decided(row, Decision.RETRY)
    seller = ledgers.sellers[attempt.seller_id]
    answer = seller.get_order(attempt.key)
    if isinstance(answer, Confirmed):
        return _decided(row, Decision.ORDER_STANDS, answer)
    if isinstance(answer, Pending):
        return _decided(row, Decision.RETRY)
    if isinstance(answer, OrderNotFound):
        seller.close_by_hand(attempt.key)
    return _decided(row, Decision.NO_ORDER)


def _cancel_orders(ledgers: Ledgers, row: OurRow) -> None:
    for seller in ledgers.sellers.values():
        seller.cancel_by_itself(row.purchase.request_id)


def _decided(row: OurRow, decision: Decision, order: Confirmed | None = None) -> Resolve:
    return Resolve(
        decision,
        "as simulated",
        order.order_id if order else None,
        order.total if order else None,
        flag=row.purchase.flag,
    )
