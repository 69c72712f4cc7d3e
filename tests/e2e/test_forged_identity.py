"""Pretending to be somebody else: forged tokens, headers and certificates are refused, at the edge and at a gateway."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from deploy.local.keys import AUDIENCE, ISSUER
from deploy.local.mesh import LocalMesh
from mesh import errors
from mesh.grpc.errors import translated
from tests.e2e.conftest import Doors
from tests.e2e.customers import PATH, Customer, Json, Refused, final

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

DOORS = pytest.mark.parametrize("door", ["rest", "grpc", "gateway"])
TIMEOUT_S = 30.0
NEVER_MADE = "01980000-0000-7000-8000-000000000000"
WISH: Json = {"book_id": "nowhere", "max_price": 29.99, "payment_token": "tok_ok"}


def forged(mesh: LocalMesh, kind: str) -> str:
    """Make a token that proves nothing."""
    now = datetime.now(UTC)
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "exp": now + timedelta(minutes=5),
    }
    key = load_pem_private_key(mesh.data.issuer_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    head = {"kid": "development"}
    public: dict[str, str] = json.loads(mesh.data.jwks.read_text())["keys"][0]
    match kind:
        case "unsigned":
            return jwt.encode(claims, "", algorithm="none", headers=head)
        case "signed with what is public":
            secret = base64.urlsafe_b64decode(public["x"] + "=")
            return jwt.encode(claims, secret, algorithm="HS256", headers=head)
        case "without its signature":
            good = jwt.encode(claims, key, algorithm="ES256", headers=head)
            return good.rpartition(".")[0] + "."
        case "of an unknown key":
            return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "unknown"})
        case "from the future":
            claims["nbf"] = now + timedelta(hours=1)
        case "without an end":
            del claims["exp"]
        case "without a subject":
            del claims["sub"]
        case "of a key that it brings along":
            key = ec.generate_private_key(ec.SECP256R1())
            head["jku"] = "https://elsewhere.test/jwks.json"
        case _:
            claims["more"] = "x" * 5_000
    return jwt.encode(claims, key, algorithm="ES256", headers=head)


FORGERIES = [
    "unsigned",
    "signed with what is public",
    "without its signature",
    "of an unknown key",
    "from the future",
    "without an end",
    "without a subject",
    "of a key that it brings along",
    "too long",
]


@DOORS
@pytest.mark.parametrize("kind", FORGERIES)
async def test_a_forged_token_is_refused(
    mesh: LocalMesh, doors: Doors, door: str, kind: str
) -> None:
    customer: Customer
    token = forged(mesh, kind)
    match door:
        case "rest":
            customer = await doors.rest(token=token)
        case "grpc":
            customer = await doors.grpc(token=token)
        case _:
            customer = await doors.grpc(token=token, address=mesh.replicas["gateway-1"])
    with pytest.raises(Refused) as caught:
        await customer.page()
    assert caught.value.code == "UNAUTHENTICATED"


Metadata = list[tuple[str, str]]


async def owned(mesh: LocalMesh, door: str, metadata: Metadata) -> list[str]:
    """Ask for the caller's own requests with this metadata; give their ids.

    Raises:
        MeshError: as the door refuses it; over REST as gRPC would.

    """
    if door == "rest":
        async with httpx.AsyncClient(
            base_url=mesh.rest_url, timeout=TIMEOUT_S, trust_env=False
        ) as client:
            response = await client.get(PATH, headers=metadata, params={"page_size": 100})
        answer = response.json()
        if response.status_code == httpx.codes.OK:
            return [request["request_id"] for request in answer["purchase_requests"]]
        kind: type[errors.MeshError] = {
            400: errors.InvalidArgument,
            401: errors.Unauthenticated,
            403: errors.PermissionDenied,
        }[response.status_code]
        raise kind(answer["message"], reason=answer["details"][0]["reason"])
    channel = (
        grpc.aio.insecure_channel(mesh.grpc_address)
        if door == "grpc"
        else mesh.connect(mesh.replicas["gateway-1"], "gateway", by="internal")
    )
    async with channel:
        with translated():
            page = await customer_pb2_grpc.PurchaseServiceStub(channel).ListPurchaseRequests(
                pb.ListPurchaseRequestsRequest(page_size=100),
                metadata=tuple(metadata),
                timeout=TIMEOUT_S,
            )
    return [request.request_id for request in page.purchase_requests]


def bearer(mesh: LocalMesh, subject: str, scope: str = "customer") -> tuple[str, str]:
    return ("authorization", f"Bearer {mesh.token(subject, scope=scope)}")


@DOORS
async def test_a_service_of_the_house_acts_for_the_customer_whom_it_names(
    mesh: LocalMesh, doors: Doors, door: str
) -> None:
    bob = await doors.rest("bob")
    request_id = (await bob.create(WISH))["request_id"]
    await final(bob, request_id)
    billing = bearer(mesh, "billing", "internal")
    assert request_id in await owned(mesh, door, [billing, ("on-behalf-of", "bob")])
    assert request_id not in await owned(mesh, door, [billing, ("on-behalf-of", "carol")])


@DOORS
@pytest.mark.parametrize(
    ("scope", "forgery", "reason"),
    [
        ("customer", [("on-behalf-of", "bob")], "ON_BEHALF_OF_NOT_ALLOWED"),
        ("customer", [("on-behalf-of", "alice")], "ON_BEHALF_OF_NOT_ALLOWED"),
        ("operator", [("on-behalf-of", "bob")], "SCOPE_MISSING"),
        ("operator", [], "SCOPE_MISSING"),
        ("internal", [], "ON_BEHALF_OF_MISSING"),
    ],
)
async def test_a_token_is_good_only_for_what_it_was_issued_for(
    mesh: LocalMesh, door: str, scope: str, forgery: Metadata, reason: str
) -> None:
    with pytest.raises(errors.PermissionDenied) as caught:
        await owned(mesh, door, [bearer(mesh, "alice", scope), *forgery])
    assert caught.value.reason == reason


@DOORS
async def test_headers_that_claim_an_identity_change_nothing(
    mesh: LocalMesh, doors: Doors, door: str
) -> None:
    bob = await doors.rest("bob")
    request_id = (await bob.create(WISH))["request_id"]
    claims = base64.urlsafe_b64encode(b'{"sub":"bob"}').decode()
    names = ("x-customer-id", "x-jwt-sub", "x-forwarded-user", "x-envoy-peer-metadata-id")
    headers = [*((name, "bob") for name in names), ("x-jwt-payload", claims)]
    headers.append(("x-forwarded-client-cert", "DNS=internal.bookmesh.internal"))
    assert request_id not in await owned(mesh, door, [bearer(mesh, "alice"), *headers])
    with pytest.raises(errors.Unauthenticated):
        await owned(mesh, door, headers)


@DOORS
async def test_a_call_with_several_tokens_is_refused(mesh: LocalMesh, door: str) -> None:
    tokens = [bearer(mesh, "alice"), bearer(mesh, "bob")]
    with pytest.raises(errors.Unauthenticated):
        await owned(mesh, door, tokens)


@pytest.mark.parametrize("name", ["aggregator", "operator", "orchestrator", "sellersim"])
async def test_a_gateway_takes_calls_from_the_edge_and_services_of_the_house_alone(
    mesh: LocalMesh, doors: Doors, name: str
) -> None:
    token = (await doors.grpc("alice")).metadata
    async with mesh.connect(mesh.replicas["gateway-1"], "gateway", by=name) as channel:
        with pytest.raises(errors.PermissionDenied) as caught, translated():
            await customer_pb2_grpc.PurchaseServiceStub(channel).ListPurchaseRequests(
                pb.ListPurchaseRequestsRequest(), metadata=token, timeout=TIMEOUT_S
            )
    assert caught.value.reason == "CALLER_NOT_ALLOWED"


@pytest.mark.parametrize("name", ["aggregator", "envoy", "gateway", "internal", "orchestrator"])
async def test_only_operators_decide_about_purchases(mesh: LocalMesh, name: str) -> None:
    address = mesh.replicas["orchestrator-1"]
    async with mesh.connect(address, "orchestrator", by=name) as channel:
        with pytest.raises(errors.PermissionDenied), translated():
            await orchestrator_pb2_grpc.OperatorServiceStub(channel).ListFlags(
                orchestrator_pb2.ListFlagsRequest(), timeout=TIMEOUT_S
            )


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "TOKEN_MISSING"),
        ("nonsense", "TOKEN_INVALID"),
        ("unsigned", "TOKEN_INVALID"),
        ("customer", "SCOPE_MISSING"),
        ("internal", "SCOPE_MISSING"),
        ("operators", "SCOPE_MISSING"),
    ],
)
async def test_an_operator_needs_a_token_for_that_besides(
    mesh: LocalMesh, token: str, reason: str
) -> None:
    """The certificate lets a program in; the token says whose decision it is."""
    match token:
        case "":
            metadata: Metadata = []
        case "nonsense":
            metadata = [("authorization", "Bearer nonsense")]
        case "unsigned":
            metadata = [("authorization", f"Bearer {forged(mesh, 'unsigned')}")]
        case scope:
            metadata = [bearer(mesh, "ann", scope)]
    decision = orchestrator_pb2.ResolvePurchaseRequest(
        request_id=NEVER_MADE,
        decision=orchestrator_pb2.ResolvePurchaseRequest.DECISION_CLOSE,
        reason="as I like it",
        flag_number=1,
    )
    address = mesh.replicas["orchestrator-1"]
    async with mesh.connect(address, "orchestrator", by="operator") as channel:
        stub = orchestrator_pb2_grpc.OperatorServiceStub(channel)
        for call in (
            stub.ListFlags(
                orchestrator_pb2.ListFlagsRequest(), metadata=tuple(metadata), timeout=TIMEOUT_S
            ),
            stub.InspectPurchase(
                orchestrator_pb2.InspectPurchaseRequest(request_id=NEVER_MADE),
                metadata=tuple(metadata),
                timeout=TIMEOUT_S,
            ),
            stub.ResolvePurchase(decision, metadata=tuple(metadata), timeout=TIMEOUT_S),
        ):
            with pytest.raises(errors.MeshError) as caught, translated():
                await call
            assert caught.value.reason == reason


@pytest.mark.parametrize(
    "name", ["gateway-1", "orchestrator-1", "aggregator-1", "the control of the sellers"]
)
async def test_nothing_inside_answers_without_a_certificate(mesh: LocalMesh, name: str) -> None:
    address = mesh.replicas.get(name, mesh.sim_control)
    roots = grpc.ssl_channel_credentials(mesh.data.authority.read_bytes())
    kind = "sellersim" if address == mesh.sim_control else name.partition("-")[0]
    shown = [("grpc.ssl_target_name_override", f"{kind}.bookmesh.internal")]
    for channel in (
        grpc.aio.insecure_channel(address),
        grpc.aio.secure_channel(address, roots, options=shown),
    ):
        async with channel:
            with pytest.raises(errors.Unavailable), translated():
                await orchestrator_pb2_grpc.OperatorServiceStub(channel).ListFlags(
                    orchestrator_pb2.ListFlagsRequest(), timeout=TIMEOUT_S
                )
