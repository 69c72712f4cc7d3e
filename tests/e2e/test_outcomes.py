"""Every way in which a purchase can end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Audit, Doors
from tests.e2e.customers import PATH, Customer, Json, Rest, buy, final, refusal

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

EFFECTIVE_JAVA = "isbn-978-0134685991"


async def test_the_call_of_the_readme(rest: Rest, audit: Audit) -> None:
    """To the letter: what a customer sends, and the bytes that come back."""
    response = await rest.client.post(
        "/api/v1/purchase-requests",
        content='{"book_id": "isbn-978-0134685991", "max_price": 29.99, "payment_token": "tok_abc123"}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"
    accepted = response.json()
    request_id = accepted["request_id"]
    url = f"/api/v1/purchase-requests/{request_id}"
    assert response.headers["location"] == url
    assert response.text == json.dumps(
        {"request_id": request_id, "status": "pending", "status_url": url}, separators=(",", ":")
    )

    answer = await final(rest, request_id)
    confirmation = answer["confirmation"]
    assert (await rest.client.get(url)).text == json.dumps(
        {
            "request_id": request_id,
            "status": "purchased",
            "final_price": 24.99,
            "seller_id": "alpha",
            "confirmation": confirmation,
        },
        separators=(",", ":"),
    )
    assert confirmation
    await audit(request_id)


@pytest.mark.parametrize("book_id", ["0-13-468599-7", "9780134685991", "ISBN 978 0134685991"])
async def test_every_spelling_buys_the_book(customer: Customer, book_id: str) -> None:
    answer = await buy(customer, book_id)
    assert (answer["status"], answer["final_price"]) == ("purchased", 24.99)


@pytest.mark.parametrize(
    ("book_id", "max_price", "price", "seller_id"),
    [
        ("straight-from-a-quote", 29.99, 9.5, "echo"),
        (EFFECTIVE_JAVA, 24.99, 24.99, "alpha"),
        ("pondered", 29.99, 15.0, "ponderer"),
    ],
)
async def test_the_cheapest_seller_sells(
    customer: Customer, book_id: str, max_price: float, price: float, seller_id: str
) -> None:
    answer = await buy(customer, book_id, max_price)
    assert answer.pop("confirmation")
    assert answer == {"status": "purchased", "final_price": price, "seller_id": seller_id}


@pytest.mark.parametrize(
    ("book_id", "max_price", "lowest", "seller_id"),
    [("too-dear", 29.99, 34.99, "bravo"), (EFFECTIVE_JAVA, 24.98, 24.99, "alpha")],
)
async def test_too_dear_is_an_offer_and_costs_nothing(
    customer: Customer, book_id: str, max_price: float, lowest: float, seller_id: str
) -> None:
    answer = await buy(customer, book_id, max_price)
    assert answer["offer"].pop("expires_at")
    assert answer == {
        "status": "price_not_met",
        "lowest_price": lowest,
        "message": f"Best price (${lowest}) exceeds your max (${max_price})",
        "next_action": "resubmit_with_higher_max_price",
        "offer": {"price": lowest, "currency_code": "USD", "seller_id": seller_id},
    }


@pytest.mark.parametrize(
    "wish",
    [
        {"book_id": "nowhere"},
        {"book_id": "9780262033848"},
        {"book_id": EFFECTIVE_JAVA, "currency_code": "EUR"},
        {"book_id": EFFECTIVE_JAVA, "conditions": ["good", "acceptable"]},
    ],
    ids=["carried by nobody", "heard of by nobody", "in another currency", "in another condition"],
)
async def test_what_nobody_has_is_not_available(customer: Customer, wish: dict[str, Any]) -> None:
    assert await buy(customer, **wish) == {
        "status": "not_available",
        "message": "No sellers had this book in stock at the time of request",
    }


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("tok_decline", "CARD_DECLINED"),
        ("tok_action_required", "ACTION_REQUIRED"),
        ("tok_invalid", "PAYMENT_TOKEN_INVALID"),
    ],
)
async def test_a_refused_card_is_402_and_the_request_has_failed(
    customer: Customer, audit: Audit, token: str, reason: str
) -> None:
    body = {"book_id": EFFECTIVE_JAVA, "max_price": 29.99, "payment_token": token}
    refused = await refusal(customer, body)
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", reason)
    request_id = refused.metadata["request_id"]
    assert refused.metadata["status_url"] == f"{PATH}/{request_id}"
    answer = await customer.get(request_id)
    assert (answer["status"], answer["reason"]) == ("failed", reason.lower())
    assert answer["message"]
    await audit(request_id)


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        ("tok_slow", {"status": "purchased"}),
        ("tok_slow_decline", {"status": "failed", "reason": "card_declined"}),
        ("tok_lost_authorize", {"status": "purchased"}),
        ("tok_lost_capture", {"status": "purchased"}),
        ("tok_capture_fails", {"status": "failed", "reason": "capture_refused"}),
    ],
)
async def test_whatever_the_provider_does_the_books_agree(
    rest: Rest, audit: Audit, token: str, outcome: Json
) -> None:
    body = {"book_id": EFFECTIVE_JAVA, "max_price": 29.99, "payment_token": token}
    request_id = (await rest.create(body))["request_id"]
    answer = await final(rest, request_id)
    assert {name: answer.get(name) for name in outcome} == outcome
    await audit(request_id)


async def test_a_customer_lists_its_own_requests_newest_first(doors: Doors) -> None:
    customers: list[Customer] = [await doors.rest("lister"), await doors.grpc("lister")]
    made = []
    for book_id, customer in zip(
        ["nowhere", EFFECTIVE_JAVA, "too-dear"], [*customers, customers[0]], strict=True
    ):
        wish = {"book_id": book_id, "max_price": 29.99, "payment_token": "tok_ok"}
        made.append((await customer.create(wish))["request_id"])
        await final(customer, made[-1])
    stranger = await doors.rest("somebody-else")
    assert await stranger.page() == {"purchase_requests": [], "next_page_token": ""}
    for customer in customers:
        first = await customer.page(size=2)
        second = await customer.page(size=2, token=first["next_page_token"])
        lines = first["purchase_requests"] + second["purchase_requests"]
        assert [line["request_id"] for line in lines] == made[::-1]
        assert [line["status"] for line in lines] == ["price_not_met", "purchased", "not_available"]
        assert [line["book_id"] for line in lines] == ["too-dear", "9780134685991", "nowhere"]
        assert [line.get("final_price") for line in lines] == [None, 24.99, None]
        assert [line.get("lowest_price") for line in lines] == [34.99, None, None]
        assert not second["next_page_token"]
