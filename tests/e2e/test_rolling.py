"""Every service and Envoy are restarted in turn while customers buy: no call fails, no watch ends before its purchase.

Nothing here is tried again: what customers see is what Bookmesh does, without the help of their clients.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count

import pytest
import pytest_asyncio

from deploy.local.mesh import LocalMesh
from tests.e2e.conftest import Doors
from tests.e2e.customers import Customer, ask
from tests.e2e.sellers import SimulatedSellers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

CUSTOMERS = 3
"""By REST as many as by gRPC."""


class Load:
    """Customers who buy, look, list and watch without a pause until they are stopped."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._stopped = False
        self._books = (f"rolling-{number}" for number in count())

    async def keep_buying(self, customer: Customer) -> None:
        while not self._stopped:
            request_id = await ask(customer, next(self._books))
            self.calls["create"] += 1
            async with asyncio.TaskGroup() as both:
                both.create_task(self._watch(customer, request_id))
                both.create_task(self._look(customer, request_id))

    def stop(self) -> None:
        self._stopped = True

    async def _watch(self, customer: Customer, request_id: str) -> None:
        events = [event async for event in customer.watch(request_id)]
        assert "result" in events[-1], f"the watch of {request_id} ended with {events[-1]}"
        assert len({event["event_id"] for event in events}) == len(events)
        self.calls["watch"] += 1

    async def _look(self, customer: Customer, request_id: str) -> None:
        while (await customer.get(request_id))["status"] == "pending":
            self.calls["get"] += 1
            await customer.page(5)
            self.calls["list"] += 1
            await asyncio.sleep(0.1)


@pytest_asyncio.fixture(loop_scope="session")
async def customers(doors: Doors, opened: AsyncExitStack) -> AsyncIterator[list[Customer]]:
    rest = [await doors.rest(f"rolling-{number}") for number in range(CUSTOMERS)]
    grpc = [await doors.grpc(f"rolling-{number}") for number in range(CUSTOMERS)]
    yield [*rest, *grpc]


async def test_a_rolling_restart_costs_no_call_and_no_watch(
    mesh: LocalMesh, customers: list[Customer], sellers: SimulatedSellers
) -> None:
    await mesh.wait_healthy()
    await sellers.change(latency_constant_ms=500)
    before = mesh.pids()
    load = Load()
    async with asyncio.TaskGroup() as group:
        for customer in customers:
            group.create_task(load.keep_buying(customer))
        await mesh.rolling_restart()
        load.stop()
    after = mesh.pids()
    kept = {name for name, pid in before.items() if after[name] == pid}
    assert kept == {"postgres", "valkey", "seller_sim"}
    assert all(load.calls[call] for call in ("create", "watch", "get", "list"))
