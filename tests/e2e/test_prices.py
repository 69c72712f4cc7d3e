"""Comparing prices without buying, and listing what was bought, by every way into the mesh."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from tests.e2e.conftest import SELLERS, Doors, Fresh
from tests.e2e.customers import (
    SHOULD_BE_SO_WITHIN_S,
    Customer,
    Json,
    Refused,
    Rest,
    all_answer,
    buy,
)
from tests.e2e.sellers import SimulatedSellers
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

PRICES = [("alpha", 24.99), ("bravo", 25.49), ("delta", 26.0)]


def prices(answer: Json) -> list[tuple[str, float]]:
    return [(quote["seller_id"], quote["total"]) for quote in answer["quotes"]]


async def test_prices_come_with_the_lowest_first_and_nothing_is_bought(
    doors: Doors, customer: Customer, fresh: Fresh
) -> None:
    await all_answer(customer, fresh("ordinary"))
    book = fresh("ordinary")
    answer = await customer.compare(book, max_wait_ms=9000)
    assert prices(answer) == PRICES
    assert answer["book_id"] == book
    summary = answer["summary"]
    assert summary["best_total"] == 24.99
    counts = ("sellers", "asked", "answered", "quoted", "from_cache")
    assert [summary[count] for count in counts] == [SELLERS, SELLERS, SELLERS, 3, 0]
    again = await customer.compare(book)
    assert prices(again) == PRICES
    assert again["summary"]["from_cache"] == SELLERS
    assert all(quote["age_ms"] > 0 for quote in again["quotes"])
    listed = await (await doors.rest()).page(book_id=book)
    assert listed["purchase_requests"] == []


async def test_prices_stream_as_they_arrive(
    customer: Customer, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    await all_answer(customer, fresh("ordinary"))
    await sellers.change(["foxtrot"], latency_constant_ms=1000)

    async def in_parts() -> bool | None:
        stream = customer.stream_prices(fresh("ordinary"), max_wait_ms=9000)
        *parts, last = [event async for event in stream]
        batches = [event["quotes"] for event in parts]
        assert sorted(pair for batch in batches for pair in prices(batch)) == PRICES
        assert last["summary"]["answered"] == SELLERS
        return len(batches) > 1 or None

    # What arrives while the machine stands still comes in one part.
    assert await eventually(in_parts, SHOULD_BE_SO_WITHIN_S)


async def test_who_has_no_time_gets_what_is_there(customer: Customer, fresh: Fresh) -> None:
    answer = await customer.compare(fresh("ordinary"), max_wait_ms=1)
    assert answer["summary"]["sellers"] == SELLERS
    assert answer["summary"]["answered"] == len(answer["quotes"]) == 0


async def test_every_spelling_is_the_same_book(customer: Customer) -> None:
    for spelling in ("9780134685991", "0-13-468599-7", "isbn-978-0134685991"):
        answer = await customer.compare(spelling)
        assert (answer["book_id"], prices(answer)) == ("9780134685991", PRICES)


@pytest.mark.parametrize(
    ("book_id", "wanted", "field"),
    [
        ("0-13-468599-8", {}, "book_id"),
        ("b" * 65, {}, "book_id"),
        ("a\nb", {}, "book_id"),
        ("b", {"max_wait_ms": 10_001}, "max_wait_ms"),
        ("b", {"max_quotes": 1001}, "max_quotes"),
        ("b", {"currency_code": "usd"}, "currency_code"),
        ("b", {"currency_code": "XQX"}, "currency_code"),
        ("b", {"conditions": ["new", "new"]}, "conditions"),
    ],
)
async def test_what_is_wrong_is_named(
    customer: Customer, book_id: str, wanted: Json, field: str
) -> None:
    with pytest.raises(Refused) as caught:
        await customer.compare(book_id, **wanted)
    assert (caught.value.code, caught.value.fields) == ("INVALID_ARGUMENT", (field,))


@pytest.mark.parametrize("path", ["%FF", "%C3", "a%2Fb", "%zz", "%"])
async def test_a_path_that_names_no_book_is_400(rest: Rest, path: str) -> None:
    url = rest.client.base_url.copy_with(raw_path=f"/api/v1/books/{path}/quotes".encode())
    response = await rest.client.get(url)
    assert response.status_code == httpx.codes.BAD_REQUEST
    assert response.json()["details"][0]["reason"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("book_id", ["a b", "a+b", "a:b?c#d&e=f", "%41", "\u672c", "100%"])
async def test_odd_characters_of_a_book_id_arrive_as_they_are(
    customer: Customer, book_id: str
) -> None:
    assert quote(book_id, safe="") != book_id
    assert (await customer.compare(book_id))["book_id"] == book_id


async def test_a_list_has_what_is_wanted(doors: Doors, customer: Customer, fresh: Fresh) -> None:
    book, other = fresh("ordinary"), fresh("ordinary")
    await buy(customer, book)
    await buy(customer, other)
    await buy(customer, book, max_price=1.0)
    page = await customer.page(book_id=book)
    statuses = [line["status"] for line in page["purchase_requests"]]
    assert statuses == ["price_not_met", "purchased"]
    cheap = await customer.page(book_id=book, statuses=["price_not_met", "failed"])
    assert [line["status"] for line in cheap["purchase_requests"]] == ["price_not_met"]
    since = cheap["purchase_requests"][0]["create_time"]
    newer = await customer.page(book_id=book, created_after=since)
    older = await customer.page(book_id=book, created_before=since)
    assert [line["status"] for line in newer["purchase_requests"]] == ["price_not_met"]
    assert [line["status"] for line in older["purchase_requests"]] == ["purchased"]
    first = await customer.page(size=1, book_id=book)
    rest = await customer.page(token=first["next_page_token"], book_id=book)
    assert rest["purchase_requests"] == page["purchase_requests"][1:]
    for another in ("", other):
        with pytest.raises(Refused) as caught:
            await customer.page(token=first["next_page_token"], book_id=another)
        assert caught.value.fields == ("page_token",)
    with pytest.raises(Refused):
        await (await doors.rest("mallory")).page(token=first["next_page_token"], book_id=book)
