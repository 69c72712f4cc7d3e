"""What cannot be asked for is refused before anything happens, and the answer names the field."""

from __future__ import annotations

import pytest

from tests.e2e.customers import PATH, Customer, Json, Refused, Rest

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

GOOD: Json = {
    "book_id": "isbn-978-0134685991",
    "max_price": 29.99,
    "payment_token": "tok_very_secret",
}


def changed(changes: Json) -> Json:
    """Give the good body with other fields; those that are None are left out."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


WRONG: dict[str, tuple[Json, tuple[str, ...]]] = {
    "nothing": (dict.fromkeys(GOOD), ("book_id", "max_price", "payment_token")),
    "no price": ({"max_price": None}, ("max_price",)),
    "price 0": ({"max_price": 0}, ("max_price",)),
    "price below 0": ({"max_price": -1}, ("max_price",)),
    "a tenth of a cent": ({"max_price": 29.999}, ("max_price",)),
    "a trillion": ({"max_price": 1e12}, ("max_price",)),
    "a cent too much": ({"max_price": 100_000.01}, ("max_price",)),
    "a hundredth of a yen": ({"currency_code": "JPY"}, ("max_price",)),
    "no code of a currency": ({"currency_code": "dollars"}, ("currency_code",)),
    "no currency": ({"currency_code": "XXX"}, ("currency_code",)),
    "no book": ({"book_id": None}, ("book_id",)),
    "an empty book id": ({"book_id": ""}, ("book_id",)),
    "a blank book id": ({"book_id": "  "}, ("book_id",)),
    "a book id of 10 kB": ({"book_id": "b" * 10_000}, ("book_id",)),
    "a wrong ISBN-13": ({"book_id": "isbn-978-0134685992"}, ("book_id",)),
    "a wrong ISBN-10": ({"book_id": "0-13-468599-8"}, ("book_id",)),
    "no payment token": ({"payment_token": None}, ("payment_token",)),
    "a long payment token": ({"payment_token": "t" * 256}, ("payment_token",)),
    "a condition twice": ({"conditions": ["new", "new"]}, ("conditions",)),
    "two at once": ({"book_id": "9780134685992", "max_price": 29.999}, ("book_id", "max_price")),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_field_is_named(customer: Customer, what: str) -> None:
    changes, fields = WRONG[what]
    with pytest.raises(Refused) as caught:
        await customer.create(changed(changes))
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.fields == fields
    for field in fields:
        assert f"{field}: " in caught.value.message
    assert "tok_very_secret" not in repr(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "k" * 256])
async def test_a_wrong_idempotency_key_is_named(customer: Customer, key: str) -> None:
    with pytest.raises(Refused) as caught:
        await customer.create(GOOD, key)
    assert (caught.value.code, caught.value.fields) == ("INVALID_ARGUMENT", ("idempotency-key",))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_price": "abc"}, "max_price"),
        ({"max_price": True}, "max_price"),
        ({"conditions": ["shiny"]}, "conditions"),
        ({"max_price": None, "max_prize": 29.99}, "max_price"),
        ({"book_id": None, "bookid": "9780134685991"}, "book_id"),
        ({"payment_token": None, "paymenttoken": "tok"}, "payment_token"),
    ],
    ids=["abc", "true", "shiny", "max_prize", "bookid", "paymenttoken"],
)
async def test_what_only_json_can_get_wrong_is_named_too(
    rest: Rest, changes: Json, field: str
) -> None:
    with pytest.raises(Refused) as caught:
        await rest.create(changed(changes))
    assert (caught.value.code, caught.value.fields) == ("INVALID_ARGUMENT", (field,))


async def test_no_body_lacks_every_required_field(rest: Rest) -> None:
    response = await rest.client.post(PATH)
    assert response.status_code == 400
    for field in ("book_id", "max_price", "payment_token"):
        assert field in response.json()["message"]


@pytest.mark.parametrize("path", [f"{PATH}?colour=red", f"{PATH}/x?colour=red"])
async def test_an_unknown_query_parameter_is_named(rest: Rest, path: str) -> None:
    response = await rest.client.get(path)
    assert response.status_code == 400
    assert "colour" in response.json()["message"]


async def test_headers_that_the_edge_takes_a_gateway_takes_too(rest: Rest) -> None:
    response = await rest.client.get(PATH, headers={"x-large": "a" * 14_000})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("token", ["nonsense", "t" * 129])
async def test_a_page_token_of_nobody_is_named(customer: Customer, token: str) -> None:
    with pytest.raises(Refused) as caught:
        await customer.page(token=token)
    assert (caught.value.code, caught.value.fields) == ("INVALID_ARGUMENT", ("page_token",))


@pytest.mark.parametrize("size", [-1, 101])
async def test_a_page_size_out_of_range_is_named(customer: Customer, size: int) -> None:
    with pytest.raises(Refused) as caught:
        await customer.page(size=size)
    assert (caught.value.code, caught.value.fields) == ("INVALID_ARGUMENT", ("page_size",))
