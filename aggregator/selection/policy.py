"""The port of a policy, which says whom to ask, and the policies that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.belief import Belief, depth
from aggregator.selection.columns import Floats, Rows, State
from aggregator.selection.statistics import Book, Category, Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a policy is shown at the beginning of a phase. Columns by row, all of one length.

    Attributes:
        open: who may be asked: is healthy, sells in the currency, has budget left, was not asked yet in this
            collection.
        budget: which part of its budget each has left, 0 to 1.
        belief: what is to be expected of each for this book.
        statistics: what was learned of each besides.
        category: what is known of the book's category; None if nothing is.
        book: what is known of the book; None if nothing is.
        target: the price to undercut, as the logarithm of what it is over the book's level: the best so far, or what
            the best of this book was, or what it usually is in this category.

    """

    open: NDArray[np.bool_]
    budget: Floats
    belief: Belief
    statistics: Statistics
    category: Category | None
    book: Book | None
    target: float


class Policy(Protocol):
    """Decides whom to ask.

    Attributes:
        name: what it is called.

    """

    name: str

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        """Give at most ``count`` rows that are open, who should be asked first first."""


def highest(scores: Floats, open_: NDArray[np.bool_], count: int) -> Rows:
    """Give the open rows with the highest scores, the highest first."""
    rows = np.flatnonzero(open_)
    own = scores[rows]
    if count < len(rows):
        kept = np.argpartition(-own, count)[:count]
        rows, own = rows[kept], own[kept]
    return rows[np.argsort(-own, kind="stable")].astype(np.int32)


class RandomChoice:
    """Anyone: what others are compared with."""

    name = "random"

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        return highest(rng.random(len(view.open), np.float32), view.open, count)


class WeightedScore:
    """A sum of five parts, each 0 to 1, with weights that people have set; it explores nothing.

    Book match: 1 if the seller had this book when it was last asked for it, 0.5 if that is not known, else 0. Category:
    the part of its answers in the category that were a price. Price: 1 at half of the level of a book, 0 at one and a
    half. Availability: the part of all its answers that were a price. Speed: 1 for an answer at once, 0 for one after
    3 s.
    """

    name = "weighted"

    _BOOK, _CATEGORY, _PRICE, _AVAILABILITY, _SPEED = 0.40, 0.25, 0.20, 0.10, 0.05
    _SLOWEST_S = 3.0

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        known, cells = view.statistics, view.category
        one = np.float32(1.0)
        match = np.full(len(view.open), 0.5, np.float32)
        if view.book is not None:
            match[view.book.rows] = view.book.state == State.IN_STOCK
        availability = known.had / np.maximum(known.asked, one)
        category = availability if cells is None else cells.had / np.maximum(cells.asked, one)
        price = np.clip(np.float32(1.5) - np.exp(view.belief.mu), 0.0, 1.0)
        speed = np.maximum(one - known.latency_s / np.float32(self._SLOWEST_S), 0.0)
        score = (
            self._BOOK * match
            + self._CATEGORY * category
            + self._PRICE * price
            + self._AVAILABILITY * availability
            + self._SPEED * speed
        )
        # Who is as good as another is asked as often.
        score += rng.random(len(score), np.float32) * np.float32(1e-3)
        return highest(score * view.budget, view.open, count)


class Thompson:
    """The sellers that can be expected to save most, some of them by a draw from what is believed of them.

    A seller's worth is what it can be expected to save below a price that is a margin above the one to undercut, so
    that the next best are asked too: the best may be gone. Most places go by that. A part of them (``explore``) goes by
    the same for a draw of availability and price from their posteriors (Thompson 1933): who is little known may be
    drawn cheap, is asked, and is known. A few places (``newest``) are for whoever was asked least of all, were it as
    unlikely as can be: who sells the books of one publisher only is known by nothing but these. Equal budgets left are
    equal; who has little left is spared.
    """

    name = "thompson"

    _TRIES = np.float32(3.0)
    """So often a seller is asked in a category to see whether it is anything there."""

    def __init__(self, explore: float = 0.15, newest: float = 0.05, margin: float = 0.03) -> None:
        self._explore = explore
        self._newest = newest
        self._margin = margin

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        belief = view.belief
        target = view.target + self._margin
        # Above a quarter of its budget a seller is worth what it is worth.
        spared = np.minimum(view.budget * np.float32(4.0), np.float32(1.0))
        explored, new = round(count * self._explore), math.ceil(count * self._newest)
        best = highest(belief.savings(target) * spared, view.open, count - explored - new)
        left = view.open.copy()
        left[best] = False
        newest = highest(self._newness(view, rng), left, new)
        left[newest] = False
        drawn = highest(self._drawn(belief, target, rng) * spared, left, explored)
        return np.concatenate([best, drawn, newest])

    @classmethod
    def _newness(cls, view: View, rng: np.random.Generator) -> Floats:
        """Order sellers: those hardly asked in this category, of these those asked least of all."""
        known = view.statistics
        times = known.asked + rng.random(len(view.open), np.float32)
        if view.category is not None:
            times += np.float32(1e4) * np.maximum(view.category.asked - cls._TRIES, np.float32(0.0))
        if view.book is not None:
            times[view.book.rows] = np.inf
        # Who answers hardly ever would be the least known for ever; who has little budget left is spared here, too.
        half = np.float32(0.5)
        times[(known.failed > half * (known.calls + 2)) | (view.budget < half / 2)] = np.inf
        return -times

    @staticmethod
    def _drawn(belief: Belief, target: float, rng: np.random.Generator) -> Floats:
        count = len(belief.mu)
        z = rng.standard_normal((2, count), np.float32)
        # A beta posterior of mean a from n observations has the squared variation (1 - a) / (a (n + 1)); drawn as a
        # log-normal of the same, which takes a twentieth of the time.
        a = belief.available
        part = (np.float32(1.0) - a) / (np.maximum(a, np.float32(1e-6)) * (belief.strength + 1))
        spread = np.log1p(part)
        available = np.minimum(a * np.exp(np.sqrt(spread) * z[0] - spread / 2), np.float32(1.0))
        mu = belief.mu + belief.doubt * z[1]
        worth: Floats = available * depth(target, mu, belief.sigma)
        return worth
