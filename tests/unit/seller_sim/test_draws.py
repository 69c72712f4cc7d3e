from __future__ import annotations

import statistics

from seller_sim.domain.draws import between, draws, exponential, lognormal


def test_the_same_names_give_the_same_numbers_in_every_process() -> None:
    assert draws(1, "a", "b")[:2] == (0.8136341844219714, 0.979681150522083)


def test_other_names_give_other_numbers() -> None:
    assert draws(1, "ab", "c") != draws(1, "a", "bc")


def test_numbers_are_uniform_and_below_one() -> None:
    numbers = [number for n in range(2_000) for number in draws("uniform", n)]
    assert 0 <= min(numbers) < 0.001
    assert 0.999 < max(numbers) < 1
    assert abs(statistics.mean(numbers) - 0.5) < 0.01


def test_between_stays_between() -> None:
    assert between(2, 4, 0) == 2
    assert between(2, 4, 0.5) == 3


def test_exponential_and_lognormal_have_the_mean_and_the_median_that_they_were_given() -> None:
    chances = [draws("tail", n) for n in range(5_000)]
    mean = statistics.mean(exponential(80, chance[0]) for chance in chances)
    median = statistics.median(lognormal(2_000, 0.5, chance[1]) for chance in chances)
    assert abs(mean - 80) < 5
    assert abs(median - 2_000) < 100


def test_no_draw_is_too_small_or_too_large_for_a_distribution() -> None:
    assert exponential(80, 0.0) == 0
    assert exponential(80, 1 - 2.0**-32) < 80 * 23
    assert lognormal(2_000, 5, 0.0) > 0
