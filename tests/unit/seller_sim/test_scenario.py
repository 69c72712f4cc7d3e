from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mesh.book_id import normalise
from seller_sim.adapters.scenario import ScenarioError, load_scenario
from seller_sim.domain.catalogue import Condition
from seller_sim.domain.scenario import Scenario
from seller_sim.domain.seller import QuoteRequest, Seller, Unavailable
from seller_sim.settings import DEMO

NOW_US = 1_795_367_838_128_930
EFFECTIVE_JAVA = "9780134685991"
DATA_INTENSIVE = "9781449373320"
CODEX = "9780847842131"

MINIMAL = """
seed: 1
groups:
  - {name: shop, display_name: Shop, count: 3, behaviour: {price_level: [0.9, 1.1], max_copies: [2, 5]}}
  - {name: stall, display_name: Stall, count: 1}
sellers:
  - {id: special, display_name: Special, behaviour: {dead: true}}
"""


@pytest.fixture(scope="module")
def demo() -> Scenario:
    return load_scenario(DEMO)


def written(folder: Path, text: str) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


def best(scenario: Scenario, count: int, book_id: str) -> list[tuple[int, str]]:
    quotes = []
    for spec in scenario.sellers(count):
        seller = Seller(
            seed=scenario.seed,
            seller_id=spec.seller_id,
            display_name=spec.display_name,
            credential="secret",
            behaviour=spec.behaviour,
            books=scenario.books,
        )
        quote = seller.quote(QuoteRequest(book_id, "USD", [Condition.NEW]), NOW_US)
        if not isinstance(quote, Unavailable):
            quotes.append((quote.total.minor, spec.seller_id))
    return sorted(quotes)


def test_named_sellers_come_first_and_groups_take_turns(tmp_path: Path) -> None:
    scenario = load_scenario(written(tmp_path, MINIMAL))
    ids = [spec.seller_id for spec in scenario.sellers(None)]
    assert ids == ["special", "shop-001", "shop-002", "stall-001", "shop-003"]
    assert [spec.seller_id for spec in scenario.sellers(2)] == ids[:2]
    more = [spec.seller_id for spec in scenario.sellers(9)]
    assert more[:5] == ids
    assert Counter(name.split("-")[0] for name in more) == {"special": 1, "shop": 6, "stall": 2}


def test_a_pair_of_numbers_gives_each_seller_its_own(tmp_path: Path) -> None:
    specs = load_scenario(written(tmp_path, MINIMAL)).sellers(100)
    shops = [spec.behaviour for spec in specs if spec.seller_id.startswith("shop")]
    assert all(0.9 <= shop.price_level < 1.1 and 2 <= shop.max_copies <= 5 for shop in shops)
    assert len({shop.price_level for shop in shops}) == len(shops)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: [", "while parsing a flow node"),
        ("groups: []", "seed: Field required"),
        ("seed: 1\nsellrs: []", "sellrs: Extra inputs are not permitted"),
        (
            "seed: 1\ngroups: [{name: a, display_name: A, count: 0}]",
            "groups.0.count: Input should be greater than or equal to 1",
        ),
        (
            "seed: 1\ngroups: [{name: a, display_name: A, count: 1, behaviour: {eror_rate: 1}}]",
            "a-001: eror_rate: there is no such setting",
        ),
        (
            "seed: 1\ngroups: [{name: a, display_name: A, count: 1, behaviour: {hang_rate: 2}}]",
            "a-001: hang_rate: must be 0 to 1, is 2",
        ),
        (
            "seed: 1\ngroups: [{name: a, display_name: A, count: 1, behaviour: {hang_rate: [1, 0]}}]",
            "a-001: hang_rate: must be a number or a pair [low, high], is [1, 0]",
        ),
        (
            "seed: 1\nbooks: [{isbn: '9780134685992', title: T, author: A}]",
            "books.0.isbn: Value error, '9780134685992' has a wrong check digit",
        ),
        (
            "seed: 1\nbooks: [{isbn: a, title: T, author: A}, {isbn: a, title: T, author: A}]",
            "Value error, books: a is there more than once",
        ),
        (
            "seed: 1\nbooks: [{isbn: a, title: T, author: A, base_price: 1.005}]",
            "books.0.base_price: Decimal input should have no more than 2 decimal places",
        ),
    ],
)
def test_what_is_wrong_with_a_scenario_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert "\n" not in message


def test_a_scenario_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load_scenario(tmp_path / "missing.yaml")


def test_more_sellers_than_are_described_need_groups(tmp_path: Path) -> None:
    text = "seed: 1\nsellers: [{id: a, display_name: A}]"
    scenario = load_scenario(written(tmp_path, text))
    with pytest.raises(ValueError, match="2 are wanted, 1 are described"):
        scenario.sellers(2)


def test_the_demo_has_50_sellers_of_both_kinds_and_any_other_number(demo: Scenario) -> None:
    specs = demo.sellers(None)
    assert len(specs) == 50
    atomic = sum(not spec.behaviour.supports_holds for spec in specs)
    assert 10 <= atomic <= 25
    for count in (1, 2, 200, 10_000):
        sellers = demo.sellers(count)
        assert len({spec.seller_id for spec in sellers}) == count
        assert sellers[0].seller_id == "harbor-books-001"


def test_every_book_of_the_demo_is_an_isbn_13(demo: Scenario) -> None:
    assert len(demo.books) >= 36
    for book_id in demo.books:
        assert len(book_id) == 13
        assert normalise(book_id) == book_id


@pytest.mark.parametrize("count", [1, 50, 2_000])
def test_the_three_books_of_the_demo_have_their_three_outcomes(demo: Scenario, count: int) -> None:
    assert best(demo, count, EFFECTIVE_JAVA)[0] == (2_499, "harbor-books-001")
    assert best(demo, count, DATA_INTENSIVE)[0] == (3_499, "harbor-books-001")
    assert best(demo, count, CODEX) == []


def test_effective_java_can_be_had_for_29_99_at_others_too(demo: Scenario) -> None:
    affordable = [entry for entry in best(demo, 50, EFFECTIVE_JAVA) if entry[0] <= 2_999]
    assert len(affordable) >= 4


def test_the_cheapest_sellers_of_the_demos_books_do_as_they_say(demo: Scenario) -> None:
    """Its best prices are the same in every run: no troubled seller is among the cheapest."""
    behaviours = {spec.seller_id: spec.behaviour for spec in demo.sellers(50)}
    for book_id in demo.books:
        for _, seller_id in best(demo, 50, book_id)[:1]:
            behaviour = behaviours[seller_id]
            assert not behaviour.error_rate
            assert not behaviour.reprice_rate
            assert not behaviour.price_drift
            assert not behaviour.dead
