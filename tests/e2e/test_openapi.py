"""Whatever docs/openapi.yaml allows, and what it does not, is answered as it says: its statuses, headers and bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import pytest_asyncio
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.local.mesh import LocalMesh
from tests.e2e.customers import FINAL_WITHIN_S, PATH, Json
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

Operation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[Any]

ALLOWED, FORBIDDEN = 4, 12
"""How many examples of each operation: for each way to make them meaningful, and of what is not allowed."""

ANSWER_WITHIN_S = 15.0
WAIT_MS = 100
TRIES = 3
BUSY = {503, 504}
"""What a machine with too much to do may answer, but not again and again."""

NOT_HERE = 501
"""What a mesh says of the provider's events, whose provider sends none."""

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def closed(document: Json) -> Json:
    """Forbid fields of answers that the document does not name."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return document


DOCUMENT = closed(yaml.safe_load((Path(__file__).parents[2] / "docs/openapi.yaml").read_text()))
OPERATIONS = {
    found.ok().definition.raw["operationId"]: found.ok()
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    if isinstance(found, Ok)
}
NAMES = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]

REACHED = {
    "CreatePurchaseRequest": {202, 400, 402, 409},
    "GetPurchaseRequest": {200, 404},
    "WatchPurchaseRequest": {200, 404},
    "WatchPurchaseRequestEvents": {200, 204, 404},
    "CancelPurchaseRequest": {400, 404},
    "AcceptOffer": {202, 400, 404},
    "CreateWebhookEndpoint": {200, 400, 429},
    "RotateWebhookSecret": {200, 404},
    "EnableWebhookEndpoint": {200, 404},
    "DeleteWebhookEndpoint": {200, 404},
    "ListPurchaseRequests": {200, 400},
    "ListQuotes": {200, 400},
    "StreamQuotes": {200, 400},
    "StreamQuotesEvents": {200, 400},
    "ListDeliveries": {200, 400},
    "ReceivePaymentEvent": {501},
}
"""Statuses that come among others: the examples are not all in vain."""

BOOKS = ("9780134685991", "0-13-468599-7", "nowhere-at-all", "9780134685992")
"""Sold, in two spellings, not sold, and wrong: few, since sellers are asked for each."""

HOOK = "http://127.0.0.1:9/"
"""Where nobody listens."""

TOKENS = ("tok_ok", "tok_decline")
CHOICES = 8


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def customer(mesh: LocalMesh) -> AsyncIterator[httpx.AsyncClient]:
    """Explores; when it is done, waits until all that it has bought is final."""
    headers = {"authorization": f"Bearer {mesh.token('explorer')}"}
    async with httpx.AsyncClient(
        base_url=mesh.rest_url, headers=headers, timeout=ANSWER_WITHIN_S, trust_env=False
    ) as client:
        yield client

        async def nothing_goes_on() -> bool | None:
            pending = await client.get(PATH, params={"statuses": "pending"})
            return None if pending.json()["purchase_requests"] else True

        await eventually(nothing_goes_on, within_s=FINAL_WITHIN_S)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def purchases(customer: httpx.AsyncClient) -> list[str]:
    """Purchases that have ended: bought, and with an offer."""
    bodies = [
        {"book_id": BOOKS[0], "max_price": price, "payment_token": "tok_ok"}
        for price in (29.99, 24.98)
    ]
    answers = [await customer.post(PATH, json=body) for body in bodies]
    made = [answer.json()["request_id"] for answer in answers]
    ends = []
    for request_id in made:
        lines = (await customer.get(f"{PATH}/{request_id}:watch")).text.splitlines()
        ends.append(json.loads(lines[-1])["result"]["status"])
    assert ends == ["purchased", "price_not_met"]
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def endpoint(customer: httpx.AsyncClient) -> AsyncIterator[str]:
    """A webhook endpoint, for one test: there may be only ten."""
    path = "/api/v1/webhook-endpoints"
    made = await customer.post(path, json={"url": HOOK})
    yield made.json()["endpoint"]["endpoint_id"]
    for left in (await customer.get(path)).json()["endpoints"]:
        await customer.delete(f"{path}/{left['endpoint_id']}")


@pytest.mark.parametrize("name", NAMES)
async def test_every_answer_is_as_the_document_says(
    mesh: LocalMesh,
    customer: httpx.AsyncClient,
    purchases: list[str],
    endpoint: str,
    name: str,
) -> None:
    known = {"request_id": purchases, "endpoint_id": [endpoint], "book_id": BOOKS}
    token = customer.headers["authorization"]
    statuses = await asyncio.to_thread(explore, mesh.rest_url, token, name, known)
    assert REACHED.get(name, set()) <= statuses


def explore(
    base_url: str, authorization: str, name: str, known: dict[str, Sequence[str]]
) -> set[int]:
    """Call an operation in many ways; give the statuses that came."""
    operation = OPERATIONS[name]
    statuses: set[int] = set()
    with requests.Session() as session:
        session.trust_env = False

        def call(case: AnyCase, choice: int) -> None:
            make_meaningful(case, choice, known)
            response = answer(case, base_url, session, authorization)
            case.validate_response(response, checks=CHECKS)
            if response.status_code != NOT_HERE:
                case.validate_response(response, checks=[not_a_server_error])
            if "application/x-ndjson" in response.headers.get("content-type", ()):
                assert_lines_are_good(operation, response.content)
            statuses.add(response.status_code)

        for number, (mode, choices, examples) in enumerate(plan(operation)):
            cases = operation.as_strategy(generation_mode=mode)
            test = given(case=cases, choice=choices)(call)
            seed(number)(
                settings(
                    max_examples=examples,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )(test)
            )()
    return statuses


def answer(
    case: AnyCase, base_url: str, session: requests.Session, authorization: str, tries: int = TRIES
) -> Response:
    response = case.call(
        base_url,
        session=session,
        headers={"authorization": authorization},
        timeout=ANSWER_WITHIN_S,
    )
    if response.status_code in BUSY and tries > 1:
        return answer(case, base_url, session, authorization, tries - 1)
    return response


def plan(operation: Operation) -> Iterator[tuple[GenerationMode, st.SearchStrategy[int], int]]:
    """Say what to generate, how to make it meaningful, and how often."""
    for choice in range(CHOICES):
        yield GenerationMode.POSITIVE, st.just(choice), ALLOWED
    # Where there is nothing to say, nothing can be said wrong.
    if operation.body or any(True for _ in operation.iter_parameters()):
        yield GenerationMode.NEGATIVE, st.integers(0, CHOICES - 1), FORBIDDEN


def make_meaningful(case: AnyCase, choice: int, known: dict[str, Sequence[str]]) -> None:
    """Put in what is there, more often than not: of made-up ids nothing is known."""
    for name, values in known.items():
        if name in case.path_parameters and values and choice:
            case.path_parameters[name] = values[choice % len(values)]
    if isinstance(case.body, dict) and choice >= CHOICES // 2:
        good: dict[str, Any] = {
            "book_id": BOOKS[choice % len(BOOKS)],
            "max_price": 29.99,
            "payment_token": TOKENS[choice % len(TOKENS)],
            "url": HOOK,
        }
        case.body |= {name: good[name] for name in good.keys() & case.body.keys()}
        if case.path == PATH:
            case.headers["Idempotency-Key"] = f"key-{choice % 2}"
    if isinstance(case.body, dict) and case.path.endswith(":accept-offer"):
        # An offer is accepted once, even when the card is refused then.
        case.body["payment_token"] = TOKENS[0]
    if case.path.endswith(":events") and choice == 1:
        case.headers["Last-Event-ID"] = "end"
    if case.path.endswith(("/quotes", "/quotes:stream", "/quotes:events")):
        # Sellers answer sooner; nobody has to wait for those that do not.
        wait = case.query.get("max_wait_ms", 0)
        if not isinstance(wait, int) or wait == 0 or wait > WAIT_MS:
            case.query["max_wait_ms"] = WAIT_MS


def assert_lines_are_good(operation: Operation, lines: bytes) -> None:
    content = operation.definition.raw["responses"]["200"]["content"]["application/x-ndjson"]
    schema = content["schema"] | {"components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for line in lines.splitlines():
        validator.validate(json.loads(line))
