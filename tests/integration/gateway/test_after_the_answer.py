"""Cancelling a request, and accepting an offer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import grpc
import pytest

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from mesh import convert, errors
from mesh.grpc.errors import from_rpc
from tests.fakes.orchestrators import PURCHASE_ID, Script, failed, purchase

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub
    from tests.fakes.issuer import Issuer

OFFERED_ID = "01980000-0000-7000-8000-000000000002"
STATUS_URL = f"/api/v1/purchase-requests/{PURCHASE_ID}"
CANCEL = pb.CancelPurchaseRequestRequest(request_id=PURCHASE_ID)
ACCEPT = pb.AcceptOfferRequest(request_id=OFFERED_ID, payment_token="tok_new")


def bearer(issuer: Issuer) -> tuple[str, str]:
    return ("authorization", f"Bearer {issuer.token('alice')}")


async def refusal(call: Awaitable[object]) -> errors.MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def test_a_cancel_is_its_customer_s_and_answers_the_request(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.purchase = purchase("CANCELLED", internal.Purchase(cancel_requested=True))
    answer = await stub.CancelPurchaseRequest(CANCEL, metadata=(bearer(issuer),))
    assert answer.status == pb.PurchaseStatus.cancelled
    assert answer.cancel_requested
    [asked] = script.asked
    assert asked == internal.CancelPurchaseRequest(
        customer_id="alice", request_id=PURCHASE_ID, wait=convert.duration(2.0)
    )


async def test_an_accepted_offer_is_answered_as_a_new_request(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    call = stub.AcceptOffer(ACCEPT, metadata=(bearer(issuer),))
    assert await call == pb.AcceptOfferResponse(
        request_id=PURCHASE_ID, status=pb.PurchaseStatus.pending, status_url=STATUS_URL
    )
    metadata = dict(await call.initial_metadata())
    assert (metadata["x-http-status"], metadata["location"]) == ("202", STATUS_URL)
    [asked] = script.asked
    assert isinstance(asked, internal.AcceptOfferRequest)
    assert UUID(asked.new_request_id).version == 7
    assert (asked.customer_id, asked.request_id) == ("alice", OFFERED_ID)
    assert asked.payment_token == "tok_new"


async def test_a_card_that_is_refused_for_an_offer_is_a_402(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.purchase = failed("card_declined")
    call = stub.AcceptOffer(ACCEPT, metadata=(bearer(issuer),))
    error = await refusal(call)
    assert error.reason == "CARD_DECLINED"
    assert error.metadata["request_id"] == PURCHASE_ID
    assert dict(await call.initial_metadata())["x-http-status"] == "402"


@pytest.mark.parametrize("reason", ["NO_OFFER", "OFFER_EXPIRED", "PAYMENT_TOKEN_REQUIRED"])
async def test_why_an_offer_cannot_be_accepted_is_passed_on(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script, reason: str
) -> None:
    script.error = errors.FailedPrecondition("why", reason=reason)
    error = await refusal(stub.AcceptOffer(ACCEPT, metadata=(bearer(issuer),)))
    assert (type(error), error.reason) == (errors.FailedPrecondition, reason)


async def test_why_a_request_cannot_be_cancelled_is_passed_on(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.error = errors.FailedPrecondition("why", reason="CANNOT_CANCEL")
    error = await refusal(stub.CancelPurchaseRequest(CANCEL, metadata=(bearer(issuer),)))
    assert error.reason == "CANNOT_CANCEL"


async def test_what_is_another_customer_s_does_not_exist(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.error = errors.NotFound("internal words")
    metadata = (bearer(issuer),)
    for call in (
        stub.CancelPurchaseRequest(CANCEL, metadata=metadata),
        stub.CancelPurchaseRequest(
            pb.CancelPurchaseRequestRequest(request_id="x"), metadata=metadata
        ),
        stub.AcceptOffer(ACCEPT, metadata=metadata),
    ):
        assert (await refusal(call)).reason == "PURCHASE_REQUEST_NOT_FOUND"


async def test_without_a_token_nobody_is_asked(
    stub: PurchaseServiceAsyncStub, script: Script
) -> None:
    for call in (stub.CancelPurchaseRequest(CANCEL), stub.AcceptOffer(ACCEPT)):
        assert (await refusal(call)).reason == "TOKEN_MISSING"
    assert script.asked == []
