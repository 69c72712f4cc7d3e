"""Reads everybody's books."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

import asyncpg

from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from deploy.local.mesh import LocalMesh
from tests.chaos.books import (
    QUIET_STAGES,
    Attempt,
    Authorization,
    Books,
    Event,
    Flag,
    Hold,
    Message,
    Order,
    Purchase,
)
from tests.chaos.customers import Told

_UNQUIET = "SELECT count(*) FROM orchestrator.purchase WHERE stage <> ALL ($1)"

_PURCHASES = """
SELECT p.request_id::text, p.customer_id, p.idempotency_key, p.max_price_minor, p.status, p.failure_reason, p.stage,
    p.token_sealed IS NOT NULL AS has_token, m.state AS payment_state, m.authorized_minor, m.captured_minor,
    m.provider_id, p.attempt_number
FROM orchestrator.purchase p JOIN orchestrator.payment m USING (request_id)
"""

_ATTEMPTS = """
SELECT request_id::text, number, seller_id, key, with_hold, agreed_minor, order_id, charged_minor, outcome
FROM orchestrator.attempt ORDER BY request_id, number
"""

_EVENTS = """
SELECT request_id::text, seq, happened_at, kind, body::text
FROM orchestrator.purchase_event ORDER BY request_id, seq
"""

_FLAGS = """
SELECT request_id::text, invariant, detail, resolved_at IS NULL AS raised FROM orchestrator.flag
"""

_OUTBOX = "SELECT request_id::text, kind FROM orchestrator.outbox"

_AUTHORIZATIONS = """
SELECT authorization_id, reference, state, authorized_minor, captured_minor, captures
FROM sandbox_provider.payment_authorization
"""


async def unquiet(dsn: str) -> int:
    """Give how many purchases have something left to do."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(_UNQUIET, list(QUIET_STAGES)))
    finally:
        await connection.close()


async def read(mesh: LocalMesh, told: Sequence[Told]) -> Books:
    """Read the books of a mesh in which all is quiet."""
    connection = await asyncpg.connect(mesh.dsn)
    try:
        purchases = [Purchase(**row) for row in await connection.fetch(_PURCHASES)]
        attempts = [Attempt(**row) for row in await connection.fetch(_ATTEMPTS)]
        events = [Event(**row) for row in await connection.fetch(_EVENTS)]
        flags = [Flag(**row) for row in await connection.fetch(_FLAGS)]
        outbox = [Message(**row) for row in await connection.fetch(_OUTBOX)]
        authorizations = [Authorization(**row) for row in await connection.fetch(_AUTHORIZATIONS)]
    finally:
        await connection.close()
    orders: list[Order] = []
    holds: list[Hold] = []
    async with mesh.connect(mesh.sim_control, "sellersim") as channel:
        control = control_pb2_grpc.ControlServiceStub(channel)
        async for part in control.ReadLedger(control_pb2.ReadLedgerRequest()):
            orders += map(_order, part.orders)
            holds += [
                Hold(seller_id=hold.seller_id, key=hold.idempotency_key, state=hold.state)
                for hold in part.holds
            ]
    return Books(
        told=told,
        purchases=purchases,
        attempts=attempts,
        events=events,
        flags=flags,
        outbox=outbox,
        authorizations=authorizations,
        orders=orders,
        holds=holds,
    )


def _order(entry: control_pb2.LedgerOrder) -> Order:
    order = entry.order
    state = order.WhichOneof("state") or ""
    total = order.confirmed.total if state == "confirmed" else None
    return Order(
        seller_id=entry.seller_id,
        key=order.idempotency_key,
        state=state,
        total_minor=total.units * 100 + total.nanos // 10_000_000 if total else None,
        order_id=order.confirmed.order_id if total else "",
        created_at=order.create_time.ToDatetime(UTC),
        updated_at=order.update_time.ToDatetime(UTC),
    )
