"""Whom policies choose, when a collection goes on, and what it states about those it did not ask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregator.selection.columns import Rows, State
from aggregator.selection.coverage import Calibration, Raw
from aggregator.selection.policy import Policy, RandomChoice, Thompson, WeightedScore
from aggregator.selection.selection import (
    Pace,
    Phase,
    Selection,
    SelectionSettings,
    Session,
)
from aggregator.selection.statistics import Answers, Statistics, StatisticsSettings

NOW_S = 1_700_000_000.0
SELLERS = 60
ALL = np.ones(SELLERS, np.bool_)
FULL = np.ones(SELLERS, np.float32)
SETTINGS = SelectionSettings(
    phases=(Phase(10, 4.0), Phase(20, 8.0), Phase(20, 13.0)), most=40, worth=0.005
)
PRICES = 1000 + 5 * np.arange(SELLERS, dtype=np.int32)
"""Who has a book asks this; the lower the row, the less."""

POLICIES = [RandomChoice(), WeightedScore(), Thompson()]


def told(rows: Rows, *, has: Rows | None = None, prices: Rows = PRICES) -> Answers:
    """Give what these sellers say: all those in ``has`` have the book, or all."""
    had = np.ones(len(rows), np.bool_) if has is None else np.isin(rows, has)
    return Answers(
        rows=rows,
        state=np.where(had, State.IN_STOCK, State.NOT_CARRIED).astype(np.uint8),
        total_minor=np.where(had, prices[rows], 0).astype(np.int32),
        latency_s=np.full(len(rows), 0.3, np.float32),
    )


def selection(policy: Policy, settings: SelectionSettings = SETTINGS, seed: int = 1) -> Selection:
    return Selection(
        statistics=Statistics(StatisticsSettings(), SELLERS),
        policy=policy,
        settings=settings,
        calibration=Calibration(),
        rng=np.random.default_rng(seed),
    )


def begin(selected: Selection, book_id: str = "book") -> Session:
    return selected.begin(book_id, "novels", NOW_S, ALL)


def teach(selected: Selection, *, has: Rows, books: int = 40) -> None:
    """Let it know what all sellers say of some books."""
    rows = np.arange(SELLERS, dtype=np.int32)
    for number in range(books):
        selected.statistics.learn(f"old-{number}", "novels", NOW_S, told(rows, has=has))


def grow(selected: Selection) -> None:
    """Let it have checked what it states often enough."""
    for _ in range(400):
        selected.calibration.learn(Raw(0.5, 0.1), 0.0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_only_who_is_open_is_chosen_and_nobody_twice(policy: Policy) -> None:
    selected = selection(policy)
    teach(selected, has=np.arange(0, SELLERS, 2, dtype=np.int32))
    open_ = ALL.copy()
    open_[::3] = False
    session = begin(selected)
    first = session.next_phase(open_, FULL)
    session.answered(told(first, has=np.empty(0, np.int32)))
    second = session.next_phase(open_, FULL)
    chosen = np.concatenate([first, second])
    assert len(first) == 10
    assert len(second) == 20
    assert len(set(chosen.tolist())) == 30
    assert open_[chosen].all()


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_where_few_are_open_all_of_these_are_chosen(policy: Policy) -> None:
    open_ = np.zeros(SELLERS, np.bool_)
    open_[[3, 7, 11]] = True
    chosen = begin(selection(policy)).next_phase(open_, FULL)
    assert sorted(chosen.tolist()) == [3, 7, 11]
    assert begin(selection(policy)).next_phase(~ALL, FULL).tolist() == []


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_same_seed_chooses_the_same(policy: Policy) -> None:
    chosen = [begin(selection(policy, seed=5)).next_phase(ALL, FULL).tolist() for _ in range(2)]
    assert chosen[0] == chosen[1]


def test_no_more_are_asked_than_the_most() -> None:
    session = begin(selection(RandomChoice()))
    for expected in (10, 20, 10):
        rows = session.next_phase(ALL, FULL)
        assert len(rows) == expected
        session.answered(told(rows, has=np.empty(0, np.int32)))
    assert session.asked == SETTINGS.most
    assert not session.goes_on(10**6)
    assert session.next_phase(ALL, FULL).tolist() == []


@pytest.mark.parametrize("policy", [WeightedScore(), Thompson()], ids=lambda policy: policy.name)
def test_who_has_the_books_and_is_cheap_is_asked_first(policy: Policy) -> None:
    selected = selection(policy)
    has = np.arange(0, 20, dtype=np.int32)
    teach(selected, has=has)
    chosen = begin(selected, "a new book").next_phase(ALL, FULL)
    assert np.isin(chosen, has).sum() >= 8
    assert 0 in chosen


@pytest.mark.parametrize("policy", [WeightedScore(), Thompson()], ids=lambda policy: policy.name)
def test_who_had_this_very_book_is_asked_first(policy: Policy) -> None:
    selected = selection(policy)
    teach(selected, has=np.arange(0, 20, dtype=np.int32))
    rows = np.arange(SELLERS, dtype=np.int32)
    selected.statistics.learn(
        "rare", "novels", NOW_S, told(rows, has=np.array([50, 51, 52], np.int32))
    )
    assert set(begin(selected, "rare").next_phase(ALL, FULL)[:3].tolist()) == {50, 51, 52}


def test_thompson_comes_to_ask_an_unknown_seller_and_keeps_it_if_it_is_cheap() -> None:
    selected = selection(Thompson())
    has = np.arange(0, 40, dtype=np.int32)
    teach(selected, has=has)
    selected.statistics.forget(55, NOW_S)
    has = np.append(has, np.int32(55))
    prices = PRICES.copy()
    prices[55] = 700
    found = []
    for number in range(100):
        session = begin(selected, f"new-{number}")
        rows = session.next_phase(ALL, FULL)
        session.answered(told(rows, has=has, prices=prices))
        session.close()
        found.append(55 in rows)
    assert any(found[:60])
    assert all(found[-20:])


def test_who_is_new_is_asked_at_once_and_in_each_category_anew() -> None:
    """Another seller is as unlikely to have a book as can be: nothing but being new speaks for it."""
    selected = selection(Thompson(explore=0.0, newest=0.1))
    has = np.arange(0, 40, dtype=np.int32)
    teach(selected, has=has)
    maps = told(np.arange(SELLERS, dtype=np.int32), has=has)
    for number in range(5):
        selected.statistics.learn(f"old-map-{number}", "maps", NOW_S, maps)
    selected.statistics.forget(55, NOW_S)
    for category in ("novels", "maps"):
        asked = []
        for number in range(12):
            session = selected.begin(f"new-{category}-{number}", category, NOW_S, ALL)
            rows = session.next_phase(ALL, FULL)
            session.answered(told(rows, has=has))
            session.close()
            asked.append(55 in rows)
        assert all(asked[:3]), category


def test_who_is_new_but_never_answers_is_not_asked_for_being_new() -> None:
    selected = selection(Thompson(explore=0.0, newest=0.1))
    teach(selected, has=np.arange(0, 40, dtype=np.int32))
    selected.statistics.forget(55, NOW_S)
    silent = Answers(
        rows=np.array([55], np.int32),
        state=np.array([State.FAILED], np.uint8),
        total_minor=np.zeros(1, np.int32),
        latency_s=np.full(1, 3.0, np.float32),
    )
    assert 55 in begin(selected, "new").next_phase(ALL, FULL)
    for _ in range(4):
        selected.statistics.learn("book", "novels", NOW_S, silent)
    assert 55 not in begin(selected, "new").next_phase(ALL, FULL)


def test_who_has_little_budget_left_is_spared() -> None:
    selected = selection(Thompson(explore=0.0, newest=0.0))
    teach(selected, has=np.arange(0, 40, dtype=np.int32))
    budget = FULL.copy()
    budget[0] = 0.001
    assert 0 in begin(selected).next_phase(ALL, FULL)
    assert 0 not in begin(selected).next_phase(ALL, budget)


def test_who_refuses_to_sell_what_it_quotes_is_asked_no_more() -> None:
    selected = selection(Thompson())
    teach(selected, has=np.arange(0, 40, dtype=np.int32))
    for _ in range(5):
        selected.statistics.learn_purchase(0, refused=True)
    assert 0 not in begin(selected).next_phase(ALL, FULL)


def test_a_collection_goes_on_while_nothing_is_affordable() -> None:
    session = begin(selection(RandomChoice()))
    session.answered(told(session.next_phase(ALL, FULL)))
    assert session.goes_on(100)
    session.answered(told(session.next_phase(ALL, FULL)))
    assert session.goes_on(100), "the last resort"


def test_the_last_resort_is_only_for_a_collection_that_found_nothing_affordable() -> None:
    selected = selection(RandomChoice())
    session = begin(selected)
    for _ in range(2):
        session.answered(told(session.next_phase(ALL, FULL)))
    assert not session.goes_on(10**6)


def test_no_more_than_a_part_goes_on_and_it_is_those_with_most_to_save() -> None:
    pace = Pace(0.001, 0.44)
    savings = np.exp(np.random.default_rng(2).normal(-4.0, 1.0, 3000))
    allowed = np.array([pace.allows(float(saving), freely=False) for saving in savings])[1000:]
    assert np.mean(allowed) == pytest.approx(0.44, abs=0.03)
    assert savings[1000:][allowed].mean() > 2 * savings[1000:][~allowed].mean()


def test_where_there_is_little_to_save_nobody_goes_on_for_having_been_let() -> None:
    pace = Pace(0.001, 0.44)
    assert not any(pace.allows(0.0009, freely=False) for _ in range(500))
    assert pace.allows(0.0011, freely=False)


def test_what_went_on_since_nothing_was_affordable_is_of_the_part_too() -> None:
    pace = Pace(0.001, 0.44)
    for _ in range(500):
        pace.went(on=True)
    assert not pace.allows(0.5, freely=False)
    assert pace.allows(0.0011, freely=True)


def test_collections_go_on_freely_until_it_is_known_what_can_be_expected() -> None:
    selected = selection(Thompson(), replace(SETTINGS, at_length=0.3, worth=1e-3))

    def part_going_on() -> float:
        went_on = []
        for number in range(200):
            session = begin(selected, f"book-{number}")
            session.answered(told(session.next_phase(ALL, FULL)))
            went_on.append(session.goes_on(10**6))
        return float(np.mean(went_on[100:]))

    assert part_going_on() == 1.0
    grow(selected)
    assert part_going_on() == pytest.approx(0.3, abs=0.1)


def test_a_collection_ends_when_those_left_can_hardly_be_cheaper() -> None:
    selected = selection(Thompson(explore=0.0, newest=0.0))
    rows = np.arange(SELLERS, dtype=np.int32)
    teach(selected, has=rows)
    selected.statistics.learn("known", "novels", NOW_S, told(rows))
    session = begin(selected, "known")
    session.answered(told(session.next_phase(ALL, FULL)))
    assert not session.goes_on(10**6)
    assert session.coverage().chance_cheaper < 0.1


def test_a_collection_goes_on_where_somebody_known_to_be_cheaper_is_left() -> None:
    selected = selection(Thompson(explore=0.0, newest=0.0))
    rows = np.arange(SELLERS, dtype=np.int32)
    teach(selected, has=rows)
    selected.statistics.learn("known", "novels", NOW_S, told(rows))
    open_ = ALL.copy()
    open_[:10] = False
    session = begin(selected, "known")
    session.answered(told(session.next_phase(open_, FULL)))
    assert session.goes_on(10**6)
    coverage = session.coverage()
    assert coverage.chance_cheaper > 0.9
    assert coverage.asked == 10
    assert coverage.of == SELLERS
    assert coverage.expected_saving_minor is not None
    assert 5 <= coverage.expected_saving_minor <= 100


def test_nothing_is_said_of_a_saving_where_nobody_has_the_book() -> None:
    session = begin(selection(Thompson()))
    session.answered(told(session.next_phase(ALL, FULL), has=np.empty(0, np.int32)))
    assert session.coverage().expected_saving_minor is None
    assert 0 <= session.coverage().chance_cheaper <= 1


def test_a_full_collection_asks_the_rest_and_teaches_how_true_coverage_is() -> None:
    selected = selection(Thompson(), SelectionSettings(phases=(Phase(10, 4.0),), full_share=1.0))
    assert all(selected.is_full(said) for said in (0.0, 0.5, 1.0))
    for number in range(60):
        session = begin(selected, f"book-{number}")
        rows = session.next_phase(ALL, FULL)
        session.answered(told(rows))
        rest = session.rest(ALL)
        assert sorted([*rows, *rest]) == list(range(SELLERS))
        session.rest_answered(told(rest))
        session.close()
    book = selected.statistics.book("book-59")
    assert book is not None
    assert len(book.rows) == SELLERS
    assert len(selected.calibration.dump()) == 60


def test_until_coverage_was_checked_often_enough_it_is_checked_five_times_as_often() -> None:
    selected = selection(Thompson(), SelectionSettings(full_share=0.1))
    young = sum(selected.is_full(0.1) for _ in range(1000))
    grow(selected)
    grown = sum(selected.is_full(0.1) for _ in range(1000))
    assert 440 < young < 560
    assert 60 < grown < 140


def test_the_less_sure_a_statement_is_the_likelier_it_is_checked_and_as_many_are_in_all() -> None:
    selected = selection(Thompson(), SelectionSettings(full_share=0.05))
    grow(selected)
    checked = np.array([[selected.is_full(said) for said in (0.0, 0.4)] for _ in range(4000)])
    sure, unsure = checked[500:].mean(axis=0)
    assert unsure > 2 * sure > 0
    assert (sure + unsure) / 2 == pytest.approx(0.05, rel=0.2)


def test_what_was_said_of_a_book_that_is_not_kept_counts_as_known() -> None:
    statistics = Statistics(StatisticsSettings(sellers_a_book=20), SELLERS)
    for rows in np.split(np.arange(SELLERS, dtype=np.int32), 3):
        statistics.learn("book", "novels", NOW_S, told(rows))
    statistics.learn("book", "novels", NOW_S, told(np.arange(5, dtype=np.int32)))
    book = statistics.book("book")
    assert book is not None
    assert len(book.rows) == 20
    assert book.told == SELLERS


def test_sellers_beyond_the_first_rows_have_a_place() -> None:
    selected = selection(Thompson())
    more = np.ones(5 * SELLERS, np.bool_)
    session = selected.begin("book", "novels", NOW_S, more)
    open_ = np.zeros(5 * SELLERS, np.bool_)
    open_[-1] = True
    assert session.next_phase(open_, np.ones(5 * SELLERS, np.float32)).tolist() == [5 * SELLERS - 1]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_sellers_that_are_registered_during_a_collection_do_not_disturb_it(policy: Policy) -> None:
    selected = selection(policy)
    session = begin(selected)
    session.answered(told(session.next_phase(ALL, FULL), has=np.empty(0, np.int32)))
    assert session.goes_on(10_000)
    selected.statistics.reach(SELLERS + 1)
    more = np.ones(SELLERS + 1, np.bool_)
    rows = session.next_phase(more, np.ones(SELLERS + 1, np.float32))
    assert len(rows) == 20
    session.answered(told(rows))
    assert session.coverage().of == SELLERS
    rest = session.rest(more)
    assert len(rest) == SELLERS - 30
    session.rest_answered(told(rest))
    session.close()
    assert len(selected.calibration.dump()) == 1


class Noted(Calibration):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.chances: list[float] = []

    def learn(self, raw: Raw, saved: float) -> None:
        self.chances.append(raw.chance)


def test_a_statement_is_checked_by_those_alone_who_answered() -> None:
    """Who could not be asked, or failed, may be cheaper or not: it proves nothing."""
    noted = Noted()
    selected = replace(selection(RandomChoice()), calibration=noted)
    rows, rng = np.arange(SELLERS, dtype=np.int32), np.random.default_rng(2)
    for number in range(20):
        prices = np.exp(rng.normal(7.0, 0.1, SELLERS)).astype(np.int32)
        selected.statistics.learn(f"old-{number}", "novels", NOW_S, told(rows, prices=prices))
    session = begin(selected)
    best = np.full(SELLERS, 850, np.int32)
    session.answered(told(session.next_phase(ALL, FULL), prices=best))
    left = session.rest(ALL)
    take = session.rest_answered
    take(told(left))
    half = told(left)
    failed = np.arange(len(left)) % 2 == 1
    take(replace(half, state=np.where(failed, State.FAILED, half.state).astype(np.uint8)))
    take(told(left[:5]))
    assert 1.0 > noted.chances[0] > noted.chances[1] > noted.chances[2] > 0.0
    nobody = told(left)
    take(replace(nobody, state=np.full(len(left), State.FAILED, np.uint8)))
    assert len(noted.chances) == 3
