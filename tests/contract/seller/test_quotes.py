"""Capabilities and prices."""

from __future__ import annotations

import grpc
import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.convert import money_from_proto, seconds
from tests.contract.seller.subject import ALL_CONDITIONS, NEW, Control, Subject

UNSPECIFIED = pb.CONDITION_UNSPECIFIED


async def test_capabilities_are_valid_and_make_lost_answers_resolvable(seller: Subject) -> None:
    assert "v1" in seller.capabilities.contract_versions
    assert seller.currency in seller.capabilities.currency_codes
    assert seller.capabilities.supports_get_order or seller.capabilities.honours_not_after


async def test_a_quote_says_all_that_an_order_needs(seller: Subject) -> None:
    quote = await seller.quote()
    # Exact, in the currency that was asked for, with no more decimals than it has.
    assert money_from_proto(quote.total).currency == seller.currency
    assert quote.condition == NEW
    assert seconds(quote.valid_for) >= seconds(seller.capabilities.min_quote_life) > 0


async def test_the_answer_spells_the_book_as_the_request_did(seller: Subject) -> None:
    request = seller.quote_request(seller.missing_book_id)
    assert (await seller.call(seller.stub.GetQuote, request)).book_id == seller.missing_book_id


async def test_a_book_that_it_does_not_have_is_an_answer(seller: Subject) -> None:
    response = await seller.call(seller.stub.GetQuote, seller.quote_request(seller.missing_book_id))
    assert response.WhichOneof("outcome") == "unavailable"
    assert response.unavailable.reason in {
        pb.Unavailable.REASON_NOT_CARRIED,
        pb.Unavailable.REASON_OUT_OF_STOCK,
    }


async def test_another_currency_is_an_answer(seller: Subject) -> None:
    request = seller.quote_request(seller.book_id)
    request.currency_code = "XPF"
    response = await seller.call(seller.stub.GetQuote, request)
    assert response.unavailable.reason == pb.Unavailable.REASON_CURRENCY


async def test_the_condition_is_one_that_was_asked_for(seller: Subject) -> None:
    for conditions in (ALL_CONDITIONS, ALL_CONDITIONS[1:], *((one,) for one in ALL_CONDITIONS)):
        request = seller.quote_request(seller.book_id, conditions)
        response = await seller.call(seller.stub.GetQuote, request)
        if response.HasField("quote"):
            assert response.quote.condition in conditions
        else:
            assert response.unavailable.reason == pb.Unavailable.REASON_CONDITION


async def test_more_conditions_never_cost_more(seller: Subject) -> None:
    any_condition = seller.quote_request(seller.book_id, ALL_CONDITIONS)
    cheapest = (await seller.call(seller.stub.GetQuote, any_condition)).quote
    new = await seller.quote()
    assert money_from_proto(cheapest.total).minor <= money_from_proto(new.total).minor


async def test_a_quote_reserves_nothing(seller: Subject, control: Control) -> None:
    first = await seller.quote()
    for _ in range(first.quantity + 1):
        assert (await seller.quote()).quantity == first.quantity


@pytest.mark.parametrize(
    "wrong",
    [
        pb.GetQuoteRequest(book_id="", currency_code="USD", conditions=[NEW]),
        pb.GetQuoteRequest(book_id="9" * 65, currency_code="USD", conditions=[NEW]),
        pb.GetQuoteRequest(book_id="9780134685991", currency_code="usd", conditions=[NEW]),
        pb.GetQuoteRequest(book_id="9780134685991", currency_code="USD", conditions=[]),
        pb.GetQuoteRequest(book_id="9780134685991", currency_code="USD", conditions=[UNSPECIFIED]),
        pb.GetQuoteRequest(book_id="9780134685991", currency_code="USD", conditions=[NEW, NEW]),
    ],
    ids=["no book", "long book", "small currency", "no condition", "unspecified", "twice"],
)
async def test_a_request_that_breaks_the_rules_is_invalid(
    seller: Subject, wrong: pb.GetQuoteRequest
) -> None:
    assert await seller.refused(seller.stub.GetQuote, wrong) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_batch_is_answered_book_by_book_in_order(seller: Subject) -> None:
    if seller.capabilities.max_batch_size < 2:
        pytest.skip("this seller has no batches of two")
    request = pb.BatchGetQuotesRequest(
        requests=[
            seller.quote_request(seller.missing_book_id),
            seller.quote_request(seller.book_id),
        ]
    )
    response = await seller.call(seller.stub.BatchGetQuotes, request)
    assert [one.book_id for one in response.responses] == [seller.missing_book_id, seller.book_id]
    assert [one.WhichOneof("outcome") for one in response.responses] == ["unavailable", "quote"]


async def test_a_batch_above_the_limit_is_invalid(seller: Subject) -> None:
    limit = seller.capabilities.max_batch_size
    if limit == 0:
        pytest.skip("this seller has no batches")
    request = pb.BatchGetQuotesRequest(
        requests=[seller.quote_request(seller.book_id)] * (limit + 1)
    )
    code = await seller.refused(seller.stub.BatchGetQuotes, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_seller_without_batches_does_not_have_the_method(
    seller: Subject, control: Control
) -> None:
    await control.change(max_batch_size=0)
    request = pb.BatchGetQuotesRequest(requests=[seller.quote_request(seller.book_id)])
    code = await seller.refused(seller.stub.BatchGetQuotes, request)
    assert code is grpc.StatusCode.UNIMPLEMENTED
