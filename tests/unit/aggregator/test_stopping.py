"""What the sellers that have not answered could still save, and whether that is worth the wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import NormalDist, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.domain.latency import LatencyHistogram
from aggregator.domain.stopping import (
    Outstanding,
    Policy,
    PriceHistory,
    expected_saving,
    least_plausible,
    level,
    too_few,
    worth_waiting,
)

_LOG_RATIOS = st.lists(st.one_of(st.none(), st.floats(-0.5, 0.5)), max_size=30)
_PRICES = st.floats(100, 10_000)
_POINTS = 20_000


def history(log_ratios: Sequence[float | None]) -> PriceHistory:
    made = PriceHistory()
    for log_ratio in log_ratios:
        made.add(log_ratio)
    return made


def latency(*seconds: float) -> LatencyHistogram:
    made = LatencyHistogram()
    for one in seconds:
        made.add(one)
    return made


@st.composite
def _outstanding(draw: st.DrawFn) -> Outstanding:
    return Outstanding(
        history(draw(_LOG_RATIOS)),
        latency(*draw(st.lists(st.floats(0, 4), max_size=20))),
        draw(st.floats(0, 3)),
    )


_ALL_OUTSTANDING = st.lists(_outstanding(), max_size=5)


class TestExpectedSaving:
    @given(_PRICES, st.floats(0.5, 2), _LOG_RATIOS)
    def test_is_the_mean_of_what_each_price_would_save(
        self, best: float, ratio: float, log_ratios: list[float | None]
    ) -> None:
        learned, book_level = history(log_ratios), best * ratio
        normal = NormalDist(learned.mu, learned.sigma)
        saved = fmean(
            max(0.0, best - book_level * math.exp(normal.inv_cdf((i + 0.5) / _POINTS)))
            for i in range(_POINTS)
        )
        assert expected_saving(best, book_level, learned) == pytest.approx(
            saved, rel=1e-2, abs=best * 1e-5
        )

    @given(_PRICES, _PRICES, _LOG_RATIOS)
    def test_is_something_up_to_all_of_the_price(
        self, best: float, book_level: float, log_ratios: list[float | None]
    ) -> None:
        learned = history(log_ratios)
        saved = expected_saving(best, book_level, learned)
        mean_price = book_level * math.exp(learned.mu + learned.sigma**2 / 2)
        assert max(0.0, best - mean_price) - 1e-6 * best <= saved <= best

    @given(_PRICES, _PRICES, st.floats(1.0, 2.0), _LOG_RATIOS)
    def test_grows_with_the_best_price(
        self, best: float, book_level: float, more: float, log_ratios: list[float | None]
    ) -> None:
        learned = history(log_ratios)
        lower = expected_saving(best, book_level, learned)
        assert expected_saving(best * more, book_level, learned) >= lower - 1e-6 * best


class TestPriceHistory:
    def test_of_a_seller_never_asked_it_is_wide(self) -> None:
        blank = PriceHistory()
        assert (blank.mu, blank.has) == (0.0, 0.5)
        assert blank.sigma == pytest.approx(0.2)

    def test_comes_to_what_the_seller_does(self) -> None:
        rng = Random(1)
        ratios = [rng.gauss(-0.2, 0.05) if rng.random() < 0.7 else None for _ in range(2000)]
        learned = history(ratios)
        assert learned.mu == pytest.approx(-0.2, abs=0.04)
        assert learned.sigma == pytest.approx(0.05, abs=0.03)
        assert learned.has == pytest.approx(0.7, abs=0.2)

    def test_forgets(self) -> None:
        learned = history([0.5] * 200 + [-0.5] * 100)
        assert learned.mu == pytest.approx(-0.5, abs=0.02)

    @given(_LOG_RATIOS)
    def test_is_always_something_to_reckon_with(self, log_ratios: list[float | None]) -> None:
        learned = history(log_ratios)
        assert learned.sigma > 0
        assert 0 < learned.has < 1


class TestLevel:
    def test_without_totals_there_is_none(self) -> None:
        assert level([]) is None

    def test_each_total_is_corrected_by_how_its_seller_usually_stands(self) -> None:
        dear = history([0.3] * 300)
        assert level([(2000 * math.exp(0.3), dear)]) == pytest.approx(2000, rel=0.01)

    def test_one_absurd_total_does_not_move_it(self) -> None:
        blank = PriceHistory()
        assert level([(2000.0, blank), (2010.0, blank), (10_000_000.0, blank)]) == 2010


class TestPlausible:
    def test_a_total_far_below_the_others_is_not(self) -> None:
        assert 1 < least_plausible([1, 2000, 2100]) < 1200

    def test_of_two_totals_nobody_can_say_which_is_wrong(self) -> None:
        assert least_plausible([1, 2000]) == least_plausible([]) == 0

    @pytest.mark.parametrize(("totals", "few"), [(1, True), (2, True), (3, False)])
    def test_three_totals_are_enough(self, totals: int, *, few: bool) -> None:
        others = [Outstanding(history([0.0] * 20), latency(*[0.2] * 20), 0.0)] * 3
        assert too_few(totals, others) is few

    def test_nor_are_fewer_too_few_when_no_more_are_likely(self) -> None:
        silent = Outstanding(history([0.0] * 20), latency(*[0.2] * 20), 5.0)
        empty = Outstanding(history([None] * 200), latency(*[0.2] * 20), 0.0)
        assert not too_few(1, [silent, empty])


class TestWorthWaiting:
    @pytest.mark.parametrize("policy", list(Policy))
    def test_for_nobody_it_is_not(self, policy: Policy) -> None:
        assert not worth_waiting(2000, 2000, [], policy)

    @given(_outstanding(), _ALL_OUTSTANDING, _PRICES)
    def test_for_the_best_price_it_always_is(
        self, one: Outstanding, others: list[Outstanding], best: float
    ) -> None:
        assert worth_waiting(best, best, [one, *others], Policy.BEST_PRICE)

    @given(_ALL_OUTSTANDING, _PRICES, st.floats(0.7, 1.4))
    def test_who_is_in_a_hurry_stops_no_later(
        self, outstanding: list[Outstanding], best: float, ratio: float
    ) -> None:
        worth = [
            worth_waiting(best, best * ratio, outstanding, policy)
            for policy in (Policy.BEST_PRICE, Policy.BALANCED, Policy.FAST)
        ]
        assert worth == sorted(worth, reverse=True)

    @given(_ALL_OUTSTANDING, _outstanding(), _PRICES, st.floats(0.7, 1.4))
    def test_for_more_sellers_it_is_worth_no_less(
        self, outstanding: list[Outstanding], more: Outstanding, best: float, ratio: float
    ) -> None:
        few = worth_waiting(best, best * ratio, outstanding, Policy.BALANCED)
        assert worth_waiting(best, best * ratio, [*outstanding, more], Policy.BALANCED) >= few

    @given(_ALL_OUTSTANDING, st.integers(-4, 8), st.floats(0.7, 1.4))
    def test_the_unit_of_the_prices_does_not_matter(
        self, outstanding: list[Outstanding], power: int, ratio: float
    ) -> None:
        scale = 2.0**power
        assert worth_waiting(100 * scale, 100 * ratio * scale, outstanding, Policy.FAST) == (
            worth_waiting(100, 100 * ratio, outstanding, Policy.FAST)
        )

    def test_a_seller_that_has_been_silent_for_much_longer_than_ever_is_given_up(self) -> None:
        fast = latency(*[0.1] * 100)
        prices = history([0.0] * 50)
        assert worth_waiting(2000, 2000, [Outstanding(prices, fast, 0.0)], Policy.BALANCED)
        assert not worth_waiting(2000, 2000, [Outstanding(prices, fast, 5.0)], Policy.BALANCED)

    def test_a_seller_that_never_has_the_book_is_not_waited_for(self) -> None:
        empty = Outstanding(history([None] * 200), latency(*[0.5] * 50), 0.0)
        assert not worth_waiting(2000, 2000, [empty], Policy.BALANCED)

    def test_a_cheap_seller_is_waited_for_as_long_as_it_usually_takes(self) -> None:
        cheap = Outstanding(history([-0.3] * 100), latency(*[1.5] * 50), 0.5)
        assert worth_waiting(2000, 2000, [cheap], Policy.FAST)
