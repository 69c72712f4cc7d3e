"""The OWASP API Security Top 10 (2023), each held against the running mesh, at every door that customers have.

What other tests show already is not shown again here:

- API1: test_two_customers.py has every RPC and route with another customer's ids.
- API2: test_identity.py and test_forged_identity.py have tokens: expired, unsigned, of others; forged headers.
- API4: test_limits.py has rates, streams, slow and hostile clients; test_bad_input.py the bounds of fields and pages.
- API5: test_forged_identity.py has scopes, and certificates of the wrong service.
- API8: tests/integration/envoy/test_tls.py has TLS, and what browsers are told.
- API10: test_sellers.py has sellers that lie and fail, tests/integration/aggregator/test_hostile_sellers.py every wrong
  answer, test_stripe.py events that are not the payment provider's.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from itertools import pairwise
from uuid import UUID, uuid4

import grpc
import httpx
import pytest
from google.protobuf.json_format import ParseDict

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import notifications_pb2, orchestrator_pb2
from bookmesh.seller.v1 import seller_pb2
from bookmesh.sellersim.v1 import control_pb2
from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Audit, Doors, Fresh
from tests.e2e.contract import DOORS, Answer, Json, Rpc, bearer, called, channel_at, rpcs
from tests.e2e.customers import PATH, Rest, ask, final
from tests.e2e.waiting import eventually
from tests.fakes.receiver import Answer as Reply
from tests.fakes.receiver import Authority, answering

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

ENDPOINTS = "/api/v1/webhook-endpoints"
DELIVERIES = "/api/v1/notification-deliveries"
OPEN_TO_ALL = "ReceivePaymentEvent"
"""What needs no token, because its caller has none: a signature proves it."""

TOLD_WITHIN_S = 60.0
WISH: Json = {"book_id": "nowhere", "max_price": 29.99, "payment_token": "tok_ok"}
RPCS = {rpc.name: rpc for rpc in rpcs()}
AT_EVERY_DOOR = pytest.mark.parametrize("door", DOORS)
EVERY_RPC = pytest.mark.parametrize("rpc", RPCS.values(), ids=list(RPCS))


def refused(answer: Answer) -> tuple[str, str]:
    """Give the code of an answer and, over REST, the reason in its one form of errors."""
    if not answer.code.isdigit():
        return answer.code, ""
    return answer.code, json.loads(answer.text)["details"][0]["reason"]


def every_field(rpc: Rpc) -> Json:
    """Fill in all that a request needs, so that it is refused for who asks alone."""
    needed: dict[str, Json] = {
        "CreatePurchaseRequest": WISH,
        "CreateWebhookEndpoint": {"url": "https://receiver.test/"},
        "ConfirmNotificationEmail": {"code": "12345678"},
        OPEN_TO_ALL: {"contentType": "application/json", "data": "e30="},
    }
    return needed.get(rpc.name) or dict.fromkeys(re.findall(r"{(\w+)}", rpc.path), "x")


@AT_EVERY_DOOR
async def test_api1_broken_object_level_authorization(mesh: LocalMesh, door: str) -> None:
    """Ids cannot be guessed: neither from one's own, nor from their neighbours, in whatever spelling."""
    alice, mallory = bearer(mesh, "alice"), bearer(mesh, "mallory")
    ids = []
    for owner in (alice, mallory, alice):
        answer = await called(mesh, door, RPCS["CreatePurchaseRequest"], WISH, owner)
        ids.append(UUID(answer.messages[0]["request_id"]))
    # Of a UUID of version 7 the last 62 bits are random: one does not follow from the one before.
    assert {identifier.version for identifier in ids} == {7}
    random = [identifier.int & (1 << 62) - 1 for identifier in ids]
    assert min(abs(one - next_one) for one, next_one in pairwise(random)) > 1 << 32
    theirs = str(ids[0])
    guesses = [
        str(UUID(int=ids[0].int + 1)),
        theirs.upper(),
        f"{{{theirs}}}",
        theirs.replace("-", ""),
    ]
    for guess in guesses:
        answer = await called(
            mesh, door, RPCS["GetPurchaseRequest"], {"request_id": guess}, mallory
        )
        assert answer.code in {"NOT_FOUND", "404"}
        assert theirs not in answer.text


@EVERY_RPC
async def test_api2_broken_authentication(mesh: LocalMesh, rpc: Rpc) -> None:
    """Nothing is answered without a token, by any RPC or route; the payment provider's needs a signature instead."""
    for door in DOORS:
        code, reason = refused(await called(mesh, door, rpc, every_field(rpc)))
        if rpc.name != OPEN_TO_ALL:
            assert (code, reason) in {("401", "TOKEN_MISSING"), ("UNAUTHENTICATED", "")}
        elif door == "grpc":
            assert code == "UNAUTHENTICATED"
        else:
            assert (code, reason) in {("400", "SIGNATURE_INVALID"), ("INVALID_ARGUMENT", "")}


async def test_api2_a_token_counts_in_the_header_alone(mesh: LocalMesh) -> None:
    """Not in a query, a cookie or a body, where it would be kept in logs and histories, or sent by browsers."""
    token = mesh.token("alice")
    async with httpx.AsyncClient(base_url=mesh.rest_url, trust_env=False) as nobody:
        answers = [
            await nobody.get(PATH, params={"access_token": token}),
            await nobody.get(PATH, headers={"cookie": f"authorization={token}; token={token}"}),
            await nobody.post(PATH, json={**WISH, "access_token": token}),
            await nobody.get(PATH, headers={"authorization": f"Basic {token}"}),
            await nobody.get(PATH, headers={"proxy-authorization": f"Bearer {token}"}),
        ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert token not in answer.text


@AT_EVERY_DOOR
async def test_api3_broken_object_property_level_authorization(
    mesh: LocalMesh, doors: Doors, door: str
) -> None:
    """Nobody sets what is not theirs to set, and nobody is told more than the contract has."""
    name = f"assigning-{uuid4()}"
    me = bearer(mesh, name)
    taken = str(uuid4())
    more = {
        "request_id": taken,
        "customer_id": "alice",
        "status": "purchased",
        "final_price": 0.01,
        "offer": {"price": 0.01},
        "stage": "ordered",
    }
    if door == "rest":
        rest = await doors.rest(name)
        created = (await rest.client.post(PATH, json=WISH | more)).json()
    else:
        asked = ParseDict(WISH, pb.CreatePurchaseRequestRequest())
        # What the gateway itself sends on is no more believed than any other unknown field.
        asked.MergeFromString(_numbered_beyond(asked, taken, "alice"))
        created = (await called(mesh, door, RPCS["CreatePurchaseRequest"], asked, me)).messages[0]
    assert set(created) == {"request_id", "status", "status_url"}
    assert (created["request_id"] != taken, created["status"]) == (True, "pending")
    mine = await final(await doors.rest(name), created["request_id"])
    assert mine.keys() <= {field.name for field in pb.PurchaseRequest.DESCRIPTOR.fields}
    assert (mine["status"], "final_price" in mine) == ("not_available", False)
    page = await called(mesh, door, RPCS["ListPurchaseRequests"], {}, me)
    [summary] = page.messages[0]["purchase_requests"]
    assert summary.keys() <= {field.name for field in pb.PurchaseRequestSummary.DESCRIPTOR.fields}
    assert (summary["request_id"], summary["max_price"]) == (created["request_id"], 29.99)
    listed = await called(mesh, door, RPCS["ListPurchaseRequests"], {}, bearer(mesh, "alice"))
    assert created["request_id"] not in listed.text


def _numbered_beyond(message: pb.CreatePurchaseRequestRequest, *texts: str) -> bytes:
    """Give texts as fields, on the wire, whose numbers the message does not know."""
    known = {field.number for field in message.DESCRIPTOR.fields}
    free = [number for number in range(1, 16) if number not in known]
    return b"".join(
        bytes([number << 3 | 2, len(text)]) + text.encode()
        for number, text in zip(free, texts, strict=False)
    )


@AT_EVERY_DOOR
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ListPurchaseRequests", {"page_size": 101}),
        ("ListDeliveries", {"page_size": 101}),
        ("ListQuotes", {"book_id": "nowhere", "max_wait_ms": 10_001}),
        ("ListQuotes", {"book_id": "nowhere", "max_quotes": 1_001}),
        ("StreamQuotes", {"book_id": "nowhere", "max_wait_ms": 10_001}),
        ("StreamQuotesEvents", {"book_id": "nowhere", "max_wait_ms": 10_001}),
        ("CreateWebhookEndpoint", {"url": "https://receiver.test/" + "x" * 2_000}),
        ("AcceptOffer", {"request_id": "x", "payment_token": "x" * 256}),
    ],
)
async def test_api4_unrestricted_resource_consumption(
    mesh: LocalMesh, name: str, fields: Json, door: str
) -> None:
    """Whatever could be asked for without measure has one; beyond it nothing is begun."""
    answer = await called(mesh, door, RPCS[name], fields, bearer(mesh, "greedy"))
    assert answer.code in {"400", "INVALID_ARGUMENT"}
    wanted = [field for field in fields if field not in {"book_id", "request_id"}]
    assert all(field in answer.text for field in wanted)


async def test_api4_what_customers_keep_here_is_bounded(mesh: LocalMesh) -> None:
    hoarder = bearer(mesh, f"hoarder-{uuid4()}")
    asked = {"url": "http://127.0.0.1:9/hook"}
    create = RPCS["CreateWebhookEndpoint"]
    kept = [await called(mesh, "grpc", create, asked, hoarder) for _ in range(10)]
    assert {answer.code for answer in kept} == {"OK"}
    for door, code in zip(DOORS, ("429", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"), strict=True):
        assert (await called(mesh, door, create, asked, hoarder)).code == code


async def test_api4_a_body_that_is_deep_or_large_is_refused_at_once(rest: Rest) -> None:
    deep = '{"a":' * 10_000 + "1" + "}" * 10_000
    large = json.dumps({**WISH, "book_id": "b" * 70_000})
    bombs = ["[" * 60_000, deep, large, json.dumps({**WISH, "conditions": ["new"] * 7_000})]
    headers = {"content-type": "application/json"}
    answers = [await rest.client.post(PATH, content=bomb, headers=headers) for bomb in bombs]
    assert [answer.status_code for answer in answers] == [400, 400, 413, 400]


def _raw(channel: grpc.aio.Channel, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)


def inside() -> Iterable[str]:
    """Give every RPC that is not for customers, and those of tools."""
    for module in (
        aggregator_pb2,
        orchestrator_pb2,
        notifications_pb2,
        seller_pb2,
        control_pb2,
    ):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}"
    yield "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    yield "/grpc.channelz.v1.Channelz/GetServers"


@pytest.mark.parametrize("door", ["grpc", "gateway"])
async def test_api5_broken_function_level_authorization(mesh: LocalMesh, door: str) -> None:
    """What is for operators, services and tools is not even there for customers, whatever their token says."""
    answers: dict[tuple[str, str], str] = {}
    async with channel_at(mesh, door) as channel:
        for scope in ("customer", "operator", "internal"):
            token = mesh.token("mallory", scope=scope)
            metadata = (("authorization", f"Bearer {token}"), ("on-behalf-of", "alice"))
            for method in inside():
                call = _raw(channel, method)(b"", metadata=metadata, timeout=10)
                answers[scope, method] = (await call.code()).name
    assert len(answers) > 3 * 30
    # The edge does not even look where a token for something else wants to go.
    turned_away = {"operator": "PERMISSION_DENIED"} if door == "grpc" else {}
    assert {scope: turned_away.get(scope, "UNIMPLEMENTED") for scope, _ in answers} == {
        scope: code for (scope, _), code in answers.items()
    }
    assert len(set(answers.values())) == 1 + len(turned_away)


async def test_api5_over_rest_there_is_nothing_but_the_contract(rest: Rest) -> None:
    """No path of Envoy's own, none by the name of an RPC, and no method in another's clothes."""
    paths = [
        *("/admin", "/stats", "/config_dump", "/clusters", "/quitquitquit", "/ready", "/metrics"),
        *("/api/v1/operator", "/api/v1/flags", "/api/v1/sellers", "/api/v1/customers"),
        *(rpc.method for rpc in RPCS.values()),
        *inside(),
    ]
    for path in paths:
        assert (await rest.client.post(path, json={})).status_code == 404, path
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        answer = await rest.client.get(f"{ENDPOINTS}/x", headers={name: "DELETE"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE")


async def test_api6_unrestricted_access_to_sensitive_business_flows(
    mesh: LocalMesh, doors: Doors, audit: Audit, fresh: Fresh
) -> None:
    """Buying cannot be multiplied: an offer that is accepted by many programs at once is one purchase, charged once.

    How often anybody may buy, and with how many cards, is bounded as all calls are (test_limits.py).
    """
    name = f"hasty-{uuid4()}"
    rest = await doors.rest(name)
    offered = await ask(rest, fresh("too-dear"))
    assert (await final(rest, offered))["status"] == "price_not_met"
    asked = {"request_id": offered, "payment_token": "tok_ok"}
    answers = await asyncio.gather(
        *(
            called(mesh, door, RPCS["AcceptOffer"], asked, bearer(mesh, name))
            for _ in range(6)
            for door in DOORS
        )
    )
    assert {answer.code for answer in answers} == {"202", "OK"}
    [accepted] = {answer.messages[0]["request_id"] for answer in answers}
    assert (await final(rest, accepted))["status"] == "purchased"
    assert len((await rest.page())["purchase_requests"]) == 2
    await audit(offered, accepted)


INWARD = [
    "https://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "https://192.168.0.1:5432/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://[fd00::1]/",
    "https://[fe80::1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[64:ff9b::a00:1]/",
    # Other spellings of 10.0.0.1 and of 169.254.169.254.
    "https://0x0a000001/",
    "https://2852039166/",
    "https://012.0.0.1/",
    "https://user:password@127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
]
"""Where a webhook must not lead. (This mesh allows the machine itself, so that receivers can be tried out.)"""


@AT_EVERY_DOOR
async def test_api7_server_side_request_forgery(mesh: LocalMesh, door: str) -> None:
    """Nobody has the mesh call what only the mesh can reach."""
    name = f"prober-{uuid4()}"
    create = RPCS["CreateWebhookEndpoint"]
    answers = await asyncio.gather(
        *(called(mesh, door, create, {"url": url}, bearer(mesh, name)) for url in INWARD)
    )
    for url, answer in zip(INWARD, answers, strict=True):
        assert answer.code in {"400", "INVALID_ARGUMENT"}, url
    kept = await called(mesh, door, RPCS["ListWebhookEndpoints"], {}, bearer(mesh, name))
    assert not kept.messages[0].get("endpoints")


async def _told(doors: Doors, reply: Reply) -> tuple[Json, str]:
    """Have a webhook's receiver answer like this; give the delivery as its customer sees it, and all that is seen."""
    rest = await doors.rest(f"told-{uuid4()}")
    async with Authority().receiver("127.0.0.1", reply, tls=False) as receiver:
        await rest.client.post(ENDPOINTS, json={"url": receiver.url})
        await final(rest, await ask(rest, "nowhere"))

        async def tried() -> Json | None:
            deliveries = (await rest.client.get(DELIVERIES)).json()["deliveries"]
            return next((one for one in deliveries if one["last_error"]), None)

        delivery = await eventually(tried, TOLD_WITHIN_S)
    return delivery, (await rest.client.get(DELIVERIES)).text


async def test_api7_a_webhook_does_not_follow_where_it_is_sent(doors: Doors) -> None:
    async with Authority().receiver("127.0.0.1", tls=False) as further:
        delivery, _ = await _told(doors, answering(307, location=further.url))
        assert (delivery["last_status"], further.received) == (307, [])


async def test_api8_security_misconfiguration(mesh: LocalMesh, doors: Doors) -> None:
    """No answer tells what it is made by, no other site's page may read one, and no method is there by accident."""
    rest = await doors.rest()
    origin = {"origin": "https://elsewhere.test"}
    preflight = origin | {"access-control-request-method": "POST"}
    answers = [
        await rest.client.get(PATH, headers=origin),
        await rest.client.get(f"{PATH}/nobodys", headers=origin),
        await rest.client.get("/nothing", headers=origin),
        await rest.client.post(PATH, content=b"{", headers={"content-type": "application/json"}),
        await rest.client.get(PATH, headers={"authorization": ""}),
        await rest.client.request("OPTIONS", PATH, headers=preflight | {"authorization": ""}),
        await rest.client.request("TRACE", PATH),
        await rest.client.request("PATCH", PATH, json={}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 400, 401, 401, 405, 405]
    for answer in answers:
        assert answer.headers["server"] == "bookmesh"
        named = [
            name for name in answer.headers if name.startswith(("x-envoy", "x-powered", "access-"))
        ]
        assert named == []
        assert not re.search(
            "envoy|traceback|python|asyncpg|postgres|valkey|127\\.0\\.0\\.1",
            answer.text,
            re.IGNORECASE,
        )


async def test_api9_improper_inventory_management(mesh: LocalMesh) -> None:
    """What answers is what the contract has, in its one version: nothing older, newer, or forgotten."""
    me = bearer(mesh, "alice")
    async with httpx.AsyncClient(
        base_url=mesh.rest_url, headers=list(me), trust_env=False
    ) as client:
        for rpc in RPCS.values():
            path = re.sub(r"{\w+}", "x", rpc.path)
            for other in ("/api/v0/", "/api/v2/", "/api/v1beta1/", "/api/", "/v1/", "/internal/"):
                answer = await client.request(rpc.verb, path.replace("/api/v1/", other))
                assert answer.status_code == 404, (rpc.verb, path, other)
    async with channel_at(mesh, "grpc") as edge, channel_at(mesh, "gateway") as gateway:
        for rpc in RPCS.values():
            for other in ("customer.v0", "customer.v2", "customer.v1beta1", "customer"):
                method = rpc.method.replace("customer.v1", other)
                for channel in (edge, gateway):
                    call = _raw(channel, method)(b"", metadata=me, timeout=10)
                    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_api10_unsafe_consumption_of_apis(mesh: LocalMesh, doors: Doors) -> None:
    """What a receiver of webhooks answers is taken for nothing but its status: not shown, not logged, not obeyed."""
    mark = uuid4().hex
    reply = answering(500, f"<script>{mark}</script>".encode(), x_mark=mark, set_cookie=mark)
    delivery, seen = await _told(doors, reply)
    assert (delivery["last_status"], mark in seen) == (500, False)
    for name in mesh.pids():
        assert mark not in mesh.data.log(name).read_text(errors="replace"), name
