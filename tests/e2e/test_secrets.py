"""Secrets stay where they belong: nothing that a mesh writes has them, whatever customers do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from standardwebhooks.webhooks import Webhook

from deploy.local.mesh import LocalMesh
from tests.e2e.canary import Canary, secret_bytes, signature, written
from tests.e2e.collector import Collector
from tests.e2e.conftest import Audit, Doors, Fresh
from tests.e2e.customers import PATH, Json, Rest, final, refusal
from tests.e2e.waiting import eventually
from tests.fakes.receiver import Authority, Receiver

ENDPOINTS = "/api/v1/webhook-endpoints"
SERVICES = {"edge", "gateway", "orchestrator", "aggregator", "seller_sim"}
EXPORTED_WITHIN_S = 60.0
TOLD_WITHIN_S = 60.0
KINDS = 6
"""How many purchases there are, each another way to pay or to end."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Authority().receiver("127.0.0.1", tls=False) as receiver:
        yield receiver


class Spendthrift:
    """A customer who tries everything, each time with another secret, and keeps what the mesh answers."""

    def __init__(self, rest: Rest, canary: Canary) -> None:
        self.rest = rest
        self.canary = canary
        self.request_ids: list[str] = []
        self.answers: list[bytes] = []
        rest.client.event_hooks["response"].append(self._keep)

    async def _keep(self, response: httpx.Response) -> None:
        await response.aread()
        # These two alone give a secret out.
        if not response.request.url.path.endswith((ENDPOINTS, ":rotate-secret")):
            self.answers.append(response.content + repr(response.headers).encode())

    def card(self, prefix: str = "tok_") -> str:
        """Give a payment token that nobody has used; the provider refuses one without the prefix."""
        token = f"{prefix}{uuid4().hex}"
        self.canary.add("payment tokens", token.removeprefix(prefix))
        return token

    async def buy(self, book_id: str) -> Json:
        body: Json = {"book_id": book_id, "max_price": 29.99, "payment_token": self.card()}
        self.request_ids.append((await self.rest.create(body, str(uuid4())))["request_id"])
        return await final(self.rest, self.request_ids[-1])

    async def accept(self, request_id: str) -> Json:
        body = {"payment_token": self.card()}
        accepted = await self.rest.client.post(f"{PATH}/{request_id}:accept-offer", json=body)
        self.request_ids.append(accepted.json()["request_id"])
        return await final(self.rest, self.request_ids[-1])

    async def be_refused(self) -> None:
        """Send payment tokens where they are refused, or do not belong."""
        good: Json = {"book_id": "nowhere", "max_price": 29.99}
        declined = await refusal(self.rest, good | {"payment_token": self.card("pm_")})
        self.request_ids.append(declined.metadata["request_id"])
        wrong = [
            self._send(json={**good, "max_price": -1, "payment_token": self.card()}),
            self._send(json={**good, "payment_token": {"card": self.card()}}),
            self._send(json={**good, "payment_token": self.card() * 10}),
            self._send(json={**good, "payment": self.card()}),
            self._send(content=f'{{"payment_token": "{self.card()}", "max_price": '),
            self._send(content=f"payment_token={self.card()}"),
            self._send(json=good, params={"payment_token": self.card()}),
            self.rest.client.get(PATH, params={"payment_token": self.card()}),
        ]
        statuses = [(await call).status_code for call in wrong]
        assert statuses == [400] * 8

    async def _send(self, **what: Any) -> httpx.Response:  # noqa: ANN401  httpx takes much
        headers = {"content-type": "application/json"}
        return await self.rest.client.post(PATH, headers=headers, **what)


async def test_no_secret_is_written_anywhere(  # noqa: PLR0917  fixtures
    mesh: LocalMesh,
    doors: Doors,
    collector: Collector,
    audit: Audit,
    fresh: Fresh,
    receiver: Receiver,
) -> None:
    """Bought, bought after a refusal, offered, accepted, lost, declined, refused, and told by signed webhooks."""
    bearer, trace_id, canary = mesh.token(f"secretive-{uuid4()}"), uuid4().hex, Canary()
    canary.add("a token", bearer, signature(bearer))
    canary.add_those_of(mesh.data)
    rest = await doors.rest(token=bearer)
    rest.client.headers["traceparent"] = f"00-{trace_id}-{trace_id[:16]}-01"
    customer = Spendthrift(rest, canary)

    created = (await rest.client.post(ENDPOINTS, json={"url": receiver.url})).json()
    path = f"{ENDPOINTS}/{created['endpoint']['endpoint_id']}"
    rotated = (await rest.client.post(f"{path}:rotate-secret", json={})).json()
    for secret in (created["secret"], rotated["secret"]):
        canary.add("webhooks' secrets", secret, secret_bytes(secret))

    assert (await customer.buy(fresh("ordinary")))["status"] == "purchased"
    assert (await customer.buy(fresh("gone-at-the-order")))["status"] == "purchased"
    assert (await customer.buy(fresh("lost")))["status"] == "purchased"
    assert (await customer.buy(fresh("too-dear")))["status"] == "price_not_met"
    assert (await customer.accept(customer.request_ids[-1]))["status"] == "purchased"
    await customer.be_refused()
    assert len(customer.request_ids) == KINDS
    await audit(*customer.request_ids)

    async def told() -> bool | None:
        return len(receiver.received) >= KINDS or None

    await eventually(told, TOLD_WITHIN_S)
    for message in receiver.received:
        for secret in (created["secret"], rotated["secret"]):
            Webhook(secret).verify(message.body, message.headers)
        assert canary.seen_in(repr(message).encode()) == set()

    async def exported() -> bool | None:
        services = {span.service for span in collector.traces[trace_id]}
        measured = {"gateway", "orchestrator", "aggregator"}
        return (services >= SERVICES and collector.metrics.keys() >= measured) or None

    await eventually(exported, EXPORTED_WITHIN_S)
    places = await written(mesh, collector)
    # What is looked through is what it should be.
    known = customer.request_ids[0].encode()
    assert {"command", "telemetry", "valkey"} <= {place.split()[0] for place, _ in places}
    assert {"log", "file", "rows", "seller"} <= {
        place.split()[0] for place, text in places if known in text
    }
    places += [("answer", answer) for answer in customer.answers]
    assert {place: seen for place, text in places if (seen := canary.seen_in(text))} == {}
    await _sealed_only_while_an_offer_lasts(mesh, customer.request_ids)


async def _sealed_only_while_an_offer_lasts(mesh: LocalMesh, request_ids: list[str]) -> None:
    connection = await asyncpg.connect(mesh.dsn)
    kept = await connection.fetch(
        "SELECT stage, token_sealed FROM orchestrator.purchase WHERE request_id::text = ANY ($1)",
        request_ids,
    )
    await connection.close()
    assert len(kept) == len(request_ids)
    for row in kept:
        # While an offer runs the token may still pay for it.
        assert (row["token_sealed"] is not None) == (row["stage"] == "offer")
