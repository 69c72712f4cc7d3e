"""What a replay comes to: one figure for each aim, and lines to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.coverage import Bin, calibration_error, reliability
from bench.fleet.replay import KS, REAL_PER_S, Missed, Scores
from bench.fleet.world import DAY_S, Assumptions

_LAST = 0.2
"""The part of the day that is judged: what came before was learning."""

_PARTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests for books that had been asked for about as often.

    Attributes:
        least: so often, and less often than those of the next group.
        part: of all requests.
        regret: mean.
        found: part in which the cheapest of all was asked.
        calls: mean.
        said: mean stated chance that a seller not asked is cheaper.
        true: part in which one was.

    """

    least: int
    part: float
    regret: float
    found: float
    calls: float
    said: float
    true: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The last fifth of a replay, where nothing else is said; times in seconds, parts of 1.

    Attributes:
        regret: mean of what was paid above the lowest total of all sellers.
        regret_at: likewise, had only the first k been asked, by k.
        nothing: part of the requests for which nobody asked had the book, although somebody did.
        found: part in which the cheapest of all was asked.
        found_at: likewise among the first k, by k.
        calls_median: of the sellers asked.
        calls_mean: likewise.
        calls_max: over the whole replay.
        phases: mean number of them.
        wait_median_s: until the last answer of the last phase.
        wait_p99_s: likewise.
        bins: the reliability diagram.
        calibration_error: of what was said about coverage.
        said_saving: mean stated saving where there was a cheaper seller.
        saving: what it really was, mean.
        choosing_median_s: CPU time of all choices of a request.
        choosing_p99_s: likewise.
        discovered: for each new cheapest seller of a niche that was asked, the requests for that niche until it was.
        too_late: how many of them were not asked within ``NICHE_LIMIT`` requests.
        undecided: how many were not asked, but had fewer requests than that.
        regret_by_hour: mean regret by the hour of the day, in percent.
        groups: the same requests by how often their book had been asked for before.
        missed: what part of the requests missed the cheapest for each reason, and what part of the mean regret that is.

    """

    regret: float
    regret_at: dict[int, float]
    nothing: float
    found: float
    found_at: dict[int, float]
    calls_median: float
    calls_mean: float
    calls_max: int
    phases: float
    wait_median_s: float
    wait_p99_s: float
    bins: Sequence[Bin]
    calibration_error: float
    said_saving: float
    saving: float
    choosing_median_s: float
    choosing_p99_s: float
    discovered: Sequence[int]
    too_late: int
    undecided: int
    regret_by_hour: Sequence[tuple[float, float]]
    groups: Sequence[Group]
    missed: dict[Missed, tuple[float, float]]


NICHE_LIMIT = 200
"""Requests for a niche within which a new cheapest seller is to be found."""


def summary(scores: Scores) -> Summary:
    """Sum up a replay."""
    count = len(scores.regret)
    last = slice(int(count * (1.0 - _LAST)), count)
    regret, calls = np.array(scores.regret), np.array(scores.calls)
    said, cheaper = np.array(scores.said)[last], np.array(scores.cheaper)[last]
    stated = np.isfinite(said)
    bins = reliability(said[stated], cheaper[stated])
    hit = stated & cheaper
    wait_s, choosing_s = np.array(scores.wait_s)[last], np.array(scores.choosing_s)[last]
    return Summary(
        regret=_mean(regret[last]),
        regret_at={k: _mean(np.array(scores.regret_at[k])[last]) for k in KS},
        nothing=float(np.mean(np.isnan(regret[last]))),
        found=float(np.mean(scores.found[last])),
        found_at={k: float(np.mean(scores.found_at[k][last])) for k in KS},
        calls_median=float(np.median(calls[last])),
        calls_mean=float(np.mean(calls[last])),
        calls_max=int(calls.max()),
        phases=float(np.mean(scores.phases[last])),
        wait_median_s=float(np.median(wait_s)),
        wait_p99_s=float(np.quantile(wait_s, 0.99)),
        bins=bins,
        calibration_error=calibration_error(bins),
        said_saving=_mean(np.array(scores.said_saving)[last][hit]),
        saving=_mean(np.array(scores.saving)[last][hit]),
        choosing_median_s=float(np.median(choosing_s)),
        choosing_p99_s=float(np.quantile(choosing_s, 0.99)),
        discovered=sorted(requests for requests, found in scores.discovery if found),
        too_late=sum(
            requests > NICHE_LIMIT or (not found and requests == NICHE_LIMIT)
            for requests, found in scores.discovery
        ),
        undecided=sum(not found and requests < NICHE_LIMIT for requests, found in scores.discovery),
        regret_by_hour=_by_part(np.array(scores.at_s), regret),
        groups=_groups(scores, last),
        missed=_missed(scores, last),
    )


def scaled(world: Assumptions, requests: int, days: float) -> Assumptions:
    """Give the world in which so many requests ask for each book as often as 20 a second ask for those of the whole."""
    part = requests / (REAL_PER_S * DAY_S * days)
    return replace(world, books=max(round(world.books * part), _FEWEST_BOOKS))


_FEWEST_BOOKS = 1000
_GROUPS = (0, 1, 2, 5, 10, 20, 50, 200)


def _groups(scores: Scores, last: slice) -> list[Group]:
    regret, found, calls = (
        np.array(values, np.float64)[last] for values in (scores.regret, scores.found, scores.calls)
    )
    said, true = (np.array(values, np.float64)[last] for values in (scores.said, scores.cheaper))
    group = np.digitize(np.array(scores.earlier)[last], _GROUPS) - 1
    groups = []
    for number, least in enumerate(_GROUPS):
        own = group == number
        if np.any(own):
            stated = own & np.isfinite(said)
            groups.append(
                Group(
                    least=least,
                    part=float(np.mean(own)),
                    regret=_mean(regret[own]),
                    found=_mean(found[own]),
                    calls=_mean(calls[own]),
                    said=_mean(said[stated]),
                    true=_mean(true[stated]),
                )
            )
    return groups


def _missed(scores: Scores, last: slice) -> dict[Missed, tuple[float, float]]:
    why = scores.missed[last]
    regret = np.array(scores.regret)[last]
    served = max(int(np.count_nonzero(np.isfinite(regret))), 1)
    parts = {}
    for reason in Missed:
        own = np.array([each is reason for each in why])
        parts[reason] = float(np.mean(own)), float(np.nansum(regret[own]) / served)
    return parts


def _mean(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(np.mean(values)) if len(values) else math.nan


def _by_part(at_s: NDArray[np.float64], regret: NDArray[np.float64]) -> list[tuple[float, float]]:
    span_s = float(at_s[-1])
    part = np.minimum((at_s / span_s * _PARTS).astype(int), _PARTS - 1)
    means = [_mean(regret[part == number]) for number in range(_PARTS)]
    return [
        ((number + 0.5) / _PARTS * span_s / 3600.0, mean * 100.0)
        for number, mean in enumerate(means)
        if math.isfinite(mean)
    ]
