"""Purchases that are paid through Stripe's adapter, whose other end is the simulator."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment
from tests.e2e.canary import Canary, written
from tests.e2e.conftest import SCENARIO, SELLERS
from tests.e2e.customers import Json, Rest, buy, final, refusal
from tests.e2e.waiting import eventually
from tests.fakes.psp import API_KEY, WEBHOOK_SECRET, PspSim, running_psp_sim

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

EFFECTIVE_JAVA = "9780134685991"
RELEASED_WITHIN_S = 60.0


@dataclass
class Shop:
    """A mesh that is paid through Stripe's adapter, one of its customers, and the other end."""

    mesh: LocalMesh
    customer: Rest
    sim: PspSim

    async def payment(self, request_id: str) -> Json:
        """Give the one payment of a purchase, as Stripe has it."""
        async with self.sim.client() as http:
            response = await http.get("/v1/payment_intents", params={"limit": "100"})
        found = [p for p in response.json()["data"] if p["metadata"]["request_id"] == request_id]
        assert len(found) == 1
        payment: Json = found[0]
        return payment

    async def ask(self, book_id: str, token: str = "pm_card_visa") -> str:
        request_id: str = (await self.customer.create(wish(book_id, token)))["request_id"]
        return request_id


def wish(book_id: str, token: str) -> Json:
    return {"book_id": book_id, "max_price": 29.99, "payment_token": token}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("stripe")
    key = folder / "key"
    key.write_text(API_KEY)
    secret = folder / "secret"
    secret.write_text(WEBHOOK_SECRET)
    with running_psp_sim(folder / "psp") as sim:
        options = MeshOptions(
            data=tmp_path_factory.mktemp("mesh"),
            http_port=0,
            grpc_port=0,
            sellers=SELLERS,
            scenario=SCENARIO,
            replicas=1,
            environment=inherited_environment()
            | {
                "BOOKMESH_QUOTE_POLICY": "best_price",
                "BOOKMESH_PAYMENT_PROVIDER": "stripe",
                "BOOKMESH_STRIPE_API_KEY_FILE": str(key),
                "BOOKMESH_STRIPE_API_BASE": sim.url,
                "BOOKMESH_STRIPE_WEBHOOK_SECRET_FILE": str(secret),
                "BOOKMESH_LOG_LEVEL": "DEBUG",
            },
        )
        async with (
            LocalMesh(options) as mesh,
            httpx.AsyncClient(
                base_url=mesh.rest_url,
                headers={"authorization": f"Bearer {mesh.token('alice')}"},
                timeout=30,
                trust_env=False,
            ) as client,
        ):
            yield Shop(mesh, Rest(client), sim)


async def test_charges_the_price_and_releases_the_rest(shop: Shop) -> None:
    request_id = await shop.ask(EFFECTIVE_JAVA)
    answer = await final(shop.customer, request_id)
    assert (answer["status"], answer["final_price"]) == ("purchased", 24.99)
    payment = await shop.payment(request_id)
    assert (payment["status"], payment["amount"], payment["amount_received"]) == (
        "succeeded",
        2999,
        2499,
    )


async def test_releases_what_is_not_needed(shop: Shop) -> None:
    request_id = await shop.ask("too-dear")
    assert (await final(shop.customer, request_id))["status"] == "price_not_met"

    async def released() -> bool | None:
        return (await shop.payment(request_id))["status"] == "canceled" or None

    await eventually(released, RELEASED_WITHIN_S)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("pm_card_chargeDeclined", "CARD_DECLINED"),
        ("pm_card_actionRequired", "ACTION_REQUIRED"),
        ("pm_card_nobodys", "PAYMENT_TOKEN_INVALID"),
    ],
)
async def test_a_declined_card_is_402(shop: Shop, token: str, reason: str) -> None:
    refused = await refusal(shop.customer, wish(EFFECTIVE_JAVA, token))
    assert refused.reason == reason


@pytest.mark.parametrize("kind", ["cut_after", "cut_before", "error_after"])
async def test_is_charged_once_whatever_goes_wrong_between(shop: Shop, kind: str) -> None:
    await shop.sim.plan("authorize", kind)
    await shop.sim.plan("capture", kind)
    request_id = await shop.ask(EFFECTIVE_JAVA)
    answer = await final(shop.customer, request_id)
    assert (answer["status"], answer["final_price"]) == ("purchased", 24.99)
    assert (await shop.payment(request_id))["amount_received"] == 2499


def _signed(body: bytes, secret: str, at: datetime) -> str:
    """Sign an event as Stripe does."""
    seconds = int(at.timestamp())
    signature = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    return f"t={seconds},v1={signature.hexdigest()}"


async def test_api10_only_what_stripe_has_signed_is_taken(shop: Shop) -> None:
    """OWASP API10, unsafe consumption of APIs: an event that others made up changes nothing."""
    request_id = await shop.ask(EFFECTIVE_JAVA)
    before = await final(shop.customer, request_id)
    payment = (await shop.payment(request_id))["id"]
    event = {
        "id": "evt_1",
        "object": "event",
        "type": "charge.refunded",
        "data": {"object": {"object": "charge", "payment_intent": payment}},
    }
    body, now = json.dumps(event).encode(), datetime.now(UTC)
    good = _signed(body, WEBHOOK_SECRET, now)
    forgeries = {
        "guessed": (body, _signed(body, "whsec_guessed", now)),
        "old": (body, _signed(body, WEBHOOK_SECRET, now - timedelta(hours=1))),
        "of another event": (body, _signed(b"{}", WEBHOOK_SECRET, now)),
        "changed": (body.replace(b"evt_1", b"evt_2"), good),
        "nonsense": (body, "nonsense"),
        "missing": (body, ""),
    }
    for content, signature in [*forgeries.values(), (body, good)]:
        headers = {"stripe-signature": signature, "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=shop.mesh.rest_url, trust_env=False) as stripe:
            answer = await stripe.post("/api/v1/payment-events", content=content, headers=headers)
        if signature is good and content is body:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code == 400
            assert answer.json()["details"][0]["reason"] == "SIGNATURE_INVALID"
    assert await shop.customer.get(request_id) == before


async def test_neither_token_nor_key_is_written_anywhere(shop: Shop) -> None:
    """By a mesh that logs all it can."""
    canary = Canary()
    canary.add("payment tokens", "pm_card_")
    canary.add("Stripe's key", API_KEY)
    canary.add("the secret of Stripe's events", WEBHOOK_SECRET)
    await buy(shop.customer, EFFECTIVE_JAVA, payment_token="pm_card_mastercard")
    await refusal(shop.customer, wish(EFFECTIVE_JAVA, "pm_card_nobodys"))
    places = await written(shop.mesh)
    assert {place: seen for place, text in places if (seen := canary.seen_in(text))} == {}
