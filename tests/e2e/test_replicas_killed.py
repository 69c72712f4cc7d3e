"""Replicas that are killed while purchases run: every purchase ends, rightly, and all books agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import uuid4

import pytest

from deploy.local.mesh import LocalMesh
from mesh.clock import SystemClock
from tests.e2e.conftest import Audit, Doors, Fresh
from tests.e2e.customers import Customer, Json, final, persisting
from tests.e2e.sellers import SimulatedSellers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

ANSWERS: dict[str, tuple[str, set[float | None]]] = {
    "ordinary": ("purchased", {24.99, 25.49, 26.0}),
    "straight-from-a-quote": ("purchased", {9.5, 9.75}),
    "gone-at-the-order": ("purchased", {22.0}),
    "dearer-than-the-next": ("purchased", {21.0, 22.0}),
    "too-dear": ("price_not_met", {34.99}),
    "nowhere": ("not_available", {None}),
}
"""The right answer for each book, and the prices that it may name: when nobody knows what became of an order, it may
have been cancelled, and the next cheapest sold."""


CLOCK = SystemClock()
LONG_S = 5.0
"""Of the 10 s in which sellers are asked, half."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A purchase under way."""

    customer: Customer
    book: str
    request_id: str


async def ask_for_everything(doors: Doors, fresh: Fresh) -> list[Asked]:
    """Ask twice for every book, by REST and by gRPC, under keys that make it safe to ask again."""
    customers: list[Customer] = [await doors.rest(), await doors.grpc()]

    async def ask(customer: Customer, book: str) -> Asked:
        body: Json = {"book_id": fresh(book), "max_price": 29.99, "payment_token": "tok_ok"}
        key = str(uuid4())
        answer = await persisting(lambda: customer.create(body, key))
        return Asked(customer, book, answer["request_id"])

    return await asyncio.gather(
        *(ask(customer, book) for customer in customers for book in ANSWERS)
    )


async def reached(asked: Asked, step: str) -> None:
    """Return when a purchase has taken a step."""
    async for event in asked.customer.watch(asked.request_id):
        if event.get("step", {}).get("name") == step:
            return
    pytest.fail(f"{asked.book} ended without the step {step}")


async def watched_to_the_end(asked: Asked) -> Json:
    """Give the result of a purchase, opening the stream again for as often as it breaks."""
    events: dict[str, Json] = {}

    async def result() -> Json | None:
        event: Json = {}
        async for event in asked.customer.watch(asked.request_id):
            assert events.setdefault(event["event_id"], event) == event
        return event.get("result")

    return await persisting(result)


async def assert_all_end_rightly(mesh: LocalMesh, everything: list[Asked], audit: Audit) -> None:
    """Wait for all ends, and for all replicas: where these take long to come back, some purchases are out of time."""

    async def ended(asked: Asked) -> Json:
        return await persisting(lambda: final(asked.customer, asked.request_id))

    async def all_back() -> float:
        begun_s = CLOCK.monotonic()
        await mesh.wait_healthy()
        return CLOCK.monotonic() - begun_s

    answers, back_after_s = await asyncio.gather(
        asyncio.gather(*map(ended, everything)), all_back()
    )
    for asked, answer in zip(everything, answers, strict=True):
        status, prices = ANSWERS[asked.book]
        if answer.get("reason") == "out_of_time" and back_after_s > LONG_S:
            continue
        price = answer.get("final_price", answer.get("lowest_price"))
        if answer["status"] != status or price not in prices:
            events = [event async for event in asked.customer.watch(asked.request_id)]
            pytest.fail(f"{asked.book} ended as {answer}:\n" + "\n".join(map(str, events)))
    await audit(*(asked.request_id for asked in everything))


@pytest.mark.parametrize(
    "killed",
    [
        ("orchestrator-1", "collecting"),
        ("orchestrator-2", "holding"),
        ("orchestrator-1", "ordering"),
        ("orchestrator-2", "ordered"),
        ("aggregator-1", "collecting"),
        ("aggregator-2", "collecting"),
        ("gateway-1", "collecting"),
    ],
    ids=" at ".join,
)
async def test_a_replica_is_killed_while_purchases_run(
    mesh: LocalMesh,
    doors: Doors,
    sellers: SimulatedSellers,
    audit: Audit,
    fresh: Fresh,
    *,
    killed: tuple[str, str],
) -> None:
    name, step = killed
    await mesh.wait_healthy()
    await sellers.change(latency_constant_ms=250)
    everything = await ask_for_everything(doors, fresh)
    watching = [asyncio.create_task(watched_to_the_end(asked)) for asked in everything]
    await reached(everything[0], step)
    mesh.kill(name)
    await assert_all_end_rightly(mesh, everything, audit)
    for asked, result in zip(everything, await asyncio.gather(*watching), strict=True):
        assert result == await asked.customer.get(asked.request_id)


async def test_all_orchestrators_are_killed_and_the_purchases_go_on(
    mesh: LocalMesh, doors: Doors, sellers: SimulatedSellers, audit: Audit, fresh: Fresh
) -> None:
    await mesh.wait_healthy()
    await sellers.change(latency_constant_ms=250)
    everything = await ask_for_everything(doors, fresh)
    await reached(everything[0], "collecting")
    for name in ("orchestrator-1", "orchestrator-2"):
        mesh.kill(name)
    await assert_all_end_rightly(mesh, everything, audit)


async def test_gateways_are_killed_while_customers_ask(
    mesh: LocalMesh, doors: Doors, audit: Audit, fresh: Fresh
) -> None:
    """A customer who asks again under the same key has bought once."""
    await mesh.wait_healthy()
    asking = asyncio.gather(*(ask_for_everything(doors, fresh) for _ in range(3)))
    for name in ("gateway-1", "gateway-2"):
        mesh.kill(name)
        await mesh.wait_healthy(name)
    everything = [asked for batch in await asking for asked in batch]
    await assert_all_end_rightly(mesh, everything, audit)
