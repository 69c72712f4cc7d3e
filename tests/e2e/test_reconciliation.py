"""A seller that cancels what was paid for: nobody calls us, so that comparing books has to find it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2, seller_pb2_grpc
from bookmesh.sellersim.v1 import control_pb2, control_pb2_grpc
from tests.e2e.customers import ask, final
from tests.e2e.waiting import eventually

if TYPE_CHECKING:
    from deploy.local.mesh import LocalMesh
    from tests.e2e.conftest import Fresh
    from tests.e2e.customers import Rest
    from tests.e2e.sellers import SimulatedSellers

NOT_COMPARED = 2
REACHED_WITHIN_S = 60.0

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


async def test_a_seller_cancels_after_the_capture_and_the_customer_gets_the_money_back(
    mesh: LocalMesh, rest: Rest, sellers: SimulatedSellers, fresh: Fresh
) -> None:
    request_id = await ask(rest, fresh("ordinary"))
    answer = await final(rest, request_id)
    assert answer["status"] == "purchased"
    await _let_it_be_old(mesh, request_id)
    await _cancel_at_the_seller(mesh, answer["seller_id"], request_id)

    async def whole() -> dict[str, Any] | None:
        code, printed = await _reconcile(mesh)
        # Sellers that another test had made dead may still be out of reach.
        return printed if code != NOT_COMPARED else None

    dry = await eventually(whole, REACHED_WITHIN_S)
    assert dry["outcome"] == "findings"
    [found] = dry["findings"]
    assert (found["kind"], found["request_id"]) == ("order_cancelled", request_id)
    assert found["amount"] == {"currency": "USD", "amount": f"{answer['final_price']:.2f}"}
    assert await _provider(mesh, request_id) == (2499, 0), "without --apply nothing changes"

    code, applied = await _reconcile(mesh, "--apply")
    assert [finding["done"] for finding in applied["findings"]] == ["resolved"]
    assert code == 0
    assert await _provider(mesh, request_id) == (2499, 2499)
    after = await rest.get(request_id)
    assert (after["status"], after["refunded"]) == ("purchased", answer["final_price"])
    orders, _ = await sellers.ledger()
    assert [order.state for order in orders if order.request_id == request_id] == ["cancelled"]

    assert (await _reconcile(mesh))[0] == 0, "all books agree again"


async def _reconcile(mesh: LocalMesh, *arguments: str) -> tuple[int | None, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "reconcile", "-o", "json", *arguments),
        *("--database-url", mesh.dsn),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    return process.returncode, json.loads(printed)


async def _cancel_at_the_seller(mesh: LocalMesh, seller_id: str, request_id: str) -> None:
    """Cancel an order in the seller's own books, past the mesh."""
    async with mesh.connect(mesh.sim_control, "sellersim") as control:
        stub = control_pb2_grpc.ControlServiceStub(control)
        listed = (await stub.ListSellers(control_pb2.ListSellersRequest())).sellers
    [endpoint] = [seller.endpoint for seller in listed if seller.seller_id == seller_id]
    secret = json.loads(mesh.data.seller_credentials.read_text())[seller_id]
    async with grpc.aio.insecure_channel(endpoint) as channel:
        cancelled = await seller_pb2_grpc.SellerServiceStub(channel).CancelOrder(
            seller_pb2.CancelOrderRequest(idempotency_key=f"{request_id}:{seller_id}"),
            metadata=(("authorization", f"Bearer {secret}"),),
            timeout=10,
        )
    assert cancelled.result == seller_pb2.CancelOrderResponse.RESULT_CANCELLED


async def _let_it_be_old(mesh: LocalMesh, request_id: str) -> None:
    """Younger purchases are not compared. The mesh does not compare by itself for a while, so that the command does."""
    connection = await asyncpg.connect(mesh.dsn)
    try:
        await connection.execute(
            "INSERT INTO orchestrator.reconciliation_run (requested_by, mode, since, until, ended_at, outcome)"
            " VALUES ('schedule', 'report', now() - interval '1 hour', now(), now(), 'clean')"
        )
        await connection.execute(
            "UPDATE orchestrator.purchase SET created_at = created_at - interval '10 minutes'"
            " WHERE request_id = $1",
            request_id,
        )
    finally:
        await connection.close()


async def _provider(mesh: LocalMesh, request_id: str) -> tuple[int, int]:
    connection = await asyncpg.connect(mesh.dsn)
    try:
        row = await connection.fetchrow(
            "SELECT captured_minor, refunded_minor FROM sandbox_provider.payment_authorization WHERE reference = $1",
            request_id,
        )
    finally:
        await connection.close()
    assert row is not None
    return row["captured_minor"], row["refunded_minor"]
