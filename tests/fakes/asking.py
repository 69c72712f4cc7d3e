"""A fleet of aggregators in virtual time: sellers that follow a script, admission with its real ledger, one cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import wraps
from random import Random
from typing import ParamSpec

import numpy as np

from aggregator.app.collect import Limits, OnEnded, OnKnown, QuoteCollector, Wish
from aggregator.app.gather import Gatherer
from aggregator.app.lots import GatherSettings
from aggregator.app.market import Market, MarketSettings
from aggregator.app.selecting import Selector
from aggregator.domain.cached import CacheSettings
from aggregator.domain.collection import Answer, MissReason, Question, Summary, miss_reason
from aggregator.domain.history import CollectionRecord
from aggregator.domain.outlook import Outlooks
from aggregator.ports import CallAdmission
from aggregator.selection.categories import category_of
from aggregator.selection.columns import Rows
from aggregator.selection.policy import View
from aggregator.selection.selection import Selection, SelectionSettings
from aggregator.selection.statistics import Statistics, StatisticsSettings
from bench.virtual_time import VirtualClock, run_virtually
from mesh.ids import uuid7_factory
from mesh.money import Money
from sellers.admission.admission import Admission, rules_of
from sellers.admission.ledger import Ledger, Report, Request, Standing, Verdict
from sellers.admission.model import AdmissionSettings, Ask, Decision, Grant, Outcome, Purpose
from sellers.admission.valkey import FleetUnavailable
from sellers.model import (
    BatchOutcome,
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Seller,
)
from sellers.registry import Directory
from tests.fakes.market_store import MemoryMarketStore
from tests.fakes.quote_cache import Memory, MemoryQuoteCache
from tests.fakes.seller import registered

_P = ParamSpec("_P")

NEW = frozenset({Condition.NEW})
AMPLE_S = 30.0
_TIMED_OUT = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="")


def in_virtual_time(test: Callable[_P, Coroutine[None, None, None]]) -> Callable[_P, None]:
    """Run an async test in virtual time."""

    @wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def question(book_id: str = "book") -> Question:
    return Question(book_id, "USD", NEW)


def seller(
    seller_id: str, *, batch: int = 0, calls_per_minute: int = 1_000_000, quotes_per_minute: int = 0
) -> Seller:
    """Give a seller that takes batches of so many, and allows so much."""
    made = registered(seller_id, f"{seller_id}:1")
    limits = replace(
        made.capabilities,
        max_batch_size=batch,
        calls_per_minute=calls_per_minute,
        quotes_per_minute=quotes_per_minute,
    )
    return replace(made, capabilities=limits)


def quoted(minor: int = 2000) -> Quote:
    return Quote(
        quote_id="q",
        price=Money("USD", minor),
        shipping=Money("USD", 0),
        total=Money("USD", minor),
        condition=Condition.NEW,
        quantity=1,
        expires_at=VirtualClock().now() + timedelta(hours=1),
    )


@dataclass(slots=True)
class Call:
    """A call as its seller saw it; ``ended`` is ``answered``, ``timed out``, ``cancelled``, or empty if it has not."""

    seller_id: str
    books: tuple[str, ...]
    at_s: float
    timeout_s: float
    ended: str = ""


Says = Callable[[str], QuoteOutcome]


class ScriptedSellers:
    """Implements ``QuoteSource``.

    Attributes:
        latency_s: how long each seller takes, by id; 0 else.
        says: what it answers about a book, by id; a quote else.
        calls: what was asked.

    """

    def __init__(self) -> None:
        self.latency_s: dict[str, float] = {}
        self.says: dict[str, Says] = {}
        self.calls: list[Call] = []

    async def get_quote(
        self,
        seller: Seller,
        book_id: str,
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> QuoteOutcome:
        [outcome] = await self._answers(seller, (book_id,), timeout_s)
        return outcome

    async def batch_get_quotes(
        self,
        seller: Seller,
        book_ids: Sequence[str],
        currency: str,
        conditions: frozenset[Condition],
        *,
        timeout_s: float,
    ) -> BatchOutcome:
        answers = await self._answers(seller, tuple(book_ids), timeout_s)
        for answer in answers:
            # An item of a batch can be wrong alone; whatever else fails is the call.
            if isinstance(answer, CallFailed) and answer.kind is not FailureKind.INVALID_ANSWER:
                return answer
        return tuple(answers)

    def calls_to(self, seller_id: str) -> list[Call]:
        return [call for call in self.calls if call.seller_id == seller_id]

    async def _answers(
        self, seller: Seller, books: tuple[str, ...], timeout_s: float
    ) -> list[QuoteOutcome]:
        call = Call(seller.seller_id, books, VirtualClock().monotonic(), timeout_s)
        self.calls.append(call)
        latency_s = self.latency_s.get(seller.seller_id, 0.0)
        try:
            await asyncio.sleep(min(latency_s, timeout_s))
        except asyncio.CancelledError:
            call.ended = "cancelled"
            raise
        if latency_s > timeout_s:
            call.ended = "timed out"
            return [_TIMED_OUT] * len(books)
        call.ended = "answered"
        says = self.says.get(seller.seller_id)
        return [says(book) if says is not None else quoted() for book in books]


class CountingAdmission:
    """Passes everything on to admission, and keeps what was granted and reported.

    Attributes:
        rounds: what was asked for, in rounds.
        grants: all.
        reports: how each call ended.

    """

    def __init__(self, admission: CallAdmission) -> None:
        self._admission = admission
        self.rounds: list[Sequence[Ask]] = []
        self.grants: list[Grant] = []
        self.reports: list[tuple[Grant, Outcome]] = []

    async def admit(self, asks: Sequence[Ask], purpose: Purpose) -> Sequence[Decision]:
        assert purpose in {Purpose.QUOTE, Purpose.BROWSE}
        self.rounds.append(asks)
        decisions = await self._admission.admit(asks, purpose)
        self.grants += [decision.grant for decision in decisions if hasattr(decision, "grant")]
        return decisions

    def report(self, grant: Grant, outcome: Outcome) -> None:
        self.reports.append((grant, outcome))
        self._admission.report(grant, outcome)

    def outcomes(self, seller_id: str) -> list[Outcome]:
        return [outcome for grant, outcome in self.reports if grant.seller_id == seller_id]


class SharedLedger:
    """Implements ``FleetLedger`` over the twin of the scripts.

    Attributes:
        answers: whether Valkey does.
        takes_s: how long it takes to admit.

    """

    answers = True
    takes_s = 0.0

    def __init__(self, settings: AdmissionSettings) -> None:
        self._ledger = Ledger(rules_of(settings))
        self._ledger.declare_quiet(self._now_ms())

    async def admit(self, requests: Sequence[Request]) -> list[Verdict]:
        await asyncio.sleep(self.takes_s)
        if not self.answers:
            raise FleetUnavailable("Valkey is gone")
        return self._ledger.admit(self._now_ms(), requests)

    async def report(self, reports: Sequence[Report]) -> None:
        self._ledger.report(self._now_ms(), reports)

    async def standings(self, seller_ids: Sequence[str]) -> list[Standing]:
        return self._ledger.standings(self._now_ms(), seller_ids)

    @staticmethod
    def _now_ms() -> int:
        return int(VirtualClock().monotonic() * 1000)


@dataclass(slots=True)
class Result:
    """What one caller got: batches as they came, with the moments, and the end."""

    batches: list[tuple[float, Sequence[Answer]]]
    summary: Summary
    elapsed_s: float

    @property
    def answers(self) -> dict[str, Answer]:
        answers = [answer for _, batch in self.batches for answer in batch]
        assert len({answer.seller_id for answer in answers}) == len(answers), "a seller came twice"
        return {answer.seller_id: answer for answer in answers}

    @property
    def quoted(self) -> set[str]:
        return {name for name, got in self.answers.items() if isinstance(got.outcome, Quote)}

    @property
    def misses(self) -> dict[str, MissReason]:
        return {
            name: miss_reason(got.outcome)
            for name, got in self.answers.items()
            if not isinstance(got.outcome, Quote)
        }


class MortalCache(MemoryQuoteCache):
    """Says nothing more to anybody once its process is ``dead``."""

    dead = False

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        if not self.dead:
            super().put(question, answers)

    def renew(self, question: Question) -> None:
        if not self.dead:
            super().renew(question)

    def close(self, question: Question) -> None:
        if not self.dead:
            super().close(question)


@dataclass(slots=True)
class Process:
    """One aggregator."""

    collector: QuoteCollector
    cache: MortalCache
    gatherer: Gatherer
    admission: CountingAdmission
    outlooks: Outlooks
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def collect(
        self,
        book_id: str = "book",
        *,
        wish: Wish | None = None,
        time_left_s: float = AMPLE_S,
        leave_after: int | None = None,
    ) -> Result:
        """Collect quotes; leave after so many answers, if given."""
        started_s = VirtualClock().monotonic()
        batches: list[tuple[float, Sequence[Answer]]] = []
        async with self.collector.open(question(book_id), time_left_s, wish or Wish()) as opened:
            async for batch in opened.batches():
                batches.append((VirtualClock().monotonic() - started_s, batch))
                if leave_after is not None and sum(len(b) for _, b in batches) >= leave_after:
                    break
        elapsed_s = VirtualClock().monotonic() - started_s
        return Result(batches, opened.summary(), elapsed_s)

    async def die(self) -> None:
        """End as a killed process does: nothing is said to anybody."""
        self.cache.dead = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Fleet:
    """Aggregators over the same sellers, which share a cache and a ledger."""

    def __init__(self, sellers: Collection[Seller], rules: AdmissionSettings | None = None) -> None:
        self.sellers = ScriptedSellers()
        self._directory = Directory()
        self._directory.replace(list(sellers), 1)
        self._rules = rules or AdmissionSettings(loop_beat_s=1.0)
        self.ledger = SharedLedger(self._rules)
        self.memory = Memory()
        self.markets: list[Market] = []
        self.checked: list[CollectionRecord] = []
        self._processes: list[Process] = []

    async def process(
        self,
        settings: GatherSettings | None = None,
        limits: Limits | None = None,
        admission: CallAdmission | None = None,
        on_known: OnKnown = lambda _question, _sellers, _good_for_s, _lives_s: None,
        *,
        on_ended: OnEnded = lambda _record: None,
        selection: SelectionSettings | None = None,
        select_above: int = 0,
    ) -> Process:
        """Start one more; with a ``selection`` it chooses among more sellers than ``select_above``, the first first."""
        clock, outlooks = VirtualClock(), Outlooks()
        tasks = []
        if admission is None:
            real = Admission(self.ledger, clock, self._rules, sellers=list, quiet=True)
            tasks.append(asyncio.create_task(real.run()))
            admission = real
        counting = CountingAdmission(admission)
        gatherer = Gatherer(self.sellers, counting, outlooks, settings or GatherSettings(), clock)
        tasks.append(asyncio.create_task(gatherer.run()))
        cache = MortalCache(self.memory, clock, CacheSettings())
        selector = None
        if selection is not None:
            selector, market = _selector(selection, select_above)
            self.markets.append(market)
            snapshot = self._directory.snapshot
            assert snapshot is not None
            selector.on_change(snapshot)
            new_id = uuid7_factory(clock, Random(-1 - len(self._processes)))
            run = selector.run(gatherer, new_id, self.checked.append)
            tasks.append(asyncio.create_task(run))
        collector = QuoteCollector(
            self._directory,
            gatherer,
            cache,
            outlooks,
            clock=clock,
            new_id=uuid7_factory(clock, Random(len(self._processes))),
            limits=limits or Limits(),
            on_known=on_known,
            on_ended=selector.record if selector is not None else on_ended,
            selector=selector,
        )
        process = Process(collector, cache, gatherer, counting, outlooks, tasks)
        self._processes.append(process)
        return process

    async def stop(self) -> None:
        for process in self._processes:
            await process.die()


class FirstFirst:
    """A policy that tests can foresee: in the order of the rows."""

    name = "first first"

    def choose(self, view: View, count: int, rng: np.random.Generator) -> Rows:
        return np.flatnonzero(view.open)[:count].astype(np.int32)


def _selector(settings: SelectionSettings, above: int) -> tuple[Selector, Market]:
    statistics = Statistics(StatisticsSettings())
    market = Market(statistics, MemoryMarketStore(), category_of, VirtualClock(), MarketSettings())
    selection = Selection(
        statistics=statistics,
        policy=FirstFirst(),
        settings=settings,
        calibration=market.calibration,
        rng=np.random.default_rng(1),
    )
    selector = Selector(market, selection, category_of, VirtualClock(), above=above, currency="USD")
    return selector, market


@asynccontextmanager
async def fleet(*sellers: Seller, rules: AdmissionSettings | None = None) -> AsyncIterator[Fleet]:
    """Run a fleet until the block ends; then every grant must have been reported once."""
    running = Fleet(sellers, rules)
    try:
        yield running
    finally:
        await running.stop()
    for process in running._processes:
        granted = [id(grant) for grant in process.admission.grants]
        reported = [id(grant) for grant, _ in process.admission.reports]
        assert sorted(granted) == sorted(reported), "a slot was not given back, or twice"


def fails(failure: CallFailed) -> Says:
    return lambda _book: failure
