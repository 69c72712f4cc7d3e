"""Every statement fits the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mesh import postgres

if TYPE_CHECKING:
    from tests.integration.orchestrator.conftest import World

STATEMENTS = [
    (package, name)
    for package in ("orchestrator.adapters", "orchestrator.adapters.sandbox")
    for name in postgres.statements(package)
]


@pytest.mark.parametrize(("package", "name"), STATEMENTS)
async def test_is_accepted_by_the_database(world: World, package: str, name: str) -> None:
    async with world.pool.acquire() as connection:
        await connection.prepare(postgres.statements(package)[name])


async def test_the_claim_walks_the_index_of_due_purchases(world: World) -> None:
    """With many purchases that are over, a claim reads none of them."""
    await world.pool.execute(
        "INSERT INTO orchestrator.purchase (request_id, customer_id, content_hmac, key_id, book_id, currency,"
        " max_price_minor, conditions, stage, due_at)"
        " SELECT gen_random_uuid(), 'c' || i % 100, '', 'k', 'b', 'USD', 1, '{}', 'done', NULL"
        " FROM generate_series(1, 20000) i"
    )
    await world.pool.execute("ANALYZE orchestrator.purchase")
    claim = postgres.statements("orchestrator.adapters")["claim"]
    plan = await world.pool.fetch(f"EXPLAIN {claim}", 1, 10, 15.0)
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan on purchase" not in text
