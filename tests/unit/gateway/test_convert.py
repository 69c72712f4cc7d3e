from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.common.v1 import quote_pb2 as common_pb
from bookmesh.customer.v1 import customer_pb2 as pb
from bookmesh.orchestrator.v1 import orchestrator_pb2 as internal
from bookmesh.seller.v1 import seller_pb2
from customers import form, sentences
from gateway import convert
from mesh import convert as mesh_convert
from mesh import errors
from mesh.money import Money

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

PROTOS = Path(__file__).parents[3] / "protos"
REQUEST_ID = UUID("01980000-0000-7000-8000-000000000001")
ID = str(REQUEST_ID)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def asked(**fields: object) -> pb.CreatePurchaseRequestRequest:
    """What arrives of REST."""
    usual = {"book_id": "isbn-978-0134685991", "max_price": 29.99, "payment_token": "tok_abc123"}
    return ParseDict(usual | fields, pb.CreatePurchaseRequestRequest())


def submitted(
    request: pb.CreatePurchaseRequestRequest, *keys: str
) -> internal.SubmitPurchaseRequest:
    return convert.submission(
        request,
        keys,
        customer_id="alice",
        request_id=REQUEST_ID,
        authorization_wait_s=2.0,
        default_currency="USD",
    )


def wrong_fields(request: pb.CreatePurchaseRequestRequest, *keys: str) -> list[str]:
    with pytest.raises(errors.InvalidArgument) as caught:
        submitted(request, *keys)
    assert all(
        f"{field.field}: {field.description}" in str(caught.value) for field in caught.value.fields
    )
    return [field.field for field in caught.value.fields]


def dollars(cents: int) -> money_pb2.Money:
    return mesh_convert.money_to_proto(Money("USD", cents))


def shown(message: Message) -> dict[str, Any]:
    """What REST shows."""
    return MessageToDict(message, preserving_proto_field_name=True)


def purchase(status: str, more: internal.Purchase | None = None) -> internal.Purchase:
    made = internal.Purchase(
        request_id=ID,
        status=internal.Purchase.Status.Value(f"STATUS_{status}"),
        book_id="9780134685991",
        max_price=dollars(2999),
        create_time=mesh_convert.timestamp(NOON),
    )
    made.MergeFrom(more or internal.Purchase())
    return made


def failed(word: str) -> internal.Purchase:
    reason = internal.Purchase.FailureReason.Value(f"FAILURE_REASON_{word.upper()}")
    return purchase("FAILED", internal.Purchase(failure_reason=reason))


def bought(cents: int) -> internal.Purchase:
    return purchase(
        "PURCHASED",
        internal.Purchase(final_price=dollars(cents), seller_id="s-1", confirmation="c-1"),
    )


OFFER = internal.Offer(
    total=dollars(3499), seller_id="attic-2", expires_at=mesh_convert.timestamp(NOON)
)


def test_a_request_becomes_an_exact_submission() -> None:
    submission = submitted(asked(), "key-1")
    assert submission == internal.SubmitPurchaseRequest(
        customer_id="alice",
        idempotency_key="key-1",
        book_id="9780134685991",
        max_price=dollars(2999),
        payment_token="tok_abc123",
        conditions=[seller_pb2.CONDITION_NEW],
        authorization_wait=mesh_convert.duration(2.0),
        request_id=ID,
    )


def test_the_customer_may_choose_currency_and_conditions() -> None:
    submission = submitted(
        asked(
            max_price=2999,
            currency_code="JPY",
            conditions=["good", "like_new"],
        )
    )
    assert submission.max_price == mesh_convert.money_to_proto(Money("JPY", 2999))
    assert submission.conditions == [
        seller_pb2.CONDITION_GOOD,
        seller_pb2.CONDITION_LIKE_NEW,
    ]


@given(st.integers(min_value=1, max_value=10_000_000))
def test_every_price_that_can_be_written_arrives_exactly(cents: int) -> None:
    submission = submitted(asked(max_price=float(f"{cents // 100}.{cents % 100:02}")))
    assert mesh_convert.money_from_proto(submission.max_price) == Money("USD", cents)


@pytest.mark.parametrize(
    ("fields", "keys", "wrong"),
    [
        ({"book_id": "9780134685992"}, (), ["book_id"]),
        ({"book_id": "  "}, (), ["book_id"]),
        ({"max_price": 29.999}, (), ["max_price"]),
        ({"max_price": 1e-7}, (), ["max_price"]),
        ({"max_price": 0.1 + 0.2}, (), ["max_price"]),
        ({"max_price": 29.99, "currency_code": "JPY"}, (), ["max_price"]),
        ({"currency_code": "XXX"}, (), ["currency_code"]),
        ({}, ("",), ["idempotency-key"]),
        ({}, ("k" * 256,), ["idempotency-key"]),
        ({}, ("two words",), ["idempotency-key"]),
        ({}, ("schlüssel",), ["idempotency-key"]),
        ({}, ("one", "two"), ["idempotency-key"]),
        (
            {"book_id": "isbn-1", "max_price": 1.001},
            ("",),
            ["book_id", "max_price", "idempotency-key"],
        ),
    ],
)
def test_all_wrong_fields_are_named_at_once(
    fields: dict[str, Any], keys: tuple[str, ...], wrong: list[str]
) -> None:
    assert wrong_fields(asked(**fields), *keys) == wrong


def test_the_longest_key_is_a_key() -> None:
    assert submitted(asked(), "~" * 255).idempotency_key == "~" * 255


@pytest.mark.parametrize(
    "text",
    ["ABCDEF00-0000-7000-8000-00000000000F", "abcdef00-0000-7000-8000-00000000000f"],
    ids=["upper", "lower"],
)
def test_an_id_is_found_in_either_case(text: str) -> None:
    assert convert.canonical_id(text) == "abcdef00-0000-7000-8000-00000000000f"


@pytest.mark.parametrize(
    "text", ["", "nonsense", ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]
)
def test_what_was_never_given_out_is_no_id(text: str) -> None:
    assert convert.canonical_id(text) is None


def test_a_new_request_is_pending_and_says_where_to_look() -> None:
    assert shown(convert.created(purchase("PENDING"))) == {
        "request_id": ID,
        "status": "pending",
        "status_url": f"/api/v1/purchase-requests/{ID}",
    }


@pytest.mark.parametrize(
    ("purchase", "rest"),
    [
        (purchase("PENDING"), {"status": "pending"}),
        (
            bought(2499),
            {
                "status": "purchased",
                "final_price": 24.99,
                "seller_id": "s-1",
                "confirmation": "c-1",
            },
        ),
        (
            purchase("PRICE_NOT_MET", internal.Purchase(offer=OFFER)),
            {
                "status": "price_not_met",
                "lowest_price": 34.99,
                "message": "Best price ($34.99) exceeds your max ($29.99)",
                "next_action": "resubmit_with_higher_max_price",
                "offer": {
                    "price": 34.99,
                    "currency_code": "USD",
                    "seller_id": "attic-2",
                    "expires_at": "2026-01-01T12:00:00Z",
                },
            },
        ),
        (
            purchase("NOT_AVAILABLE"),
            {
                "status": "not_available",
                "message": "No sellers had this book in stock at the time of request",
            },
        ),
        (
            failed("no_seller_answered"),
            {
                "status": "failed",
                "reason": "no_seller_answered",
                "message": sentences.FAILURES["no_seller_answered"],
            },
        ),
        (purchase("CANCELLED"), {"status": "cancelled", "message": sentences.CANCELLED}),
    ],
    ids=lambda value: value["status"] if isinstance(value, dict) else "",
)
def test_the_answer_has_the_fields_of_its_status_alone(
    purchase: internal.Purchase, rest: dict[str, Any]
) -> None:
    assert shown(form.purchase_request(purchase)) == {"request_id": ID} | rest


def test_fields_of_another_status_are_not_shown() -> None:
    """The orchestrator knows the price of an order before it is charged; the customer does not see it."""
    early = bought(2499)
    early.status = internal.Purchase.STATUS_PENDING
    assert shown(form.purchase_request(early)) == {"request_id": ID, "status": "pending"}


def test_a_line_of_a_list_has_the_prices_of_its_status() -> None:
    line = {
        "request_id": ID,
        "book_id": "9780134685991",
        "max_price": 29.99,
        "currency_code": "USD",
        "create_time": "2026-01-01T12:00:00Z",
    }
    assert shown(convert.summary(purchase("PENDING"))) == line | {"status": "pending"}
    assert shown(convert.summary(bought(2499))) == line | {
        "status": "purchased",
        "final_price": 24.99,
    }
    assert shown(
        convert.summary(purchase("PRICE_NOT_MET", internal.Purchase(offer=OFFER)))
    ) == line | {
        "status": "price_not_met",
        "lowest_price": 34.99,
    }


@pytest.mark.parametrize("word", sorted({*dict(pb.FailureReason.Word.items())} - {"unspecified"}))
def test_every_reason_has_its_word_and_its_sentence(word: str) -> None:
    answer = shown(form.purchase_request(failed(word)))
    assert answer["reason"] == word
    assert "nothing was charged" in answer["message"]


@pytest.mark.parametrize("word", ["card_declined", "action_required", "payment_token_invalid"])
def test_a_refused_card_is_an_error_that_names_the_request(word: str) -> None:
    fault = convert.card_fault(failed(word))
    assert fault is not None
    assert fault.reason == word.upper()
    assert fault.metadata == {
        "request_id": ID,
        "status_url": f"/api/v1/purchase-requests/{ID}",
    }


def test_other_failures_are_no_fault_of_the_call() -> None:
    assert convert.card_fault(failed("payment_unavailable")) is None
    assert convert.card_fault(purchase("PENDING")) is None


@pytest.mark.parametrize(
    ("theirs", "prefix", "ours"),
    [
        (internal.Purchase.Status, "STATUS_", pb.PurchaseStatus.Word),
        (internal.Purchase.FailureReason, "FAILURE_REASON_", pb.FailureReason.Word),
        (internal.Step.Name, "NAME_", pb.Step.Name),
        (seller_pb2.Condition, "CONDITION_", pb.BookCondition.Word),
    ],
    ids=["status", "failure", "step", "condition"],
)
def test_the_customer_has_the_mesh_s_words(
    theirs: _EnumTypeWrapper[int], prefix: str, ours: _EnumTypeWrapper[int]
) -> None:
    assert [name.removeprefix(prefix).lower() for name, _ in theirs.items()] == [
        name for name, _ in ours.items()
    ]


def test_every_kind_of_miss_is_told_of_in_the_published_contract() -> None:
    contract = (PROTOS / "bookmesh" / "customer" / "v1" / "customer.proto").read_text()
    told = contract.partition("message Miss {")[2].partition("string reason")[0]
    for kind in dict(common_pb.Miss.Reason.items()):
        word = kind.removeprefix("REASON_").lower()
        assert word == "unspecified" or re.search(rf"\b{word}\b", told), word


def event(what: internal.WatchPurchaseResponse) -> internal.WatchPurchaseResponse:
    made = internal.WatchPurchaseResponse(event_id="7", event_time=mesh_convert.timestamp(NOON))
    made.MergeFrom(what)
    return made


ENVELOPE = {"event_id": "7", "event_time": "2026-01-01T12:00:00Z"}


def quote(seller_id: str, cents: int) -> common_pb.Quote:
    return common_pb.Quote(
        seller_id=seller_id,
        quote_id="secret",
        price=dollars(cents - 399),
        shipping=dollars(399),
        total=dollars(cents),
        condition=seller_pb2.CONDITION_LIKE_NEW,
        latency=mesh_convert.duration(0.123),
    )


def test_a_step_shows_what_there_is() -> None:
    bare = internal.Step(name=internal.Step.NAME_COLLECTING)
    assert shown(convert.event(event(internal.WatchPurchaseResponse(step=bare)))) == ENVELOPE | {
        "step": {"name": "collecting"}
    }
    full = internal.Step(
        name=internal.Step.NAME_SELLER_REFUSED,
        seller_id="s-1",
        total=dollars(2499),
        reason="out_of_stock",
    )
    assert shown(convert.event(event(internal.WatchPurchaseResponse(step=full)))) == ENVELOPE | {
        "step": {
            "name": "seller_refused",
            "seller_id": "s-1",
            "total": 24.99,
            "reason": "out_of_stock",
        }
    }


def test_quotes_and_misses_show_prices_and_words() -> None:
    miss = common_pb.Miss(
        seller_id="s-2",
        reason=common_pb.Miss.REASON_TIMED_OUT,
        latency=mesh_convert.duration(3.0),
    )
    batch = internal.QuotesArrived(collection_id="c", quotes=[quote("s-1", 2499)], misses=[miss])
    assert shown(convert.event(event(internal.WatchPurchaseResponse(quotes=batch)))) == ENVELOPE | {
        "quotes": {
            "quotes": [
                {
                    "seller_id": "s-1",
                    "total": 24.99,
                    "price": 21.0,
                    "shipping": 3.99,
                    "condition": "like_new",
                    "latency_ms": 123,
                }
            ],
            "misses": [{"seller_id": "s-2", "reason": "timed_out", "latency_ms": 3000}],
        }
    }


def test_the_end_of_a_collection_has_its_counts_and_the_lowest_total() -> None:
    summary = common_pb.CollectionSummary(
        collection_id="c",
        sellers=50,
        asked=49,
        answered=48,
        quoted=3,
        cached=40,
        elapsed=mesh_convert.duration(0.8),
        best_total=dollars(2499),
    )
    assert shown(convert.collection(summary)) == {
        "sellers": 50,
        "asked": 49,
        "answered": 48,
        "quoted": 3,
        "best_total": 24.99,
        "elapsed_ms": 800,
        "from_cache": 40,
    }
    summary.ClearField("best_total")
    assert "best_total" not in shown(convert.collection(summary))


def test_what_may_have_been_missed_is_said_where_not_all_were_asked() -> None:
    summary = common_pb.CollectionSummary(
        coverage=common_pb.Coverage(
            asked=150, of=10_000, chance_cheaper=0.0213579, expected_saving=dollars(140)
        )
    )
    assert shown(convert.collection(summary))["coverage"] == {
        "asked": 150,
        "of": 10_000,
        "chance_cheaper": 0.0214,
        "expected_saving": 1.4,
    }
    summary.coverage.ClearField("expected_saving")
    assert "expected_saving" not in shown(convert.collection(summary))["coverage"]
    assert "coverage" not in shown(convert.collection(common_pb.CollectionSummary()))


def test_prices_to_compare_come_with_the_lowest_total_first_and_their_age() -> None:
    old = quote("s-9", 2499)
    old.age.CopyFrom(mesh_convert.duration(12.5))
    found = convert.cheapest_first([quote("s-3", 2600), old, quote("s-2", 2499)])
    assert [(one.seller_id, one.total, one.age_ms) for one in found] == [
        ("s-2", 24.99, 0),
        ("s-9", 24.99, 12500),
        ("s-3", 26.0, 0),
    ]


def test_a_list_is_asked_for_in_the_orchestrator_s_words() -> None:
    request = pb.ListPurchaseRequestsRequest(
        page_size=2,
        page_token="t",
        statuses=[pb.PurchaseStatus.pending, pb.PurchaseStatus.price_not_met],
        book_id="isbn-978-0134685991",
        created_after=mesh_convert.timestamp(NOON),
    )
    assert convert.listing(request, "alice") == internal.ListPurchasesRequest(
        customer_id="alice",
        page_size=2,
        page_token="t",
        statuses=[internal.Purchase.STATUS_PENDING, internal.Purchase.STATUS_PRICE_NOT_MET],
        book_id="9780134685991",
        created_after=mesh_convert.timestamp(NOON),
    )


def test_a_list_with_wrong_filters_names_all_of_them() -> None:
    request = pb.ListPurchaseRequestsRequest(book_id="isbn-1")
    request.created_after.seconds = 10**15
    request.created_before.seconds = -(10**15)
    with pytest.raises(errors.InvalidArgument) as caught:
        convert.listing(request, "alice")
    assert [field.field for field in caught.value.fields] == [
        "book_id",
        "created_after",
        "created_before",
    ]


def test_a_comparison_asks_as_one_who_browses() -> None:
    request = pb.ListQuotesRequest(
        book_id="0-13-468599-7", conditions=[pb.BookCondition.good, pb.BookCondition.new]
    )
    assert convert.comparison(request, "alice", "USD") == aggregator_pb2.CollectQuotesRequest(
        book_id="9780134685991",
        currency_code="USD",
        conditions=[seller_pb2.CONDITION_GOOD, seller_pb2.CONDITION_NEW],
        policy=aggregator_pb2.POLICY_BEST_PRICE,
        customer_id="alice",
        purpose=aggregator_pb2.PURPOSE_BROWSE,
    )
    with pytest.raises(errors.InvalidArgument) as caught:
        convert.comparison(
            pb.ListQuotesRequest(book_id="0-13-468599-8", currency_code="XQX"), "alice", "USD"
        )
    assert [field.field for field in caught.value.fields] == ["book_id", "currency_code"]


def test_the_result_is_what_get_answers() -> None:
    final = event(internal.WatchPurchaseResponse(result=bought(2499)))
    assert convert.event(final).result == form.purchase_request(bought(2499))


def test_a_reason_that_only_a_newer_aggregator_knows_is_none_in_particular() -> None:
    """A newer aggregator answers an older gateway while a version is deployed."""
    newer = common_pb.Miss.Reason.ValueType(99)
    assert convert.miss(common_pb.Miss(seller_id="a", reason=newer)).reason == "unspecified"
