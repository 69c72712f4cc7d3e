"""The small moves that decisions are put together from: pure functions of a purchase."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.domain.events import Finished
from orchestrator.domain.flags import SYSTEM, Settled
from orchestrator.domain.purchase import AuthorizationState, Candidate, FailureReason, Stage
from orchestrator.domain.saga.terms import Next

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mesh.money import Money
    from orchestrator.domain.events import Event
    from orchestrator.domain.purchase import Attempt, Purchase, Release, Status

_MOST_COUNTED = 15
"""Tries without an answer are counted up to here: however long others were silent, it takes several faults of ours in a
row to leave a purchase to an operator."""
_LONGEST_DELAY_S = 30.0


def without_releases(purchase: Purchase, answered: Iterable[Release]) -> Purchase:
    """Take the releases that were answered off the purchase."""
    gone = set(answered)
    if gone.isdisjoint(purchase.plan.releases):
        return purchase
    rest = tuple(release for release in purchase.plan.releases if release not in gone)
    return replace(purchase, plan=replace(purchase.plan, releases=rest))


def begins_order(before: Purchase, after: Purchase) -> bool:
    """Say whether the step from one to the other is an intent to place an order: the point of no return."""
    if after.stage is not Stage.ORDER or after.attempt is None:
        return False
    again = before.attempt is not None and before.attempt.key == after.attempt.key
    return before.stage is not Stage.ORDER or not again


def settled_by_itself(before: Purchase, following: Next) -> Next:
    """Resolve the flags of what went on although an operator was told: it has found its answer meanwhile."""
    stage = following.purchase.stage
    moved_on = stage not in (before.stage, Stage.FLAGGED)
    if not before.flagged or not moved_on or following.flags or following.settled is not None:
        return following
    settled = Settled(SYSTEM, f"{before.stage.value} came to its end: {stage.value} follows")
    return replace(following, purchase=replace(following.purchase, flagged=False), settled=settled)


def to(purchase: Purchase, stage: Stage) -> Purchase:
    """Have a purchase wait for a step that was not tried yet."""
    return replace(purchase, stage=stage, tries=0, resume=None)


def tried_again(purchase: Purchase, longest_delay_s: float = _LONGEST_DELAY_S) -> Next:
    """Try the step again: after 0.25 s, then after twice as long each time."""
    delay_s = min(0.25 * 2 ** min(purchase.tries, 20), longest_delay_s)
    return Next(replace(purchase, tries=counted(purchase)), delay_s=delay_s)


def counted(purchase: Purchase) -> int:
    """Count one more try of the step."""
    return min(purchase.tries + 1, _MOST_COUNTED)


def with_event(event: Event, following: Next) -> Next:
    """Have something happen before what follows."""
    return replace(following, events=(event, *following.events))


def finish(purchase: Purchase, status: Status, reason: FailureReason | None) -> Next:
    """Give the customer the answer."""
    return Next(replace(purchase, status=status, failure_reason=reason), (Finished(),))


def untouched(purchase: Purchase) -> bool:
    """Say whether an authorization certainly was never sent: neither by an earlier claim, nor by a try of this one."""
    return purchase.epoch == 1 and not purchase.tries


def unauthorized(purchase: Purchase) -> Purchase:
    """End a purchase for which nothing was ever to be reserved."""
    authorization = replace(purchase.authorization, state=AuthorizationState.DECLINED)
    return to(replace(purchase, authorization=authorization), Stage.DONE)


def obstructed(purchase: Purchase) -> Purchase:
    """Note that an affordable seller could not be bought from although it had not said no."""
    return replace(purchase, plan=replace(purchase.plan, obstructed=True))


def consider(purchase: Purchase, candidate: Candidate) -> Purchase:
    """Take a price of a seller into the order of sellers, or among those that are too dear."""
    plan = purchase.plan
    if candidate.total.minor <= purchase.max_price.minor:
        ranked = tuple(sorted((*plan.candidates, candidate), key=Candidate.rank))
        return replace(purchase, plan=replace(plan, candidates=ranked))
    if plan.dearer is None or candidate.rank() < plan.dearer.rank():
        return replace(purchase, plan=replace(plan, dearer=candidate))
    return purchase


def chargeable(purchase: Purchase, total: Money | None) -> bool:
    """Say whether a total is within what was agreed with the seller, and within what is authorized."""
    limits = purchase.max_price, attempt_of(purchase).agreed
    return total is not None and all(
        total.currency == limit.currency and total.minor <= limit.minor for limit in limits
    )


def in_currency_of(purchase: Purchase, total: Money) -> Money | None:
    """Give what a seller charges; None in another currency, in which nothing of a purchase is kept."""
    return total if total.currency == purchase.max_price.currency else None


def why_failed(purchase: Purchase) -> FailureReason:
    """Give the reason of a purchase that an operator ends."""
    if purchase.authorization.provider_id is None:
        return FailureReason.PAYMENT_UNAVAILABLE
    charged = charged_by_seller(purchase) is not None
    return FailureReason.CAPTURE_REFUSED if charged else FailureReason.OUT_OF_TIME


def charged_by_seller(purchase: Purchase) -> Money | None:
    """Give what the seller charges, where an order was confirmed."""
    return purchase.attempt.charged if purchase.attempt is not None else None


def attempt_of(purchase: Purchase) -> Attempt:
    """Give the present try of a purchase in whose stage there is one."""
    if purchase.attempt is None:
        msg = f"{purchase.request_id} is in stage {purchase.stage} without an attempt"
        raise ValueError(msg)
    return purchase.attempt
