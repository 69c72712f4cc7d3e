"""Two customers, each with the other's ids, at every RPC and every route of the contract.

What is another's is answered as what does not exist: the same code, the same words, the same headers. The RPCs come
from the descriptor set of the edge: a new one, or a new field that names something, fails here until it has its case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Doors
from tests.e2e.contract import DOORS, Json, Rpc, bearer, called, rpcs
from tests.e2e.customers import Rest, ask, final
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

ENDPOINTS = "/api/v1/webhook-endpoints"
DELIVERIES = "/api/v1/notification-deliveries"
NOBODY_LISTENS = "http://127.0.0.1:9/hook"
TOLD_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """How an RPC is asked for something by its id.

    Attributes:
        ids: by field that names something, what it names.
        more: further fields, so that nothing else is wrong.
        code: how what does not exist is answered, over gRPC and REST.

    """

    ids: Mapping[str, str]
    more: Json
    code: tuple[str, str] = ("NOT_FOUND", "404")


_REQUEST = Case({"request_id": "request"}, {})
_ENDPOINT = Case({"endpoint_id": "endpoint"}, {})
_OK = ("OK", "200")
_INVALID = ("INVALID_ARGUMENT", "400")

CASES: Mapping[str, list[Case]] = {
    "GetPurchaseRequest": [_REQUEST],
    "WatchPurchaseRequest": [_REQUEST],
    "WatchPurchaseRequestEvents": [_REQUEST],
    "CancelPurchaseRequest": [_REQUEST],
    "AcceptOffer": [
        _REQUEST,
        Case({"request_id": "request"}, {"payment_token": "tok_ok"}),
    ],
    "ListPurchaseRequests": [Case({"page_token": "page of requests"}, {"page_size": 1}, _INVALID)],
    "RotateWebhookSecret": [_ENDPOINT],
    "EnableWebhookEndpoint": [_ENDPOINT],
    "DeleteWebhookEndpoint": [_ENDPOINT],
    "ListDeliveries": [
        Case({"request_id": "request"}, {}, _OK),
        Case({"page_token": "page of deliveries"}, {"page_size": 1}, _OK),
    ],
}
NOTHING_IS_NAMED = {
    "CreatePurchaseRequest",
    "ListQuotes",
    "StreamQuotes",
    "StreamQuotesEvents",
    "CreateWebhookEndpoint",
    "ListWebhookEndpoints",
    "SetNotificationEmail",
    "ConfirmNotificationEmail",
    "GetNotificationEmail",
    "ReceivePaymentEvent",
}
"""Nobody can ask these for anything by an id."""

ASKED = [
    pytest.param(rpc, case, id=f"{rpc.name}-{'-'.join([*case.ids, *case.more])}")
    for rpc in rpcs()
    for case in CASES.get(rpc.name, [])
]


@dataclass(frozen=True, slots=True)
class Owner:
    """A customer who has one of everything.

    Attributes:
        things: an id by what it names.

    """

    name: str
    rest: Rest
    things: Mapping[str, str]

    async def all_of_it(self) -> list[Json]:
        """Give all that the owner sees."""
        paths = [
            f"/api/v1/purchase-requests/{self.things['request']}",
            "/api/v1/purchase-requests",
            ENDPOINTS,
        ]
        return [(await self.rest.client.get(path)).json() for path in paths]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owners(mesh: LocalMesh) -> AsyncIterator[tuple[Owner, Owner]]:
    async with AsyncExitStack() as stack:
        doors = Doors(mesh, stack)
        yield await _owner(doors), await _owner(doors)


async def _owner(doors: Doors) -> Owner:
    """Make a customer with two purchases that ended with an offer, and two endpoints that hear of them."""
    name = f"owner-{uuid4()}"
    rest = await doors.rest(name)
    created = [
        (await rest.client.post(ENDPOINTS, json={"url": NOBODY_LISTENS})).json() for _ in range(2)
    ]
    requests = [await ask(rest, "too-dear") for _ in range(2)]
    for request in requests:
        assert (await final(rest, request))["status"] == "price_not_met"

    async def page_of_deliveries() -> str | None:
        page = await rest.client.get(DELIVERIES, params={"page_size": 1})
        return page.json()["next_page_token"] or None

    things = {
        "request": requests[0],
        "endpoint": created[0]["endpoint"]["endpoint_id"],
        "page of requests": (await rest.page(size=1))["next_page_token"],
        "page of deliveries": await eventually(page_of_deliveries, TOLD_WITHIN_S),
    }
    return Owner(name, rest, things)


def _of_nobody(thing: str) -> str:
    """Give an id beside this one, which nobody has."""
    changed = "a" if thing[-3] != "a" else "b"
    return thing[:-3] + changed + thing[-2:]


async def test_every_rpc_is_asked_for_what_is_anothers_by_every_field_that_names_something() -> (
    None
):
    named = {rpc.name: rpc.ids for rpc in rpcs() if rpc.ids}
    assert named == {
        name: {field for case in cases for field in case.ids} for name, cases in CASES.items()
    }
    assert {rpc.name for rpc in rpcs() if not rpc.ids} == NOTHING_IS_NAMED


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("rpc", "case"), ASKED)
async def test_what_is_anothers_is_answered_as_what_does_not_exist(
    mesh: LocalMesh, owners: tuple[Owner, Owner], rpc: Rpc, case: Case, door: str
) -> None:
    """Both customers try, and what they tried it on is as it was."""
    before = [await owner.all_of_it() for owner in owners]
    for asking, other in (owners, owners[::-1]):
        answers = []
        for make in (str, _of_nobody):
            ids = {field: make(other.things[kind]) for field, kind in case.ids.items()}
            answers.append(
                await called(mesh, door, rpc, ids | case.more, bearer(mesh, asking.name))
            )
        of_another, of_nobody = answers
        assert of_another.code in case.code
        assert of_another == of_nobody
        assert other.name not in repr(of_another)
    assert [await owner.all_of_it() for owner in owners] == before


@pytest.mark.parametrize("door", DOORS)
async def test_lists_have_the_callers_own_alone(
    mesh: LocalMesh, owners: tuple[Owner, Owner], door: str
) -> None:
    listing = [
        rpc for rpc in rpcs() if rpc.name.startswith(("List", "Get")) and "quote" not in rpc.path
    ]
    for asking, other in (owners, owners[::-1]):
        for rpc in listing:
            fields = (
                {"request_id": asking.things["request"]} if rpc.name.startswith("GetPur") else {}
            )
            answer = await called(mesh, door, rpc, fields, bearer(mesh, asking.name))
            assert answer.code in _OK
            for thing in other.things.values():
                assert thing not in repr(answer), rpc.name
    # What was compared are answers with something in them.
    assert [len((await owner.rest.page())["purchase_requests"]) for owner in owners] == [2, 2]
