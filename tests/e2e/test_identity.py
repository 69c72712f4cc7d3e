"""Who may see what: only the customer to whom the token was issued."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.aggregator.v1.aggregator_pb2_grpc import RegistryServiceStub, SellerHealthServiceStub
from deploy.local.keys import AUDIENCE, ISSUER
from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Doors
from tests.e2e.customers import PATH, Customer, Json, Refused, final

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

WISH: Json = {"book_id": "nowhere", "max_price": 29.99, "payment_token": "tok_ok"}
NEVER_MADE = "01980000-0000-7000-8000-000000000000"


def token(mesh: LocalMesh, kind: str) -> str:
    now = datetime.now(UTC)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + timedelta(minutes=5)}
    key = load_pem_private_key(mesh.data.issuer_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    match kind:
        case "none":
            return ""
        case "nonsense":
            return "nonsense"
        case "expired":
            claims["exp"] = now - timedelta(hours=1)
        case "other audience":
            claims["aud"] = "somebody-else"
        case "other issuer":
            claims["iss"] = "https://elsewhere.test"
        case _:
            key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "development"})


@pytest.mark.parametrize(
    "kind", ["none", "nonsense", "expired", "other audience", "other issuer", "other key"]
)
@pytest.mark.parametrize("door", ["rest", "grpc", "gateway"])
async def test_without_a_good_token_nothing_is_answered(
    mesh: LocalMesh, doors: Doors, door: str, kind: str
) -> None:
    """At the edge, and at a gateway itself, which trusts nobody for it."""
    bad = token(mesh, kind)
    customer: Customer
    match door:
        case "rest":
            customer = await doors.rest(token=bad)
        case "grpc":
            customer = await doors.grpc(token=bad)
        case _:
            customer = await doors.grpc(token=bad, address=mesh.replicas["gateway-1"])
    for call in (customer.create(WISH), customer.get(NEVER_MADE), customer.page()):
        with pytest.raises(Refused) as caught:
            await call
        assert caught.value.code == "UNAUTHENTICATED"
        words = {"none": "TOKEN_MISSING", "expired": "TOKEN_EXPIRED"}
        assert caught.value.reason == words.get(kind, "TOKEN_INVALID")


@pytest.mark.parametrize("request_id", [NEVER_MADE, "nonsense", "0" * 64])
async def test_an_unknown_request_is_not_found(customer: Customer, request_id: str) -> None:
    with pytest.raises(Refused) as caught:
        await customer.get(request_id)
    assert caught.value.code == "NOT_FOUND"


async def test_the_request_of_another_looks_like_one_that_does_not_exist(doors: Doors) -> None:
    alice, mallory = await doors.rest("alice"), await doors.rest("mallory")
    request_id = (await alice.create(WISH))["request_id"]
    await final(alice, request_id)
    for suffix in ("", ":watch"):
        of_another = await mallory.client.get(f"{PATH}/{request_id}{suffix}")
        of_nobody = await mallory.client.get(f"{PATH}/{NEVER_MADE}{suffix}")
        assert of_another.status_code == of_nobody.status_code == 404
        assert of_another.content == of_nobody.content
    watching: AsyncIterator[Json] = (await doors.grpc("mallory")).watch(request_id)
    with pytest.raises(Refused) as caught:
        await anext(watching)
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize("name", ["gateway", "internal", "envoy"])
async def test_who_only_passes_questions_on_learns_nothing_of_the_sellers(
    mesh: LocalMesh, name: str
) -> None:
    """Where they are and by which secrets they are called concerns those alone who call them."""
    aggregator = mesh.replicas["aggregator-1"]
    async with mesh.connect(aggregator, "aggregator", by=name) as channel:
        sellers = RegistryServiceStub(channel).WatchSellers(pb.WatchSellersRequest(), timeout=10)
        for call in (
            anext(aiter(sellers)),
            SellerHealthServiceStub(channel).GetSellerHealth(
                pb.GetSellerHealthRequest(), timeout=10
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
