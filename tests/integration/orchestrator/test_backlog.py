"""A customer who has submitted 50,000 purchases, and the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from mesh import postgres
from tests.integration.orchestrator.test_workers import LEASE_S, submitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.ports import Claim
    from tests.integration.orchestrator.conftest import World

BACKLOG = 50_000
ROOM = 20


@pytest.fixture
async def busy(world: World) -> World:
    """Give a world in which one customer's purchases wait, as if they had been submitted one after the other."""
    await world.pool.execute(
        "INSERT INTO orchestrator.purchase (request_id, customer_id, content_hmac, key_id, book_id, currency,"
        " max_price_minor, conditions, stage, due_at, turn, created_at)"
        " SELECT gen_random_uuid(), 'busy', '', 'k', 'b', 'USD', 1, '{}', 'authorize', now(),"
        " now() + i * interval '1 hour', now() - interval '1 minute' FROM generate_series(0, $1 - 1) i",
        BACKLOG,
        timeout=60,
    )
    await world.pool.execute("ANALYZE orchestrator.purchase", timeout=60)
    return world


async def customers(world: World, claims: Sequence[Claim]) -> list[str]:
    rows = await world.pool.fetch(
        "SELECT customer_id FROM orchestrator.purchase WHERE request_id = ANY($1)",
        [claim.request_id for claim in claims],
    )
    return sorted(row["customer_id"] for row in rows)


async def test_the_others_are_served_first_come_as_if_there_were_no_backlog(busy: World) -> None:
    names = [f"c{number:02}" for number in range(30)]
    ids: list[UUID] = [(await submitted(busy, name)).request_id for name in names]
    async with busy.store.session() as session:
        first = await busy.store.claim(session.owner, ROOM, LEASE_S)
        second = await busy.store.claim(session.owner, ROOM, LEASE_S)
    # Of the backlog at most one stands before them, as it was submitted before them.
    assert (await customers(busy, first)).count("busy") <= 1
    claimed = {claim.request_id for claim in first}
    assert set(ids[: ROOM - 1]) <= claimed, "in the order in which they came"
    assert set(ids) <= claimed | {claim.request_id for claim in second}


async def test_nobody_waits_while_there_is_room(busy: World) -> None:
    """Without others the backlog has all turns."""
    async with busy.store.session() as session:
        for _ in range(3):
            claims = await busy.store.claim(session.owner, 200, LEASE_S)
            assert await customers(busy, claims) == ["busy"] * 200


async def test_one_more_of_the_busy_customer_goes_to_its_end(busy: World) -> None:
    view = await submitted(busy, "busy")
    last = await busy.pool.fetchval(
        "SELECT request_id FROM orchestrator.purchase ORDER BY turn DESC LIMIT 1"
    )
    assert last == view.request_id


async def test_a_claim_reads_what_it_takes_and_not_the_backlog(busy: World) -> None:
    claim = postgres.statements("orchestrator.adapters")["claim"]
    async with busy.pool.acquire() as connection:
        [row] = await connection.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {claim}", 1, ROOM, LEASE_S
        )
    [plan] = json.loads(row[0])
    assert most_rows(plan["Plan"]) <= 2 * ROOM


def most_rows(node: dict[str, object]) -> float:
    """Give the most rows that any part of a plan has read."""
    below = node.get("Plans", [])
    assert isinstance(below, list)
    rows, removed = node["Actual Rows"], node.get("Rows Removed by Filter", 0)
    assert isinstance(rows, int | float)
    assert isinstance(removed, int | float)
    return max([rows + removed, *(most_rows(part) for part in below)])
