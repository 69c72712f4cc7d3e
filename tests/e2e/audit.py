"""The books of everybody, compared: ours, the sellers' and the payment provider's (DESIGN, I7 to I10 and I12)."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from tests.e2e.sellers import LedgerHold, LedgerOrder, SimulatedSellers
from tests.e2e.waiting import eventually

QUIET_WITHIN_S = 30.0


async def assert_books_agree(
    dsn: str, sellers: SimulatedSellers, request_ids: Collection[str]
) -> None:
    """Wait until nothing is left to do for these purchases; check that all books say the same of them.

    A purchase that was bought has one live order and one capture of that order's total; any other has no order and no
    hold, and nothing stays reserved.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await eventually(lambda: _quiet(connection, request_ids), QUIET_WITHIN_S)
        purchases = await connection.fetch(_PURCHASES, list(request_ids))
        provider = await connection.fetch(_PROVIDER, list(request_ids))
    finally:
        await connection.close()
    orders, holds = await sellers.ledger()
    assert len(purchases) == len(request_ids)
    for purchase in purchases:
        request_id = purchase["request_id"]
        _assert_one(
            purchase,
            [row for row in provider if row["reference"] == request_id],
            [order for order in orders if order.request_id == request_id],
            [hold for hold in holds if hold.request_id == request_id],
        )


def _assert_one(
    purchase: asyncpg.Record,
    authorizations: list[asyncpg.Record],
    orders: list[LedgerOrder],
    holds: list[LedgerHold],
) -> None:
    live = [order for order in orders if order.state in {"confirmed", "pending"}]
    assert [hold for hold in holds if hold.state == "held"] == []
    assert len(authorizations) <= 1
    charged = [
        (row["captured_minor"], row["captures"]) for row in authorizations if row["captures"]
    ]
    if purchase["status"] != "purchased":
        assert (live, charged, purchase["captured_minor"]) == ([], [], None)
        assert [row["state"] for row in authorizations] in ([], ["voided"])
        assert purchase["payment_state"] == ("voided" if authorizations else "declined")
        return
    [order] = live
    assert order.state == "confirmed"
    assert order.total_minor is not None
    assert order.total_minor <= purchase["max_price_minor"]
    assert charged == [(order.total_minor, 1)]
    assert (purchase["captured_minor"], purchase["payment_state"]) == (
        order.total_minor,
        "captured",
    )
    assert (purchase["seller_id"], purchase["order_id"]) == (order.seller_id, order.order_id)


async def _quiet(
    connection: asyncpg.Connection[asyncpg.Record], request_ids: Collection[str]
) -> bool | None:
    stages = {row["stage"] for row in await connection.fetch(_STAGES, list(request_ids))}
    assert "flagged" not in stages
    # All that an offer still waits for is its end: then its payment token is erased.
    return True if stages <= {"done", "offer"} else None


_STAGES = "SELECT stage FROM orchestrator.purchase WHERE request_id::text = ANY ($1)"

_PURCHASES = """
SELECT purchase.request_id::text, purchase.status, purchase.max_price_minor,
    payment.state AS payment_state, payment.captured_minor, attempt.seller_id, attempt.order_id
FROM orchestrator.purchase
JOIN orchestrator.payment USING (request_id)
LEFT JOIN orchestrator.attempt
    ON attempt.request_id = purchase.request_id AND attempt.number = purchase.attempt_number
WHERE purchase.request_id::text = ANY ($1)
"""

_PROVIDER = """
SELECT reference, state, captured_minor, captures
FROM sandbox_provider.payment_authorization
WHERE reference = ANY ($1)
"""
