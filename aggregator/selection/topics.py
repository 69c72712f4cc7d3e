"""Kinds of books, by who has them: what a category says too vaguely, and a seller's answers for it too rarely.

Each book is of one of some topics, each category a mixture of them, and each seller has a rate in each topic, shrunk to
its rate overall. What a book is of shows in who has it: the posterior over topics given the answers so far, by which
these answers are then counted (online expectation maximisation, as for Hofmann's aspect model, 1999). So a seller of
cookery books that had one from one publisher is asked for those of another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import Floats, Rows, TopicColumns

TOPICS = 64
PRIOR = np.float32(6.0)
"""What the prior of a seller's rate in a topic weighs, in answers."""

_MOST = np.float32(300.0)
_MIXTURE_PRIOR = 1.0
_FIRST = 1.0
_TEMPER = 0.5
"""Answers are less independent than the likelihood has them."""

_NEGLIGIBLE = 0.03
_LEAST = np.float32(1e-4)
_HIGHEST = np.float32(0.95)


class Topics:
    """The rates of sellers, a row each, by topic, a column each; and what categories are mixed of."""

    def __init__(self, sellers: int) -> None:
        self.asked = np.zeros((sellers, TOPICS), np.float32)
        self.had = np.zeros((sellers, TOPICS), np.float32)
        self._rates = np.zeros((sellers, TOPICS), np.float32)
        self._mixtures: dict[str, NDArray[np.float64]] = {}

    def grow(self, sellers: int, rate: float) -> None:
        """Make room for so many sellers; take the new ones for such with this rate everywhere."""
        for name in ("asked", "had", "_rates"):
            old = getattr(self, name)
            new = np.full((sellers, TOPICS), rate if name == "_rates" else 0.0, np.float32)
            new[: len(old)] = old
            setattr(self, name, new)

    def mixture(self, category: str) -> NDArray[np.float64]:
        """Give the part of a category that is of each topic, before anything is known of the book itself."""
        counts = self._mixtures.get(category)
        if counts is None:
            return np.full(TOPICS, 1.0 / TOPICS)
        mixture: NDArray[np.float64] = counts / counts.sum()
        return mixture

    def fit(self, rows: Rows, had: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Give the log-likelihood of some answers about a book under each topic."""
        if not len(rows):
            return np.zeros(TOPICS)
        rates = self._rates[rows]
        logs = np.log(np.where(had[:, None], rates, np.float32(1.0) - rates)).sum(axis=0)
        fitted: NDArray[np.float64] = logs.astype(np.float64) * _TEMPER
        return fitted

    def posterior(self, category: str, fit: NDArray[np.float64]) -> Floats:
        """Give the chance of each topic for a book of a category with answers of such a likelihood."""
        logs = np.log(self.mixture(category)) + fit
        chances = np.exp(logs - logs.max())
        chances[chances < _NEGLIGIBLE] = 0.0
        posterior: Floats = (chances / chances.sum()).astype(np.float32)
        return posterior

    def rates(self, posterior: Floats) -> Floats:
        """Give each seller's rate for a book."""
        # Not by BLAS, which would set all cores to a product that one does in the time of waking the others.
        rates: Floats = np.einsum("ij,j->i", self._rates, posterior)
        return rates

    def rates_of(self, posterior: Floats, rows: Rows) -> Floats:
        """Give the rate of some sellers for a book."""
        rates: Floats = np.einsum("ij,j->i", self._rates[rows], posterior)
        return rates

    def learn(
        self,
        category: str,
        posterior: Floats,
        rows: Rows,
        had: NDArray[np.bool_],
        rates: Floats,
    ) -> None:
        """Count answers about a book.

        Args:
            category: of the book.
            posterior: of its topics, these answers included.
            rows: who answered.
            had: whether each has it.
            rates: of each overall.

        """
        counts = self._mixtures.get(category)
        if counts is None:
            # They would all stay alike if they began alike.
            counts = np.full(TOPICS, _MIXTURE_PRIOR / TOPICS)
            counts[len(self._mixtures) % TOPICS] += _FIRST
            self._mixtures[category] = counts
        counts *= 0.995
        counts += posterior * min(len(rows) / 50.0, 1.0)
        fade = _MOST / (_MOST + posterior)
        self.asked[rows] = self.asked[rows] * fade + posterior
        self.had[rows] = self.had[rows] * fade + posterior * had[:, None]
        # Of all topics: what a seller is in those where it was not asked is what it is overall.
        self._find_rates(rows, rates)

    def dump(self) -> TopicColumns:
        """Give all of it in its plain form."""
        rows = np.flatnonzero(self.asked.any(axis=1)).astype(np.int32)
        mixtures = {name: counts.copy() for name, counts in self._mixtures.items()}
        return TopicColumns(
            rows=rows, asked=self.asked[rows], had=self.had[rows], mixtures=mixtures
        )

    def load(self, columns: TopicColumns, rates: Floats) -> None:
        """Take all of it over; ``rates`` are those of the sellers overall. Of another number of topics nothing is."""
        if columns.asked.shape[1:] != (TOPICS,):
            return
        self._mixtures = {name: counts.copy() for name, counts in columns.mixtures.items()}
        self.asked[columns.rows] = columns.asked
        self.had[columns.rows] = columns.had
        self._find_rates(columns.rows, rates)

    def forget(self, row: int, rate: float) -> None:
        """Forget a seller; take it for one with this rate everywhere."""
        self.asked[row] = self.had[row] = 0.0
        self._rates[row] = max(rate, float(_LEAST))

    def _find_rates(self, rows: Rows, rates: Floats) -> None:
        found = (self.had[rows] + PRIOR * rates[:, None]) / (self.asked[rows] + PRIOR)
        self._rates[rows] = np.clip(found, _LEAST, _HIGHEST)
