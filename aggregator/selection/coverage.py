"""What was missed by not asking everybody: the chance that somebody is cheaper, and by how much, and how true that is.

With ``p_i`` the chance that a seller which was not asked undercuts the best price, one of them does with the chance
``1 - prod(1 - p_i)`` if they are independent. They are not, and the ``p_i`` are not exact, so what is said is that
after a
recalibration: a logistic regression on its log-odds (Platt 1999), fitted to the last collections in which, after the
choice was made, all were asked all the same. It is drawn towards what it corrects as by a few such collections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import Floats

_KEPT = 1000
_HALF_LIFE = 200.0
"""In collections."""

_REFIT_EVERY = 5
_RIDGE = 2.0
_NEWTON_STEPS = 12
_LEAST = 1e-4
_BINS = 10


@dataclass(frozen=True, slots=True)
class Raw:
    """What the beliefs say, before it is corrected.

    Attributes:
        chance: that somebody who was not asked is cheaper.
        saving: by how much, if so, on average; as a part of the best price.

    """

    chance: float
    saving: float


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


def raw_coverage(undercuts: Floats, savings: Floats) -> Raw:
    """Put together what is expected of each seller that was not asked.

    Args:
        undercuts: the chance of each to be cheaper than the best.
        savings: what each can be expected to save, as a part of the best price.

    """
    total = float(np.sum(undercuts))
    none = float(np.sum(np.log1p(-np.minimum(undercuts, np.float32(0.999)))))
    return Raw(1.0 - float(np.exp(none)), float(np.sum(savings)) / total if total > 0 else 0.0)


class Calibration:
    """Corrects what the beliefs say by what came true; learns all the time."""

    def __init__(self) -> None:
        self._said: list[float] = []
        self._true: list[bool] = []
        self._slope, self._offset = 1.0, 0.0
        self._saved, self._said_saved = 4.0, 4.0
        self._unfitted = 0

    def correct(self, raw: Raw) -> Raw:
        """Give what should have been said."""
        odds = min(max(self._slope * _log_odds(raw.chance) + self._offset, -30.0), 30.0)
        return Raw(float(1.0 / (1.0 + np.exp(-odds))), raw.saving * self._saved / self._said_saved)

    def learn(self, raw: Raw, saved: float) -> None:
        """Take note of a collection of which the truth is known.

        Args:
            raw: what the beliefs said.
            saved: what the best of those that would not have been asked was below the best, as a part of that; 0 if
                none was.

        """
        self._said.append(_log_odds(raw.chance))
        self._true.append(saved > 0)
        if len(self._said) > _KEPT:
            del self._said[0], self._true[0]
        if saved > 0:
            # Weighed by what it is about, and fading.
            self._saved = self._saved * 0.998 + saved / max(raw.saving, _LEAST)
            self._said_saved = self._said_saved * 0.998 + 1.0
        self._unfitted += 1
        if self._unfitted >= _REFIT_EVERY:
            self._unfitted = 0
            self._fit()

    def dump(self) -> NDArray[np.float64]:
        """Give what was learned: a row for each collection, what was said as log-odds and whether it came true."""
        return np.array([self._said, self._true], np.float64).T

    def load(self, rows: NDArray[np.float64]) -> None:
        """Take over what was learned."""
        self._said = rows[:, 0].tolist()
        self._true = [bool(true) for true in rows[:, 1]]
        self._fit()

    def _fit(self) -> None:
        said, true = np.array(self._said), np.array(self._true, np.float64)
        # What is believed becomes better and the world changes: old ones count for less.
        weight = 0.5 ** (np.arange(len(said))[::-1] / _HALF_LIFE)
        weights = np.array([self._slope, self._offset])
        prior = np.array([1.0, 0.0])
        design = np.stack([said, np.ones_like(said)])
        for _ in range(_NEWTON_STEPS):
            chance = 1.0 / (1.0 + np.exp(-np.clip(weights @ design, -30.0, 30.0)))
            gradient = (design * weight) @ (chance - true) + _RIDGE * (weights - prior)
            curvature = (design * (weight * chance * (1.0 - chance))) @ design.T + _RIDGE * np.eye(
                2
            )
            step = np.linalg.solve(curvature, gradient)
            # Far from the answer a whole step may lead further away.
            weights = weights - step / max(1.0, float(np.linalg.norm(step)))
        self._slope, self._offset = map(float, weights)


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
