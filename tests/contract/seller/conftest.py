"""Who is tested: both kinds of simulated seller, or the one that the command line names.

    pytest tests/contract/seller --seller-endpoint shop.example:443 --seller-tls --seller-credential SECRET \
        --seller-book 9780134685991 --seller-currency USD

It places, holds and cancels orders, a few for each test: never point it at a shop that sends books. What needs power
over the seller's time or stock is skipped there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1 import seller_pb2_grpc
from seller_sim.__main__ import simulating
from seller_sim.settings import Settings
from tests.contract.seller.subject import Control, Subject
from tests.fakes.clock import PushedClock

NOT_CARRIED = "contract-test-not-carried"
SCENARIO = Path(__file__).with_name("scenario.yaml")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("seller", "the seller whose contract is tested")
    group.addoption("--seller-endpoint", help="host:port; two simulated ones when not given")
    group.addoption("--seller-credential", default="", help="what it knows Bookmesh by")
    group.addoption("--seller-tls", action="store_true", help="whether it speaks TLS")
    group.addoption("--seller-book", default="9780134685991", help="a book that it has")
    group.addoption(
        "--seller-missing-book", default=NOT_CARRIED, help="a book that it does not have"
    )
    group.addoption("--seller-currency", default="USD", help="in which it sells")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("--seller-endpoint", default=None):
        kinds: tuple[str, ...] = ("external",)
    elif "holding_seller" in metafunc.fixturenames:
        kinds = ("holds",)
    elif "atomic_seller" in metafunc.fixturenames:
        kinds = ("atomic",)
    else:
        kinds = ("holds", "atomic")
    metafunc.parametrize("kind", kinds)


@pytest.fixture
async def seller(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Subject]:
    started = _external(request.config) if kind == "external" else _simulated(kind, tmp_path)
    async with started as subject:
        response = await subject.call(subject.stub.GetCapabilities, pb.GetCapabilitiesRequest())
        subject.capabilities = response.capabilities
        yield subject


@pytest.fixture
def holding_seller(seller: Subject) -> Subject:
    if not seller.capabilities.supports_holds:
        pytest.skip("this seller has no holds")
    return seller


@pytest.fixture
def atomic_seller(seller: Subject) -> Subject:
    if seller.capabilities.supports_holds:
        pytest.skip("this seller has holds")
    return seller


@pytest.fixture
def control(seller: Subject) -> Control:
    if seller.control is None:
        pytest.skip("needs power over the seller, which only a simulated one gives")
    return seller.control


@asynccontextmanager
async def _simulated(kind: str, folder: Path) -> AsyncIterator[Subject]:
    clock = PushedClock()
    settings = Settings(scenario_file=SCENARIO, data_dir=folder, seller_drain_s=0)
    async with simulating(settings, clock) as simulation:
        simulated = simulation.sellers[kind]
        endpoint = simulation.endpoint_of(simulated)
        async with grpc.aio.insecure_channel(endpoint) as channel:
            yield Subject(
                stub=seller_pb2_grpc.SellerServiceStub(channel),
                credential=simulated.credential,
                book_id="9780134685991",
                missing_book_id=NOT_CARRIED,
                currency="USD",
                control=Control(simulation, clock, kind),
            )


@asynccontextmanager
async def _external(config: pytest.Config) -> AsyncIterator[Subject]:
    endpoint = config.getoption("--seller-endpoint")
    channel = (
        grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials())
        if config.getoption("--seller-tls")
        else grpc.aio.insecure_channel(endpoint)
    )
    async with channel:
        subject = Subject(
            stub=seller_pb2_grpc.SellerServiceStub(channel),
            credential=config.getoption("--seller-credential"),
            book_id=config.getoption("--seller-book"),
            missing_book_id=config.getoption("--seller-missing-book"),
            currency=config.getoption("--seller-currency"),
            control=None,
        )
        yield subject
        await subject.give_back()
