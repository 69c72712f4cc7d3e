"""What sellers answer is checked against what was asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as ProtoMoney
from hypothesis import given
from hypothesis import strategies as st

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh import convert
from mesh.money import Money
from sellers import answers, model
from sellers.answers import InvalidAnswerError
from tests.fakes.seller import changed, money, quote

NOW = datetime.now(UTC)
BOOK = "9780134685991"
NEW = frozenset({model.Condition.NEW})


def read_quote(message: Message | bytes) -> model.Quote | model.Unavailable:
    answer = message if isinstance(message, bytes) else message.SerializeToString()
    return answers.quote(answer, book_id=BOOK, currency="USD", conditions=NEW, now=NOW)


def quoted(**changes: object) -> pb.GetQuoteResponse:
    return pb.GetQuoteResponse(book_id=BOOK, quote=changed(quote(), **changes))


def test_a_good_quote_becomes_values_and_lives_from_its_receipt() -> None:
    assert read_quote(quoted()) == model.Quote(
        quote_id="quote-1",
        price=Money("USD", 2099),
        shipping=Money("USD", 400),
        total=Money("USD", 2499),
        condition=model.Condition.NEW,
        quantity=3,
        expires_at=NOW + timedelta(seconds=300),
    )


def test_the_total_need_not_be_the_sum() -> None:
    answer = read_quote(quoted(price=money(100), shipping=money(0), total=money(150)))
    assert isinstance(answer, model.Quote)
    assert answer.total == Money("USD", 150)


def test_a_wrong_clock_is_forgiven_because_the_life_counts() -> None:
    answer = read_quote(quoted(expires_at=convert.timestamp(NOW - timedelta(hours=5))))
    assert isinstance(answer, model.Quote)
    assert answer.expires_at == NOW + timedelta(seconds=300)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (pb.Unavailable.REASON_UNSPECIFIED, model.UnavailableReason.OUT_OF_STOCK),
        (pb.Unavailable.REASON_OUT_OF_STOCK, model.UnavailableReason.OUT_OF_STOCK),
        (pb.Unavailable.REASON_NOT_CARRIED, model.UnavailableReason.NOT_CARRIED),
        (pb.Unavailable.REASON_CONDITION, model.UnavailableReason.CONDITION),
        (pb.Unavailable.REASON_CURRENCY, model.UnavailableReason.CURRENCY),
    ],
)
def test_no_is_an_answer(
    reason: pb.Unavailable.Reason.ValueType, expected: model.UnavailableReason
) -> None:
    answer = pb.GetQuoteResponse(book_id=BOOK, unavailable=pb.Unavailable(reason=reason))
    assert read_quote(answer) == model.Unavailable(expected)


def proto_money(units: int, nanos: int = 0, currency: str = "USD") -> ProtoMoney:
    return ProtoMoney(currency_code=currency, units=units, nanos=nanos)


UNKNOWN_REASON = b"\x08\xe7\x07"  # field 1, varint 999

HOSTILE_QUOTES: dict[str, Message | bytes] = {
    "not protobuf": b"\xff\xff\xff<html>",
    "nothing": b"",
    "neither quote nor no": pb.GetQuoteResponse(book_id=BOOK),
    "another book": pb.GetQuoteResponse(book_id="9780000000002", quote=quote()),
    "no book": pb.GetQuoteResponse(quote=quote()),
    "no for a reason nobody knows": pb.GetQuoteResponse(
        book_id=BOOK, unavailable=pb.Unavailable.FromString(UNKNOWN_REASON)
    ),
    "an empty quote": pb.GetQuoteResponse(book_id=BOOK, quote=pb.Quote()),
    "invalid UTF-8": quoted().SerializeToString().replace(b"quote-1", b"quo\xff\xfe-1"),
    "no name": quoted(quote_id=""),
    "a long name": quoted(quote_id="q" * 129),
    "a name with control characters": quoted(quote_id="q\x1b[31m"),
    "5 MB of name": quoted(quote_id="q" * 5_000_000),
    "zero": quoted(total=money(0)),
    "negative total": quoted(total=proto_money(-5)),
    "negative nanos": quoted(total=proto_money(5, -10_000_000)),
    "negative price": quoted(price=proto_money(-1)),
    "negative shipping": quoted(shipping=proto_money(-1)),
    "absurd total": quoted(total=proto_money(100_000, 10_000_000)),
    "absurd price": quoted(price=proto_money(2**62)),
    "absurd nanos": quoted(total=proto_money(5, 1_000_000_000)),
    "a tenth of a cent": quoted(total=proto_money(5, 1_000_000)),
    "another currency": quoted(total=money(2499, "EUR")),
    "price in another currency": quoted(price=money(2499, "EUR")),
    "shipping without currency": quoted(shipping=proto_money(4, currency="")),
    "no currency there is": quoted(total=proto_money(5, currency="XXQ")),
    "no price": quoted(price=None),
    "no total": quoted(total=None),
    "condition not asked for": quoted(condition=pb.CONDITION_GOOD),
    "condition not said": quoted(condition=pb.CONDITION_UNSPECIFIED),
    "condition nobody knows": quoted(condition=99),
    "no copies": quoted(quantity=0),
    "negative copies": quoted(quantity=-1),
    "expired on arrival": quoted(valid_for=Duration(seconds=0)),
    "over at once": quoted(valid_for=Duration(nanos=999_000_000)),
    "expired before": quoted(valid_for=Duration(seconds=-10)),
    "no life": quoted(valid_for=None),
    "valid for a year": quoted(valid_for=Duration(seconds=365 * 24 * 3600)),
    "valid for ever": quoted(valid_for=Duration(seconds=2**62)),
    "no end": quoted(expires_at=None),
    "ends next year": quoted(expires_at=convert.timestamp(NOW + timedelta(days=365))),
    "ended last year": quoted(expires_at=convert.timestamp(NOW - timedelta(days=365))),
    "ends after the end of time": quoted(expires_at=Timestamp(seconds=2**62)),
}


@pytest.mark.parametrize("answer", HOSTILE_QUOTES.values(), ids=HOSTILE_QUOTES.keys())
def test_a_wrong_quote_is_no_quote(answer: Message | bytes) -> None:
    with pytest.raises(InvalidAnswerError):
        read_quote(answer)


def read_batch(*responses: pb.GetQuoteResponse, books: tuple[str, ...]) -> list[object]:
    return list(
        answers.quote_batch(
            pb.BatchGetQuotesResponse(responses=responses).SerializeToString(),
            book_ids=books,
            currency="USD",
            conditions=NEW,
            now=NOW,
        )
    )


def test_a_wrong_item_of_a_batch_spoils_itself_alone() -> None:
    good, bad = read_batch(
        quoted(),
        pb.GetQuoteResponse(book_id="b", quote=changed(quote(), quantity=0)),
        books=(BOOK, "b"),
    )
    assert isinstance(good, model.Quote)
    assert isinstance(bad, InvalidAnswerError)


def test_answers_in_another_order_are_answers_about_other_books() -> None:
    items = read_batch(pb.GetQuoteResponse(book_id="b", quote=quote()), quoted(), books=(BOOK, "b"))
    assert all(isinstance(item, InvalidAnswerError) for item in items)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_needs_as_many_answers_as_there_were_questions(count: int) -> None:
    with pytest.raises(InvalidAnswerError, match=f"{count} answers to 2"):
        read_batch(*[quoted()] * count, books=(BOOK, BOOK))


def held(**changes: object) -> bytes:
    hold = pb.Hold(
        hold_id="hold-1",
        total=money(2599),
        expires_at=convert.timestamp(NOW + timedelta(seconds=90)),
        valid_for=convert.duration(90),
    )
    return pb.HoldBookResponse(hold=changed(hold, **changes)).SerializeToString()


def read_hold(answer: bytes) -> model.Held | model.Rejected:
    return answers.hold(answer, currency="USD", now=NOW)


def test_a_hold_may_cost_more_than_the_quote() -> None:
    assert read_hold(held()) == model.Held(
        "hold-1", Money("USD", 2599), NOW + timedelta(seconds=90)
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        held(hold_id=""),
        held(hold_id="h" * 129),
        held(total=money(0)),
        held(total=money(2599, "EUR")),
        held(total=None),
        held(valid_for=Duration()),
        held(valid_for=Duration(seconds=10**9)),
        held(expires_at=None),
    ],
    ids=[
        "nothing",
        "no name",
        "long name",
        "zero",
        "other currency",
        "no total",
        "no life",
        "long life",
        "no end",
    ],
)
def test_a_wrong_hold_is_no_hold(answer: bytes) -> None:
    with pytest.raises(InvalidAnswerError):
        read_hold(answer)


def test_a_rejection_gives_the_price_now() -> None:
    rejection = pb.Rejection(
        reason=pb.Rejection.REASON_PRICE_CHANGED, updated_quote=quote(total_minor=2999)
    )
    answer = read_hold(pb.HoldBookResponse(rejected=rejection).SerializeToString())
    assert isinstance(answer, model.Rejected)
    assert answer.reason is model.RejectionReason.PRICE_CHANGED
    assert answer.updated_quote is not None
    assert answer.updated_quote.total == Money("USD", 2999)


def test_a_wrong_price_does_not_undo_a_rejection() -> None:
    rejection = pb.Rejection(
        reason=pb.Rejection.REASON_OUT_OF_STOCK,
        updated_quote=changed(quote(), total=money(2999, "EUR")),
    )
    answer = read_hold(pb.HoldBookResponse(rejected=rejection).SerializeToString())
    assert answer == model.Rejected(model.RejectionReason.OUT_OF_STOCK, None)


def test_a_rejection_for_a_reason_nobody_knows_is_not_taken_for_one() -> None:
    rejection = pb.Rejection.FromString(UNKNOWN_REASON)
    with pytest.raises(InvalidAnswerError):
        read_hold(pb.HoldBookResponse(rejected=rejection).SerializeToString())


MAX_TOTAL = Money("USD", 2599)


def read_placed(**outcome: Message) -> model.Confirmed | model.Pending | model.Rejected:
    answer = changed(pb.PlaceOrderResponse(), **outcome).SerializeToString()
    return answers.placed(answer, max_total=MAX_TOTAL, now=NOW)


def confirmed(total: ProtoMoney | None, order_id: str = "order-1") -> pb.OrderConfirmed:
    return pb.OrderConfirmed(order_id=order_id, total=total)


def test_an_order_is_confirmed_pending_or_rejected() -> None:
    assert read_placed(confirmed=confirmed(money(2599))) == model.Confirmed("order-1", MAX_TOTAL)
    assert read_placed(pending=pb.OrderPending(retry_after=Duration(seconds=2))) == model.Pending(2)
    assert read_placed(rejected=pb.Rejection()) == model.Rejected(
        model.RejectionReason.OUT_OF_STOCK, None
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(-5, 0.1), (0, 0.1), (3, 3.0), (10**9, 60.0)],
)
def test_the_wait_for_a_pending_order_has_bounds(asked: int, expected: float) -> None:
    pending = pb.OrderPending(retry_after=Duration(seconds=asked))
    assert read_placed(pending=pending) == model.Pending(expected)


def test_a_pending_order_that_does_not_say_when_is_asked_after_a_second() -> None:
    assert read_placed(pending=pb.OrderPending()) == model.Pending(1.0)


@pytest.mark.parametrize(
    "outcome",
    [
        {},
        {"confirmed": confirmed(money(2600))},
        {"confirmed": confirmed(money(2599, "EUR"))},
        {"confirmed": confirmed(money(0))},
        {"confirmed": confirmed(None)},
        {"confirmed": confirmed(money(2599), order_id="")},
        {"confirmed": confirmed(money(2599), order_id="x" * 129)},
    ],
    ids=["nothing", "too dear", "other currency", "zero", "no total", "no name", "long name"],
)
def test_an_order_that_breaks_the_contract_is_not_taken_for_confirmed(
    outcome: dict[str, Message],
) -> None:
    with pytest.raises(InvalidAnswerError):
        read_placed(**outcome)


def order(key: str, **state: Message) -> pb.Order:
    order = pb.Order(
        idempotency_key=key,
        buyer_reference="purchase-1",
        book_id=BOOK,
        update_time=convert.timestamp(NOW),
    )
    return changed(order, **state)


STATES: list[tuple[dict[str, Message], model.OrderState]] = [
    ({"confirmed": confirmed(money(9900))}, model.Confirmed("order-1", Money("USD", 9900))),
    ({"pending": pb.OrderPending()}, model.Pending(1.0)),
    (
        {"rejected": pb.Rejection(reason=pb.Rejection.REASON_KEY_CLOSED)},
        model.Rejected(model.RejectionReason.KEY_CLOSED, None),
    ),
    ({"cancelled": pb.OrderCancelled(order_id="order-1")}, model.Cancelled()),
    ({"closed": pb.OrderClosed()}, model.Closed()),
]


@pytest.mark.parametrize(("state", "expected"), STATES)
def test_the_state_of_an_order(state: dict[str, Message], expected: model.OrderState) -> None:
    answer = pb.GetOrderResponse(order=order("key-1", **state)).SerializeToString()
    assert answers.order(answer, key="key-1", now=NOW) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        order("key-2", closed=pb.OrderClosed()),
        order("key-1"),
        order("key-1", confirmed=confirmed(None)),
        None,
    ],
    ids=["other order", "no state", "no total", "no order"],
)
def test_another_order_or_none_is_no_answer(wrong: pb.Order | None) -> None:
    with pytest.raises(InvalidAnswerError):
        answers.order(pb.GetOrderResponse(order=wrong).SerializeToString(), key="key-1", now=NOW)


def read_cancel(
    result: pb.CancelOrderResponse.Result.ValueType, state: pb.Order | None = None
) -> object:
    answer = pb.CancelOrderResponse(result=result, order=state).SerializeToString()
    return answers.cancel(answer, key="key-1", now=NOW)


def test_a_cancel_closes_cancels_or_is_too_late() -> None:
    assert read_cancel(pb.CancelOrderResponse.RESULT_CLOSED) == model.Closed()
    assert read_cancel(pb.CancelOrderResponse.RESULT_CANCELLED) == model.Cancelled()
    stands = order("key-1", confirmed=confirmed(money(2599)))
    assert read_cancel(pb.CancelOrderResponse.RESULT_TOO_LATE, stands) == model.TooLate(
        model.Confirmed("order-1", MAX_TOTAL)
    )


@pytest.mark.parametrize(
    ("result", "state"),
    [
        (pb.CancelOrderResponse.RESULT_UNSPECIFIED, None),
        (99, None),
        (pb.CancelOrderResponse.RESULT_TOO_LATE, None),
        (pb.CancelOrderResponse.RESULT_TOO_LATE, order("key-2", confirmed=confirmed(money(1)))),
        (pb.CancelOrderResponse.RESULT_TOO_LATE, order("key-1", closed=pb.OrderClosed())),
    ],
    ids=["not said", "unknown", "no order", "other order", "closed order"],
)
def test_a_cancel_that_does_not_say_what_it_found_is_no_answer(
    result: pb.CancelOrderResponse.Result.ValueType, state: pb.Order | None
) -> None:
    with pytest.raises(InvalidAnswerError):
        read_cancel(result, state)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (pb.ReleaseHoldResponse.RESULT_UNSPECIFIED, model.Released.RELEASED),
        (pb.ReleaseHoldResponse.RESULT_RELEASED, model.Released.RELEASED),
        (pb.ReleaseHoldResponse.RESULT_CLOSED, model.Released.CLOSED),
        (pb.ReleaseHoldResponse.RESULT_ORDERED, model.Released.ORDERED),
    ],
)
def test_what_a_release_found(
    result: pb.ReleaseHoldResponse.Result.ValueType, expected: model.Released
) -> None:
    assert answers.release(pb.ReleaseHoldResponse(result=result).SerializeToString()) is expected


def test_a_page_of_orders() -> None:
    answer = pb.ListOrdersResponse(
        orders=[order("key-1", closed=pb.OrderClosed())], next_page_token="2"
    )
    page = answers.order_page(answer.SerializeToString(), now=NOW)
    assert page.next_page_token == "2"
    assert [(item.key, item.state) for item in page.orders] == [("key-1", model.Closed())]


@pytest.mark.parametrize(
    "answer",
    [
        pb.ListOrdersResponse(next_page_token="x" * 513),
        pb.ListOrdersResponse(orders=[order("")]),
        pb.ListOrdersResponse(
            orders=[
                pb.Order(
                    idempotency_key="k",
                    closed=pb.OrderClosed(),
                    update_time=Timestamp(seconds=2**62),
                )
            ]
        ),
    ],
    ids=["long token", "no key", "absurd time"],
)
def test_a_wrong_page_is_no_page(answer: pb.ListOrdersResponse) -> None:
    with pytest.raises(InvalidAnswerError):
        answers.order_page(answer.SerializeToString(), now=NOW)


def test_capabilities_follow_the_rules_of_the_contract() -> None:
    good = pb.Capabilities(
        currency_codes=["USD"],
        calls_per_minute=100,
        min_quote_life=Duration(seconds=60),
        key_retention=Duration(seconds=7 * 24 * 3600),
        contract_versions=["v1"],
    )
    answer = pb.GetCapabilitiesResponse(capabilities=good)
    assert answers.capabilities_answer(answer.SerializeToString()).calls_per_minute == 100
    answer.capabilities.key_retention.seconds = 3600
    with pytest.raises(InvalidAnswerError):
        answers.capabilities_answer(answer.SerializeToString())


READERS: list[Callable[[bytes], object]] = [
    read_quote,
    read_hold,
    answers.release,
    answers.capabilities_answer,
    lambda answer: answers.quote_batch(
        answer, book_ids=(BOOK,), currency="USD", conditions=NEW, now=NOW
    ),
    lambda answer: answers.placed(answer, max_total=MAX_TOTAL, now=NOW),
    lambda answer: answers.order(answer, key="key-1", now=NOW),
    lambda answer: answers.cancel(answer, key="key-1", now=NOW),
    lambda answer: answers.order_page(answer, now=NOW),
]


@given(st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail_in_another_way(answer: bytes) -> None:
    for read in READERS:
        try:
            read(answer)
        except InvalidAnswerError as error:
            assert len(str(error)) <= 200  # noqa: PT017  any other exception fails the test


GOOD_ANSWER = quoted().SerializeToString()


@given(st.data())
def test_no_change_of_a_good_answer_makes_a_reader_fail_in_another_way(data: st.DataObject) -> None:
    answer = bytearray(GOOD_ANSWER)
    for _ in range(data.draw(st.integers(1, 4))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    try:
        result = read_quote(bytes(answer))
    except InvalidAnswerError:
        return
    assert not isinstance(result, model.Quote) or 0 < result.total.minor <= 10_000_000


@pytest.mark.parametrize("count", [9_000, 7_000], ids=["too large", "too many"])
def test_capabilities_without_end_are_refused_before_each_part_is_looked_at(count: int) -> None:
    answer = pb.GetCapabilitiesResponse()
    answer.capabilities.contract_versions.extend([""] * count)
    with pytest.raises(InvalidAnswerError, match="capabilities have"):
        answers.capabilities_answer(answer.SerializeToString())
