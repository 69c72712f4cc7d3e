"""What is learned from answers, how it fades, and that it survives being kept."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.selection.belief import Heard, believe
from aggregator.selection.columns import State
from aggregator.selection.statistics import Answers, Statistics, StatisticsSettings
from aggregator.selection.topics import TOPICS

NOW_S = 1_700_000_000.0
DAY_S = 86_400.0
IN, NO, NONE, FAILED = State.IN_STOCK, State.NOT_CARRIED, State.NO_STOCK, State.FAILED


def answers(*given: tuple[int, State, int]) -> Answers:
    return Answers(
        rows=np.array([row for row, _, _ in given], np.int32),
        state=np.array([state for _, state, _ in given], np.uint8),
        total_minor=np.array([total for _, _, total in given], np.int32),
        latency_s=np.full(len(given), 0.5, np.float32),
    )


@pytest.fixture
def statistics() -> Statistics:
    return Statistics(StatisticsSettings(), sellers=8)


def test_who_is_cheaper_for_every_book_is_expected_below_the_others(statistics: Statistics) -> None:
    for number in range(20):
        level = 1000 + 100 * number
        statistics.learn(
            f"book-{number}",
            "novels",
            NOW_S,
            answers((0, IN, int(level * 0.8)), (1, IN, level), (2, IN, level), (3, IN, level)),
        )
    mu = believe(statistics, "another", "novels", NOW_S).mu
    assert mu[0] < -0.15
    assert abs(mu[1]) < 0.05


def test_one_price_alone_says_nothing_of_its_seller(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 1)))
    assert statistics.price_weight[0] == 0


def test_a_category_is_believed_over_the_seller_as_a_whole(statistics: Statistics) -> None:
    for number in range(30):
        statistics.learn(f"n{number}", "novels", NOW_S, answers((0, IN, 1000), (1, NO, 0)))
        statistics.learn(f"m{number}", "maps", NOW_S, answers((0, NO, 0), (1, IN, 1000)))
    novels = believe(statistics, "x", "novels", NOW_S).available
    maps = believe(statistics, "x", "maps", NOW_S).available
    assert min(novels[0], maps[1]) > 0.8
    assert max(novels[1], maps[0]) < 0.2


def test_in_a_new_category_a_seller_is_taken_for_what_it_is_elsewhere(
    statistics: Statistics,
) -> None:
    for number in range(30):
        category = f"c{number}"
        statistics.learn(f"n{number}", category, NOW_S, answers((0, IN, 1000), (1, NO, 0)))
    available = believe(statistics, "x", "new", NOW_S).available
    assert available[0] > 0.7
    assert available[1] < 0.1


def test_a_price_said_lately_is_expected_again(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 700), (1, IN, 1000), (2, IN, 1000)))
    belief = believe(statistics, "a", "novels", NOW_S + 30)
    assert belief.level == pytest.approx(np.log(1000), abs=0.2)
    assert belief.mu[0] + belief.level == pytest.approx(np.log(700), abs=1e-3)
    assert belief.available[0] > 0.8


def test_a_no_said_lately_is_believed(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, NO, 0), (1, NONE, 0)))
    available = believe(statistics, "a", "novels", NOW_S + 30).available
    assert available[0] < 0.05
    assert available[1] < 0.05


def test_what_is_said_again_of_the_same_book_is_no_news_of_the_seller(
    statistics: Statistics,
) -> None:
    given = answers((0, IN, 800), (1, IN, 1000), (2, IN, 1000), (3, NO, 0))
    statistics.learn("a", "novels", NOW_S, given)
    before, variance = believe(statistics, "another", "novels", NOW_S).mu, statistics.variance
    asked = statistics.asked.copy()
    for _ in range(50):
        statistics.learn("a", "novels", NOW_S, given)
    assert np.array_equal(believe(statistics, "another", "novels", NOW_S).mu, before)
    assert np.array_equal(statistics.asked, asked)
    assert statistics.variance == variance


def test_how_long_an_answer_lasts_is_learned(statistics: Statistics) -> None:
    """A seller that told a price and has none an hour later, again and again, is not believed for an hour."""
    now_s = NOW_S
    for _ in range(200):
        now_s += 7000
        statistics.learn("a", "novels", now_s, answers((0, IN, 700)))
        now_s += 3000
        statistics.learn("a", "novels", now_s, answers((0, NONE, 0)))
    statistics.learn("a", "novels", now_s, answers((0, IN, 700)))
    assert believe(statistics, "a", "novels", now_s + 3000).available[0] < 0.1


def test_a_failed_call_says_nothing_of_the_book(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, FAILED, 0), (1, NO, 0)))
    book = statistics.book("a")
    assert book is not None
    assert book.rows.tolist() == [1]
    assert statistics.asked[0] == 0
    assert statistics.failed[0] == 1


def test_who_fails_all_the_time_is_not_expected_to_answer(statistics: Statistics) -> None:
    for number in range(20):
        statistics.learn(f"{number}", "novels", NOW_S, answers((0, IN, 900), (1, IN, 900)))
    for number in range(20, 32):
        statistics.learn(f"{number}", "novels", NOW_S, answers((0, FAILED, 0), (1, IN, 900)))
    available = believe(statistics, "x", "novels", NOW_S).available
    assert available[0] < 0.4 < available[1]


def test_weights_fade_with_time(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 900), (1, IN, 900)))
    before = statistics.asked[0]
    statistics.learn("b", "novels", NOW_S + 3 * DAY_S, answers((1, IN, 900)))
    assert statistics.asked[0] == pytest.approx(before / 2, rel=1e-3)


def test_a_removed_seller_leaves_nothing_behind(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 900), (1, IN, 900)))
    statistics.learn_purchase(0, refused=True)
    statistics.forget(0, NOW_S + 1)
    book = statistics.book("a")
    cells = statistics.category("novels")
    assert book is not None
    assert cells is not None
    assert book.rows.tolist() == [1]
    assert cells.asked[0] == statistics.asked[0] == statistics.refused[0] == 0
    assert statistics.dump_sellers().rows.tolist() == [1]


def test_who_refuses_what_it_has_quoted_is_not_trusted(statistics: Statistics) -> None:
    for _ in range(5):
        statistics.learn_purchase(0, refused=True)
        statistics.learn_purchase(1, refused=False)
    assert statistics.trusted().tolist()[:3] == [False, True, True]


def test_all_that_was_learned_survives_being_dumped_and_loaded(statistics: Statistics) -> None:
    for number in range(10):
        statistics.learn(
            "a", "novels", NOW_S + number, answers((0, IN, 900), (5, IN, 1000 + number), (3, NO, 0))
        )
    other = Statistics(StatisticsSettings(), sellers=1)
    other.load_general(statistics.dump_general())
    other.load_sellers(statistics.dump_sellers())
    other.load_topics(statistics.dump_topics())
    category, book = statistics.dump_category("novels"), statistics.dump_book("a")
    assert category is not None
    assert book is not None
    other.load_category(category)
    other.load_book(book)
    assert other.stocked == statistics.stocked != Statistics(StatisticsSettings()).stocked
    one, two = (believe(each, "a", "novels", NOW_S + 60) for each in (statistics, other))
    for name in ("available", "mu", "doubt", "sigma"):
        expected, found = getattr(one, name), getattr(two, name)
        assert found[:6] == pytest.approx(expected[:6], rel=0.02, abs=2e-3), name


def test_who_has_books_of_some_categories_is_expected_to_have_those_of_one_like_them() -> None:
    """What the same sellers have is of one kind: nobody need be asked anew for each category."""
    statistics = Statistics(StatisticsSettings(), sellers=40)
    cooks, others = range(20), range(20, 40)

    def learn(category: str, having: range, asked: range) -> None:
        for number in range(4):
            statistics.learn(
                f"{category}-{number}",
                category,
                NOW_S,
                answers(*((row, IN if row in having else NO, 900 + row) for row in asked)),
            )

    for number in range(2 * TOPICS):
        learn(f"cooking-{number}", cooks, range(40))
        learn(f"war-{number}", others, range(40))
    learn("baking", cooks, range(10, 30))
    available = believe(statistics, "new", "baking", NOW_S).available
    assert available[:10].min() > 0.8
    assert available[30:].max() < 0.2


def test_what_kind_a_book_is_of_counts_for_more_than_what_its_publisher_has_besides() -> None:
    """Of a publisher of two kinds, a book of the rarer one is sold by who sells that kind."""
    statistics = Statistics(StatisticsSettings(), sellers=40)
    cooks, others, everyone = range(20), range(20, 40), range(40)

    def heard(having: range, asked: range) -> Answers:
        return answers(*((row, IN if row in having else NO, 900 + row) for row in asked))

    for number in range(8 * TOPICS):
        statistics.learn(f"c-{number}", f"cooking-{number // 4}", NOW_S, heard(cooks, everyone))
        statistics.learn(f"w-{number}", f"war-{number // 4}", NOW_S, heard(others, everyone))
    for number in range(40):
        having = others if number % 5 == 0 else cooks
        statistics.learn(f"b-{number}", "both", NOW_S, heard(having, everyone))
    state = np.where(np.arange(10, 30) >= 20, IN, NO).astype(np.uint8)
    given = Heard(np.arange(10, 30, dtype=np.int32), state, None)
    available = believe(statistics, "new", "both", NOW_S, given).available
    assert available[30:].min() > 0.7
    assert available[:10].max() < 0.3


def test_who_sells_some_kinds_of_books_is_not_expected_to_sell_others_and_who_sells_all_is() -> (
    None
):
    """Both have half of the books that they were asked for; that it is half of each kind is what tells them apart."""
    statistics = Statistics(StatisticsSettings(), sellers=44)
    cooks, soldiers = range(20), range(20, 40)
    special, general = 40, 41
    for number in range(60):
        for kind, having in (("cooking", cooks), ("war", soldiers)):
            has = {row for row in having if (row + number) % 4} | (
                {general} if number % 2 else set()
            )
            if kind == "war":
                has.add(special)
            given = ((row, IN if row in has else NO, 900) for row in range(42))
            category = f"{kind}-{number // 20}"
            statistics.learn(f"{category}-{number}", category, NOW_S, answers(*given))
    # Neither was ever asked for books of this kind.
    for number in range(60):
        having = range(0, 40, 2)
        given = (
            (row, IN if row in having and (row + number) % 4 else NO, 900) for row in range(40)
        )
        statistics.learn(f"maps-{number}", "maps", NOW_S, answers(*given))
    available = believe(statistics, "new", "maps", NOW_S).available
    assert available[general] > 0.3
    assert available[special] < available[general] / 3


def test_a_book_is_counted_anew_when_its_kind_is_known_and_each_answer_once() -> None:
    statistics = Statistics(StatisticsSettings(), sellers=60)
    cooks, soldiers = range(30), range(30, 60)

    def learn(book_id: str, category: str, having: range, asked: range) -> None:
        given = ((row, IN if row in having else NO, 900) for row in asked)
        statistics.learn(book_id, category, NOW_S, answers(*given))

    def kind(book_id: str) -> int:
        book = statistics.book(book_id)
        assert book is not None
        return int(book.kind.posterior.argmax())

    # When they come, nothing is known of those who have them.
    learn("early", "both", cooks, range(10, 50))
    learn("late", "both", soldiers, range(10, 50))
    for number in range(30):
        learn(f"cookery-{number}", f"cooking {number % 3}", cooks, range(60))
        learn(f"war-{number}", f"war {number % 3}", soldiers, range(60))
    for _ in range(60):
        learn("again", "other", cooks, range(1))
    assert kind("early") == kind("cookery-0") != kind("war-0") == kind("late")
    # Of two books 40 answers each, of sixty 60, and one.
    assert statistics.topics.asked.sum() == pytest.approx(3681, rel=1e-3)
    assert statistics.topics.had.sum() == pytest.approx(1841, rel=1e-2)


def test_who_sells_a_book_no_more_is_counted_as_such_where_it_was_counted_as_selling_it(
    statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To count books anew would set it right in any case, later.
    monkeypatch.setattr("aggregator.selection.statistics._ANEW", 0)
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 900), (1, IN, 900), (2, IN, 900)))
    statistics.learn("a", "novels", NOW_S + 1, answers((0, NO, 0), (1, NONE, 0), (2, IN, 900)))
    assert statistics.topics.had.sum(axis=1)[:3] == pytest.approx([0.0, 1.0, 1.0], abs=1e-3)
    assert statistics.topics.asked.sum(axis=1)[:3] == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)


def test_who_sells_books_of_a_kind_is_expected_to_sell_others_though_it_had_none(
    statistics: Statistics,
) -> None:
    for number in range(30):
        given = answers((0, NONE, 0), (1, NO, 0), *((row, IN, 900) for row in range(2, 8)))
        statistics.learn(f"n{number}", f"c{number}", NOW_S, given)
    available = believe(statistics, "x", "new", NOW_S).available
    assert available[0] > 5 * available[1]
    # Of seven who sell a book one has none: so much less likely is a price than that a seller sells it.
    assert statistics.stocked == pytest.approx(6 / 7, abs=0.01)


def test_who_sells_the_books_of_one_publisher_only_is_told_from_who_sells_their_kind() -> None:
    statistics = Statistics(StatisticsSettings(), sellers=40)
    everyone = range(40)
    for number in range(60):
        # Seller 39 has what everybody has a third of, but of one publisher only, and of that all.
        for publisher in ("own", "another"):
            have = {row for row in everyone if (row + number) % 3 == 0}
            have = have - {39} if publisher == "another" else have | {39}
            statistics.learn(
                f"{publisher}-{number}",
                publisher,
                NOW_S,
                answers(*((row, IN if row in have else NO, 900) for row in everyone)),
            )
    own = believe(statistics, "x", "own", NOW_S).available
    another = believe(statistics, "x", "another", NOW_S).available
    assert own[39] > 0.85
    assert another[39] < 0.1
    assert 0.2 < own[:39].mean() < 0.5


def test_who_had_not_a_book_is_remembered_however_many_there_are() -> None:
    statistics = Statistics(StatisticsSettings(), sellers=1000)
    for first in range(0, 1000, 100):
        rows = range(first, first + 100)
        statistics.learn("a", "novels", NOW_S, answers(*((row, NO, 0) for row in rows)))
    book = statistics.book("a")
    assert book is not None
    assert len(book.rows) == 1000


def test_books_are_let_go_for_the_answers_of_others() -> None:
    statistics = Statistics(StatisticsSettings(answers=10), sellers=8)
    for name in ("a", "b", "c", "b"):
        statistics.learn(name, "novels", NOW_S, answers(*((row, NO, 0) for row in range(4))))
    assert list(statistics.books()) == ["c", "b"]
    statistics.learn("d", "novels", NOW_S, answers(*((row, NO, 0) for row in range(8))))
    assert list(statistics.books()) == ["d"]


def test_what_is_held_is_bounded() -> None:
    statistics = Statistics(StatisticsSettings(books=2, categories=2, sellers_a_book=3), sellers=8)
    for name in ("a", "b", "c"):
        statistics.learn(
            name,
            name,
            NOW_S,
            answers(*((row, IN if row > 2 else NO, 900 + row) for row in range(8))),
        )
    assert list(statistics.books()) == ["b", "c"]
    assert list(statistics.categories()) == ["b", "c"]
    book = statistics.book("c")
    assert book is not None
    assert book.rows.tolist() == [3, 4, 5], "the cheapest are kept"


def test_what_has_changed_is_told_once(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 900)))
    assert statistics.take_changed() == ({"novels"}, {"a"})
    assert statistics.take_changed() == (set(), set())


def test_there_is_room_for_any_row(statistics: Statistics) -> None:
    statistics.learn("a", "novels", NOW_S, answers((0, IN, 900)))
    statistics.learn("a", "novels", NOW_S, answers((4000, NO, 0)))
    assert statistics.capacity > 4000
    assert statistics.asked[0] > 0
