"""Which books a seller has, how many copies, and at what price: computed from the seed, never stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from seller_sim.domain.draws import between, draws

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seller_sim.domain.behaviour import Behaviour

_MICROSECONDS = 1_000_000
_CHEAPEST_BASE_MINOR = 499
_DEAREST_BASE_MINOR = 7_999


class Condition(IntEnum):
    """Condition of a copy, with the numbers of the contract."""

    NEW = 1
    LIKE_NEW = 2
    VERY_GOOD = 3
    GOOD = 4
    ACCEPTABLE = 5


_USED_PRICES = {
    Condition.LIKE_NEW: 0.8,
    Condition.VERY_GOOD: 0.65,
    Condition.GOOD: 0.5,
    Condition.ACCEPTABLE: 0.35,
}
_MOST_USED_COPIES = 3


@dataclass(frozen=True, slots=True)
class Offer:
    """Copies of one book in one condition at one price, in minor units; ``copies`` before any was sold."""

    condition: Condition
    price_minor: int
    shipping_minor: int
    total_minor: int
    copies: int


@dataclass(frozen=True, slots=True)
class FixedOffer:
    """New copies that the scenario gives to a seller at a total of its own, which never drifts."""

    total_minor: int
    copies: int


@dataclass(frozen=True, slots=True)
class Book:
    """What a scenario says of one book; None leaves it to chance.

    Attributes:
        base_minor: what a new copy costs at a seller whose price level is 1, in minor units.
        carried: the part of the sellers that carry it, instead of each seller's own ``carries``.
        least_total_minor: no total of any seller is below this.
        copies: new copies at each seller that has it, instead of 1 to ``max_copies``.
        offers: by seller id, offers of sellers that have it whatever chance says.

    """

    book_id: str
    title: str
    author: str
    base_minor: int | None = None
    carried: float | None = None
    least_total_minor: int = 0
    copies: int | None = None
    offers: Mapping[str, FixedOffer] = field(default_factory=dict)


def offers_of(
    *, seed: int, seller_id: str, behaviour: Behaviour, book_id: str, book: Book | None, now_us: int
) -> list[Offer] | None:
    """Give what a seller offers of a book: none when it has no copies, None when it does not carry the book.

    The price of a new copy is ``base * level * (1 ± noise) * (1 ± drift)``; a used one costs a fixed part of that.

    Args:
        seed: seed of the scenario.
        seller_id: the seller.
        behaviour: how it behaves now.
        book_id: the book.
        book: what the scenario says of it, if anything.
        now_us: the time, in microseconds since 1970; it decides the drift of prices.

    """
    fixed = book.offers.get(seller_id) if book else None
    if fixed:
        shipping_minor = min(behaviour.shipping_minor, fixed.total_minor)
        return [
            Offer(
                Condition.NEW,
                fixed.total_minor - shipping_minor,
                shipping_minor,
                fixed.total_minor,
                fixed.copies,
            )
        ]
    carry, stock, noise, used, kind, copies, used_copies, _ = draws(seed, seller_id, book_id)
    carried = behaviour.carries if book is None or book.carried is None else book.carried
    if carry >= carried:
        return None
    if stock >= behaviour.in_stock:
        return []

    base_minor = book.base_minor if book and book.base_minor else _base_minor(seed, book_id)
    new_minor = base_minor * behaviour.price_level
    new_minor *= between(1 - behaviour.price_noise, 1 + behaviour.price_noise, noise)
    if behaviour.price_drift:
        period = now_us // int(behaviour.price_drift_period_s * _MICROSECONDS)
        drift = draws(seed, seller_id, book_id, period)[0]
        new_minor *= between(1 - behaviour.price_drift, 1 + behaviour.price_drift, drift)
    least_total_minor = book.least_total_minor if book else 0
    chance_copies = 1 + int(copies * behaviour.max_copies)
    new_copies = (book and book.copies) or chance_copies

    shipping_minor = behaviour.shipping_minor
    offers = [_offer(Condition.NEW, new_minor, shipping_minor, least_total_minor, new_copies)]
    if used < behaviour.used:
        condition = Condition(2 + int(kind * len(_USED_PRICES)))
        used_minor = new_minor * _USED_PRICES[condition]
        few = 1 + int(used_copies * _MOST_USED_COPIES)
        offers.append(_offer(condition, used_minor, shipping_minor, least_total_minor, few))
    return offers


def _offer(
    condition: Condition, minor: float, shipping_minor: int, least_total_minor: int, copies: int
) -> Offer:
    total_minor = max(round(minor) + shipping_minor, least_total_minor, shipping_minor + 1)
    return Offer(condition, total_minor - shipping_minor, shipping_minor, total_minor, copies)


@lru_cache(maxsize=10_000)
def _base_minor(seed: int, book_id: str) -> int:
    # Squared, because most books are cheap.
    return round(between(_CHEAPEST_BASE_MINOR, _DEAREST_BASE_MINOR, draws(seed, book_id)[0] ** 2))
