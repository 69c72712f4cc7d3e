from __future__ import annotations

from seller_sim.domain.behaviour import Behaviour
from seller_sim.domain.catalogue import Book, Condition, FixedOffer, Offer, offers_of

NOW_US = 1_795_367_838_128_930
BOOKS = [str(9_780_000_000_000 + n) for n in range(2_000)]


def offers(
    behaviour: Behaviour, book_id: str, book: Book | None = None, now_us: int = NOW_US
) -> list[Offer] | None:
    return offers_of(
        seed=1, seller_id="shop", behaviour=behaviour, book_id=book_id, book=book, now_us=now_us
    )


def test_a_seller_carries_and_has_in_stock_the_part_of_books_that_it_should() -> None:
    behaviour = Behaviour(carries=0.6, in_stock=0.5, used=0.25)
    found = [offers(behaviour, book_id) for book_id in BOOKS]
    carried = [offer for offer in found if offer is not None]
    in_stock = [offer for offer in carried if offer]
    with_used = [offer for offer in in_stock if len(offer) == 2]
    assert abs(len(carried) / len(found) - 0.6) < 0.05
    assert abs(len(in_stock) / len(carried) - 0.5) < 0.05
    assert abs(len(with_used) / len(in_stock) - 0.25) < 0.05


def test_the_same_book_is_always_offered_alike() -> None:
    behaviour = Behaviour(carries=1, in_stock=1)
    assert offers(behaviour, BOOKS[0]) == offers(behaviour, BOOKS[0], now_us=NOW_US + 10**12)


def test_prices_lie_around_the_level_and_totals_have_the_shipping() -> None:
    behaviour = Behaviour(carries=1, in_stock=1, price_level=2, price_noise=0.1, shipping_minor=150)
    for book_id in BOOKS:
        book = Book(book_id, "", "", base_minor=1_000)
        (new, *used) = offers(behaviour, book_id, book) or []
        assert new.condition is Condition.NEW
        assert 1_800 <= new.price_minor <= 2_200
        assert 1 <= new.copies <= behaviour.max_copies
        for offer in (new, *used):
            assert offer.total_minor == offer.price_minor + 150
        for offer in used:
            assert offer.condition is not Condition.NEW
            assert offer.price_minor < new.price_minor


def test_prices_drift_from_period_to_period_and_not_within_one() -> None:
    behaviour = Behaviour(carries=1, in_stock=1, used=0, price_drift=0.05, price_drift_period_s=60)
    start_us = NOW_US // 60_000_000 * 60_000_000
    first, last, following = (
        offers(behaviour, BOOKS[1], now_us=start_us + at_us)
        for at_us in (0, 59_999_999, 60_000_000)
    )
    assert first == last != following


def test_the_scenario_can_say_who_carries_a_book_and_its_least_total() -> None:
    behaviour = Behaviour(carries=0.5, in_stock=1)
    nobody = Book("b", "", "", carried=0)
    everybody = Book("b", "", "", carried=1, base_minor=1_000, least_total_minor=3_499, copies=7)
    assert all(offers(behaviour, book_id, nobody) is None for book_id in BOOKS)
    for book_id in BOOKS:
        found = offers(behaviour, book_id, everybody)
        assert found
        assert found[0].copies == 7
        assert {offer.total_minor for offer in found} == {3_499}


def test_an_exact_offer_is_exact_whatever_the_behaviour() -> None:
    behaviour = Behaviour(carries=0, in_stock=0, price_level=3, price_drift=0.5)
    book = Book("b", "", "", offers={"shop": FixedOffer(2_499, 10)})
    assert offers(behaviour, "b", book) == [Offer(Condition.NEW, 2_100, 399, 2_499, 10)]


def test_nothing_is_ever_free() -> None:
    behaviour = Behaviour(carries=1, in_stock=1, used=1, price_level=0.01, shipping_minor=0)
    for book_id in BOOKS:
        book = Book(book_id, "", "", base_minor=1)
        assert all(offer.total_minor >= 1 for offer in offers(behaviour, book_id, book) or [])
