"""What goes wrong at sellers on purpose, and the control over it, through the servers of a whole simulation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf import struct_pb2

from bookmesh.seller.v1 import seller_pb2 as pb
from bookmesh.seller.v1 import seller_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2
from mesh import errors
from mesh.convert import timestamp
from mesh.grpc.interceptor import Context
from seller_sim.__main__ import simulating
from seller_sim.app import Simulation
from seller_sim.servicer.control import ControlServicer
from seller_sim.settings import Settings
from tests.fakes.clock import PushedClock, until

SCENARIO = """
seed: 3
groups:
  - name: shop
    display_name: Shop
    count: 3
    behaviour: {latency_constant_ms: 0, latency_exponential_ms: 0, carries: 1, in_stock: 1, supports_holds: false}
"""
BOOK = "9780134685991"


class World:
    """A simulation, its time, and the way to its sellers."""

    def __init__(self, simulation: Simulation, clock: PushedClock, stack: AsyncExitStack) -> None:
        self.simulation = simulation
        self.clock = clock
        self.control = ControlServicer(simulation)
        self._stack = stack
        self._stubs: dict[str, seller_pb2_grpc.SellerServiceAsyncStub] = {}

    async def change(self, *seller_ids: str, **settings: float | bool | None) -> int:
        behaviour = struct_pb2.Struct()
        behaviour.update(settings)
        request = control_pb2.ChangeBehaviourRequest(seller_ids=seller_ids, behaviour=behaviour)
        return (await self.control.ChangeBehaviour(request, NO_CONTEXT)).changed

    async def stub(self, seller_id: str) -> seller_pb2_grpc.SellerServiceAsyncStub:
        endpoint = self.simulation.endpoint_of(self.simulation.sellers[seller_id])
        if endpoint not in self._stubs:
            channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(endpoint))
            self._stubs[endpoint] = seller_pb2_grpc.SellerServiceStub(channel)
        return self._stubs[endpoint]

    def metadata(self, seller_id: str) -> tuple[tuple[str, str], ...]:
        credential = self.simulation.sellers[seller_id].credential
        return (("authorization", f"Bearer {credential}"),)

    async def quote(
        self, seller_id: str = "shop-001", timeout_s: float = 10, *, wait_for_ready: bool = False
    ) -> pb.Quote:
        request = pb.GetQuoteRequest(
            book_id=BOOK, currency_code="USD", conditions=[pb.CONDITION_NEW]
        )
        stub = await self.stub(seller_id)
        response = await stub.GetQuote(
            request,
            metadata=self.metadata(seller_id),
            timeout=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        return response.quote

    async def refused(self, seller_id: str = "shop-001", timeout_s: float = 10) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.quote(seller_id, timeout_s)
        return caught.value.code()

    async def order(self, key: str) -> pb.PlaceOrderRequest:
        quote = await self.quote()
        return pb.PlaceOrderRequest(
            idempotency_key=key,
            quote_id=quote.quote_id,
            book_id=BOOK,
            buyer_reference=f"buyer of {key}",
            max_total=quote.total,
            not_after=timestamp(self.clock.now()),
        )

    async def place(self, order: pb.PlaceOrderRequest, timeout_s: float = 10) -> None:
        order.not_after.seconds += 3_600
        stub = await self.stub("shop-001")
        await stub.PlaceOrder(order, metadata=self.metadata("shop-001"), timeout=timeout_s)

    async def ledger(self, buyer_reference: str = "") -> list[control_pb2.ReadLedgerResponse]:
        request = control_pb2.ReadLedgerRequest(buyer_reference=buyer_reference)
        return [part async for part in self.control.ReadLedger(request, NO_CONTEXT)]


# The control's servicer looks at no context.
NO_CONTEXT: Context = None  # type: ignore[assignment]


@asynccontextmanager
async def started(folder: Path, **settings: int) -> AsyncIterator[World]:
    scenario = folder / "scenario.yaml"
    scenario.write_text(SCENARIO)
    clock = PushedClock()
    told = Settings.model_validate(
        {"scenario_file": scenario, "data_dir": folder / "data", "seller_drain_s": 0, **settings}
    )
    async with AsyncExitStack() as stack:
        simulation = await stack.enter_async_context(simulating(told, clock))
        yield World(simulation, clock, stack)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with started(tmp_path) as world:
        yield world


async def test_a_dead_seller_refuses_connections_until_it_is_back(world: World) -> None:
    before = await world.quote()
    await world.change("shop-001", dead=True)
    assert await world.refused() is grpc.StatusCode.UNAVAILABLE
    await world.quote("shop-002")
    await world.change("shop-001", dead=False)
    assert (await world.quote(wait_for_ready=True)).total == before.total


async def test_a_failing_seller_fails_as_often_as_it_should(world: World) -> None:
    await world.change("shop-001", error_rate=0.5)
    answers = await asyncio.gather(*(world.quote() for _ in range(100)), return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {failure.code() for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
    assert 30 < len(failures) < 70


async def test_a_hanging_seller_never_answers(world: World) -> None:
    await world.change("shop-001", hang_rate=1)
    assert await world.refused(timeout_s=0.2) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_hanging_call_ends_with_the_simulation(tmp_path: Path) -> None:
    async with started(tmp_path) as world:
        await world.change("shop-001", hang_rate=1)
        hanging = asyncio.create_task(world.refused(timeout_s=50))
        calls = world.simulation.sellers["shop-001"].traffic.calls
        await until(lambda: bool(calls))
        await world.simulation.close()
        assert await hanging is grpc.StatusCode.UNAVAILABLE


async def test_an_answer_takes_its_latency(world: World) -> None:
    await world.change("shop-001", latency_constant_ms=5_000)
    quoting = asyncio.create_task(world.quote())
    await world.quote("shop-002")
    assert not quoting.done()
    world.clock.push(5)
    await quoting


async def test_the_time_in_which_sellers_are_at_work_is_counted(world: World) -> None:
    """Measurements tell it from the mesh's own. Two calls at once are no more than one; a call for nothing is none."""
    await world.change("shop-001", latency_constant_ms=600_000)
    await world.change("shop-002", latency_constant_ms=600_000)
    calls = [asyncio.create_task(world.quote(name, 700)) for name in ("shop-001", "shop-002")]
    await until(lambda: world.simulation.working == len(calls))
    world.clock.push(600)
    await asyncio.gather(*calls)
    await until(lambda: world.simulation.working == 0)
    world.clock.push(600)
    counted = await world.control.GetCounters(control_pb2.GetCountersRequest(), NO_CONTEXT)
    assert 600 <= counted.busy_time.ToTimedelta().total_seconds() < 1200


async def test_an_invalid_quote_has_a_total_of_nothing(world: World) -> None:
    await world.change("shop-001", invalid_quote_rate=1)
    quote = await world.quote()
    assert (quote.total.units, quote.total.nanos) == (0, 0)


async def test_work_whose_answer_is_lost_is_done(world: World) -> None:
    order = await world.order("k")
    await world.change("shop-001", lost_answer_rate=1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.place(order)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    (part,) = await world.ledger()
    assert part.orders[0].order.WhichOneof("state") == "confirmed"


async def test_an_order_whose_caller_gave_up_is_still_worked_on(world: World) -> None:
    order = await world.order("k")
    await world.change("shop-001", latency_constant_ms=30_000)
    # Again where the machine is so slow that it did not even arrive.
    while not world.simulation._in_flight:
        with pytest.raises(grpc.aio.AioRpcError):
            await world.place(order, timeout_s=0.3)
    assert await world.ledger() == []
    world.clock.push(30)
    orders = world.simulation.sellers["shop-001"].account.orders
    await until(lambda: bool(orders))
    (part,) = await world.ledger()
    assert part.orders[0].order.WhichOneof("state") == "confirmed"


async def test_sellers_at_one_address_are_told_apart_by_their_credentials(tmp_path: Path) -> None:
    async with started(tmp_path, sellers_per_address=2) as world:
        listed = await world.control.ListSellers(control_pb2.ListSellersRequest(), NO_CONTEXT)
        first, second, third = (seller.endpoint for seller in listed.sellers)
        assert first == second != third
        totals = {
            (await world.quote(seller_id)).total.units for seller_id in ("shop-001", "shop-002")
        }
        assert len(totals) == 2
        await world.change("shop-001", dead=True)
        assert await world.refused("shop-001") is grpc.StatusCode.UNAVAILABLE
        await world.quote("shop-002")
        calls = [seller.traffic.calls for seller in world.simulation.sellers.values()]
        assert calls == [{"GetQuote": 2}, {"GetQuote": 2}, {}]


async def test_calls_of_many_sellers_at_one_address_are_not_mixed_up(tmp_path: Path) -> None:
    async with started(tmp_path, sellers_per_address=3) as world:
        ids = list(world.simulation.sellers)
        alone = {seller_id: (await world.quote(seller_id)).total for seller_id in ids}
        await world.change(latency_exponential_ms=5)
        quotes = await asyncio.gather(*(world.quote(seller_id) for seller_id in ids * 20))
        assert [quote.total for quote in quotes] == [alone[seller_id] for seller_id in ids * 20]


async def test_a_credential_is_of_no_use_at_another_address(world: World) -> None:
    stub = await world.stub("shop-001")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetCapabilities(
            pb.GetCapabilitiesRequest(), metadata=world.metadata("shop-002"), timeout=10
        )
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_list_comes_in_pages(world: World) -> None:
    pages, token = list[list[str]](), ""
    while not pages or token:
        request = control_pb2.ListSellersRequest(page_size=2, page_token=token)
        page = await world.control.ListSellers(request, NO_CONTEXT)
        pages.append([seller.seller_id for seller in page.sellers])
        token = page.next_page_token
    assert pages == [["shop-001", "shop-002"], ["shop-003"]]


async def test_the_list_has_what_a_registration_needs(world: World, tmp_path: Path) -> None:
    await world.change("shop-002", calls_per_minute=7, max_batch_size=0)
    listed = await world.control.ListSellers(control_pb2.ListSellersRequest(), NO_CONTEXT)
    assert [seller.seller_id for seller in listed.sellers] == ["shop-001", "shop-002", "shop-003"]
    secrets = json.loads((tmp_path / "data" / "credentials.json").read_text())
    second = listed.sellers[1]
    assert secrets[second.credential_reference]
    assert second.display_name == "Shop 2"
    assert second.capabilities.calls_per_minute == 7
    assert second.capabilities.max_batch_size == 0
    assert not second.capabilities.supports_holds
    assert second.behaviour["calls_per_minute"] == 7


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"error_rate": 0.5, "eror_rate": 1}, "behaviour.eror_rate: there is no such setting"),
        ({"error_rate": 1.5}, "behaviour.error_rate: must be 0 to 1, is 1.5"),
        ({"error_rate": 0.5, "dead": None}, "behaviour.dead: must be true or false, is None"),
    ],
)
async def test_a_wrong_change_is_refused_as_a_whole(
    world: World, settings: dict[str, float | None], complaint: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await world.change(**settings)
    assert complaint in str(caught.value)
    assert all(not seller.behaviour.error_rate for seller in world.simulation.sellers.values())


async def test_a_change_at_a_seller_that_is_not_there_changes_nobody(world: World) -> None:
    with pytest.raises(errors.NotFound, match="'shop-009'"):
        await world.change("shop-001", "shop-009", error_rate=1)
    await world.quote()


async def test_a_change_of_nobody_in_particular_changes_all(world: World) -> None:
    assert await world.change(calls_per_minute=5) == 3


async def test_calls_are_counted_by_method_with_those_refused(world: World) -> None:
    await world.change("shop-001", calls_per_minute=2)
    await world.quote()
    await world.quote()
    assert await world.refused() is grpc.StatusCode.RESOURCE_EXHAUSTED
    world.clock.push(60)
    await world.quote()
    counted = await world.control.GetCounters(control_pb2.GetCountersRequest(), NO_CONTEXT)
    first = counted.sellers[0]
    assert first.seller_id == "shop-001"
    assert dict(first.calls) == {"GetQuote": 4}
    assert first.rate_limited == 1
    assert first.peak_calls_per_minute == 3


async def test_the_ledger_is_read_by_buyer(world: World) -> None:
    for key in ("a", "b"):
        await world.place(await world.order(key))
    (part,) = await world.ledger("buyer of b")
    assert [entry.order.idempotency_key for entry in part.orders] == ["b"]
    assert part.orders[0].seller_id == "shop-001"
    assert await world.ledger("nobody") == []


async def test_a_hold_is_in_the_ledger_as_it_is_now(world: World) -> None:
    await world.change("shop-001", supports_holds=True, hold_life_s=30)
    quote = await world.quote()
    stub = await world.stub("shop-001")
    request = pb.HoldBookRequest(
        idempotency_key="h",
        quote_id=quote.quote_id,
        book_id=BOOK,
        not_after=timestamp(world.clock.now()),
    )
    request.not_after.seconds += 60
    await stub.HoldBook(request, metadata=world.metadata("shop-001"), timeout=10)
    (part,) = await world.ledger()
    assert [(hold.idempotency_key, hold.state) for hold in part.holds] == [("h", "held")]
    world.clock.push(30)
    (part,) = await world.ledger()
    assert [hold.state for hold in part.holds] == ["expired"]
    assert await world.ledger("a buyer") == []


async def test_runs_of_one_scenario_are_alike(tmp_path: Path) -> None:
    """The same calls meet the same prices, latencies and mishaps in two runs with different secrets."""
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        async with started(tmp_path / name) as world:
            seller = world.simulation.sellers["shop-001"]
            await world.change(error_rate=0.3, latency_exponential_ms=80, hang_rate=0.1)
            mishaps = [seller.mishaps() for _ in range(50)]
            await world.change(error_rate=0, latency_exponential_ms=0, hang_rate=0)
            runs.append((mishaps, (await world.quote()).total))
    assert runs[0] == runs[1]
    assert {mishap.fails for mishap in runs[0][0]} == {True, False}
