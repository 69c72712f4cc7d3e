"""Customers register where they want to be told, buy, and are told, through everything."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook

from tests.e2e.conftest import Doors
from tests.e2e.customers import Json, Rest, buy
from tests.e2e.waiting import eventually
from tests.fakes.receiver import Authority, Receiver, answering

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

ENDPOINTS = "/api/v1/webhook-endpoints"
DELIVERIES = "/api/v1/notification-deliveries"
EMAIL = "/api/v1/notification-email"
BOOK = "isbn-978-0134685991"
TOLD_WITHIN_S = 60.0


async def _answer(rest: Rest, method: str, path: str, body: Json | None = None) -> Json:
    response = await rest.client.request(method, path, json=body)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


async def _told(receiver: Receiver, messages: int = 1) -> None:
    async def told() -> bool | None:
        return len(receiver.received) >= messages or None

    await eventually(told, TOLD_WITHIN_S)


async def _delivered(rest: Rest) -> Json:
    """Give the only delivery, once the mesh knows that it arrived."""

    async def delivered() -> Json | None:
        [delivery] = (await _answer(rest, "GET", DELIVERIES))["deliveries"]
        return delivery if delivery["state"] == "delivered" else None

    return await eventually(delivered, TOLD_WITHIN_S)


async def test_a_customer_registers_buys_and_gets_a_signed_webhook(doors: Doors) -> None:
    rest = await doors.rest(f"told-{uuid4()}")
    async with Authority().receiver("127.0.0.1", answering(503), tls=False) as receiver:
        created = await _answer(rest, "POST", ENDPOINTS, {"url": receiver.url})
        assert created["endpoint"]["enabled"] is True
        bought = await buy(rest, BOOK)
        assert bought["status"] == "purchased"
        await _told(receiver)
        # The first try failed: the second comes about 5 s later.
        receiver.answer = answering(204)
        delivery = await _delivered(rest)
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery["message_id"]
    Webhook(created["secret"]).verify(second.body, second.headers)
    body = json.loads(second.body)
    assert body["type"] == "purchase_request.final"
    assert body["data"] == await rest.get(body["data"]["request_id"])
    assert (delivery["tries"], delivery["last_status"]) == (2, 204)
    assert (delivery["type"], delivery["receiver"]) == (body["type"], receiver.url)


async def test_endpoints_are_kept_over_rest(doors: Doors) -> None:
    rest, other = await doors.rest(f"keeps-{uuid4()}"), await doors.rest(f"other-{uuid4()}")
    url = "http://127.0.0.1:9/hook"
    created = await _answer(rest, "POST", ENDPOINTS, {"url": url})
    endpoint = created["endpoint"]
    path = f"{ENDPOINTS}/{endpoint['endpoint_id']}"
    assert await _answer(rest, "GET", ENDPOINTS) == {"endpoints": [endpoint]}
    assert await _answer(other, "GET", ENDPOINTS) == {"endpoints": []}
    rotated = await _answer(rest, "POST", f"{path}:rotate-secret", {})
    assert rotated["secret"] != created["secret"]
    assert (await _answer(rest, "POST", f"{path}:enable", {}))["endpoint"] == endpoint
    assert (await other.client.delete(path)).status_code == 404
    assert await _answer(rest, "DELETE", path) == {}
    gone = await rest.client.delete(path)
    assert gone.status_code == 404
    assert gone.json()["details"][0]["reason"] == "WEBHOOK_ENDPOINT_NOT_FOUND"
    refused = await rest.client.post(ENDPOINTS, json={"url": "https://169.254.169.254/latest"})
    assert refused.status_code == 400
    assert refused.json()["details"][0]["reason"] == "WEBHOOK_URL_INVALID"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", ENDPOINTS, "GET, POST"),
        ("GET", f"{ENDPOINTS}/x", "DELETE"),
        ("GET", f"{ENDPOINTS}/x:enable", "POST"),
        ("POST", EMAIL, "GET, PUT"),
        ("PUT", f"{EMAIL}:confirm", "POST"),
        ("POST", DELIVERIES, "GET"),
    ],
)
async def test_a_wrong_method_is_405_with_those_that_are_right(
    rest: Rest, method: str, path: str, allowed: str
) -> None:
    response = await rest.client.request(method, path, json={})
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


async def test_email_is_refused_where_no_mail_server_is(rest: Rest) -> None:
    assert await _answer(rest, "GET", EMAIL) == {"email": ""}
    refused = await rest.client.put(EMAIL, json={"email": "alice@customers.test"})
    assert refused.status_code == 400
    assert refused.json()["details"][0]["reason"] == "EMAIL_UNAVAILABLE"
    assert await _answer(rest, "PUT", EMAIL, {"email": ""}) == {"email": ""}
    for code, reason in (("12345678", "EMAIL_CODE_WRONG"), ("1234", "INVALID_ARGUMENT")):
        refused = await rest.client.post(f"{EMAIL}:confirm", json={"code": code})
        assert refused.status_code == 400
        assert refused.json()["details"][0]["reason"] == reason
