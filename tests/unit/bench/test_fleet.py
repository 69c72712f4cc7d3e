"""The simulated world is the same for every policy, and a replay scores what happened in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.selection.policy import RandomChoice, Thompson, View
from aggregator.selection.selection import Phase, SelectionSettings
from bench.fleet.example_policy import KnownFirst
from bench.fleet.policies import POLICIES, policy
from bench.fleet.replay import Missed, Plan, replay
from bench.fleet.scores import scaled, summary
from bench.fleet.world import DAY_S, USUAL, WORLDS, World

SMALL = replace(USUAL, books=500, publishers=8, subjects=6, general_share=0.1, special_share=0.3)
SETTINGS = SelectionSettings(
    phases=(Phase(20, 4.0), Phase(30, 8.0), Phase(50, 13.0)), most=60, full_share=0.05
)
PLAN = Plan(requests=60, sellers=200, world=SMALL, niches=3, settings=SETTINGS)


def world(seed: int = 1) -> World:
    return World(SMALL, seed=seed, sellers=200, span_s=DAY_S, niches=[(100.0, 2)])


def test_the_same_seed_gives_the_same_world() -> None:
    one, two, other = world(), world(), world(seed=2)
    for book in range(20):
        totals = one.offers(book, 50.0).total_minor
        assert np.array_equal(totals, two.offers(book, 50.0).total_minor)
        assert not np.array_equal(totals, other.offers(book, 50.0).total_minor)


def test_who_has_stock_sells_the_book_and_has_a_price() -> None:
    offers = world().offers(3, 50.0)
    assert offers.carried[offers.in_stock].all()
    assert (offers.total_minor[offers.in_stock] > 0).all()
    assert (offers.total_minor[~offers.in_stock] == 0).all()
    assert 0 < np.count_nonzero(offers.in_stock) < np.count_nonzero(offers.carried) < 200


def test_prices_stay_for_a_while_and_then_change() -> None:
    there = world()
    first, soon, late = (there.offers(3, at_s) for at_s in (1000.0, 1060.0, 80_000.0))
    both = first.in_stock & soon.in_stock
    assert np.mean(first.total_minor[both] == soon.total_minor[both]) > 0.95
    both = first.in_stock & late.in_stock
    assert np.mean(first.total_minor[both] == late.total_minor[both]) < 0.9


def test_a_new_seller_of_a_niche_has_its_books_at_the_lowest_price_and_no_others() -> None:
    there = world()
    arrival = next(a for a in there.arrive(DAY_S) if a.niche == 2)
    own = [book for book in range(300) if there.category(book) == 2]
    others = [book for book in range(300) if there.category(book) != 2]
    offers = [there.offers(book, DAY_S) for book in own]
    had = [each for each in offers if each.in_stock[arrival.row]]
    assert len(had) > len(own) / 3
    best = [
        each.total_minor[arrival.row] == each.total_minor[each.in_stock & each.honest].min()
        for each in had
    ]
    assert np.mean(best) > 0.7
    assert not any(there.offers(book, DAY_S).carried[arrival.row] for book in others)


def test_a_replay_comes_out_the_same_again() -> None:
    one, two = (summary(replay(PLAN, Thompson())) for _ in range(2))
    assert replace(one, choosing_median_s=0, choosing_p99_s=0) == replace(
        two, choosing_median_s=0, choosing_p99_s=0
    )


def test_who_asks_everybody_regrets_nothing_and_misses_nothing() -> None:
    """The proof of the scores: only who breakers or budgets keep out can be missed."""
    everybody = SelectionSettings(phases=(Phase(200, 4.0),), most=200, full_share=0.0)
    unlimited = replace(SMALL, scarce=0.0, brownouts=0.0, error=0.0, jitter=0.01, slow_spread=0.01)
    # As many requests as in reality, since limits are scaled by that.
    plan = replace(PLAN, world=unlimited, settings=everybody, days=60 / 20 / DAY_S, niches=0)
    result = summary(replay(plan, RandomChoice()))
    assert result.found == 1.0
    assert result.regret == 0.0
    assert result.calls_max == 200


def test_who_asks_nobody_who_has_it_is_said_to_have_found_nothing() -> None:
    class Worst:
        name = "worst"

        def choose(self, view: View, count: int, rng: np.random.Generator) -> np.ndarray:
            return np.empty(0, np.int32)

    scores = replay(PLAN, Worst())
    assert not any(scores.found)
    assert np.isnan(scores.regret).all()
    assert np.isnan(scores.said).all()


def test_what_was_missed_is_told_apart() -> None:
    scores = replay(PLAN, Thompson())
    result = summary(scores)
    assert [each is Missed.NOTHING for each in scores.missed] == scores.found
    assert sum(part for part, _ in result.missed.values()) == pytest.approx(1.0)
    assert result.missed[Missed.NOTHING] == pytest.approx((result.found, 0.0))
    assert sum(regret for _, regret in result.missed.values()) == pytest.approx(result.regret)
    assert sum(group.part for group in result.groups) == pytest.approx(1.0)
    found = sum(group.part * group.found for group in result.groups)
    assert found == pytest.approx(result.found)
    assert len(scores.earlier) == len(scores.regret)
    assert max(scores.earlier) > 3


def test_no_request_asks_more_than_the_most() -> None:
    for name in POLICIES:
        assert summary(replay(replace(PLAN, requests=40), policy(name))).calls_max <= 60


def test_an_own_policy_is_found_by_its_name() -> None:
    assert isinstance(policy("bench.fleet.example_policy:KnownFirst"), KnownFirst)
    assert summary(replay(replace(PLAN, requests=40), KnownFirst())).calls_max <= 60
    with pytest.raises(SystemExit, match="module:Class"):
        policy("nonsense")


def test_books_are_as_many_as_keep_the_demand_for_each() -> None:
    assert scaled(USUAL, 1_728_000, 1.0).books == USUAL.books
    assert scaled(USUAL, 17_280, 1.0).books == USUAL.books / 100


def test_the_harder_world_is_harder_in_all() -> None:
    hard = WORLDS["hard"]
    assert hard.noise_spread > USUAL.noise_spread
    assert hard.churn > USUAL.churn
    assert hard.liars > USUAL.liars
