"""What a seller has answered stays true when its process is killed. Simulated sellers alone can be killed here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1 import seller_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from tests.contract.seller.conftest import NOT_CARRIED, SCENARIO
from tests.contract.seller.subject import Subject, new_key

_ROOT = Path(__file__).parents[3]


class Simulator:
    """A simulator in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._channels: list[grpc.aio.Channel] = []
        self._control_port = 0

    async def start(self) -> None:
        environment = {
            **os.environ,
            "BOOKMESH_SCENARIO_FILE": str(SCENARIO),
            "BOOKMESH_DATA_DIR": str(self._folder),
            "BOOKMESH_LISTEN": "127.0.0.1:0",
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "seller_sim",
            cwd=_ROOT,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if line.startswith(b"{") and json.loads(line)["event"] == "listening":
                self._control_port = json.loads(line)["port"]
                return
        pytest.fail("the simulator did not start")

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def control(self) -> control_pb2_grpc.ControlServiceAsyncStub:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._control_port}")
        self._channels.append(channel)
        return control_pb2_grpc.ControlServiceStub(channel)

    async def seller(self, kind: str) -> Subject:
        control = await self.control()
        listed = await control.ListSellers(control_pb2.ListSellersRequest(), timeout=10)
        (found,) = [seller for seller in listed.sellers if seller.seller_id == kind]
        channel = grpc.aio.insecure_channel(found.endpoint)
        self._channels.append(channel)
        secrets = json.loads((self._folder / "credentials.json").read_text())
        return Subject(
            stub=seller_pb2_grpc.SellerServiceStub(channel),
            credential=secrets[found.credential_reference],
            book_id="9780134685991",
            missing_book_id=NOT_CARRIED,
            currency="USD",
            control=None,
            capabilities=found.capabilities,
        )


@pytest.fixture
async def simulator(pytestconfig: pytest.Config, tmp_path: Path) -> AsyncIterator[Simulator]:
    if pytestconfig.getoption("--seller-endpoint", default=None):
        pytest.skip("only a simulated seller can be killed")
    simulator = Simulator(tmp_path)
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.close()


@asynccontextmanager
async def _killed_and_started(simulator: Simulator, kind: str) -> AsyncIterator[Subject]:
    await simulator.kill()
    await simulator.start()
    yield await simulator.seller(kind)


async def test_first_answers_and_stock_outlive_a_kill(simulator: Simulator, kind: str) -> None:
    seller = await simulator.seller(kind)
    confirmed = await seller.order_request()
    first = await seller.place(confirmed)
    rejected = await seller.order_request()
    rejected.book_id = "another-book"
    refusal = await seller.place(rejected)
    closed = await seller.order_request()
    await seller.cancel(closed.idempotency_key)
    orders = await seller.call(seller.stub.ListOrders, pb.ListOrdersRequest())
    left = (await seller.quote()).quantity

    async with _killed_and_started(simulator, kind) as again:
        assert again.credential == seller.credential
        assert await again.place(confirmed) == first
        assert await again.place(rejected) == refusal
        assert (await again.place(closed)).rejected.reason == pb.Rejection.REASON_KEY_CLOSED
        assert await again.call(again.stub.ListOrders, pb.ListOrdersRequest()) == orders
        assert (await again.quote()).quantity == left
        confirmed.buyer_reference = "another"
        code = await again.refused(again.stub.PlaceOrder, confirmed)
        assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_holds_outlive_a_kill(simulator: Simulator) -> None:
    seller = await simulator.seller("holds")
    order = await seller.order_request()
    request = seller.hold_request((await seller.quote()).quote_id)
    first = await seller.try_to_hold(request)
    early = seller.hold_request(request.quote_id)
    await seller.release(early.idempotency_key)

    async with _killed_and_started(simulator, "holds") as again:
        assert await again.try_to_hold(request) == first
        response = await again.try_to_hold(early)
        assert response.rejected.reason == pb.Rejection.REASON_KEY_CLOSED
        assert (await again.confirmed(order)).order_id


async def test_a_quote_outlives_a_kill(simulator: Simulator) -> None:
    seller = await simulator.seller("atomic")
    order = await seller.order_request()
    async with _killed_and_started(simulator, "atomic") as again:
        assert (await again.confirmed(order)).order_id


async def test_a_kill_in_the_middle_of_many_orders_leaves_no_half_of_any(
    simulator: Simulator, kind: str
) -> None:
    """Whatever was answered before the kill is in the ledger; a repeat of the rest never sells a copy twice."""
    seller = await simulator.seller(kind)
    # Later orders do not wait for stock: each is for a book of its own.
    requests = await asyncio.gather(*(_order_for(seller, f"book-{n}") for n in range(60)))
    wanted = [request for request in requests if request is not None]
    answered: dict[str, pb.PlaceOrderResponse] = {}

    async def place(request: pb.PlaceOrderRequest) -> None:
        answered[request.idempotency_key] = await seller.place(request)
        if len(answered) == len(wanted) // 2:
            await simulator.kill()

    await asyncio.gather(*(place(request) for request in wanted), return_exceptions=True)
    assert len(wanted) // 2 <= len(answered)
    await simulator.start()

    again = await simulator.seller(kind)
    kept = {
        order.idempotency_key: order
        for order in (
            await again.call(again.stub.ListOrders, pb.ListOrdersRequest(page_size=1_000))
        ).orders
    }
    for key, answer in answered.items():
        assert kept[key].confirmed == answer.confirmed
    for request in wanted:
        response = await again.place(request)
        if request.idempotency_key in kept:
            assert response.confirmed == kept[request.idempotency_key].confirmed

    control = await simulator.control()
    orders: list[str] = []
    holds: list[str] = []
    async for part in control.ReadLedger(control_pb2.ReadLedgerRequest(), timeout=10):
        orders += [entry.order.idempotency_key for entry in part.orders]
        holds += [entry.state for entry in part.holds]
    assert sorted(orders) == sorted(request.idempotency_key for request in wanted)
    assert set(holds) <= {"ordered"}


async def _order_for(seller: Subject, book_id: str) -> pb.PlaceOrderRequest | None:
    """Give an order for a book; None when the seller does not have it."""
    response = await seller.call(seller.stub.GetQuote, seller.quote_request(book_id))
    if response.WhichOneof("outcome") != "quote":
        return None
    return await replace(seller, book_id=book_id).order_request(new_key())
