"""What books cost at which seller, and how long sellers take: made up, the same in every run, cheap to ask."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random

from mesh.money import Money
from sellers.model import Condition, Quote, Unavailable, UnavailableReason

_NOISES = 2**16
_NOT_CARRIED = Unavailable(UnavailableReason.NOT_CARRIED)
_END = datetime(2030, 1, 1, tzinfo=UTC)
"""Later than any simulation: quotes last longer than any cache keeps them."""

MEDIAN_PRICE_MINOR = 2000
LEVELS_SIGMA = 0.6
BIAS_SIGMA = 0.08
NOISE_SIGMA = 0.07
CARRIED = 0.7


class Market:
    """Prices of all books at a number of sellers.

    A total is the level of the book, times what the seller usually asks, times a noise; all log-normal. A seller has
    70 % of all books.
    """

    def __init__(self, sellers: int, seed: int = 1) -> None:
        rng = Random(seed)
        self._biases = [math.exp(rng.gauss(0.0, BIAS_SIGMA)) for _ in range(sellers)]
        self._places = [rng.randrange(_NOISES) for _ in range(sellers)]
        self._noises = [
            math.exp(rng.gauss(0.0, NOISE_SIGMA)) if rng.random() < CARRIED else 0.0
            for _ in range(_NOISES)
        ]
        self._sellers = range(sellers)
        self._level = lru_cache(2**17)(self._make_level)
        self._quote = lru_cache(2**17)(_quote)
        self._best = lru_cache(2**18)(self._find_best)

    def outcome(self, seller: int, book_id: str) -> Quote | Unavailable:
        """Say what a seller answers about a book."""
        total = self._total(seller, *self._level(book_id))
        return self._quote(total) if total else _NOT_CARRIED

    def best(self, book_id: str) -> int | None:
        """Give the lowest total of all sellers in minor units; None if nobody has the book."""
        return self._best(book_id)

    def best_of(self, book_id: str, sellers: Sequence[int]) -> int | None:
        """Give the lowest total of some sellers."""
        level = self._level(book_id)
        return min(filter(None, (self._total(seller, *level) for seller in sellers)), default=None)

    def _find_best(self, book_id: str) -> int | None:
        return self.best_of(book_id, self._sellers)

    def _total(self, seller: int, place: int, level: float) -> int:
        noise = self._noises[(place + self._places[seller]) % _NOISES]
        return int(level * self._biases[seller] * noise)

    @staticmethod
    def _make_level(book_id: str) -> tuple[int, float]:
        """Give the place of a book among the noises, and the level of its prices."""
        place = zlib.crc32(book_id.encode())
        level = MEDIAN_PRICE_MINOR * Random(place).lognormvariate(0.0, LEVELS_SIGMA)
        return place, level


def _quote(total: int) -> Quote:
    return Quote(
        quote_id=f"quote-at-{total}",
        price=Money("USD", total),
        shipping=Money("USD", 0),
        total=Money("USD", total),
        condition=Condition.NEW,
        quantity=3,
        expires_at=_END + timedelta(days=1),
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a seller takes: log-normal around its median, above a floor, in seconds; infinite for a dead one."""

    median_s: float
    sigma: float = 0.4
    floor_s: float = 0.0

    def draw(self, rng: Random) -> float:
        return self.floor_s + self.median_s * math.exp(rng.gauss(0.0, self.sigma))


DEAD = Pace(math.inf)
"""Never answers."""


def healthy(count: int, seed: int = 2) -> list[Pace]:
    """Give sellers that take 0.25 s, one more, one less."""
    rng = Random(seed)
    return [Pace(0.25 * math.exp(rng.gauss(0.0, 0.5))) for _ in range(count)]
