"""Kinds of books, by who has them: what a category says too vaguely, and a seller's answers for it too rarely.

Each book is of one of some topics, each category a mixture of them, and what a book is of shows in who has it: the
posterior over topics given the answers so far, by which these are then counted. Books are counted anew now and then, as
the topics are known better: incremental expectation maximisation (Neal and Hinton 1998), each book's answers taken out,
weighed by what all others say, and put back. So a seller of cookery books that had one from one publisher is asked for
those of another.

Sellers are of two types. One has a part of all books, whatever their kind, so that each answer tells of all topics. The
other has particular kinds: in a topic it has either next to nothing, or a part that is learned there alone; before it
was asked there, most likely nothing. What its answers say of its type is the ratio of their likelihoods, all these
parts integrated out; a seller's rate is the mean of both types', by the chance of each.

Rates are of Poisson counts with gamma priors: with shape ``a`` and scale ``1 / b``, ``h`` of ``n`` have a likelihood of
``b^a G(h + a) / G(a) / (n + b)^(h + a)`` and a posterior mean of ``(h + a) / (n + b)``. How many sellers have a book
differs from book to book, and says nothing of its kind: that, too, is integrated out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import Floats, Rows, TopicColumns

TOPICS = 64
WHOLE = 50.0
"""Answers about a book by which its category is known to have one more of its topic."""

_MIXTURE_PRIOR = 1.0
_FIRST = 1.0
_COMMON_PRIOR = 0.5
"""How sure it is, in sellers, that a book is had by as many as others."""

_NEGLIGIBLE = 0.03
_LEAST = np.float32(1e-4)
_HIGHEST = np.float32(0.95)
_MOST_ODDS = np.float32(20.0)

_GENERAL = np.float32(0.23)
"""The part of sellers that have books of all kinds alike."""

_KIND = np.float32(0.05)
"""The part of the kinds that a seller of particular kinds has."""

_STRAY = np.float32(0.002)
"""What it has of the others."""

_SHAPE = np.float32(0.5)
"""Of both priors. Rates differ by more than they are large: most sellers have few books of what they sell, some all."""

_GENERAL_SCALE = np.float32(10.0)
_KIND_SCALE = np.float32(5.0)


class Topics:
    """The answers of sellers, a row each, by topic, a column each; and what categories are mixed of."""

    def __init__(self, sellers: int) -> None:
        self.asked = np.zeros((sellers, TOPICS), np.float32)
        self.had = np.zeros((sellers, TOPICS), np.float32)
        self._own = np.zeros((sellers, TOPICS), np.float32)
        """The rate in each topic of a seller that has particular kinds."""
        self._evidence = np.zeros((sellers, TOPICS), np.float32)
        """The logarithm of the likelihood of its answers there, if it is such a one."""
        self._of_kinds = np.zeros(sellers, np.float32)
        """That of all its answers."""
        self._general = np.zeros(sellers, np.float32)
        """The chance that it is not."""
        self._flat = np.zeros(sellers, np.float32)
        """Its rate, if so."""
        self._mixtures: dict[str, NDArray[np.float64]] = {}
        self.work_out()

    def grow(self, sellers: int) -> None:
        """Make room for so many sellers."""
        more = sellers - len(self.asked)
        self.asked = np.pad(self.asked, ((0, more), (0, 0)))
        self.had = np.pad(self.had, ((0, more), (0, 0)))
        self.work_out()

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
        general = self._general[rows][:, None]
        rates = general * self._flat[rows][:, None] + (np.float32(1.0) - general) * self._own[rows]
        np.clip(rates, _LEAST, _HIGHEST, out=rates)
        weight = np.count_nonzero(had) + _COMMON_PRIOR
        fitted: NDArray[np.float64] = np.log(rates[had]).sum(axis=0, dtype=np.float64)
        fitted -= weight * np.log(rates.sum(axis=0, dtype=np.float64) + _COMMON_PRIOR)
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
        return self._mixed(posterior, self._own, self._general, self._flat)

    def rates_of(self, posterior: Floats, rows: Rows) -> Floats:
        """Give the rate of some sellers for a book."""
        return self._mixed(posterior, self._own[rows], self._general[rows], self._flat[rows])

    def count(
        self, posterior: Floats, rows: Rows, had: NDArray[np.bool_], weight: float = 1.0
    ) -> None:
        """Count answers about a book; take them out again by a negative weight.

        Args:
            posterior: of its topics.
            rows: who answered, none twice.
            had: whether each sells it.
            weight: of each answer.

        """
        columns = np.flatnonzero(posterior)
        by = posterior[columns] * np.float32(weight)
        self._add(rows, columns, by, by * had[:, None])

    def change(self, posterior: Floats, rows: Rows, had: NDArray[np.bool_]) -> None:
        """Count sellers that now have a book as such, or that no longer do, whose answers were counted otherwise."""
        columns = np.flatnonzero(posterior)
        more = np.where(had, np.float32(1.0), np.float32(-1.0))
        self._add(rows, columns, np.float32(0.0), posterior[columns] * more[:, None])

    def weigh(self, category: str, posterior: Floats, by: float) -> None:
        """Take note of more of a book of a category, or of less by a negative number: 1 is the whole of it."""
        counts = self._mixtures.get(category)
        if counts is None:
            counts = np.full(TOPICS, _MIXTURE_PRIOR / TOPICS)
            if len(self._mixtures) < TOPICS:
                # They would all stay alike if they began alike.
                counts[len(self._mixtures)] += _FIRST
            self._mixtures[category] = counts
        counts += posterior * by
        np.maximum(counts, _MIXTURE_PRIOR / TOPICS, out=counts)

    def fade(self, by: float) -> None:
        """Let all weights fade."""
        self.asked *= np.float32(by)
        self.had *= np.float32(by)
        for counts in self._mixtures.values():
            np.maximum(counts * by, _MIXTURE_PRIOR / TOPICS, out=counts)
        self.work_out()

    def dump(self) -> TopicColumns:
        """Give all of it in its plain form."""
        rows = np.flatnonzero(self.asked.any(axis=1)).astype(np.int32)
        mixtures = {name: counts.copy() for name, counts in self._mixtures.items()}
        return TopicColumns(
            rows=rows, asked=self.asked[rows], had=self.had[rows], mixtures=mixtures
        )

    def load(self, columns: TopicColumns) -> None:
        """Take all of it over. Of another number of topics nothing is."""
        if columns.asked.shape[1:] != (TOPICS,):
            return
        self._mixtures = {name: counts.copy() for name, counts in columns.mixtures.items()}
        self.asked[columns.rows] = columns.asked
        self.had[columns.rows] = columns.had
        self.work_out()

    def forget(self, row: int) -> None:
        """Forget a seller; take it for one of which nothing is known."""
        self.asked[row] = self.had[row] = 0.0
        self._evidence[row], self._own[row] = _of_kinds(self.asked[row], self.had[row])
        self._of_kinds[row] = self._evidence[row].sum()
        self._find_types(np.array([row], np.int32))

    def work_out(self) -> None:
        """Find the rates of all sellers from their answers."""
        self._evidence, self._own = _of_kinds(self.asked, self.had)
        self._of_kinds = self._evidence.sum(axis=1)
        self._general = np.zeros(len(self.asked), np.float32)
        self._flat = np.zeros(len(self.asked), np.float32)
        self._find_types(np.arange(len(self.asked), dtype=np.int32))

    @staticmethod
    def _mixed(posterior: Floats, own: Floats, general: Floats, flat: Floats) -> Floats:
        # Not by BLAS, which would set all cores to a product that one does in the time of waking the others.
        in_kinds = np.einsum("ij,j->i", own, posterior)
        rates: Floats = general * flat + (np.float32(1.0) - general) * in_kinds
        return np.clip(rates, _LEAST, _HIGHEST)

    def _add(
        self, rows: Rows, columns: NDArray[np.intp], asked: Floats | np.float32, had: Floats
    ) -> None:
        if not len(rows):
            return
        cells = np.ix_(rows, columns)
        old_asked, old_had = self.asked[cells], self.had[cells]
        # What is taken out has faded, and may have been counted in part only.
        new_asked = np.maximum(old_asked + asked, np.float32(0.0))
        new_had = np.clip(old_had + had, np.float32(0.0), new_asked)
        self.asked[cells], self.had[cells] = new_asked, new_had
        evidence, self._own[cells] = _of_kinds(new_asked, new_had)
        self._of_kinds[rows] += (evidence - self._evidence[cells]).sum(axis=1)
        self._evidence[cells] = evidence
        self._find_types(rows)

    def _find_types(self, rows: Rows) -> None:
        asked, had = self.asked[rows].sum(axis=1), self.had[rows].sum(axis=1)
        odds = _gamma_evidence(asked, had, _GENERAL_SCALE) - self._of_kinds[rows]
        odds += np.log(_GENERAL / (np.float32(1.0) - _GENERAL))
        chance = np.float32(1.0) / (
            np.float32(1.0) + np.exp(-np.clip(odds, -_MOST_ODDS, _MOST_ODDS))
        )
        self._general[rows] = chance
        self._flat[rows] = (had + _SHAPE) / (asked + _GENERAL_SCALE)


def _of_kinds(asked: Floats, had: Floats) -> tuple[Floats, Floats]:
    """Give for a seller of particular kinds the log-likelihood of its answers in a topic, and its rate there."""
    sells = np.log(_KIND) + _gamma_evidence(asked, had, _KIND_SCALE)
    strays = np.log(np.float32(1.0) - _KIND) + had * np.log(_STRAY) - asked * _STRAY
    evidence = np.logaddexp(sells, strays)
    chance = np.exp(sells - evidence)
    rate = chance * (had + _SHAPE) / (asked + _KIND_SCALE) + (np.float32(1.0) - chance) * _STRAY
    return evidence, rate


def _gamma_evidence(asked: Floats, had: Floats, scale: np.float32) -> Floats:
    """Give the log-likelihood of answers with a rate from a gamma prior, without the factor that all priors have."""
    shape = had + _SHAPE
    prior = _SHAPE * np.log(scale) - _LOG_GAMMA_OF_SHAPE
    evidence: Floats = prior + _log_gamma(shape) - shape * np.log(asked + scale)
    return evidence


def _log_gamma(x: Floats) -> Floats:
    """Give the logarithm of the gamma function by Stirling's series: for numbers from 1/2 right to 0.015."""
    logs: Floats = (x - np.float32(0.5)) * np.log(x) - x + np.float32(0.5 * np.log(2.0 * np.pi))
    logs += np.float32(1.0 / 12.0) / x
    return logs


_LOG_GAMMA_OF_SHAPE = _log_gamma(np.array([_SHAPE]))[0]
