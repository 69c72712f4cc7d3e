from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

import grpc
import pytest
import structlog

from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from bookmesh.seller.v1 import seller_pb2
from mesh import convert, errors
from mesh.errors import FieldViolation
from mesh.grpc.errors import from_rpc
from mesh.money import Money
from tests.fakes.issuer import Issuer
from tests.fakes.orchestrators import PURCHASE_ID, OrchestratorReplica, Script, failed, purchase

if TYPE_CHECKING:
    from bookmesh.customer.v1.customer_pb2_grpc import PurchaseServiceAsyncStub

STATUS_URL = f"/api/v1/purchase-requests/{PURCHASE_ID}"
BOOK = pb.CreatePurchaseRequestRequest(
    book_id="isbn-978-0134685991", max_price=29.99, payment_token="tok_abc123"
)
GET = pb.GetPurchaseRequestRequest(request_id=PURCHASE_ID)


def bearer(issuer: Issuer, customer: str = "alice") -> tuple[str, str]:
    return ("authorization", f"Bearer {issuer.token(customer)}")


async def refusal(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_purchase_is_submitted_as_its_customer_s(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    key = ("idempotency-key", "key-1")
    forged = ("x-customer-id", "mallory")
    response = await stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer), key, forged))
    assert response == pb.CreatePurchaseRequestResponse(
        request_id=PURCHASE_ID, status=pb.PurchaseStatus.pending, status_url=STATUS_URL
    )
    [submitted] = script.asked
    assert isinstance(submitted, internal.SubmitPurchaseRequest)
    assert UUID(submitted.request_id).version == 7
    submitted.request_id = ""
    assert submitted == internal.SubmitPurchaseRequest(
        customer_id="alice",
        idempotency_key="key-1",
        book_id="9780134685991",
        max_price=convert.money_to_proto(Money("USD", 2999)),
        payment_token="tok_abc123",
        conditions=[seller_pb2.CONDITION_NEW],
        authorization_wait=convert.duration(2.0),
    )


async def test_each_call_is_a_purchase_of_its_own(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    for _ in range(3):
        await stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),))
    ids = {
        asked.request_id
        for asked in script.asked
        if isinstance(asked, internal.SubmitPurchaseRequest)
    }
    assert len(ids) == 3


async def test_rest_is_told_to_answer_202_and_where_to_look(
    stub: PurchaseServiceAsyncStub, issuer: Issuer
) -> None:
    call = stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),))
    await call
    metadata = dict(await call.initial_metadata())
    assert (metadata["x-http-status"], metadata["location"]) == ("202", STATUS_URL)


@pytest.mark.parametrize("word", ["card_declined", "action_required", "payment_token_invalid"])
async def test_a_refused_card_is_a_402_that_names_the_request(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script, word: str
) -> None:
    script.purchase = failed(word)
    call = stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),))
    error = from_rpc(await refusal(call))
    assert type(error) is errors.FailedPrecondition
    assert error.reason == word.upper()
    assert error.metadata == {"request_id": PURCHASE_ID, "status_url": STATUS_URL}
    metadata = dict(await call.initial_metadata())
    assert (metadata["x-http-status"], metadata["location"]) == ("402", STATUS_URL)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (failed("payment_unavailable"), pb.PurchaseStatus.failed),
        (purchase("NOT_AVAILABLE"), pb.PurchaseStatus.not_available),
    ],
    ids=["failed", "not_available"],
)
async def test_a_replay_answers_what_the_request_has_become(
    stub: PurchaseServiceAsyncStub,
    issuer: Issuer,
    script: Script,
    found: internal.Purchase,
    status: pb.PurchaseStatus.Word.ValueType,
) -> None:
    script.purchase = found
    response = await stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),))
    assert response.status == status


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (pb.CreatePurchaseRequestRequest(), ["book_id", "max_price", "payment_token"]),
        (
            pb.CreatePurchaseRequestRequest(
                book_id="9780134685992", max_price=29.999, payment_token="t"
            ),
            ["book_id", "max_price"],
        ),
    ],
    ids=["by the rules of the proto", "by the gateway"],
)
async def test_wrong_fields_are_named(
    stub: PurchaseServiceAsyncStub,
    issuer: Issuer,
    script: Script,
    request_: pb.CreatePurchaseRequestRequest,
    wrong: list[str],
) -> None:
    error = from_rpc(
        await refusal(stub.CreatePurchaseRequest(request_, metadata=(bearer(issuer),)))
    )
    assert type(error) is errors.InvalidArgument
    assert [violation.field for violation in error.fields] == wrong
    assert script.asked == []


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("x-customer-id", "alice"),), "TOKEN_MISSING"),
        ((("authorization", "Basic YWxpY2U6"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer nonsense"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer a"), ("authorization", "Bearer b")), "TOKEN_INVALID"),
    ],
    ids=["none", "a header", "basic", "nonsense", "two"],
)
async def test_a_stranger_is_told_that_a_token_is_needed(
    stub: PurchaseServiceAsyncStub,
    script: Script,
    metadata: tuple[tuple[str, str], ...],
    reason: str,
) -> None:
    for call in (
        stub.CreatePurchaseRequest(BOOK, metadata=metadata),
        stub.GetPurchaseRequest(GET, metadata=metadata),
        stub.ListPurchaseRequests(pb.ListPurchaseRequestsRequest(), metadata=metadata),
    ):
        error = from_rpc(await refusal(call))
        assert (type(error), error.reason) == (errors.Unauthenticated, reason)
    assert script.asked == []


async def test_a_purchase_is_looked_up_as_its_customer_s(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.purchase = purchase("NOT_AVAILABLE")
    for text in (PURCHASE_ID, PURCHASE_ID.upper()):
        response = await stub.GetPurchaseRequest(
            pb.GetPurchaseRequestRequest(request_id=text), metadata=(bearer(issuer, "bob"),)
        )
        assert response.status == pb.PurchaseStatus.not_available
    assert script.asked == 2 * [
        internal.GetPurchaseRequest(customer_id="bob", request_id=PURCHASE_ID)
    ]


async def test_what_is_not_there_and_what_never_could_be_look_the_same(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.error = errors.NotFound("no row for alice", metadata={"secret": "of another"})
    metadata = (bearer(issuer),)
    seen = set()
    for request_id in (PURCHASE_ID, "nonsense", "0" * 64):
        get = stub.GetPurchaseRequest(
            pb.GetPurchaseRequestRequest(request_id=request_id), metadata=metadata
        )
        watch = stub.WatchPurchaseRequest(
            pb.WatchPurchaseRequestRequest(request_id=request_id), metadata=metadata
        )
        for error in (await refusal(get), await refusal(watch.read())):
            assert error.code() is grpc.StatusCode.NOT_FOUND
            details = dict(error.trailing_metadata())["grpc-status-details-bin"]
            seen.add((error.details(), details))
    assert len(seen) == 1


async def test_a_list_is_the_caller_s_page(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.page = internal.ListPurchasesResponse(
        purchases=[purchase("PENDING"), purchase("NOT_AVAILABLE")], next_page_token="more"
    )
    response = await stub.ListPurchaseRequests(
        pb.ListPurchaseRequestsRequest(page_size=2, page_token="here"),
        metadata=(bearer(issuer, "bob"),),
    )
    assert [line.status for line in response.purchase_requests] == [
        pb.PurchaseStatus.pending,
        pb.PurchaseStatus.not_available,
    ]
    assert response.next_page_token == "more"
    assert script.asked == [
        internal.ListPurchasesRequest(customer_id="bob", page_size=2, page_token="here")
    ]


@pytest.mark.parametrize(
    "error",
    [
        errors.AlreadyExists("other content", reason="IDEMPOTENCY_KEY_REUSED"),
        errors.InvalidArgument("page_token: bad", fields=(FieldViolation("page_token", "bad"),)),
        errors.Unavailable("the database is away", reason="DATABASE", retry_after_s=2.0),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_orchestrator_refuses_reaches_the_customer(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script, error: errors.MeshError
) -> None:
    script.error = error
    back = from_rpc(
        await refusal(
            stub.ListPurchaseRequests(pb.ListPurchaseRequestsRequest(), metadata=(bearer(issuer),))
        )
    )
    assert type(back) is type(error)
    assert vars(back) == vars(error)


async def test_a_fault_of_the_orchestrator_tells_the_customer_nothing(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    script.error = errors.Internal("relation purchases does not exist")
    error = from_rpc(await refusal(stub.GetPurchaseRequest(GET, metadata=(bearer(issuer),))))
    assert type(error) is errors.Internal
    assert "relation" not in error.message


async def test_a_lost_submission_is_repeated_at_another_replica_under_its_id(
    stub: PurchaseServiceAsyncStub,
    issuer: Issuer,
    script: Script,
    replicas: list[OrchestratorReplica],
) -> None:
    replicas[0].unavailable = True
    for _ in replicas:  # whichever of them is first in turn
        response = await stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),))
        assert response.request_id == PURCHASE_ID
    ids = [
        asked.request_id
        for asked in script.asked
        if isinstance(asked, internal.SubmitPurchaseRequest)
    ]
    assert len(ids) > len(set(ids)) == 2


async def test_without_orchestrators_the_customer_may_try_again(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, replicas: list[OrchestratorReplica]
) -> None:
    for replica in replicas:
        await replica.kill()
    error = from_rpc(await refusal(stub.GetPurchaseRequest(GET, metadata=(bearer(issuer),))))
    assert type(error) is errors.Unavailable
    assert error.retry_after_s == 1.0
    assert "127.0.0.1" not in error.message


async def test_an_orchestrator_that_is_not_ready_is_not_asked(
    stub: PurchaseServiceAsyncStub,
    issuer: Issuer,
    replicas: list[OrchestratorReplica],
) -> None:
    for replica in replicas:
        await replica.serve(yes=False)
    error: errors.MeshError | None = None
    while error is None:  # the channel hears of it in a moment
        try:
            await stub.GetPurchaseRequest(GET, metadata=(bearer(issuer),))
        except grpc.aio.AioRpcError as failed_:
            error = from_rpc(failed_)
    assert type(error) is errors.Unavailable


async def test_deadlines_shrink_on_the_way(
    stub: PurchaseServiceAsyncStub, issuer: Issuer, script: Script
) -> None:
    # Again where the machine stood still for all of that.
    while not script.asked:
        with suppress(grpc.aio.AioRpcError):
            await stub.CreatePurchaseRequest(BOOK, metadata=(bearer(issuer),), timeout=2.3)
    [left_s] = script.time_left_s
    assert left_s < 2.3
    [submitted] = script.asked
    assert isinstance(submitted, internal.SubmitPurchaseRequest)
    assert convert.seconds(submitted.authorization_wait) < 1.8


async def test_no_payment_token_is_ever_logged(
    stub: PurchaseServiceAsyncStub,
    issuer: Issuer,
    script: Script,
    capfd: pytest.CaptureFixture[str],
) -> None:
    failures: list[errors.MeshError | None] = [
        None,
        errors.Internal("broken"),
        errors.Unavailable("away"),
        errors.InvalidArgument("wrong"),
    ]
    request = pb.CreatePurchaseRequestRequest()
    request.CopyFrom(BOOK)
    request.payment_token = "tok_very_secret"
    with structlog.testing.capture_logs() as logs:
        for script.error in failures:
            call = stub.CreatePurchaseRequest(request, metadata=(bearer(issuer),))
            if script.error is None:
                await call
            else:
                assert "tok_very_secret" not in repr(await refusal(call))
    captured = capfd.readouterr()
    assert "tok_very_secret" not in f"{logs}{captured.out}{captured.err}"
