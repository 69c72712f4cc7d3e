"""Whatever a seller does it is a miss with a reason, counts against it alone, and keeps nobody from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.type import money_pb2

from aggregator.app.lots import GatherSettings
from bookmesh.aggregator.v1 import aggregator_pb2 as pb
from bookmesh.common.v1 import quote_pb2
from bookmesh.seller.v1 import seller_pb2
from mesh import convert
from sellers.admission.model import Outcome
from sellers.model import Seller
from tests.fakes import rogue
from tests.fakes.rogue import Stream, Talk
from tests.fakes.seller import (
    Behaviour,
    changed,
    fail_with,
    fake_seller,
    money,
    one_by_one,
    quote,
    quotes,
    registered,
    says,
)
from tests.integration.aggregator.conftest import Replica, StartReplica

Miss = quote_pb2.Miss
BOOKS = ("9780134685991", "9780201633610", "9781449373320")
AMPLE_S = 30.0
UNLIMITED = GatherSettings(seller_s=AMPLE_S)
"""That a seller is not waited for is seen by its reason."""
YEAR_S = 365 * 24 * 3600
_INTERNAL_ERROR, _REFUSED_STREAM, _CANCEL, _ENHANCE_YOUR_CALM = 2, 7, 8, 11


def wrong_quote(**changes: object) -> Behaviour:
    return answers_with(changed(quote(), **changes))


def answers_with(given: seller_pb2.Quote) -> Behaviour:
    async def behaviour(request: seller_pb2.GetQuoteRequest, context: object) -> Message:
        return seller_pb2.GetQuoteResponse(book_id=request.book_id, quote=given)

    return behaviour


def exactly(units: int, nanos: int = 0, currency: str = "USD") -> money_pb2.Money:
    return money_pb2.Money(currency_code=currency, units=units, nanos=nanos)


def at(moment: datetime) -> Message:
    return convert.timestamp(moment)


async def ill_spelt(request: seller_pb2.GetQuoteRequest, context: object) -> bytes:
    """Send a quote whose id is no UTF-8."""
    answer = seller_pb2.GetQuoteResponse(
        book_id=request.book_id, quote=changed(quote(), quote_id="SPELT-ILL")
    )
    return answer.SerializeToString().replace(b"SPELT-ILL", b"SPELT-\xff\xfe\x80")


async def bombs_with_metadata(
    request: seller_pb2.GetQuoteRequest, context: grpc.aio.ServicerContext[Any, Any]
) -> Message:
    """Answer well, and add half a megabyte of trailing metadata."""
    context.set_trailing_metadata(tuple((f"x-{number}", "x" * 8000) for number in range(64)))
    return seller_pb2.GetQuoteResponse(book_id=request.book_id, quote=quote())


WRONG_ANSWERS: dict[str, Behaviour] = {
    "negative price": wrong_quote(price=exactly(-5)),
    "negative total": wrong_quote(total=exactly(-5)),
    "negative shipping": wrong_quote(shipping=exactly(-1, -500_000_000)),
    "zero": wrong_quote(total=money(0)),
    "no total": wrong_quote(total=None),
    "absurd price": wrong_quote(total=exactly(10**15)),
    "more than 64 bits of cents": wrong_quote(total=exactly(2**63 - 1)),
    "tenths of a cent": wrong_quote(total=exactly(19, 999_000_000)),
    "more than a unit of nanos": wrong_quote(total=exactly(19, 1_999_999_999)),
    "signs that differ": wrong_quote(total=exactly(19, -990_000_000)),
    "another currency": wrong_quote(total=exactly(19, currency="EUR")),
    "shipping in another currency": wrong_quote(shipping=exactly(1, currency="EUR")),
    "a currency that there is not": wrong_quote(total=exactly(19, currency="XQQ")),
    "a currency in small letters": wrong_quote(total=exactly(19, currency="usd")),
    "another book": says(seller_pb2.GetQuoteResponse(book_id="9780000000002", quote=quote())),
    "no book": says(seller_pb2.GetQuoteResponse(quote=quote())),
    "expired on arrival": wrong_quote(valid_for=convert.duration(0)),
    "expired before": wrong_quote(valid_for=convert.duration(-60)),
    "expired by its clock": wrong_quote(expires_at=at(datetime.now(UTC) - timedelta(days=2))),
    "good for a year": wrong_quote(
        valid_for=convert.duration(YEAR_S), expires_at=at(datetime.now(UTC) + timedelta(days=365))
    ),
    "good for a year by its clock": wrong_quote(
        expires_at=at(datetime.now(UTC) + timedelta(days=365))
    ),
    "no quantity": wrong_quote(quantity=0),
    "a condition that nobody wants": wrong_quote(condition=seller_pb2.CONDITION_ACCEPTABLE),
    "a condition that there is not": wrong_quote(condition=77),
    "no quote id": wrong_quote(quote_id=""),
    "a page of quote id": wrong_quote(quote_id="x" * 5000),
    "control characters": wrong_quote(quote_id="quote\x00\x1b[2J"),
    "5 MB of quote id": wrong_quote(quote_id="x" * 5_000_000),
    "5 MB of nothing known": says(b"x" * 5_000_000),
    "neither quote nor no": says(seller_pb2.GetQuoteResponse(book_id=BOOKS[0])),
    "nothing": says(b""),
    "invalid UTF-8": ill_spelt,
    "a bomb of trailing metadata": bombs_with_metadata,
}


def failing(code: grpc.StatusCode, details: str = "") -> Talk:
    """Answer with a status, by hand: gRPC's own server lets no seller do all of them."""

    async def misbehave(stream: Stream) -> None:
        await stream.headers()
        await stream.trailers(
            ("grpc-status", str(code.value[0]).encode()), ("grpc-message", details.encode())
        )

    return rogue.speaks_http2(misbehave)


def resets(code: int) -> Talk:
    return rogue.speaks_http2(lambda stream: stream.reset(code))


async def resets_in_the_middle(stream: Stream) -> None:
    await stream.headers()
    await stream.data(rogue.message(b"x" * 100)[:50])
    await stream.reset(_INTERNAL_ERROR)


async def announces_4_gb(stream: Stream) -> None:
    await stream.headers()
    await stream.data(b"\0\xff\xff\xff\xff")
    while True:
        await stream.data(b"x" * 16_000)


async def never_ends_a_message(stream: Stream) -> None:
    """Announce a message of just the size that is allowed, and send a byte of it now and then."""
    await stream.headers()
    await stream.data(b"\0" + (1024 * 1024).to_bytes(4))
    while True:
        await stream.data(b"x")
        await asyncio.sleep(0.01)


async def never_ends_the_stream(stream: Stream) -> None:
    """Send empty messages for ever, where one was asked for."""
    await stream.headers()
    while True:
        await stream.data(rogue.message(b"") * 1000)
        await asyncio.sleep(0.01)


async def never_ends_the_headers(stream: Stream) -> None:
    await stream.endless_headers()


async def breaks_the_frames(stream: Stream) -> None:
    await stream.headers()
    await stream.raw(b"\xff" * 5000)


async def has_no_status(stream: Stream) -> None:
    await stream.headers()
    await stream.data(rogue.message(seller_pb2.GetQuoteResponse().SerializeToString()))
    await stream.trailers(("x-done", b"1"))


async def compresses_unasked(stream: Stream) -> None:
    await stream.headers()
    await stream.data(b"\1" + (5).to_bytes(4) + b"zzzzz")
    await stream.trailers(("grpc-status", b"0"))


async def goes_away(stream: Stream) -> None:
    await stream.go_away()


BROKEN_CONNECTIONS: dict[str, tuple[Talk, Sequence[quote_pb2.Miss.Reason.ValueType]]] = {
    "garbage": (rogue.talks_garbage, [Miss.REASON_UNREACHABLE, Miss.REASON_SELLER_ERROR]),
    "HTTP/1": (rogue.talks_http1, [Miss.REASON_UNREACHABLE, Miss.REASON_SELLER_ERROR]),
    "hangs up": (rogue.hangs_up, [Miss.REASON_UNREACHABLE, Miss.REASON_SELLER_ERROR]),
    "RST_STREAM INTERNAL_ERROR": (resets(_INTERNAL_ERROR), [Miss.REASON_SELLER_ERROR]),
    "RST_STREAM REFUSED_STREAM": (resets(_REFUSED_STREAM), [Miss.REASON_SELLER_ERROR]),
    "RST_STREAM CANCEL": (resets(_CANCEL), [Miss.REASON_SELLER_ERROR]),
    "RST_STREAM ENHANCE_YOUR_CALM": (
        resets(_ENHANCE_YOUR_CALM),
        [Miss.REASON_RATE_LIMITED],
    ),
    "RST_STREAM in the middle": (
        rogue.speaks_http2(resets_in_the_middle),
        [Miss.REASON_SELLER_ERROR],
    ),
    "GOAWAY": (rogue.speaks_http2(goes_away), [Miss.REASON_SELLER_ERROR]),
    "broken frames": (rogue.speaks_http2(breaks_the_frames), [Miss.REASON_SELLER_ERROR]),
    "4 GB announced": (rogue.speaks_http2(announces_4_gb), [Miss.REASON_INVALID_ANSWER]),
    "endless headers": (
        rogue.speaks_http2(never_ends_the_headers),
        [Miss.REASON_SELLER_ERROR, Miss.REASON_INVALID_ANSWER],
    ),
    "no status": (rogue.speaks_http2(has_no_status), [Miss.REASON_SELLER_ERROR]),
    "compressed unasked": (rogue.speaks_http2(compresses_unasked), [Miss.REASON_SELLER_ERROR]),
    "status CANCELLED": (failing(grpc.StatusCode.CANCELLED), [Miss.REASON_SELLER_ERROR]),
    "status OK without an answer": (failing(grpc.StatusCode.OK), [Miss.REASON_INVALID_ANSWER]),
    "status with a long message": (
        failing(grpc.StatusCode.INTERNAL, "x" * 5000),
        [Miss.REASON_SELLER_ERROR],
    ),
    "status with odd characters": (
        failing(grpc.StatusCode.INTERNAL, "%FF%00%1B[2J%E2%82"),
        [Miss.REASON_SELLER_ERROR],
    ),
}

ENDLESS: dict[str, Talk] = {
    "says nothing": rogue.says_nothing,
    "never ends a message": rogue.speaks_http2(never_ends_a_message),
    "never ends the stream": rogue.speaks_http2(never_ends_the_stream),
}


def request(book: str) -> pb.CollectQuotesRequest:
    return pb.CollectQuotesRequest(
        book_id=book, currency_code="USD", conditions=[seller_pb2.CONDITION_NEW]
    )


class Collected:
    """What came of a collection: the batches in which sellers came, quotes and misses."""

    def __init__(self) -> None:
        self.order: list[set[str]] = []
        self.quoted: set[str] = set()
        self.misses: dict[str, quote_pb2.Miss.Reason.ValueType] = {}

    def batch_of(self, seller_id: str) -> int:
        [number] = [number for number, batch in enumerate(self.order) if seller_id in batch]
        return number


async def collect(
    replica: Replica, book: str = BOOKS[0], on_quote: Callable[[], None] = lambda: None
) -> Collected:
    collected = Collected()
    async for part in replica.quotes.CollectQuotes(request(book), timeout=AMPLE_S):
        if part.HasField("batch"):
            quoted = {one.seller_id for one in part.batch.quotes}
            missed = {one.seller_id: one.reason for one in part.batch.misses}
            collected.order.append(quoted | missed.keys())
            collected.quoted |= quoted
            collected.misses |= missed
            if quoted:
                on_quote()
    return collected


async def collect_in_time(
    stack: AsyncExitStack,
    start_replica: StartReplica,
    sellers: Sequence[Seller],
    seller_s: float,
    on_quote: Callable[[], None] = lambda: None,
) -> tuple[Replica, Collected]:
    """Collect with so little time for each seller; with more where a slow machine kept the good one from answering."""
    while True:
        replica = await stack.enter_async_context(
            start_replica(sellers=sellers, gathering=GatherSettings(seller_s=seller_s))
        )
        collected = await collect(replica, on_quote=on_quote)
        if "good" in collected.quoted:
            return replica, collected
        assert collected.misses["good"] == Miss.REASON_TIMED_OUT
        seller_s *= 3


async def good_seller(stack: AsyncExitStack) -> Seller:
    good = await stack.enter_async_context(
        fake_seller(GetQuote=quotes(), BatchGetQuotes=one_by_one(quotes()))
    )
    return registered("good", good.endpoint)


def blamed(replica: Replica, *outcomes: Outcome) -> set[str]:
    return {seller_id for seller_id, outcome in replica.admission.reports if outcome in outcomes}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_a_wrong_answer_is_a_miss_that_counts_against_its_sender(
    start_replica: StartReplica, name: str
) -> None:
    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(fake_seller(GetQuote=WRONG_ANSWERS[name]))
        sellers = [registered("bad", bad.endpoint), await good_seller(stack)]
        replica = await stack.enter_async_context(
            start_replica(sellers=sellers, gathering=UNLIMITED)
        )
        collected = await collect(replica)
        assert collected.quoted == {"good"}
        assert collected.misses == {"bad": Miss.REASON_INVALID_ANSWER}
        assert sorted(replica.admission.reports) == sorted(
            [("bad", Outcome.FAILURE), ("good", Outcome.SUCCESS)], key=lambda report: report[0]
        )


@pytest.mark.parametrize("name", BROKEN_CONNECTIONS)
async def test_a_broken_connection_is_a_miss_that_counts_against_its_sender(
    start_replica: StartReplica, name: str
) -> None:
    talk, reasons = BROKEN_CONNECTIONS[name]
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(rogue.rogue(talk))
        sellers = [registered("bad", endpoint), await good_seller(stack)]
        replica = await stack.enter_async_context(
            start_replica(sellers=sellers, gathering=UNLIMITED)
        )
        collected = await collect(replica)
        assert collected.quoted == {"good"}
        assert collected.misses.keys() == {"bad"}
        assert Miss.Reason.Name(collected.misses["bad"]) in {
            Miss.Reason.Name(reason) for reason in reasons
        }
        assert blamed(replica, Outcome.FAILURE, Outcome.UNREACHED) == {"bad"}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_seller_that_never_ends_has_timed_out_and_the_others_do_not_wait_for_it(
    start_replica: StartReplica, name: str
) -> None:
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(rogue.rogue(ENDLESS[name]))
        sellers = [registered("bad", endpoint), await good_seller(stack)]
        replica, collected = await collect_in_time(stack, start_replica, sellers, 0.5)
        assert collected.misses == {"bad": Miss.REASON_TIMED_OUT}
        assert collected.batch_of("good") == 0
        assert collected.batch_of("bad") == 1
        assert blamed(replica, Outcome.SILENCE) == {"bad"}


async def test_plain_text_where_tls_should_be_is_unreachable(start_replica: StartReplica) -> None:
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(fake_seller(GetQuote=quotes()))
        bad = replace(registered("bad", plain.endpoint), tls_roots="system")
        garbage = await stack.enter_async_context(rogue.rogue(rogue.talks_garbage))
        worse = replace(registered("worse", garbage), tls_roots="system")
        replica = await stack.enter_async_context(
            start_replica(sellers=[bad, worse, await good_seller(stack)], gathering=UNLIMITED)
        )
        collected = await collect(replica)
        assert collected.quoted == {"good"}
        assert collected.misses == {
            "bad": Miss.REASON_UNREACHABLE,
            "worse": Miss.REASON_UNREACHABLE,
        }
        assert blamed(replica, Outcome.FAILURE, Outcome.UNREACHED) == {"bad", "worse"}
        assert plain.requests == []


async def test_all_of_them_together_do_not_hold_the_good_one_up(
    start_replica: StartReplica,
) -> None:
    """None is let go before the good one's quote has arrived."""
    arrived = asyncio.Event()

    def held(behaviour: Behaviour) -> Behaviour:
        async def after(request: Any, context: Any) -> Message | bytes:  # noqa: ANN401  as Behaviour has it
            await arrived.wait()
            return await behaviour(request, context)

        return after

    async with AsyncExitStack() as stack:
        sellers = []
        for name, behaviour in WRONG_ANSWERS.items():
            fake = await stack.enter_async_context(fake_seller(GetQuote=held(behaviour)))
            sellers.append(registered(f"{name} (held)", fake.endpoint))
        for name, (talk, _) in BROKEN_CONNECTIONS.items():
            endpoint = await stack.enter_async_context(rogue.rogue(talk))
            sellers.append(registered(name, endpoint))
        for name, talk in ENDLESS.items():
            endpoint = await stack.enter_async_context(rogue.rogue(talk))
            sellers.append(registered(name, endpoint))
        sellers.append(await good_seller(stack))
        replica, collected = await collect_in_time(
            stack, start_replica, sellers, 4.0, on_quote=arrived.set
        )
        assert collected.quoted == {"good"}
        assert len(collected.misses) == len(sellers) - 1
        good = collected.batch_of("good")
        assert all(
            collected.batch_of(seller.seller_id) > good
            for seller in sellers
            if seller.seller_id in ENDLESS or seller.seller_id.endswith("(held)")
        )
        assert (
            blamed(replica, Outcome.FAILURE, Outcome.UNREACHED, Outcome.SILENCE)
            == collected.misses.keys()
        )


BatchAnswer = Callable[[list[seller_pb2.GetQuoteResponse]], bytes]


def batch(*answers: seller_pb2.GetQuoteResponse) -> bytes:
    return seller_pb2.BatchGetQuotesResponse(responses=answers).SerializeToString()


WRONG_BATCHES: dict[str, BatchAnswer] = {
    "one is missing": lambda right: batch(*right[:-1]),
    "all are missing": lambda _: b"",
    "one more": lambda right: batch(*right, right[0]),
    "half a million": lambda _: b"\n\0" * 500_000,
    "a million": lambda _: b"\n\0" * 1_000_000,
}
WRONG_ITEMS: dict[str, tuple[BatchAnswer, set[int]]] = {
    "one comes twice, in the place of another": (
        lambda right: batch(right[0], right[0], right[2]),
        {1},
    ),
    "two have changed places": (lambda right: batch(right[1], right[0], right[2]), {0, 1}),
    "one is empty": (lambda right: batch(seller_pb2.GetQuoteResponse(), *right[1:]), {0}),
    "one costs nothing": (
        lambda right: batch(*right[:2], changed(right[2], quote=changed(quote(), total=money(0)))),
        {2},
    ),
}


async def collect_three(
    start_replica: StartReplica, answer: BatchAnswer
) -> tuple[list[Collected], list[Outcome]]:
    """Ask a seller about three books in one call; give what came of each, in the order in which it was asked."""

    async def bad_batch(asked: seller_pb2.BatchGetQuotesRequest, context: object) -> bytes:
        return answer(
            [
                seller_pb2.GetQuoteResponse(book_id=one.book_id, quote=quote())
                for one in asked.requests
            ]
        )

    async with AsyncExitStack() as stack:
        bad = await stack.enter_async_context(fake_seller(BatchGetQuotes=bad_batch))
        three_at_once = replace(registered("bad", bad.endpoint).capabilities, max_batch_size=3)
        sellers = [
            replace(seller, capabilities=three_at_once)
            for seller in (registered("bad", bad.endpoint), await good_seller(stack))
        ]
        until_full = replace(UNLIMITED, linger_s=AMPLE_S, longest_linger_s=AMPLE_S)
        replica = await stack.enter_async_context(
            start_replica(sellers=sellers, gathering=until_full)
        )
        collected = await asyncio.gather(*(collect(replica, book) for book in BOOKS))
        [(method, asked, _)] = bad.requests
        assert method == "BatchGetQuotes"
        assert isinstance(asked, seller_pb2.BatchGetQuotesRequest)
        assert all("good" in one.quoted for one in collected)
        return (
            [collected[BOOKS.index(one.book_id)] for one in asked.requests],
            [outcome for seller_id, outcome in replica.admission.reports if seller_id == "bad"],
        )


@pytest.mark.parametrize("name", WRONG_BATCHES)
async def test_a_batch_with_another_number_of_answers_is_a_miss_for_each_book(
    start_replica: StartReplica, name: str
) -> None:
    collected, outcomes = await collect_three(start_replica, WRONG_BATCHES[name])
    assert [one.misses for one in collected] == [{"bad": Miss.REASON_INVALID_ANSWER}] * 3
    assert outcomes == [Outcome.FAILURE]


@pytest.mark.parametrize("name", WRONG_ITEMS)
async def test_a_wrong_item_of_a_batch_is_a_miss_alone(
    start_replica: StartReplica, name: str
) -> None:
    answer, wrong = WRONG_ITEMS[name]
    collected, outcomes = await collect_three(start_replica, answer)
    assert {number for number, one in enumerate(collected) if one.misses} == wrong
    # The call counts against its seller if most of it was wrong.
    assert outcomes == [Outcome.FAILURE if len(wrong) * 2 > len(BOOKS) else Outcome.SUCCESS]


async def test_a_seller_that_says_it_is_busy_is_rate_limited(start_replica: StartReplica) -> None:
    async with AsyncExitStack() as stack:
        busy = fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        bad = await stack.enter_async_context(fake_seller(GetQuote=busy))
        replica = await stack.enter_async_context(
            start_replica(sellers=[registered("bad", bad.endpoint)], gathering=UNLIMITED)
        )
        assert (await collect(replica)).misses == {"bad": Miss.REASON_RATE_LIMITED}
        assert len(bad.requests) == 1
