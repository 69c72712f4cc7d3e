"""Every statement fits the schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mesh import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.parametrize("statement", ["list", "list_of_book"])
async def test_a_page_reads_about_as_many_rows_as_it_shows(world: World, statement: str) -> None:
    """However many purchases the customer has, and however rare those are that are wanted."""
    await world.pool.execute(
        "INSERT INTO orchestrator.purchase (request_id, customer_id, content_hmac, key_id, book_id, currency,"
        " max_price_minor, conditions, stage, due_at, status, created_at)"
        " SELECT gen_random_uuid(), 'alice', '', 'k', 'b' || i % 500, 'USD', 1, '{}', 'done', NULL,"
        " CASE i % 1000 WHEN 0 THEN 'cancelled' ELSE 'purchased' END, now() - i * interval '1 s'"
        " FROM generate_series(1, 20000) i"
    )
    await world.pool.execute("ANALYZE orchestrator.purchase")
    sql = postgres.statements("orchestrator.adapters")[statement]
    book = [] if statement == "list" else ["b7"]
    wanted = ["cancelled", "purchased"] if book else ["cancelled", "failed"]
    plan = await world.pool.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON) {sql}",
        *("alice", wanted, None, None, None, None, 21),
        *book,
    )
    read = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in _nodes(json.loads(plan)[0]["Plan"])
        if "Scan" in node["Node Type"]
    ]
    assert max(read) <= 42


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
