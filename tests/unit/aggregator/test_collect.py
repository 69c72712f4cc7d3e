"""A collection asks every active seller once and hands on the answers as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from aggregator.app.collect import MAX_BATCH, Limits, QuoteCollector, Wish
from aggregator.app.gather import Gatherer
from aggregator.app.lots import GatherSettings
from aggregator.domain.cached import CacheSettings
from aggregator.domain.collection import Answer, MissReason, Question, Skipped, Summary, miss_reason
from aggregator.domain.outlook import Outlooks
from mesh import errors
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from sellers.model import (
    BatchOutcome,
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Seller,
    SellerState,
    Unavailable,
    UnavailableReason,
)
from sellers.registry import Directory
from tests.fakes.admission import OpenAdmission
from tests.fakes.quote_cache import Memory, MemoryQuoteCache
from tests.fakes.seller import registered

QUESTION = Question("9780134685991", "USD", frozenset({Condition.NEW}))
QUOTE = Quote(
    quote_id="q",
    price=Money("USD", 2000),
    shipping=Money("USD", 0),
    total=Money("USD", 2000),
    condition=Condition.NEW,
    quantity=1,
    expires_at=datetime.now(UTC) + timedelta(hours=1),
)
NO = Unavailable(UnavailableReason.NOT_CARRIED)
AMPLE_S = 30.0

Asked = Callable[[], Awaitable[QuoteOutcome]]


class Sellers:
    """Implements ``QuoteSource``: what each seller does, by id, and which were asked."""

    def __init__(self, **behaviours: Asked) -> None:
        self.behaviours = behaviours
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        assert Question(book_id, currency, conditions) == QUESTION
        self.asked.append(seller.seller_id)
        try:
            return await self.behaviours[seller.seller_id]()
        except asyncio.CancelledError:
            self.cancelled.append(seller.seller_id)
            raise

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        raise AssertionError("these sellers take no batches")

    def collector(self, limits: Limits | None = None) -> QuoteCollector:
        directory = Directory()
        directory.replace([registered(name, f"{name}:1") for name in self.behaviours], 1)
        return collector(directory, self, limits)


RUNNING: list[asyncio.Task[None]] = []


@pytest.fixture(autouse=True)
async def running() -> AsyncIterator[None]:
    """End what the test's collectors have started."""
    yield
    for task in RUNNING:
        task.cancel()
    await asyncio.gather(*RUNNING, return_exceptions=True)
    RUNNING.clear()


def collector(
    directory: Directory,
    source: Sellers,
    limits: Limits | None = None,
) -> QuoteCollector:
    clock = SystemClock()
    outlooks = Outlooks()
    gatherer = Gatherer(source, OpenAdmission(clock), outlooks, GatherSettings(), clock)
    RUNNING.append(asyncio.create_task(gatherer.run()))
    return QuoteCollector(
        directory,
        gatherer,
        MemoryQuoteCache(Memory(), clock, CacheSettings()),
        outlooks,
        clock=clock,
        new_id=uuid7_factory(clock, Random(1)),
        limits=limits or Limits(),
    )


def says(outcome: QuoteOutcome) -> Asked:
    async def asked() -> QuoteOutcome:
        return outcome

    return asked


def waits_for(event: asyncio.Event, outcome: QuoteOutcome = QUOTE) -> Asked:
    async def asked() -> QuoteOutcome:
        await event.wait()
        return outcome

    return asked


async def hangs() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def collected(
    collector: QuoteCollector, time_left_s: float = AMPLE_S
) -> tuple[list[list[Answer]], Summary]:
    async with collector.open(QUESTION, time_left_s, Wish()) as collection:
        batches = [list(batch) async for batch in collection.batches()]
    return batches, collection.summary()


def outcomes(batches: list[list[Answer]]) -> dict[str, QuoteOutcome | Skipped]:
    answers = [answer for batch in batches for answer in batch]
    assert len({answer.seller_id for answer in answers}) == len(answers), "a seller came twice"
    return {answer.seller_id: answer.outcome for answer in answers}


async def test_every_active_seller_gives_exactly_one_answer() -> None:
    refused = CallFailed(FailureKind.REFUSED, definitely_not_done=True, detail="")
    sellers = Sellers(acme=says(QUOTE), beta=says(NO), gamma=says(refused))
    batches, summary = await collected(sellers.collector())
    assert outcomes(batches) == {"acme": QUOTE, "beta": NO, "gamma": refused}
    assert sellers.asked == ["acme", "beta", "gamma"]
    assert (summary.sellers, summary.asked, summary.answered, summary.quoted) == (3, 3, 2, 1)
    assert summary.misses == {MissReason.NOT_CARRIED: 1, MissReason.REFUSED: 1}
    assert summary.book_id == QUESTION.book_id


async def test_sellers_that_are_not_active_are_not_asked() -> None:
    sellers = Sellers(acme=says(QUOTE))
    directory = Directory()
    acme = registered("acme", "acme:1")
    directory.replace(
        [
            acme,
            replace(acme, seller_id="beta", state=SellerState.DRAINING),
            replace(acme, seller_id="gamma", state=SellerState.DISABLED),
        ],
        1,
    )
    batches, summary = await collected(collector(directory, sellers))
    assert outcomes(batches) == {"acme": QUOTE}
    assert summary.sellers == 1


async def test_a_seller_is_not_asked_in_a_currency_that_it_does_not_have() -> None:
    sellers = Sellers(acme=says(QUOTE), beta=says(QUOTE))
    directory = Directory()
    acme, beta = registered("acme", "acme:1"), registered("beta", "beta:1")
    euros = replace(beta.capabilities, currencies=("EUR", "CHF"))
    directory.replace([acme, replace(beta, capabilities=euros)], 1)
    batches, summary = await collected(collector(directory, sellers))
    assert outcomes(batches) == {"acme": QUOTE, "beta": Unavailable(UnavailableReason.CURRENCY)}
    assert sellers.asked == ["acme"]
    assert (summary.asked, summary.answered, summary.cached) == (2, 2, 1)
    assert summary.misses == {MissReason.CURRENCY: 1}


async def test_without_sellers_a_collection_is_empty() -> None:
    batches, summary = await collected(Sellers().collector())
    assert batches == []
    assert (summary.sellers, summary.quoted, summary.misses) == (0, 0, {})


async def test_before_the_registry_has_been_read_nothing_can_be_collected() -> None:
    with pytest.raises(errors.Unavailable):
        await collected(collector(Directory(), Sellers()))


async def test_the_first_answers_do_not_wait_for_the_last() -> None:
    last = asyncio.Event()
    sellers = Sellers(acme=says(QUOTE), beta=waits_for(last))
    async with sellers.collector().open(QUESTION, AMPLE_S, Wish()) as collection:
        batches = collection.batches()
        first = await anext(batches)
        assert [answer.seller_id for answer in first] == ["acme"]
        last.set()
        assert [[answer.seller_id for answer in batch] async for batch in batches] == [["beta"]]


async def test_the_last_answers_are_not_held_back() -> None:
    last = asyncio.Event()
    sellers = Sellers(acme=says(QUOTE), beta=waits_for(last))
    # Were the last batch gathered too, this would take a day.
    limits = Limits(flush_s=24 * 3600.0)
    async with sellers.collector(limits).open(QUESTION, AMPLE_S, Wish()) as collection:
        batches = collection.batches()
        await anext(batches)
        last.set()
        assert len([batch async for batch in batches]) == 1


async def test_a_batch_has_a_greatest_length() -> None:
    sellers = Sellers(**{f"seller-{number}": says(NO) for number in range(MAX_BATCH + 1)})
    batches, summary = await collected(sellers.collector())
    assert max(len(batch) for batch in batches) <= MAX_BATCH
    assert summary.sellers == len(outcomes(batches)) == MAX_BATCH + 1


async def test_who_has_not_answered_when_time_is_over_has_timed_out() -> None:
    sellers = Sellers(acme=says(QUOTE), beta=hangs)
    limits = Limits(merge_margin_s=0.1)
    batches, summary = await collected(sellers.collector(limits), time_left_s=0.2)
    answers = outcomes(batches)
    assert answers["acme"] == QUOTE
    late = answers["beta"]
    assert isinstance(late, CallFailed)
    assert miss_reason(late) is MissReason.TIMED_OUT
    assert sellers.cancelled == ["beta"]
    assert summary.misses == {MissReason.TIMED_OUT: 1}


async def test_without_time_nobody_is_asked() -> None:
    sellers = Sellers(acme=hangs, beta=hangs)
    _, summary = await collected(sellers.collector(), time_left_s=0.01)
    assert (summary.misses, summary.asked) == ({MissReason.TOO_SLOW: 2}, 0)
    assert sellers.asked == []


async def test_leaving_cancels_the_calls_under_way() -> None:
    asked = asyncio.Event()

    async def asked_in_vain() -> NoReturn:
        asked.set()
        await hangs()

    sellers = Sellers(acme=waits_for(asked), beta=asked_in_vain)
    async with sellers.collector().open(QUESTION, AMPLE_S, Wish()) as collection:
        await anext(collection.batches())
    assert sellers.cancelled == ["beta"]


async def test_leaving_by_an_exception_cancels_them_too() -> None:
    sellers = Sellers(acme=says(QUOTE), beta=hangs)

    async def leaves() -> None:
        async with sellers.collector().open(QUESTION, AMPLE_S, Wish()) as collection:
            await anext(collection.batches())
            raise KeyError("the caller's")

    with pytest.raises(KeyError, match="the caller's"):
        await leaves()
    assert sellers.cancelled == ["beta"]


async def test_cancelling_who_waits_for_answers_cancels_the_calls() -> None:
    asked = asyncio.Event()

    async def asked_in_vain() -> NoReturn:
        asked.set()
        await hangs()

    sellers = Sellers(acme=asked_in_vain)
    waiting = asyncio.create_task(collected(sellers.collector()))
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert sellers.cancelled == ["acme"]


async def test_a_fault_of_ours_with_one_seller_does_not_cost_the_others() -> None:
    async def trips() -> NoReturn:
        raise KeyError("a bug")

    with capture_logs() as logs:
        batches, _ = await collected(Sellers(acme=trips, beta=says(QUOTE)).collector())
    answers = outcomes(batches)
    assert answers["beta"] == QUOTE
    assert isinstance(answers["acme"], CallFailed)
    assert [entry["seller_id"] for entry in logs if entry["log_level"] == "error"] == ["acme"]
