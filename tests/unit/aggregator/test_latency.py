"""What a process has learned of how long a seller takes."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.domain.latency import BOUNDS_S, LatencyHistogram
from aggregator.domain.outlook import Outlooks
from sellers.model import CallFailed, FailureKind, Unavailable, UnavailableReason

NO = Unavailable(UnavailableReason.OUT_OF_STOCK)
FADE = 0.97
PRIOR = 0.5
"""What is believed before anything is known, beside the first observation."""

NOTHING = 2e-9
"""A part of all weight so small that it may count for none."""

Seen = list[tuple[bool, float]]
"""Waits in seconds, and whether an answer came at their end."""

_SECONDS = st.floats(0, 5)
_SEEN = st.lists(st.tuples(st.booleans(), _SECONDS), max_size=60)


def histogram(seen: Seen) -> LatencyHistogram:
    made = LatencyHistogram()
    for answered, wait_s in seen:
        (made.add if answered else made.add_longer_than)(wait_s)
    return made


def weights(seen: Seen) -> list[float]:
    """Give the weight of each bucket, worked out as the definition says."""
    buckets = len(BOUNDS_S) + 1
    weights = [PRIOR / FADE / buckets] * buckets
    for answered, wait_s in seen:
        index = bisect_left(BOUNDS_S, wait_s)
        above = sum(weights[index:])
        new = [weight / above if i >= index else 0.0 for i, weight in enumerate(weights)]
        if answered:
            new = [float(i == index) for i in range(buckets)]
        weights = [weight * FADE + share for weight, share in zip(weights, new, strict=True)]
    return weights


def below(seen: Seen, latency_s: float) -> float:
    """Give the part of all weight that lies below a latency, each bucket being even between its bounds."""
    edges = [0.0, *BOUNDS_S]
    parts = [
        weight * min(1.0, max(0.0, (latency_s - low) / (high - low)))
        for weight, low, high in zip(weights(seen), edges, BOUNDS_S, strict=False)
    ]
    return sum(parts) / sum(weights(seen))


@given(_SEEN, _SECONDS, _SECONDS)
def test_the_chance_of_an_answer_is_what_the_definition_says(
    seen: Seen, elapsed_s: float, within_s: float
) -> None:
    left = 1 - below(seen, elapsed_s)
    expected = (below(seen, elapsed_s + within_s) - below(seen, elapsed_s)) / left
    assert histogram(seen).answered_by(elapsed_s, within_s) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), _SECONDS), min_size=1, max_size=5), st.integers(1, 400))
@settings(max_examples=30)
def test_so_it_is_after_thousands_of_answers(seen: Seen, times: int) -> None:
    long = seen * times
    for elapsed_s in (0.0, 0.1, 1.0):
        left = 1 - below(long, elapsed_s)
        chance = histogram(long).answered_by(elapsed_s, 0.5)
        if left > NOTHING:
            expected = (below(long, elapsed_s + 0.5) - below(long, elapsed_s)) / left
            assert chance == pytest.approx(expected, abs=1e-6)
        else:
            assert 0 <= chance <= 1


@given(_SEEN, _SECONDS, _SECONDS, _SECONDS)
def test_to_stay_silent_for_two_times_is_to_stay_silent_for_one_and_then_for_the_other(
    seen: Seen, elapsed_s: float, first_s: float, then_s: float
) -> None:
    learned = histogram(seen)

    def silent(elapsed_s: float, for_s: float) -> float:
        chance = learned.answered_by(elapsed_s, for_s)
        assert 0 <= chance <= 1
        return 1 - chance

    both = silent(elapsed_s, first_s) * silent(elapsed_s + first_s, then_s)
    assert silent(elapsed_s, first_s + then_s) == pytest.approx(both, abs=1e-9)


@given(_SEEN, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_quantile_is_the_latency_below_which_that_part_lies(
    seen: Seen, q: float, other: float
) -> None:
    learned = histogram(seen)
    found = learned.quantile(q)
    if math.isfinite(found):
        assert 0 < found <= BOUNDS_S[-1] * (1 + 1e-9)
        assert below(seen, found) == pytest.approx(q, abs=1e-6)
    else:
        assert below(seen, BOUNDS_S[-1]) < q + 1e-9
    assert (learned.quantile(other) >= found) == (other >= q) or learned.quantile(
        other
    ) == pytest.approx(found)


@given(_SEEN, st.floats(0.01, 0.99), _SECONDS)
def test_a_quantile_reaches_what_it_is_not_below(seen: Seen, q: float, latency_s: float) -> None:
    learned = histogram(seen)
    for asked_s in (latency_s, BOUNDS_S[-1] + 1e-6, 60.0):
        assert learned.reaches(q, asked_s) == (learned.quantile(q) >= asked_s)


@given(_SEEN, _SECONDS)
def test_a_quantile_takes_note_of_what_was_learned_since(seen: Seen, latency_s: float) -> None:
    learned = histogram(seen)
    learned.quantile(0.5)
    for _ in range(100):
        learned.add(latency_s)
    index = bisect_left(BOUNDS_S, latency_s)
    edges = [0.0, *BOUNDS_S, math.inf]
    assert edges[index] <= learned.quantile(0.5) <= edges[index + 1]


def test_of_a_seller_never_asked_nothing_is_expected() -> None:
    blank = LatencyHistogram()
    assert blank.answered_by(0.0, BOUNDS_S[-1]) == pytest.approx(24 / 25)
    assert BOUNDS_S[9] < blank.quantile(0.5) < BOUNDS_S[13]


def test_what_was_long_ago_counts_no_more() -> None:
    learned = histogram([(True, 0.02)] * 200 + [(True, 1.0)] * 50)
    assert 0.8 < learned.quantile(0.3) < 1.2


@given(_SEEN, st.floats(0, 2.5))
def test_a_wait_that_was_broken_off_says_nothing_of_what_would_have_come_after(
    seen: Seen, waited_s: float
) -> None:
    bound = BOUNDS_S[bisect_left(BOUNDS_S, waited_s)]
    before, after = histogram(seen), histogram([*seen, (False, waited_s)])
    assert after.answered_by(bound, 0.5) == pytest.approx(before.answered_by(bound, 0.5), abs=1e-9)
    assert after.answered_by(0, waited_s) <= before.answered_by(0, waited_s) + 1e-9


def test_waits_broken_off_do_not_make_a_seller_look_faster_than_it_is() -> None:
    """Half of those who ask leave after 0.3 s; the seller takes 0.1 s one time and 1 s another."""
    calls = [(True, 0.1), (True, 1.0), (True, 0.1), (False, 0.3)] * 100
    estimate = histogram(calls).answered_by(0.0, 0.35)
    # Without those who left one would say two of three.
    assert estimate == pytest.approx(0.5, abs=0.05)


class TestOutlook:
    def test_a_seller_that_never_answered_has_no_usual_time(self) -> None:
        outlooks = Outlooks()
        for _ in range(5):
            outlooks.learn_unanswered("acme", 3.0)
        assert outlooks["acme"].usual_s() == 0
        assert outlooks["never-asked"].usual_s() == 0

    def test_the_usual_time_is_that_of_half_of_the_answers(self) -> None:
        outlooks = Outlooks()
        for latency_s in (0.1, 0.1, 0.1, 2.0):
            outlooks.learn_latency("acme", NO, latency_s)
        assert 0.07 < outlooks["acme"].usual_s() < 0.14

    @pytest.mark.parametrize("times_s", [(), (0.1, 0.1, 0.1, 2.0), (6.0, 6.0)])
    def test_a_seller_takes_what_its_usual_time_is_not_below(
        self, times_s: tuple[float, ...]
    ) -> None:
        outlooks = Outlooks()
        outlooks.learn_unanswered("acme", 3.0)
        for latency_s in times_s:
            outlooks.learn_latency("acme", NO, latency_s)
        acme = outlooks["acme"]
        for latency_s in (-1.0, 0.0, 0.05, 0.2, 10.0):
            assert acme.takes(latency_s) == (acme.usual_s() >= latency_s)

    def test_silence_is_longer_than_the_time_that_was_waited(self) -> None:
        silence = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")
        outlooks = Outlooks()
        outlooks.learn_latency("acme", silence, 3.0)
        assert outlooks["acme"].latency.answered_by(0.0, 2.5) < 0.4

    @pytest.mark.parametrize("kind", [FailureKind.UNREACHABLE, FailureKind.SELLER_ERROR])
    def test_failures_say_nothing_of_how_long_answers_take(self, kind: FailureKind) -> None:
        outlooks = Outlooks()
        failure = CallFailed(kind, definitely_not_done=False, detail="")
        outlooks.learn_latency("acme", failure, 0.001)
        assert outlooks["acme"].latency.quantile(0.5) == LatencyHistogram().quantile(0.5)
        assert outlooks["acme"].usual_s() == 0
