"""Customers who want too much, and clients that mean harm: they are refused, and an honest customer buys meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceStub
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment
from mesh import errors
from mesh.grpc.errors import from_rpc
from tests.e2e import hostile
from tests.e2e.customers import BUSY, PATH, SHOULD_BE_SO_WITHIN_S, Grpc, Refused, Rest, ask, buy
from tests.e2e.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SCENARIO = Path(__file__).parent / "limits.yaml"
SELLERS = 2
STREAMS = 20
"""How many watches a customer may have open at a gateway; there are two."""

OUT_OF_TIME = {"out_of_time", "no_seller_answered"}
WATCHES = 500
MOST_MIB = 500
"""What no process of the mesh may exceed, whatever these tests do to it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalMesh]:
    options = MeshOptions(
        data=tmp_path_factory.mktemp("mesh"),
        http_port=0,
        grpc_port=0,
        sellers=SELLERS,
        scenario=SCENARIO,
        environment=inherited_environment()
        | {
            "BOOKMESH_CUSTOMER_STREAMS": str(STREAMS),
            # More than an honest customer wants, and less than the slowest machine can serve.
            "BOOKMESH_EDGE_CUSTOMER_RATE": "40",
        },
    )
    async with LocalMesh(options) as mesh:
        yield mesh
        largest = max(map(_resident_mib, mesh.pids().values()))
        assert largest < MOST_MIB


@pytest_asyncio.fixture(loop_scope="module")
async def opened() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def door(mesh: LocalMesh) -> str:
    """Where the REST API is, ``host:port``."""
    return mesh.rest_url.removeprefix("http://")


async def rest(mesh: LocalMesh, name: str, opened: AsyncExitStack) -> Rest:
    client = httpx.AsyncClient(
        base_url=mesh.rest_url,
        headers={"authorization": f"Bearer {mesh.token(name)}"},
        timeout=20,
        trust_env=False,
    )
    return Rest(await opened.enter_async_context(client))


async def over_grpc(mesh: LocalMesh, name: str, opened: AsyncExitStack) -> Grpc:
    """Make a customer with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(mesh.grpc_address, options=options)
    await opened.enter_async_context(channel)
    return Grpc(PurchaseServiceStub(channel), mesh.token(name))


@asynccontextmanager
async def an_honest_customer_buys(mesh: LocalMesh) -> AsyncIterator[None]:
    """Let a customer buy over and over during the block, and once more after it."""
    over = asyncio.Event()

    async def keep_buying() -> None:
        async with AsyncExitStack() as opened:
            honest = await rest(mesh, "honest", opened)
            while True:
                last = over.is_set()
                assert await eventually(lambda: bought(honest), SHOULD_BE_SO_WITHIN_S)
                if last:
                    return

    async with asyncio.TaskGroup() as group:
        group.create_task(keep_buying())
        yield
        over.set()


async def bought(honest: Rest) -> bool | None:
    """Buy; None where the machine had so much to do that there was no time for it, as an honest customer is told."""
    try:
        answer = await buy(honest, "sold-at-once")
    except httpx.TimeoutException:
        return None
    except Refused as refused:
        if refused.code not in BUSY:
            raise
        return None
    assert answer["status"] == "purchased" or answer["reason"] in OUT_OF_TIME
    return answer["status"] == "purchased" or None


async def test_headers_that_never_end_are_answered_408_and_closed(
    mesh: LocalMesh, door: str
) -> None:
    async with an_honest_customer_buys(mesh):
        answers = await asyncio.gather(*(hostile.headers_that_never_end(door) for _ in range(200)))
    assert all(answer == b"" or b" 408 " in answer for answer in answers)


async def test_bodies_that_never_end_are_answered_408_and_closed(
    mesh: LocalMesh, door: str
) -> None:
    token = mesh.token("slow")
    async with an_honest_customer_buys(mesh):
        answers = await asyncio.gather(
            *(hostile.body_that_never_ends(door, token) for _ in range(200))
        )
    assert all(b" 408 " in answer and b"REQUEST_TIMEOUT" in answer for answer in answers)


@pytest.mark.parametrize("path", [PATH, "/api/v1/books/sold-at-once/quotes:events"])
async def test_those_who_never_read_stand_in_nobodys_way(
    mesh: LocalMesh, door: str, opened: AsyncExitStack, path: str
) -> None:
    async with an_honest_customer_buys(mesh):
        for number in range(100):
            await opened.enter_async_context(
                hostile.never_reading(door, mesh.token(f"deaf-{number}"), path)
            )


@pytest.mark.parametrize("way", ["rest", "grpc"])
async def test_who_opens_streams_only_to_reset_them_is_cut_off(
    mesh: LocalMesh, door: str, way: str
) -> None:
    address, token = door if way == "rest" else mesh.grpc_address, mesh.token(f"rapid-{way}")
    async with an_honest_customer_buys(mesh):
        closed = await asyncio.gather(
            *(hostile.opening_and_resetting(address, token, 3000) for _ in range(2))
        )
    assert all(closed)


@pytest.mark.parametrize("way", ["rest", "grpc"])
async def test_headers_that_swell_are_refused(mesh: LocalMesh, door: str, way: str) -> None:
    address = door if way == "rest" else mesh.grpc_address
    async with an_honest_customer_buys(mesh):
        refused = await asyncio.gather(*(hostile.headers_that_swell(address) for _ in range(20)))
    assert all(refused)


async def test_a_message_that_swells_is_refused_by_a_gateway_too(mesh: LocalMesh) -> None:
    """The edge takes no compressed message at all; services of the house call past it."""
    metadata = (("authorization", f"Bearer {mesh.token('swelling')}"),)
    bomb = pb.GetPurchaseRequestRequest(request_id="x" * 16 * 2**20)
    async with (
        an_honest_customer_buys(mesh),
        mesh.connect(mesh.replicas["gateway-1"], "gateway", by="internal") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await PurchaseServiceStub(channel).GetPurchaseRequest(
                bomb, metadata=metadata, compression=grpc.Compression.Gzip, timeout=20
            )
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("way", ["rest", "grpc"])
async def test_headers_without_end_stand_in_nobodys_way(
    mesh: LocalMesh, door: str, way: str
) -> None:
    address = door if way == "rest" else mesh.grpc_address
    async with an_honest_customer_buys(mesh):
        await asyncio.gather(*(hostile.headers_without_end(address, 500) for _ in range(10)))


async def test_a_customer_who_sends_too_much_stands_in_nobodys_way(
    mesh: LocalMesh, opened: AsyncExitStack
) -> None:
    hasty = await over_grpc(mesh, "hasty", opened)

    async def outcome() -> str:
        try:
            await hasty.page()
        except Refused as refused:
            return refused.reason or refused.code
        return ""

    async with an_honest_customer_buys(mesh):
        outcomes = set(await asyncio.gather(*(outcome() for _ in range(800))))
    assert {"", "RATE_LIMITED"} <= outcomes <= {"", "RATE_LIMITED", "TOO_MANY_CALLS"} | BUSY


async def test_a_customer_has_so_many_watches_and_no_more(
    mesh: LocalMesh, opened: AsyncExitStack
) -> None:
    watches = Watches(mesh, opened)
    async with an_honest_customer_buys(mesh):
        outcomes = await watches.open("watcher", 3 * STREAMS)
    assert STREAMS <= outcomes.count(None) <= 2 * STREAMS
    assert {outcome for outcome in outcomes if outcome} == {"TOO_MANY_STREAMS"}


async def test_hundreds_of_open_watches_stand_in_nobodys_way(
    mesh: LocalMesh, opened: AsyncExitStack
) -> None:
    watches = Watches(mesh, opened)
    async with an_honest_customer_buys(mesh):
        for number in range(WATCHES // STREAMS):
            outcomes = await watches.open(f"watcher-{number}", STREAMS)
            assert set(outcomes) == {None}


class Watches:
    """Opens watches, which stay open until the test is over."""

    def __init__(self, mesh: LocalMesh, opened: AsyncExitStack) -> None:
        self._mesh = mesh
        self._opened = opened

    async def open(self, name: str, count: int) -> list[str | None]:
        """Watch one purchase so many times; give why each was refused, None for one that is open."""
        customer = await over_grpc(self._mesh, name, self._opened)
        request_id = await ask(customer, "never-sold")

        async def watch() -> str | None:
            call = customer.stub.WatchPurchaseRequest(
                pb.WatchPurchaseRequestRequest(request_id=request_id), metadata=customer.metadata
            )
            self._opened.callback(call.cancel)
            try:
                await call.read()
            except grpc.aio.AioRpcError as error:
                refused = from_rpc(error)
                assert isinstance(refused, errors.ResourceExhausted)
                return refused.reason
            return None

        return await asyncio.gather(*(watch() for _ in range(count)))


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
