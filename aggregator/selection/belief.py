"""What is to be expected of every seller for one book at one moment, from what was learned.

The logarithm of a seller's total is taken as logistic: nearly normal, with heavier tails, and what is asked of it has a
closed form. With mean ``mu``, spread ``s = sigma sqrt(3) / pi`` and a price ``t`` to undercut, ``z = (t - mu) / s``:

    P(X < t) = 1 / (1 + exp(-z)),    E[(t - X)+] = s log(1 + exp(z))

A price that the seller has said before is likely still the same; only with the chance that it has changed does it
scatter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import Floats, Rows, State
from aggregator.selection.statistics import (
    AGE_BOUNDS_S,
    CATEGORY_PRICE_PRIOR,
    MOST_RATE,
    SELLER_PRICE_PRIOR,
    Book,
    Category,
    Statistics,
    commonness,
    own_rates,
    places,
    sells,
)

_LOGISTIC = np.float32(np.sqrt(3.0) / np.pi)
_ANSWERS_PRIOR = np.float32(1.0)
_FAILS = np.float32(0.02)
_SCATTER_PRIOR = np.float32(6.0)
_UNLIKELY = np.float32(2.0)
_LEAST_SIGMA = 0.02
_UNKNOWN_STRENGTH = np.float32(3.0)
_MOST_STRENGTH = np.float32(12.0)
_STEEPEST = np.float32(30.0)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What sellers said of this very book before.

    Attributes:
        rows: who.
        log_total: what it cost, as a logarithm; nan for those who had none.
        available: the chance that they have it now.
        changed: the chance that the price is another now.
        sigma: by how much, if so.

    """

    rows: Rows
    log_total: Floats
    available: Floats
    changed: Floats
    sigma: Floats


@dataclass(frozen=True, slots=True)
class Belief:
    """Columns by row.

    Attributes:
        available: the chance that the seller answers with a price.
        strength: how many observations that is worth.
        mu: the expected logarithm of its total above the book's level.
        doubt: the standard deviation of ``mu``.
        sigma: that of a price around it.
        level: the logarithm of the book's level in minor units; None before anything is known of it.
        recalled: what was said of the book before. ``available`` and ``mu`` have it too.
        best: the logarithm of the lowest total over the level that books of this category usually have.

    """

    available: Floats
    strength: Floats
    mu: Floats
    doubt: Floats
    sigma: Floats
    level: float | None
    recalled: Recalled
    best: float

    def undercuts(self, target: float) -> Floats:
        """Give the chance that each seller has the book for less than a price: its logarithm over the level."""
        sigma = np.sqrt(self.sigma**2 + self.doubt**2)
        chance = self.available * _below(target, self.mu, sigma)
        recalled = self.recalled
        if self.level is not None and len(recalled.rows):
            logs = recalled.log_total - np.float32(self.level)
            moved = _below(target, logs, recalled.sigma)
            same = (logs < target).astype(np.float32)
            of_old = recalled.available * (same + recalled.changed * (moved - same))
            priced = np.isfinite(logs)
            chance[recalled.rows[priced]] = of_old[priced]
        return chance

    def savings(self, target: float) -> Floats:
        """Give what each seller can be expected to save below a price, as a part of it."""
        sigma = np.sqrt(self.sigma**2 + self.doubt**2)
        saving = self.available * depth(target, self.mu, sigma)
        recalled = self.recalled
        if self.level is not None and len(recalled.rows):
            logs = recalled.log_total - np.float32(self.level)
            moved = depth(target, logs, recalled.sigma)
            same = np.maximum(np.float32(target) - logs, np.float32(0.0))
            of_old = recalled.available * (same + recalled.changed * (moved - same))
            priced = np.isfinite(logs)
            saving[recalled.rows[priced]] = of_old[priced]
        return saving


@dataclass(frozen=True, slots=True)
class Heard:
    """What the collection under way has shown.

    Attributes:
        rows: who has answered.
        state: what each said, a ``State``; none FAILED.
        level: the logarithm of the book's level by these answers; None if they do not say.

    """

    rows: Rows
    state: NDArray[np.uint8]
    level: float | None


def believe(
    statistics: Statistics, book_id: str, category: str, now_s: float, heard: Heard | None = None
) -> Belief:
    """Give what is to be expected of everybody, answers of the collection under way taken into account."""
    book = statistics.book(book_id)
    cells = statistics.category(category)
    rows, state = _first(book, heard)
    fit = statistics.topics.fit(rows, sells(state))
    if book is not None:
        fit += book.kind.fit
    rate = statistics.topics.rates(statistics.topics.posterior(category, fit))
    rate *= np.float32(statistics.stocked)
    mu, doubt, sigma = _prices(statistics, cells)
    if cells is None:
        available, strength = rate, statistics.asked + _UNKNOWN_STRENGTH
        best = statistics.best_mean
    else:
        own = own_rates(cells.asked, cells.had, rate)
        # Whether the seller is something of its own in this category: the two explanations, by how they did so far.
        available = rate + (own - rate) / (np.float32(1.0) + np.exp(_UNLIKELY - cells.apart))
        strength = cells.asked + np.minimum(statistics.asked + _UNKNOWN_STRENGTH, _MOST_STRENGTH)
        best = cells.best_mean + (statistics.best_mean - cells.best_mean) / (
            cells.best_weight + 1.0
        )
    if book is not None:
        rows = np.concatenate([book.rows, rows])
        state = np.concatenate([book.state, state])
    available = available * commonness(state == State.IN_STOCK, available[rows])
    answers = np.float32(1.0) - (statistics.failed + _ANSWERS_PRIOR * _FAILS) / (
        statistics.calls + _ANSWERS_PRIOR
    )
    level = None if heard is None else heard.level
    recalled = _NOTHING
    if book is not None:
        recalled = _recall(statistics, book, now_s)
        available[recalled.rows] = recalled.available
        priced = np.isfinite(recalled.log_total)
        of_old, logs = recalled.rows[priced], recalled.log_total[priced]
        if level is None:
            level = statistics.level(category, of_old, logs)
        if level is not None:
            mu[of_old] = logs - np.float32(level)
    available = np.minimum(available * answers, MOST_RATE)
    recalled = replace(recalled, available=available[recalled.rows])
    return Belief(available, strength, mu, doubt, sigma, level, recalled, best)


def _first(book: Book | None, heard: Heard | None) -> tuple[Rows, NDArray[np.uint8]]:
    """Give who has answered about this book for the first time, and what."""
    if heard is None:
        return np.empty(0, np.int32), np.empty(0, np.uint8)
    if book is None:
        return heard.rows, heard.state
    first = np.ones(len(heard.rows), np.bool_)
    first[places(book.rows, heard.rows)[1]] = False
    return heard.rows[first], heard.state[first]


def _prices(statistics: Statistics, cells: Category | None) -> tuple[Floats, Floats, Floats]:
    """Give what totals are expected to be above the level of a book, the doubt about that, and their scatter."""
    variance = np.float32(statistics.variance)
    own = (statistics.price_square * statistics.price_weight + variance * _SCATTER_PRIOR) / (
        statistics.price_weight + _SCATTER_PRIOR
    )
    doubt = variance / (statistics.price_weight + np.float32(SELLER_PRICE_PRIOR))
    if cells is None:
        mu = statistics.price_mean.copy()
        doubt += variance / np.float32(CATEGORY_PRICE_PRIOR)
    else:
        mu = statistics.price_mean + cells.price_mean
        doubt += variance / (cells.price_weight + np.float32(CATEGORY_PRICE_PRIOR))
    return mu, np.sqrt(doubt), np.sqrt(own)


def _recall(statistics: Statistics, book: Book, now_s: float) -> Recalled:
    ages = np.searchsorted(AGE_BOUNDS_S, now_s - book.at_s)
    still, changed = statistics.still, statistics.changed
    in_stock = book.state == State.IN_STOCK
    totals = np.where(in_stock, book.total_minor, np.int32(1))
    logs = np.where(in_stock, np.log(totals), np.nan)
    by = np.sqrt(changed[:, 2] / np.maximum(changed[:, 1], 1e-9))
    return Recalled(
        book.rows,
        logs.astype(np.float32),
        (still[book.state, ages, 1] / still[book.state, ages, 0]).astype(np.float32),
        (changed[ages, 1] / changed[ages, 0]).astype(np.float32),
        np.maximum(by[ages], _LEAST_SIGMA).astype(np.float32),
    )


_NOTHING = Recalled(
    np.empty(0, np.int32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
    np.empty(0, np.float32),
)


def _below(target: float, mu: Floats, sigma: Floats) -> Floats:
    z = np.clip((np.float32(target) - mu) / (_LOGISTIC * sigma), -_STEEPEST, _STEEPEST)
    chances: Floats = np.float32(1.0) / (np.float32(1.0) + np.exp(-z))
    return chances


def depth(target: float, mu: Floats, sigma: Floats) -> Floats:
    """Give by how much prices can be expected to be below a target: by their mean and their standard deviation."""
    spread = _LOGISTIC * sigma
    z = np.clip((np.float32(target) - mu) / spread, -_STEEPEST, _STEEPEST)
    depths: Floats = spread * np.log1p(np.exp(z))
    return depths
