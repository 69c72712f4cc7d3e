"""What was missed by not asking everybody: the chance that somebody is cheaper, and by how much, and how true that is.

With ``p_i`` the chance that a seller which was not asked undercuts the best price, one of them does with the chance
``1 - prod(1 - p_i)`` if they are independent. They are not, and the ``p_i`` are not exact, so what is said is that
after a recalibration: a logistic regression on its log-odds (Platt 1999), on how much was known of the book
beforehand, and on the square of that, since what is believed of a new book errs otherwise than what is believed of one
of which sellers have said something, and that otherwise than where they have said all. It is fitted to the last
collections in which, after the choice was made, all were asked all the same, and drawn towards what it corrects as by
a few such collections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import Floats

_KEPT = 3000
_HALF_LIFE = 200.0
"""In collections, while there are few; then a part of all that are kept, since what is believed changes ever less, and
by 300 collections a chance of a quarter is known to two and a half points only."""

_HALF_LIFE_PART = 1.0 / 3.0

_GROWN = 400
"""Collections; the part of so many that came true is known to some two points."""

_BORN = 60
"""Likewise; by so many it is known roughly how much there is to save."""

_MUCH = 100.0
"""Answers: about a collection of them. So one collection more of a book that has had many changes little."""

_REFIT_EVERY = 5
_RIDGE = 1.0
_NEWTON_STEPS = 12
_LEAST = 1e-4
_BINS = 10
_COLUMNS = 3
_TERMS = 4


@dataclass(frozen=True, slots=True)
class Raw:
    """What the beliefs say, before it is corrected.

    Attributes:
        chance: that somebody who was not asked is cheaper.
        saving: by how much, if so, on average; as a part of the best price.
        known: how much sellers had said of this book before: the logarithm of one and their answers by the hundred.

    """

    chance: float
    saving: float
    known: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What the answer says of the sellers that were not asked.

    Attributes:
        asked: how many were.
        of: of how many.
        chance_cheaper: the chance that one of the others is cheaper than the best; 1 if there is no best.
        expected_saving_minor: by how much, if so, on average, in minor units; None if there is no best.

    """

    asked: int
    of: int
    chance_cheaper: float
    expected_saving_minor: int | None


def raw_coverage(undercuts: Floats, savings: Floats, known: int = 0) -> Raw:
    """Put together what is expected of each seller that was not asked.

    Args:
        undercuts: the chance of each to be cheaper than the best.
        savings: what each can be expected to save, as a part of the best price.
        known: how many sellers had said before whether they have this book.

    """
    total = float(np.sum(undercuts))
    none = float(np.sum(np.log1p(-np.minimum(undercuts, np.float32(0.999)))))
    saving = float(np.sum(savings)) / total if total > 0 else 0.0
    return Raw(1.0 - float(np.exp(none)), saving, float(np.log1p(known / _MUCH)))


class Calibration:
    """Corrects what the beliefs say by what came true; learns all the time."""

    def __init__(self) -> None:
        self._said: list[float] = []
        self._known: list[float] = []
        self._true: list[bool] = []
        self._weights = _UNCORRECTED
        self._saved, self._said_saved = 4.0, 4.0
        self._unfitted = 0

    @property
    def is_young(self) -> bool:
        """Whether it has seen too few collections yet to say much."""
        return len(self._said) < _GROWN

    @property
    def is_new(self) -> bool:
        """Whether it has seen too few collections yet to go by what it says."""
        return len(self._said) < _BORN

    def correct(self, raw: Raw) -> Raw:
        """Give what should have been said."""
        terms = _terms(np.array([_log_odds(raw.chance)]), np.array([raw.known]))
        odds = min(max(float((self._weights @ terms)[0]), -30.0), 30.0)
        chance = float(1.0 / (1.0 + np.exp(-odds)))
        return Raw(chance, raw.saving * self._saved / self._said_saved, raw.known)

    def learn(self, raw: Raw, saved: float) -> None:
        """Take note of a collection of which the truth is known.

        Args:
            raw: what the beliefs said.
            saved: what the best of those that would not have been asked was below the best, as a part of that; 0 if
                none was.

        """
        self._said.append(_log_odds(raw.chance))
        self._known.append(raw.known)
        self._true.append(saved > 0)
        if len(self._said) > _KEPT:
            del self._said[0], self._known[0], self._true[0]
        if saved > 0:
            # Weighed by what it is about, and fading.
            self._saved = self._saved * 0.998 + saved / max(raw.saving, _LEAST)
            self._said_saved = self._said_saved * 0.998 + 1.0
        self._unfitted += 1
        if self._unfitted >= _REFIT_EVERY:
            self._unfitted = 0
            self._fit()

    def dump(self) -> NDArray[np.float64]:
        """Give what was learned: a row for each collection.

        In it are what was said, as log-odds; whether it came true; how much was known of the book.
        """
        return np.array([self._said, self._true, self._known], np.float64).T

    def load(self, rows: NDArray[np.float64]) -> None:
        """Take over what was learned; nothing was known of books where rows do not say so."""
        self._said = rows[:, 0].tolist()
        self._true = [bool(true) for true in rows[:, 1]]
        self._known = rows[:, 2].tolist() if rows.shape[1] == _COLUMNS else [0.0] * len(rows)
        self._fit()

    def _fit(self) -> None:
        true = np.array(self._true, np.float64)
        # What is believed becomes better and the world changes: old ones count for less.
        half_life = max(_HALF_LIFE, len(true) * _HALF_LIFE_PART)
        weight = 0.5 ** (np.arange(len(true))[::-1] / half_life)
        terms = _terms(np.array(self._said), np.array(self._known))
        weights = _UNCORRECTED
        for _ in range(_NEWTON_STEPS):
            chance = 1.0 / (1.0 + np.exp(-np.clip(weights @ terms, -30.0, 30.0)))
            gradient = (terms * weight) @ (chance - true) + _RIDGE * (weights - _UNCORRECTED)
            curvature = (terms * (weight * chance * (1.0 - chance))) @ terms.T
            step = np.linalg.solve(curvature + _RIDGE * np.eye(_TERMS), gradient)
            # Far from the answer a whole step may lead further away.
            weights = weights - step / max(1.0, float(np.linalg.norm(step)))
        self._weights = weights


_UNCORRECTED = np.array([1.0, 0.0, 0.0, 0.0])


def _terms(said: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give what the correction is a sum of, a row each."""
    return np.stack([said, np.ones_like(said), known, known**2 / 2.0])


@dataclass(frozen=True, slots=True)
class Bin:
    """Statements that were about alike: their mean, the part that came true, and how many there were."""

    said: float
    true: float
    count: int


def reliability(said: NDArray[np.float64], true: NDArray[np.bool_], bins: int = _BINS) -> list[Bin]:
    """Give the reliability diagram: statements in order, in as many groups of equal size."""
    order = np.argsort(said, kind="stable")
    return [
        Bin(float(np.mean(said[part])), float(np.mean(true[part])), len(part))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Give the expected calibration error: the mean of what groups said beside what came true."""
    count = sum(group.count for group in bins)
    return sum(group.count * abs(group.said - group.true) for group in bins) / count


def _log_odds(chance: float) -> float:
    bounded = min(max(chance, _LEAST), 1.0 - _LEAST)
    return float(np.log(bounded / (1.0 - bounded)))
