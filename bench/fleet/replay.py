"""Replays a demand against a world with one policy, through the classes that the aggregator chooses by; scores it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import State
from aggregator.selection.coverage import Calibration
from aggregator.selection.policy import Policy
from aggregator.selection.selection import Selection, SelectionSettings, Session
from aggregator.selection.statistics import Answers, Book, Statistics, StatisticsSettings
from bench.fleet.world import DAY_S, TIMEOUT_S, Assumptions, Mask, Offers, World

REAL_PER_S = 20.0
WHOLE_DAY = round(REAL_PER_S * DAY_S)
"""Requests of a real day."""

KS = (10, 25, 50, 100, 150)
"""Of how many chosen first regret and recall are told."""

_EPOCH_S = 1_700_000_000.0
"""What the clock says when the simulated day begins."""
_BREAKS_AFTER = 3
_PROBE_AFTER_S = 300.0
_WINDOW_S = 60.0
_NO_TOTAL = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is replayed.

    Attributes:
        requests: how many in the simulated time, evenly spread over it at random. Limits of sellers are scaled by what
            that is of 20 a second.
        seed: of everything.
        sellers: how many.
        world: what it is like.
        days: the simulated time.
        weights: how often each book is asked for; None for Zipf's law over all books.
        niches: how many sellers arrive in the second half that are the cheapest of one publisher's books.
        told_of_refusals: whether policies are told which sellers refused to sell.
        settings: of the selection.

    """

    requests: int
    seed: int = 1
    sellers: int = 10_000
    world: Assumptions
    days: float = 1.0
    weights: NDArray[np.float64] | None = None
    niches: int = 12
    told_of_refusals: bool = True
    settings: SelectionSettings = field(default_factory=SelectionSettings)


class Missed(StrEnum):
    """Why the cheapest seller was not asked."""

    NOTHING = "it was asked"
    BARRED = "it could not be asked: breaker, budget, not trusted"
    NEVER = "it was never asked for this book"
    HAD_NONE = "it did not have the book when asked last"
    WAS_DEARER = "it had the book when asked last"


@dataclass(slots=True)
class Scores:
    """What came of each request, in their order; those that nobody could have served are left out.

    Attributes:
        at_s: when.
        regret: what was paid above the lowest total of all sellers, as a part of it; nan where nobody asked had it.
        regret_at: likewise, had only the first k chosen been asked, by k.
        found: whether the cheapest of all was among those asked.
        found_at: likewise among the first k.
        calls: how many were asked.
        earlier: how many requests for the same book there had been.
        missed: why the cheapest of all was not asked.
        phases: how many phases that took.
        wait_s: the time until the last answer of the last phase, or its timeout.
        said: the stated chance that a seller not asked is cheaper; nan where nobody asked had the book.
        cheaper: whether there was one.
        said_saving: the stated saving, if so, as a part of the best price.
        saving: what it was.
        choosing_s: the CPU time of all choices of the request.
        full: whether all were asked afterwards.
        discovery: for each new seller of a niche the requests for that niche until it was asked, and whether it was.

    """

    at_s: list[float] = field(default_factory=list)
    regret: list[float] = field(default_factory=list)
    regret_at: dict[int, list[float]] = field(default_factory=lambda: {k: [] for k in KS})
    found: list[bool] = field(default_factory=list)
    found_at: dict[int, list[bool]] = field(default_factory=lambda: {k: [] for k in KS})
    calls: list[int] = field(default_factory=list)
    earlier: list[int] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    phases: list[int] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)
    said: list[float] = field(default_factory=list)
    cheaper: list[bool] = field(default_factory=list)
    said_saving: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)
    choosing_s: list[float] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)
    discovery: list[tuple[int, bool]] = field(default_factory=list)
    unserved: int = 0


@dataclass(slots=True)
class _Niche:
    row: int
    requests: int = 0
    found: bool = False


class _Sellers:
    """What the aggregator knows of sellers besides: breakers and budgets."""

    def __init__(self, world: World, scale: float) -> None:
        self._limit = world.limit_a_minute * np.float32(scale)
        self._world = world
        self._scale = scale
        self._used = np.zeros(world.sellers, np.float32)
        self._used_at_s = 0.0
        self._failed_in_a_row = np.zeros(world.sellers, np.int32)
        self._closed_until_s = np.zeros(world.sellers)

    def standing(self, now_s: float) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Say who may be asked now, and which part of its budget each has left."""
        self._used *= np.float32(math.exp(-(now_s - self._used_at_s) / _WINDOW_S))
        self._used_at_s = now_s
        left = np.maximum(1.0 - (self._used + 1.0) / (self._limit + 1.0), 0.0)
        # A budget of less than one quote a minute allows one, when none was used lately.
        return (left > 0) & (now_s >= self._closed_until_s), left.astype(np.float32)

    def called(self, answers: Answers, now_s: float) -> None:
        """Take note of calls."""
        rows = answers.rows
        self._used[rows] += 1.0
        failed = answers.state == State.FAILED
        self._failed_in_a_row[rows] = np.where(failed, self._failed_in_a_row[rows] + 1, 0)
        bad = rows[failed & (self._failed_in_a_row[rows] >= _BREAKS_AFTER)]
        self._closed_until_s[bad] = now_s + _PROBE_AFTER_S

    def renew(self, row: int) -> None:
        """Take note that another seller is in this place."""
        self._limit[row] = self._world.limit_a_minute[row] * self._scale
        self._used[row] = 0.0
        self._failed_in_a_row[row] = 0
        self._closed_until_s[row] = 0.0


def replay(
    plan: Plan, policy: Policy, on_progress: Callable[[float], None] | None = None
) -> Scores:
    """Replay it all; tell the part that is done."""
    return _Replay(plan, policy).run(on_progress)


class _Replay:
    def __init__(self, plan: Plan, policy: Policy) -> None:
        self._plan = plan
        span_s = plan.days * DAY_S
        demand = np.random.default_rng([plan.seed, 2])
        self._times = np.sort(demand.uniform(0.0, span_s, plan.requests))
        weights = plan.weights
        if weights is None:
            weights = 1.0 / np.arange(1, plan.world.books + 1)
        elif len(weights) > plan.world.books:
            raise ValueError(
                f"{len(weights)} books are asked for, but there are {plan.world.books}"
            )
        self._books = demand.choice(len(weights), plan.requests, p=weights / weights.sum())
        self._world = World(
            plan.world,
            seed=plan.seed,
            sellers=plan.sellers,
            span_s=span_s,
            niches=self._entries(span_s, demand),
        )
        scale = plan.requests / (REAL_PER_S * span_s)
        self._sellers = _Sellers(self._world, scale)
        self._statistics = Statistics(StatisticsSettings(), plan.sellers)
        self._selection = Selection(
            statistics=self._statistics,
            policy=policy,
            settings=plan.settings,
            calibration=Calibration(),
            rng=np.random.default_rng([plan.seed, 3]),
        )
        # What sellers do is not to depend on what a policy draws.
        self._rng = np.random.default_rng([plan.seed, 4])
        self._scores = Scores()
        self._niches: dict[int, list[_Niche]] = {}
        self._everyone = np.ones(plan.sellers, np.bool_)
        self._earlier = np.zeros(plan.world.books, np.int32)

    def _entries(self, span_s: float, rng: np.random.Generator) -> list[tuple[float, int]]:
        """Give when sellers of a niche arrive, and of which: publishers in much demand, each once."""
        count = min(self._plan.niches, self._plan.world.publishers)
        times = rng.uniform(0.5, 0.6, count) * span_s
        return [(float(at_s), int(niche)) for niche, at_s in enumerate(times)]

    def run(self, on_progress: Callable[[float], None] | None) -> Scores:
        total = len(self._times)
        for number, (now_s, book) in enumerate(zip(self._times, self._books, strict=True)):
            self._request(float(now_s), int(book))
            if on_progress and number % 200 == 0:
                on_progress(number / total)
        for niches in self._niches.values():
            self._scores.discovery += [(niche.requests, niche.found) for niche in niches]
        return self._scores

    def _request(self, now_s: float, book: int) -> None:
        world = self._world
        for arrival in world.arrive(now_s):
            self._statistics.forget(arrival.row, _EPOCH_S + now_s)
            self._sellers.renew(arrival.row)
            if arrival.niche is not None:
                self._niches.setdefault(arrival.niche, []).append(_Niche(arrival.row))
        category = world.category(book)
        offers = world.offers(book, now_s)
        failing = world.down(now_s)
        failing |= self._rng.random(world.sellers, np.float32) < world.assumptions.error
        highest = int(world.usual_level(book) * math.exp(self._rng.normal(0.1, 0.15)))
        session = self._selection.begin(
            f"book-{book}", f"publisher-{category}", _EPOCH_S + now_s, self._everyone
        )
        outcome = _Outcome(offers, failing, int(self._earlier[book]))
        self._earlier[book] += 1
        known = self._statistics.book(f"book-{book}")
        may_be_asked = self._sellers.standing(now_s)[0] & self._statistics.trusted()
        while True:
            open_, budget = self._sellers.standing(now_s)
            before = time.thread_time()
            rows = session.next_phase(open_, budget)
            outcome.choosing_s += time.thread_time() - before
            answers = self._ask(rows, outcome)
            self._sellers.called(answers, now_s)
            session.answered(answers)
            outcome.add_phase(answers)
            before = time.thread_time()
            goes_on = session.goes_on(highest)
            outcome.choosing_s += time.thread_time() - before
            if not goes_on:
                break
        self._score(session, outcome, now_s)
        if len(self._scores.missed) < len(self._scores.found):
            self._scores.missed.append(self._missed(outcome, known, may_be_asked))
        if self._selection.is_full(session.coverage().chance_cheaper):
            rest = self._ask(session.rest(self._sellers.standing(now_s)[0]), outcome)
            self._sellers.called(rest, now_s)
            session.rest_answered(rest)
        self._discover(category, outcome)
        if self._plan.told_of_refusals:
            self._buy(outcome, highest)
        session.close()

    def _ask(self, rows: NDArray[np.int32], outcome: _Outcome) -> Answers:
        offers = outcome.offers
        latency_s = self._world.latencies(rows, self._rng)
        failed = outcome.failing[rows] | (latency_s > TIMEOUT_S)
        state = np.where(
            offers.in_stock[rows],
            State.IN_STOCK,
            np.where(offers.carried[rows], State.NO_STOCK, State.NOT_CARRIED),
        )
        state = np.where(failed, State.FAILED, state).astype(np.uint8)
        return Answers(
            rows=rows,
            state=state,
            total_minor=np.where(state == State.IN_STOCK, offers.total_minor[rows], 0).astype(
                np.int32
            ),
            latency_s=np.minimum(latency_s, TIMEOUT_S).astype(np.float32),
        )

    def _score(self, session: Session, outcome: _Outcome, now_s: float) -> None:
        scores, offers = self._scores, outcome.offers
        real = outcome.real()
        if not np.any(real):
            scores.unserved += 1
            return
        best = int(offers.total_minor[real].min())
        asked = np.concatenate([part.rows for part in outcome.parts])
        states = np.concatenate([part.state for part in outcome.parts])
        sells = (states == State.IN_STOCK) & offers.honest[asked]
        totals = np.where(sells, offers.total_minor[asked], _NO_TOTAL)
        lowest = np.minimum.accumulate(np.append(totals, _NO_TOTAL))
        scores.at_s.append(now_s)
        scores.regret.append(_regret(int(lowest[-1]), best))
        scores.found.append(bool(lowest[-1] <= best))
        for k in KS:
            at_k = int(lowest[min(k, len(lowest)) - 1])
            scores.regret_at[k].append(_regret(at_k, best))
            scores.found_at[k].append(at_k <= best)
        scores.calls.append(len(asked))
        scores.earlier.append(outcome.earlier)
        scores.phases.append(len(outcome.parts))
        scores.wait_s.append(outcome.wait_s)
        scores.choosing_s.append(outcome.choosing_s)
        self._score_coverage(session, outcome, asked, states)

    def _score_coverage(
        self,
        session: Session,
        outcome: _Outcome,
        asked: NDArray[np.int32],
        states: NDArray[np.uint8],
    ) -> None:
        scores, offers = self._scores, outcome.offers
        quoted = states == State.IN_STOCK
        if not np.any(quoted):
            for values in (scores.said, scores.said_saving, scores.saving):
                values.append(math.nan)
            scores.cheaper.append(False)
            return
        best = int(offers.total_minor[asked[quoted]].min())
        # Who is known to refuse is no cheaper seller.
        others = offers.in_stock & ~outcome.failing & self._statistics.trusted()
        others[asked] = False
        lowest = int(np.min(offers.total_minor[others], initial=best))
        coverage = session.coverage()
        scores.said.append(coverage.chance_cheaper)
        scores.cheaper.append(lowest < best)
        scores.said_saving.append((coverage.expected_saving_minor or 0) / best)
        scores.saving.append(1.0 - lowest / best)

    def _missed(self, outcome: _Outcome, known: Book | None, may_be_asked: Mask) -> Missed:
        if self._scores.found[-1]:
            return Missed.NOTHING
        real = outcome.real()
        rows = np.flatnonzero(real)
        row = rows[np.argmin(outcome.offers.total_minor[rows])]
        if not may_be_asked[row]:
            return Missed.BARRED
        if known is None or row not in known.rows:
            return Missed.NEVER
        had = known.state[known.rows == row][0] == State.IN_STOCK
        return Missed.WAS_DEARER if had else Missed.HAD_NONE

    def _discover(self, category: int, outcome: _Outcome) -> None:
        for niche in self._niches.get(category, ()):
            if not niche.found and outcome.offers.in_stock[niche.row]:
                niche.requests += 1
                niche.found = any(niche.row in part.rows for part in outcome.parts)

    def _buy(self, outcome: _Outcome, highest: int) -> None:
        """Try to buy from the cheapest, then the next, as the orchestrator does."""
        rows = np.concatenate([part.rows[part.state == State.IN_STOCK] for part in outcome.parts])
        totals = outcome.offers.total_minor[rows]
        for place in np.argsort(totals, kind="stable"):
            if totals[place] > highest:
                return
            row = int(rows[place])
            honest = bool(outcome.offers.honest[row])
            self._statistics.learn_purchase(row, refused=not honest)
            if honest:
                return


class _Outcome:
    """What came of one request so far."""

    def __init__(self, offers: Offers, failing: Mask, earlier: int) -> None:
        self.offers = offers
        self.failing = failing
        self.earlier = earlier
        self.parts: list[Answers] = []
        self.wait_s = 0.0
        self.choosing_s = 0.0

    def real(self) -> Mask:
        """Say who would sell the book now."""
        return self.offers.in_stock & self.offers.honest & ~self.failing

    def add_phase(self, answers: Answers) -> None:
        self.parts.append(answers)
        if len(answers.rows):
            self.wait_s += float(answers.latency_s.max())


def _regret(paid: int, best: int) -> float:
    return math.nan if paid == _NO_TOTAL else max(paid / best - 1.0, 0.0)
