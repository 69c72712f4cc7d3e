"""Sellers that sell out, raise their prices, hang and die: the customer still gets the right answer."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.e2e.conftest import Audit, Doors, Fresh
from tests.e2e.customers import Customer, ask, final
from tests.e2e.sellers import SimulatedSellers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def steps(customer: Customer, request_id: str) -> list[tuple[str, str | None]]:
    """Give what was tried at which seller."""
    return [
        (event["step"]["name"], event["step"].get("seller_id"))
        async for event in customer.watch(request_id)
        if "seller_id" in event.get("step", {})
    ]


NEXT_CHEAPEST = {
    "gone-at-the-hold": (22.0, ["emptied-holder", "bravo"]),
    "gone-at-the-order": (22.0, ["emptied-seller", "emptied-holder", "delta"]),
    "dearer-but-best": (22.0, ["raiser-holder"]),
    "dearer-than-the-next": (21.0, ["raiser-holder", "bravo"]),
    "dearer-than-the-max": (29.0, ["raiser-holder", "bravo"]),
    "dearer-at-the-order": (21.0, ["raiser-seller", "echo"]),
}
"""By book: what it is bought for in the end, and the sellers that were tried, the last of whom sells."""


@pytest.mark.parametrize("book", NEXT_CHEAPEST)
async def test_the_next_cheapest_sells_when_the_cheapest_does_not(
    customer: Customer, audit: Audit, fresh: Fresh, book: str
) -> None:
    price, tried = NEXT_CHEAPEST[book]
    request_id = await ask(customer, fresh(book))
    answer = await final(customer, request_id)
    assert (answer["status"], answer["final_price"]) == ("purchased", price)
    assert answer["seller_id"] == tried[-1]
    begun = [
        seller
        for name, seller in await steps(customer, request_id)
        if name in {"holding", "ordering"}
    ]
    assert list(dict.fromkeys(begun)) == tried
    await audit(request_id)


async def test_a_hold_that_costs_too_much_is_given_back(
    customer: Customer, audit: Audit, fresh: Fresh
) -> None:
    request_id = await ask(customer, fresh("dearer-than-the-max-everywhere"))
    answer = await final(customer, request_id)
    assert answer["status"] == "price_not_met"
    assert answer["lowest_price"] == 30.8
    assert ("hold_released", "raiser-holder") in await steps(customer, request_id)
    await audit(request_id)


async def test_when_nobody_has_one_left_it_is_not_available(
    customer: Customer, audit: Audit, fresh: Fresh
) -> None:
    request_id = await ask(customer, fresh("gone-everywhere"))
    assert (await final(customer, request_id))["status"] == "not_available"
    await audit(request_id)


async def test_the_last_copy_is_sold_once(doors: Doors, audit: Audit, fresh: Fresh) -> None:
    book_id = fresh("last-copy")
    customers = [await doors.rest(f"buyer-{number}") for number in range(5)]
    request_ids = [await ask(customer, book_id) for customer in customers]
    answers = await asyncio.gather(*map(final, customers, request_ids))
    assert {answer["status"] for answer in answers} == {"purchased"}
    assert Counter(answer["seller_id"] for answer in answers) == {
        "alpha": 1,
        "echo": 1,
        "bravo": 3,
    }
    await audit(*request_ids)


async def test_a_third_of_the_sellers_may_be_dead_or_hanging(
    customer: Customer, sellers: SimulatedSellers, audit: Audit, fresh: Fresh
) -> None:
    await sellers.change(["mortal-1", "mortal-2", "mortal-4"], dead=True)
    await sellers.change(["mortal-3", "mortal-5", "mortal-6"], hang_rate=1)
    request_id = await ask(customer, fresh("third-gone"))
    answer = await final(customer, request_id)
    assert (answer["status"], answer["seller_id"], answer["final_price"]) == (
        "purchased",
        "charlie",
        19.0,
    )
    await audit(request_id)


async def test_lost_answers_of_sellers_buy_nothing_twice(
    customer: Customer, audit: Audit, fresh: Fresh
) -> None:
    request_ids = [await ask(customer, fresh("lost")) for _ in range(8)]
    answers = await asyncio.gather(*(final(customer, request_id) for request_id in request_ids))
    assert {answer["status"] for answer in answers} == {"purchased"}
    assert {answer["final_price"] for answer in answers} <= {10.0, 11.0, 12.0}
    await audit(*request_ids)
