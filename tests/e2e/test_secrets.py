"""Secrets stay where they belong."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from deploy.local.mesh import LocalMesh
from tests.e2e.collector import Collector
from tests.e2e.conftest import Audit, Doors, Fresh
from tests.e2e.customers import Json, Refused, final
from tests.e2e.waiting import eventually

SERVICES = {"edge", "gateway", "orchestrator", "aggregator", "seller_sim"}
EXPORTED_WITHIN_S = 20.0

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def test_no_secret_is_in_a_log_or_a_trace_and_no_payment_token_is_kept(
    mesh: LocalMesh, doors: Doors, collector: Collector, audit: Audit, fresh: Fresh
) -> None:
    """After purchases that go well and that do not."""
    payment_token, bearer, trace_id = f"tok_{uuid4().hex}", mesh.token("secretive"), uuid4().hex
    customer = await doors.rest(token=bearer)
    customer.client.headers["traceparent"] = f"00-{trace_id}-{trace_id[:16]}-01"
    request_ids = []

    async def ask(book_id: str) -> None:
        body: Json = {"book_id": book_id, "max_price": 29.99, "payment_token": payment_token}
        request_ids.append((await customer.create(body))["request_id"])
        await final(customer, request_ids[-1])
        with pytest.raises(Refused):
            await customer.create(body | {"max_price": -1})

    for book in ("ordinary", "gone-at-the-order", "too-dear", "lost"):
        await ask(fresh(book))
    await audit(*request_ids)

    async def traced() -> bool | None:
        services = {span.service for span in collector.traces[trace_id]}
        return True if services >= SERVICES else None

    await eventually(traced, EXPORTED_WITHIN_S)
    secrets = [payment_token.encode(), bearer.encode(), bearer.rpartition(".")[2].encode()]
    for name in mesh.pids():
        log = mesh.data.log(name).read_bytes()
        assert [secret for secret in secrets if secret in log] == [], name
    assert not [secret for secret in secrets if collector.saw(secret)]
    connection = await asyncpg.connect(mesh.dsn)
    kept = await connection.fetch(
        "SELECT stage, token_sealed FROM orchestrator.purchase WHERE request_id::text = ANY ($1)",
        request_ids,
    )
    await connection.close()
    assert len(kept) == len(request_ids)
    for row in kept:
        # While an offer runs the token may still pay for it; sealed, as it is all the time.
        assert (row["token_sealed"] is not None) == (row["stage"] == "offer")
        assert payment_token.encode() not in (row["token_sealed"] or b"")
