"""One mesh for all end-to-end tests, with sellers whose prices the tests know."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
import yaml

from bookmesh.customer.v1 import customer_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2_grpc
from deploy.local.mesh import LocalMesh
from deploy.local.options import MeshOptions, inherited_environment
from tests.e2e.audit import assert_books_agree
from tests.e2e.collector import Collector, collecting
from tests.e2e.customers import Customer, Grpc, Rest
from tests.e2e.sellers import SimulatedSellers

SCENARIO = Path(__file__).parent / "scenario.yaml"
SELLERS = 19
COPIES_OF_A_BOOK = 100

Audit = Callable[..., Awaitable[None]]
Fresh = Callable[[str], str]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalMesh]:
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_METRIC_EXPORT_INTERVAL": "2000",
    }
    # Tests look far more often than customers would; test_limits.py has a mesh of its own.
    rates = {
        "BOOKMESH_EDGE_CUSTOMER_RATE": "10000",
        "BOOKMESH_EDGE_CUSTOMER_BURST": "10000",
        "BOOKMESH_EDGE_ADDRESS_RATE": "10000",
        "BOOKMESH_EDGE_ADDRESS_BURST": "10000",
    }
    # A seller that is slow on a busy machine is waited for: tests know who sells, and at what price.
    purchases = {"BOOKMESH_QUOTE_POLICY": "best_price"}
    scenario = tmp_path_factory.mktemp("scenario") / "scenario.yaml"
    scenario.write_text(_with_copies_of_books(SCENARIO.read_text()))
    options = MeshOptions(
        data=tmp_path_factory.mktemp("mesh"),
        http_port=0,
        grpc_port=0,
        sellers=SELLERS,
        scenario=scenario,
        environment=inherited_environment() | telemetry | rates | purchases,
    )
    async with LocalMesh(options) as mesh:
        yield mesh


def _with_copies_of_books(scenario: str) -> str:
    content = yaml.safe_load(scenario)
    content["books"] += [
        book | {"isbn": f"{book['isbn']}-{number}"}
        for book in content["books"]
        if not book["isbn"].isdigit()
        for number in range(1, COPIES_OF_A_BOOK + 1)
    ]
    return yaml.safe_dump(content)


@pytest.fixture(scope="session")
def fresh() -> Fresh:
    """Gives a book of a kind for which nobody has asked yet."""
    numbers: dict[str, count[int]] = {}

    def fresh(kind: str) -> str:
        number = next(numbers.setdefault(kind, count(1)))
        assert number <= COPIES_OF_A_BOOK, f"there are not so many of {kind}"
        return f"{kind}-{number}"

    return fresh


@pytest_asyncio.fixture(loop_scope="session")
async def opened() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end of a test what was opened for it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def sellers(mesh: LocalMesh, opened: AsyncExitStack) -> AsyncIterator[SimulatedSellers]:
    """The simulated sellers, as the scenario has them again after the test."""
    channel = await opened.enter_async_context(mesh.connect(mesh.sim_control, "sellersim"))
    sellers = SimulatedSellers(control_pb2_grpc.ControlServiceStub(channel))
    yield sellers
    await sellers.restore()


class Doors:
    """Makes customers of the mesh, each with a token of its own."""

    def __init__(self, mesh: LocalMesh, opened: AsyncExitStack) -> None:
        self._mesh = mesh
        self._opened = opened

    async def rest(self, name: str = "alice", token: str | None = None) -> Rest:
        token = self._mesh.token(name) if token is None else token
        client = httpx.AsyncClient(
            base_url=self._mesh.rest_url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=30.0,
            trust_env=False,
        )
        return Rest(await self._opened.enter_async_context(client))

    async def grpc(
        self, name: str = "alice", token: str | None = None, address: str | None = None
    ) -> Grpc:
        """Through Envoy, or straight to the gateway at an ``address``."""
        token = self._mesh.token(name) if token is None else token
        channel = (
            self._mesh.connect(address, "gateway", by="internal")
            if address
            else grpc.aio.insecure_channel(self._mesh.grpc_address)
        )
        await self._opened.enter_async_context(channel)
        quotes = customer_pb2_grpc.QuoteServiceStub(channel)
        return Grpc(customer_pb2_grpc.PurchaseServiceStub(channel), token, quotes)


@pytest.fixture
def doors(mesh: LocalMesh, opened: AsyncExitStack) -> Doors:
    return Doors(mesh, opened)


@pytest_asyncio.fixture(loop_scope="session")
async def rest(doors: Doors) -> Rest:
    return await doors.rest()


@pytest_asyncio.fixture(params=["rest", "grpc"], loop_scope="session")
async def customer(request: pytest.FixtureRequest, doors: Doors) -> Customer:
    """A customer, once by REST and once by gRPC."""
    return await doors.rest() if request.param == "rest" else await doors.grpc()


@pytest.fixture
def audit(mesh: LocalMesh, sellers: SimulatedSellers) -> Audit:
    """Compares all books as to some purchases."""

    async def audit(*request_ids: str) -> None:
        await assert_books_agree(mesh.dsn, sellers, request_ids)

    return audit
