"""What the customers of a chaos run want: drawn from the seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

_ORDINARY_BOOKS = 400
"""So many that sellers are called all the time. Else a few failures are most of what their breakers know of them."""

_BOOKS = ["nowhere", "last-copies", "only-adamant"]
_BOOK_WEIGHTS = [2, 4, 4]
_SPECIAL_BOOK_RATE = 0.1
_LOW_PRICES_MINOR = (500, 900)
_HIGH_PRICES_MINOR = (6_000, 20_000)
_TOO_LOW_RATE = 0.08
_TOKENS = [
    *("tok_ok", "tok_decline", "tok_action_required", "tok_slow", "tok_slow_decline"),
    *("tok_lost_authorize", "tok_lost_capture", "tok_lost_void", "tok_capture_fails"),
]
_TOKEN_WEIGHTS = [76, 2, 1, 3, 2, 4, 5, 4, 3]


@dataclass(frozen=True, slots=True)
class Wish:
    """A purchase that a customer wants, under a key of the customer's.

    Attributes:
        customer: who.
        key: the Idempotency-Key; a purchase made of an offer has none.
        body: what is posted.
        max_minor: the most to pay, in cents.
        watches: whether the customer follows the stream of events; else it asks again and again.
        posts: how many times the request is posted at once, as impatient software does.
        cancels_after_s: how long after the request was accepted it is cancelled; None if never.
        accepts: whether an offer above the most to pay is accepted.

    """

    customer: str
    key: str | None
    body: dict[str, Any]
    max_minor: int
    watches: bool
    posts: int = 1
    cancels_after_s: float | None = None
    accepts: bool = False


def wishes(seed: int, count: int, customers: int) -> list[Wish]:
    """Draw purchases."""
    rng = Random(f"wishes {seed}")
    return [_wish(rng, number, customers) for number in range(count)]


def _wish(rng: Random, number: int, customers: int) -> Wish:
    if rng.random() < _SPECIAL_BOOK_RATE:
        [book] = rng.choices(_BOOKS, _BOOK_WEIGHTS)
    else:
        # Some are wanted much more often than others.
        book = f"book-{int(_ORDINARY_BOOKS * rng.random() ** 2)}"
    low, high = _LOW_PRICES_MINOR if rng.random() < _TOO_LOW_RATE else _HIGH_PRICES_MINOR
    max_minor = rng.randint(low, high)
    [token] = rng.choices(_TOKENS, _TOKEN_WEIGHTS)
    return Wish(
        customer=f"customer-{rng.randrange(customers)}",
        key=f"wish-{number}",
        body={"book_id": book, "max_price": max_minor / 100, "payment_token": token},
        max_minor=max_minor,
        watches=rng.random() < 0.5,
        posts=2 if rng.random() < 0.1 else 1,
        cancels_after_s=rng.uniform(0, 4) if rng.random() < 0.1 else None,
        accepts=rng.random() < 0.7,
    )
