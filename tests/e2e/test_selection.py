"""More sellers than are asked about a book: some are chosen, the answer says so, and who was not chosen gets a turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from bookmesh.sellersim.v1 import control_pb2 as pb
from bookmesh.sellersim.v1.control_pb2_grpc import ControlServiceStub
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment
from tests.e2e.customers import Json, Rest, ask, buy, final

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SCENARIO = Path(__file__).parent / "selection.yaml"
SELLERS = 60
MOST = 30
TRIES = 40
"""A seller that is chosen every other time is not found in so many tries once in 10 to the 12."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    chosen = {
        "BOOKMESH_SELECT_ABOVE": "40",
        "BOOKMESH_SELECT_FIRST": "10",
        "BOOKMESH_SELECT_NEXT": "20",
        "BOOKMESH_SELECT_MOST": str(MOST),
        "BOOKMESH_SELECT_CHECKED_SHARE": "0",
        "BOOKMESH_QUOTE_POLICY": "best_price",
    }
    options = MeshOptions(
        data=tmp_path_factory.mktemp("mesh"),
        http_port=0,
        grpc_port=0,
        sellers=SELLERS,
        scenario=SCENARIO,
        environment=inherited_environment() | chosen,
    )
    async with LocalMesh(options) as mesh:
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def customer(mesh: LocalMesh) -> AsyncIterator[Rest]:
    headers = {"authorization": f"Bearer {mesh.token()}"}
    async with httpx.AsyncClient(
        base_url=mesh.rest_url, headers=headers, timeout=20, trust_env=False
    ) as client:
        yield Rest(client)


async def asked(mesh: LocalMesh) -> int:
    """Say how many questions for prices have arrived at all sellers."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(mesh.connect(mesh.sim_control, "sellersim"))
        counters = await ControlServiceStub(channel).GetCounters(pb.GetCountersRequest())
    return sum(seller.calls["GetQuote"] for seller in counters.sellers)


async def gathered(customer: Rest, request_id: str) -> Json:
    """Give what a purchase's gathering of quotes came to, as its customer is shown."""
    events = [event async for event in customer.watch(request_id)]
    [found] = [event["collection"] for event in events if "collection" in event]
    shown: Json = found
    return shown


async def test_a_part_is_asked_and_the_answer_says_what_may_have_been_missed(
    mesh: LocalMesh, customer: Rest
) -> None:
    before = await asked(mesh)
    request_id = await ask(customer, "at-many")
    assert (await final(customer, request_id))["status"] == "purchased"
    collection = await gathered(customer, request_id)
    assert collection["sellers"] == SELLERS
    assert 10 <= collection["asked"] <= MOST
    assert await asked(mesh) - before == collection["asked"]
    coverage = collection["coverage"]
    assert (coverage["asked"], coverage["of"]) == (collection["asked"], SELLERS)
    assert 0 < coverage["chance_cheaper"] < 1
    assert coverage["expected_saving"] > 0


async def test_who_is_the_only_one_to_have_a_book_is_found_and_known_from_then_on(
    customer: Rest,
) -> None:
    for _ in range(TRIES):
        if (await buy(customer, "at-one-only"))["status"] == "purchased":
            break
    else:
        pytest.fail(f"not found in {TRIES} tries")
    answer = await buy(customer, "at-one-only")
    assert (answer["status"], answer["seller_id"]) == ("purchased", "shop-033")


async def test_what_nobody_has_is_not_available(customer: Rest) -> None:
    assert (await buy(customer, "at-nobodys"))["status"] == "not_available"
