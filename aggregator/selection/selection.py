"""One collection, phase by phase: who is asked next, whether that is worth it, and what was missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.belief import Belief, Heard, believe
from aggregator.selection.columns import Floats, Rows, State
from aggregator.selection.coverage import Calibration, Coverage, Raw, raw_coverage
from aggregator.selection.policy import Policy, View
from aggregator.selection.statistics import Answers, Statistics

Mask = NDArray[np.bool_]
_LIKELY = 0.5
_OFTENER = 5.0
_STEP = 0.03
_LEAST = 1e-9
_SURE = 0.1
"""So unsure is taken a statement that is quite sure: it is checked now and then all the same."""

_UNSURE = 0.2
"""How unsure statements are taken to be on average before any was made."""

_DOUBT_STEP = 0.005
"""What one more counts in that average."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a collection.

    Attributes:
        most: how many sellers are asked in it.
        until_s: when it ends at the latest, in seconds after the start of the collection.

    """

    most: int
    until_s: float


PHASES = (Phase(50, 4.0), Phase(100, 8.0), Phase(150, 13.0))
"""The last one is the last resort: for a collection that has found nothing affordable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """How a collection goes.

    Attributes:
        phases: one after the other; the last only if nothing affordable was found.
        most: how many sellers are asked in all phases together.
        worth: a phase is begun for an expected saving of at least this part of the best price.
        at_length: the part of collections that may go on after the first phase, those with most to save; half would
            bring the median of the calls to that of two phases. Not kept to before it is known what can be expected.
        full_share: the part of collections in which all sellers are asked, to know how true coverage is; five times
            as many until that is known from enough of them.

    """

    phases: Sequence[Phase] = PHASES
    most: int = 150
    worth: float = 0.0002
    at_length: float = 0.46
    full_share: float = 0.01


class Pace:
    """How much there must be to save for a collection to go on, so that no more than a part of them does.

    The bar rises by each collection that goes on, and sinks by each that does not: it comes to stand at the quantile of
    the savings beyond which that part of them is, and follows it (Robbins and Monro 1951, of the logarithm).
    """

    def __init__(self, worth: float, part: float) -> None:
        """Begin at a saving of ``worth``, which is never less; let ``part`` of the collections go on."""
        self._worth = worth
        self._part = part
        self._bar = worth

    def allows(self, saving: float, *, freely: bool) -> bool:
        """Say whether a collection goes on after its first phase for such a saving, above any bar if ``freely``."""
        goes_on = saving >= (self._worth if freely else self._bar)
        if not freely:
            self.went(on=goes_on)
        return goes_on

    def went(self, *, on: bool) -> None:
        """Take note of a collection that went on, or did not."""
        bar = self._bar * math.exp(_STEP * (on - self._part))
        self._bar = min(max(bar, self._worth), 1.0)


@dataclass(slots=True, kw_only=True)
class Selection:
    """Begins collections; holds what all of them share.

    Attributes:
        statistics: what was learned.
        policy: whom to ask.
        settings: how a collection goes.
        calibration: of what is said about coverage.
        rng: of the draws.
        pace: which collections go on.

    """

    statistics: Statistics
    policy: Policy
    settings: SelectionSettings
    calibration: Calibration
    rng: np.random.Generator
    pace: Pace = field(init=False)
    _doubt: float = field(init=False, default=_UNSURE)

    def __post_init__(self) -> None:
        """Begin at the pace that the settings allow."""
        self.pace = Pace(self.settings.worth, self.settings.at_length)

    def begin(self, book_id: str, category: str, now_s: float, candidates: Mask) -> Session:
        """Begin a collection.

        Args:
            book_id: which book.
            category: its category.
            now_s: the time, in seconds since 1970.
            candidates: by row, who sells in the currency, whether it may be asked right now or not.

        """
        self.statistics.reach(len(candidates))
        return Session(self, book_id, category, now_s, candidates)

    def is_full(self, said: float) -> bool:
        """Draw whether all are to be asked after the choice was made and its coverage stated.

        It is the likelier the less sure the statement is: what is said of a well-known book comes true nearly always,
        and to see that again teaches nothing. ``full_share`` is the part of all.

        Args:
            said: the stated chance that a seller not asked is cheaper.

        """
        doubt = _SURE + said * (1.0 - said)
        self._doubt += (doubt - self._doubt) * _DOUBT_STEP
        often = self.settings.full_share * (_OFTENER if self.calibration.is_young else 1.0)
        odds = often * doubt / self._doubt
        return bool(self.rng.random() * (odds + max(1.0 - often, 0.0)) < odds)


class Session:
    """One collection.

    ``next_phase`` gives whom to ask, ``answered`` takes what they said, in parts or at once; and again while
    ``goes_on`` says so and time is left. Then ``coverage``, in a full collection ``rest`` and ``rest_answered``, and
    ``close``, by which all of it is learned.
    """

    def __init__(
        self, selection: Selection, book_id: str, category: str, now_s: float, candidates: Mask
    ) -> None:
        self._selection = selection
        self._book_id = book_id
        self._category = category
        self._now_s = now_s
        statistics = selection.statistics
        self._belief: Belief | None = believe(statistics, book_id, category, now_s)
        self._candidates = self._widened(candidates) & statistics.trusted()
        book = statistics.book(book_id)
        self._known = 0 if book is None else book.told
        self._of = int(np.count_nonzero(candidates))
        self._asked = np.zeros(statistics.capacity, np.bool_)
        self._answers: list[Answers] = []
        self._phase = 0
        self._best_minor: int | None = None
        self._raw: Raw | None = None

    @property
    def asked(self) -> int:
        """How many sellers were chosen so far."""
        return int(np.count_nonzero(self._asked))

    @property
    def phase(self) -> Phase | None:
        """The phase that comes next; None after the last."""
        phases = self._selection.settings.phases
        return phases[self._phase] if self._phase < len(phases) else None

    def next_phase(self, open_: Mask, budget: Floats) -> Rows:
        """Begin the next phase: give whom to ask, who should be asked first first; nobody if there is none left.

        Args:
            open_: by row, who may be asked now: healthy, with budget left. Who is no candidate does not count.
            budget: by row, which part of its budget it has left, 0 to 1.

        """
        phase = self.phase
        if phase is None:
            return np.empty(0, np.int32)
        self._phase += 1
        statistics = self._selection.statistics
        belief = self._revised()
        spared = np.ones(statistics.capacity, np.float32)
        spared[: len(budget)] = budget
        view = View(
            open=self._widened(open_) & self._others(),
            budget=spared,
            belief=belief,
            statistics=statistics,
            category=statistics.category(self._category),
            book=statistics.book(self._book_id),
            target=self._target(belief),
        )
        count = min(phase.most, self._selection.settings.most - self.asked)
        rows = self._selection.policy.choose(view, count, self._selection.rng)
        self._asked[rows] = True
        return rows

    def answered(self, answers: Answers) -> None:
        """Take what some of those chosen said, each once; who never answered FAILED."""
        self._answers.append(answers)
        self._belief = self._raw = None
        totals = answers.total_minor[answers.state == State.IN_STOCK]
        if len(totals):
            best = int(totals.min())
            self._best_minor = best if self._best_minor is None else min(best, self._best_minor)

    def goes_on(self, highest_minor: int) -> bool:
        """Say whether the next phase can still matter: nothing is affordable, or what it may save is worth it.

        Args:
            highest_minor: the most that anybody who waits for this book will pay.

        """
        settings, phase = self._selection.settings, self.phase
        count = 0 if phase is None else min(phase.most, settings.most - self.asked)
        if count <= 0:
            return False
        pace, is_first = self._selection.pace, self._phase == 1
        if self._best_minor is None or self._best_minor > highest_minor:
            if is_first:
                pace.went(on=True)
            return True
        if self._phase == len(settings.phases) - 1:
            return False
        savings = self._savings()
        total = float(np.sum(savings))
        size = min(count, len(savings))
        of_next = float(np.sum(np.partition(savings, -size)[-size:]))
        said = self._selection.calibration.correct(self._raw_coverage())
        saving = said.chance * said.saving * of_next / max(total, _LEAST)
        if not is_first:
            return saving >= settings.worth
        return pace.allows(saving, freely=self._selection.calibration.is_new)

    def coverage(self) -> Coverage:
        """State what may have been missed."""
        raw = self._raw_coverage()
        if self._best_minor is None:
            return Coverage(
                asked=self.asked,
                of=self._of,
                chance_cheaper=raw.chance,
                expected_saving_minor=None,
            )
        said = self._selection.calibration.correct(raw)
        return Coverage(
            asked=self.asked,
            of=self._of,
            chance_cheaper=said.chance,
            expected_saving_minor=round(self._best_minor * -math.expm1(-said.saving)),
        )

    def rest(self, open_: Mask) -> Rows:
        """Give all who were not asked, for a full collection."""
        return np.flatnonzero(self._widened(open_) & self._others()).astype(np.int32)

    def rest_answered(self, answers: Answers) -> None:
        """Take what the rest said, and learn from it how true the statement was."""
        self._check(answers)
        self._answers.append(answers)

    def close(self) -> None:
        """Learn from the collection."""
        if not self._answers:
            return
        self._selection.statistics.learn(
            self._book_id, self._category, self._now_s, _together(self._answers)
        )

    def _check(self, answers: Answers) -> None:
        """Learn how true the statement is that would be made of those alone who have answered.

        Of the others, whom a breaker or a budget kept from being asked, it is not known.
        """
        best, valid = self._best_minor, answers.state != State.FAILED
        rows, state = answers.rows[valid], answers.state[valid]
        if best is None or not len(rows):
            return
        belief = self._revised()
        target = self._target(belief)
        undercuts, savings = belief.undercuts(target)[rows], belief.savings(target)[rows]
        totals = answers.total_minor[valid][state == State.IN_STOCK]
        lowest = int(totals.min()) if len(totals) else best
        self._selection.calibration.learn(
            raw_coverage(undercuts, savings, self._known), max(math.log(best / lowest), 0.0)
        )

    def _target(self, belief: Belief) -> float:
        if self._best_minor is not None and belief.level is not None:
            return math.log(self._best_minor) - belief.level
        recalled = belief.recalled
        if belief.level is not None:
            likely = recalled.log_total[recalled.available > _LIKELY]
            priced = likely[np.isfinite(likely)]
            if len(priced):
                return float(priced.min()) - belief.level
        return belief.best

    def _revised(self) -> Belief:
        """Give what is to be expected after the answers so far, of sellers that were registered meanwhile too."""
        capacity = self._selection.statistics.capacity
        if self._belief is not None and len(self._belief.available) == capacity:
            return self._belief
        answers = _together(self._answers)
        valid = answers.state != State.FAILED
        rows, state = answers.rows[valid], answers.state[valid]
        had = state == State.IN_STOCK
        level = self._selection.statistics.level(
            self._category, rows[had], np.log(answers.total_minor[valid][had])
        )
        self._belief = believe(
            self._selection.statistics,
            self._book_id,
            self._category,
            self._now_s,
            Heard(rows, state, level),
        )
        return self._belief

    def _left(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._candidates & ~self._asked)

    def _others(self) -> Mask:
        """Say who was not asked; who was registered since the collection began is never asked in it."""
        return self._widened(self._candidates & ~self._asked)

    def _savings(self) -> Floats:
        belief = self._revised()
        return belief.savings(self._target(belief))[self._left()]

    def _raw_coverage(self) -> Raw:
        if self._raw is None:
            belief = self._revised()
            left = self._left()
            if self._best_minor is None:
                self._raw = raw_coverage(belief.available[left], np.zeros(1, np.float32))
            else:
                target = self._target(belief)
                undercuts, savings = belief.undercuts(target), belief.savings(target)
                self._raw = raw_coverage(undercuts[left], savings[left], self._known)
        return self._raw

    def _widened(self, mask: Mask) -> Mask:
        """Give a mask with a place for each row."""
        wide = np.zeros(self._selection.statistics.capacity, np.bool_)
        wide[: len(mask)] = mask
        return wide


def _together(parts: Sequence[Answers]) -> Answers:
    if len(parts) == 1:
        return parts[0]
    return Answers(
        rows=np.concatenate([part.rows for part in parts]),
        state=np.concatenate([part.state for part in parts]),
        total_minor=np.concatenate([part.total_minor for part in parts]),
        latency_s=np.concatenate([part.latency_s for part in parts]),
    )
