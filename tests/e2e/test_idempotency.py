"""One purchase under one key, however often and wherever it is asked for."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tests.e2e.conftest import Audit, Doors
from tests.e2e.customers import Customer, Json, Refused, final, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

WISH: Json = {"book_id": "isbn-978-0134685991", "max_price": 29.99, "payment_token": "tok_ok"}


async def test_the_same_key_gives_the_same_request(customer: Customer, audit: Audit) -> None:
    key = str(uuid4())
    first = await customer.create(WISH, key)
    request_id = first["request_id"]
    assert (await final(customer, request_id))["status"] == "purchased"
    again = await customer.create({**WISH, "book_id": "0-13-468599-7"}, key)
    assert again == first | {"status": "purchased"}
    await audit(request_id)


@pytest.mark.parametrize(
    "change",
    [
        {"book_id": "nowhere"},
        {"max_price": 29.98},
        {"payment_token": "tok_other"},
        {"currency_code": "EUR"},
        {"conditions": ["new", "good"]},
    ],
    ids="".join,
)
async def test_the_same_key_for_something_else_is_refused(customer: Customer, change: Json) -> None:
    key = str(uuid4())
    await customer.create(WISH, key)
    with pytest.raises(Refused) as caught:
        await customer.create(WISH | change, key)
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")


async def test_a_refused_card_is_refused_again_for_the_same_request(customer: Customer) -> None:
    keys: list[str] = []

    def another() -> str:
        keys.append(str(uuid4()))
        return keys[-1]

    wish = {**WISH, "payment_token": "tok_decline"}
    first = await refusal(customer, wish, another)
    with pytest.raises(Refused) as again:
        await customer.create(wish, keys[-1])
    assert vars(first) == vars(again.value)
    assert first.reason == "CARD_DECLINED"


async def test_customers_do_not_share_keys(doors: Doors) -> None:
    key = str(uuid4())
    alice, bob = await doors.rest("alice"), await doors.grpc("bob")
    first, second = await alice.create(WISH, key), await bob.create(WISH, key)
    assert first["request_id"] != second["request_id"]


async def test_without_a_key_each_call_is_a_purchase(customer: Customer) -> None:
    first, second = await customer.create(WISH), await customer.create(WISH)
    assert first["request_id"] != second["request_id"]


async def test_duplicates_at_the_same_time_make_one_purchase(doors: Doors, audit: Audit) -> None:
    key = str(uuid4())
    customers: list[Customer] = [await doors.rest(), await doors.grpc()]
    answers = await asyncio.gather(
        *(customer.create(WISH, key) for _ in range(8) for customer in customers)
    )
    [request_id] = {answer["request_id"] for answer in answers}
    assert (await final(customers[0], request_id))["status"] == "purchased"
    await audit(request_id)
