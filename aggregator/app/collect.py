"""Collects quotes: one collection a question at a time, shared by all who ask, each waiting for as long as it wants."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import TypeAlias
from uuid import UUID

import structlog

from aggregator.app.gather import Gatherer
from aggregator.app.leading import lead_until
from aggregator.app.lots import Waiting
from aggregator.app.selecting import ANY_PRICE, Choice, Selector
from aggregator.domain.collection import Answer, MissReason, Question, Skipped, Summary, summarise
from aggregator.domain.history import CollectionRecord
from aggregator.domain.outlook import Outlooks
from aggregator.domain.stopping import (
    Outstanding,
    Policy,
    least_plausible,
    too_few,
    worth_waiting,
)
from aggregator.ports import Opened, QuoteCache
from mesh import errors
from mesh.clock import Clock
from mesh.ids import NewId
from sellers.admission.model import Purpose
from sellers.model import (
    CallFailed,
    FailureKind,
    Quote,
    Seller,
    Unavailable,
    UnavailableReason,
)
from sellers.registry import Directory

MAX_BATCH = 1000
"""Most answers in a batch: with the longest names that is 1 MB as a message."""

_FOLLOW_S = 0.5
_LOOK_S = 0.1

_FRESH_S = 0.1
"""Who must have it fresh joins others who must if they began no longer ago than that."""

_MOST_TURNS = 8
"""A question that so many customers want has its turn with each of them; more would not make it any faster."""

_ASKED_AT_ONCE = 256
"""Questions that are put to sellers in one turn of the event loop, for all collections together: some 5 ms."""

_LACK_OF_TIME = frozenset({MissReason.TOO_SLOW, MissReason.NO_BUDGET, MissReason.BUSY})

_LEAST_PHASE_S = 0.5
"""A phase for which there is less time is not begun."""

_CLEARLY_MORE = 0.1
"""Who joins has clearly more time if so much of its time is left when the others' is over. So a crowd that comes one by
one, all with the same time, has a seller asked in vain only now and then."""

_NEVER = datetime.max.replace(tzinfo=UTC)

Known: TypeAlias = tuple[Mapping[str, Seller], Mapping[str, float], Mapping[str, float]]
"""Of what is known: the sellers, for how long it is good, and for how long it was from the beginning, by seller."""
_NOT_IN_CURRENCY = Unavailable(UnavailableReason.CURRENCY)
_TIMED_OUT = CallFailed(
    FailureKind.TIMED_OUT,
    definitely_not_done=False,
    detail="the collection's time was over",
)

OnKnown: TypeAlias = Callable[
    [Question, Mapping[str, Seller], Mapping[str, float], Mapping[str, float]], None
]
OnEnded: TypeAlias = Callable[[CollectionRecord], None]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of a collection, in seconds.

    Attributes:
        merge_margin_s: what is kept of the caller's time to hand on the last answers.
        flush_s: how long answers are gathered after a batch before the next one goes out. To take in many at a time
            costs less, too.
        joined_s: a collection that began longer ago is not joined: what it knows is old.

    """

    merge_margin_s: float = 0.15
    flush_s: float = 0.05
    joined_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What one caller wants of a collection.

    Attributes:
        policy: how much waiting a lower price is worth to it.
        affordable_minor: it stops early only once it has a quote of at most this, in minor units; None for any quote.
        customer_id: for whom.
        fresh: whether what is known already is not good enough.
        browsing: whether it only compares prices: nobody who buys may ever have to wait for it, or get less.

    """

    policy: Policy = Policy.BEST_PRICE
    affordable_minor: int | None = None
    customer_id: str = ""
    fresh: bool = False
    browsing: bool = False


class QuoteCollector:
    """Opens collections over the sellers of a directory; those who ask the same share one."""

    def __init__(
        self,
        directory: Directory,
        gatherer: Gatherer,
        cache: QuoteCache,
        outlooks: Outlooks,
        *,
        clock: Clock,
        new_id: NewId,
        limits: Limits,
        on_known: OnKnown = lambda _question, _sellers, _good_for_s, _lives_s: None,
        on_ended: OnEnded = lambda _record: None,
        selector: Selector | None = None,
    ) -> None:
        """Keep what is needed.

        Without a ``selector`` all sellers are asked, however many they are.
        ``on_known`` is told, once for each who asks, what is known of its question, for how long it is good
        and for how long it was from the beginning (infinite where that does not matter), ``on_ended`` each collection
        once.
        """
        self._on_known = on_known
        self._on_ended = on_ended
        self._directory = directory
        self._gatherer = gatherer
        self._cache = cache
        self._outlooks = outlooks
        self._clock = clock
        self._new_id = new_id
        self._limits = limits
        self._selector = selector
        self._flights: dict[FlightKey, Flight] = {}
        self._asking = Asking()

    @asynccontextmanager
    async def open(
        self, question: Question, time_left_s: float, wish: Wish
    ) -> AsyncIterator[Collection]:
        """Collect quotes, or join those who are collecting them; when the last one leaves, calls are cancelled.

        Args:
            question: what to ask.
            time_left_s: how long the caller can wait for the end of the collection.
            wish: what the caller wants of it.

        Raises:
            Unavailable: before the registry has been read.

        """
        flight = self._flight(question, wish)
        collection = Collection(flight, wish, time_left_s, clock=self._clock, limits=self._limits)
        flight.join(collection)
        try:
            yield collection
        finally:
            flight.leave(collection)
            if not flight.wanted:
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]
                await flight.stop()
        _log_end(collection.summary())

    def _flight(self, question: Question, wish: Wish) -> Flight:
        snapshot = self._directory.snapshot
        if snapshot is None:
            raise errors.Unavailable(
                "the registry of sellers has not been read yet: try again", retry_after_s=1.0
            )
        key = FlightKey(question, wish.fresh, wish.browsing)
        flight = self._flights.get(key)
        joined_s = _FRESH_S if wish.fresh else self._limits.joined_s
        if flight is None or flight.over or flight.age_s > joined_s:
            selector = self._selector
            if selector is not None and not selector.selects:
                selector = None
            flight = self._flights[key] = Flight(
                key,
                self._new_id(),
                snapshot.active,
                wish.customer_id,
                gatherer=self._gatherer,
                cache=self._cache,
                outlooks=self._outlooks,
                asking=self._asking,
                clock=self._clock,
                flush_s=self._limits.flush_s,
                on_known=self._on_known,
                on_ended=self._on_ended,
                selector=selector,
            )
        return flight


@dataclass(frozen=True, slots=True)
class FlightKey:
    """What those who share a flight have in common; the words are those of ``Wish``."""

    question: Question
    fresh: bool
    browsing: bool


@dataclass(slots=True)
class Asking:
    """How many flights are asking sellers just now: they share the turns of the event loop."""

    flights: int = 0


class Flight:
    """One gathering of quotes for one question, for all who want it. Every seller has at most one answer at a time.

    Attributes:
        key: the question, and what those who share it want alike.
        collection_id: names it.
        of: how many sellers could be asked.
        sellers: who is asked; where sellers are chosen, so far.
        choosing: whether more may be chosen.
        answers: what has arrived, in that order.
        asked_again: whether some answers have been taken back, because whoever came later can have better ones.
        started_at: when it began.
        started_s: likewise, by the monotonic clock.
        ended: is set when every seller has its answer.
        looked: is set when what is known has been taken.

    """

    def __init__(
        self,
        key: FlightKey,
        collection_id: UUID,
        sellers: Sequence[Seller],
        customer_id: str,
        *,
        gatherer: Gatherer,
        cache: QuoteCache,
        outlooks: Outlooks,
        asking: Asking,
        clock: Clock,
        flush_s: float,
        on_known: OnKnown,
        on_ended: OnEnded,
        selector: Selector | None,
    ) -> None:
        self.key = key
        self.collection_id = collection_id
        self.of = len(sellers)
        self.choosing = selector is not None
        self.sellers: list[Seller] = [] if self.choosing else [*sellers]
        self.answers: list[Answer] = []
        self.asked_again = False
        self.started_at = clock.now()
        self.started_s = clock.monotonic()
        self.ended = asyncio.Event()
        self.looked = asyncio.Event()
        self._following = False
        self._left_for = MissReason.STOPPED
        self._question = key.question
        self._purpose = Purpose.BROWSE if key.browsing else Purpose.QUOTE
        self._customers = [customer_id]
        self._gatherer = gatherer
        self._cache = cache
        self._outlooks = outlooks
        self._asking = asking
        self._clock = clock
        self._flush_s = flush_s
        self._on_known = on_known
        self._on_ended = on_ended
        self._selector = selector
        self._choice: Choice | None = None
        self._settled = asyncio.Event()
        self._open = {seller.seller_id: seller for seller in self.sellers}
        self._arrived: list[Answer] = []
        self._flush: asyncio.TimerHandle | None = None
        self._waiting: dict[str, Waiting] = {}
        self._asked = False
        self._short_of_time: dict[str, float] = {}
        self._first_expires_at = _NEVER
        self._expired: list[Answer] = []
        self._known: Known | None = None
        self._joined: set[Collection] = set()
        self._until_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._worth: dict[Policy, tuple[int, float, bool]] = {}
        self._summary: Summary | None = None

    @property
    def over(self) -> bool:
        """Whether every seller has its answer."""
        return not self._open and not self.choosing

    @property
    def age_s(self) -> float:
        """For how long it has been going on."""
        return self._clock.monotonic() - self.started_s

    @property
    def wanted(self) -> bool:
        """Whether anybody is waiting."""
        return bool(self._joined)

    def join(self, collection: Collection) -> None:
        """Let one more wait; the collection now runs at least until its deadline."""
        self.settle()
        self._joined.add(collection)
        self._until_s = max(self._until_s, collection.until_s)
        customer_id = collection.wish.customer_id
        for waiting in self._waiting.values():
            waiting.until_s = self._until_s
        if customer_id not in self._customers and len(self._customers) < _MOST_TURNS:
            self._customers.append(customer_id)
            for waiting in self._waiting.values():
                self._gatherer.ask_for(waiting, customer_id)
        self._ask_again(collection.until_s)
        collection.take(self.answers)
        if self._known is not None:
            self._tell_known(self._known)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, collection: Collection) -> None:
        """Let one go."""
        self._joined.discard(collection)
        self._left_for = collection.ended_for

    async def stop(self) -> None:
        """Cancel what is under way."""
        self.settle()
        if self._flush is not None:
            self._flush.cancel()
        rest = [self.unanswered(seller_id, self._left_for) for seller_id in self._open]
        ending = self._gatherer.cancel(self._waiting.values())
        self._outlooks.learn_prices(self.answers)
        if self._task is not None:
            self._task.cancel()
            ending.add(self._task)
        if ending:
            await asyncio.wait(ending)
        self._on_ended(
            CollectionRecord(
                collection_id=self.collection_id,
                book_id=self._question.book_id,
                currency=self._question.currency,
                conditions=self._question.conditions,
                started_at=self.started_at,
                elapsed_s=self._clock.monotonic() - self.started_s,
                answers=[*self._expired, *self.answers, *rest],
            )
        )
        if self._selector is not None and self._choice is not None:
            self._choice.answered(self.answers)
            self._selector.check(self._question, self._choice)
        if self._task is not None and not self._task.cancelled():
            self._task.result()

    def unanswered(self, seller_id: str, reason: MissReason) -> Answer:
        """Say what came of a seller that nobody waits for any longer, for a reason: STOPPED or TIMED_OUT."""
        waiting = self._waiting.get(seller_id)
        outcome: CallFailed | Skipped
        if self._following if waiting is None else waiting.asked:
            outcome = _TIMED_OUT if reason is MissReason.TIMED_OUT else Skipped(reason)
        else:
            never = MissReason.TOO_SLOW if reason is MissReason.TIMED_OUT else reason
            lacking = None if waiting is None else waiting.lacking
            outcome = Skipped(lacking or never, asked=False)
        since_s = self.started_s if waiting is None else waiting.asked_s
        return Answer(seller_id, outcome, self._clock.monotonic() - since_s)

    def summary_of(self, answers: Sequence[Answer]) -> Summary:
        """Count answers, one of each seller that was chosen."""
        summary = summarise(
            answers,
            collection_id=self.collection_id,
            book_id=self._question.book_id,
            started_at=self.started_at,
            elapsed_s=self._clock.monotonic() - self.started_s,
        )
        if self._selector is None:
            return summary
        if self._choice is None:
            return summary.of(self.of, None)
        self._choice.answered(self.answers)
        return summary.of(self.of, self._choice.coverage())

    def summary(self) -> Summary:
        """Count all answers, once it is over: once for all who waited for it."""
        if self._summary is None:
            self._summary = self.summary_of(self.answers)
        return self._summary

    def worth_waiting(self, policy: Policy) -> bool:
        """Say whether the sellers that have not answered can be expected to save more than the wait costs.

        Worked out anew when there are new answers, or after a while without any.
        """
        now = self._clock.monotonic()
        count, at_s, worth = self._worth.get(policy, (-1, 0.0, True))
        if count != len(self.answers) or now - at_s > _LOOK_S / 2:
            worth = self._work_out(policy, now)
            self._worth[policy] = (len(self.answers), now, worth)
        return worth

    def _work_out(self, policy: Policy, now: float) -> bool:
        quotes = [
            answer.outcome.total.minor
            for answer in self.answers
            if isinstance(answer.outcome, Quote)
        ]
        book_level = self._outlooks.level(self.answers)
        if book_level is None:
            return True
        if too_few(len(quotes), self._outstanding(now)):
            return True
        least = least_plausible(quotes)
        best = min(minor for minor in quotes if minor >= least)
        return worth_waiting(best, book_level, self._outstanding(now), policy)

    def _outstanding(self, now: float) -> Iterator[Outstanding]:
        """Give the sellers that have not answered."""
        for seller_id in self._open:
            outlook = self._outlooks[seller_id]
            yield Outstanding(outlook.prices, outlook.latency, now - self.started_s)

    async def _run(self) -> None:
        if self._selector is None:
            await self._find_out()
        else:
            await self._find_out_in_phases(self._selector)

    async def _find_out_in_phases(self, selector: Selector) -> None:
        """Choose some sellers and find out about them; then more, as long as that can matter and there is time.

        A phase ends with its last answer, or with its time; who has not answered by then is waited for all the same.
        """
        choice = self._choice = await selector.begin(self._question)
        while (chosen := choice.next()) is not None:
            self._settled.clear()
            self.sellers += chosen.sellers
            self._open |= {seller.seller_id: seller for seller in chosen.sellers}
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    self.started_s + chosen.until_s - self._clock.monotonic()
                ):
                    await self._find_out()
                    await self._settled.wait()
            self.settle()
            choice.answered(self.answers)
            in_time = self._clock.monotonic() + _LEAST_PHASE_S < self._until_s
            if not in_time or not choice.goes_on(self._highest_minor()):
                break
        self.choosing = False
        self.looked.set()
        self._hand_out()

    def _highest_minor(self) -> int:
        """Give the most that anybody who waits will pay."""
        limits = (collection.wish.affordable_minor for collection in self._joined)
        return max((ANY_PRICE if limit is None else limit for limit in limits), default=ANY_PRICE)

    async def _find_out(self) -> None:
        """Find out what is known, and ask the rest, or follow whoever in the fleet is asking."""
        self._leave_out()
        with self._cache.changes(self._question) as changed:
            while self._open:
                if self.key.fresh:
                    self.looked.set()
                    await self._ask()
                    return
                opened = await self._cache.open(self._question, self._open.keys())
                if self._known is None:
                    sellers = {seller_id: self._open[seller_id] for seller_id in opened.good_for_s}
                    self._known = sellers, opened.good_for_s, _lives_s(opened)
                    for _ in self._joined:
                        self._tell_known(self._known)
                self._take(opened.answers)
                self._following = not opened.leading
                self.looked.set()
                if opened.leading and self.key.browsing:
                    # Whoever buys would wait for the leader, and browsing may take long. What it finds out is told all
                    # the same.
                    self._cache.close(self._question)
                    await self._ask()
                    return
                if opened.leading:
                    try:
                        await self._ask()
                        await lead_until(self._settled, self._cache, self._question)
                    finally:
                        self._cache.close(self._question)
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FOLLOW_S):
                        await changed.wait()
                changed.clear()

    def _leave_out(self) -> None:
        """Answer for the sellers that have said once and for all that they do not quote in the currency."""
        currency = self._question.currency
        without = [
            Answer(seller_id, _NOT_IN_CURRENCY, 0.0, cached=True)
            for seller_id, seller in self._open.items()
            if currency not in seller.capabilities.currencies
        ]
        if without:
            self._take(without)

    def _tell_known(self, known: Known) -> None:
        """Tell of demand, save that of browsing: prices kept fresh for it would cost those who buy."""
        if not self.key.browsing:
            self._on_known(self._question, *known)

    async def _ask(self) -> None:
        """Ask all that have no answer.

        Flights that do so at the same time go along the sellers side by side: each seller hears of all their books at
        once, and can be asked for them in one call, while the event loop has its turn between a few sellers and the
        next.
        """
        self._asking.flights += 1
        if not self._asked:
            self._gatherer.note_demand(self._customers[0], self._purpose)
        self._asked = True
        try:
            # To see who else is asking.
            await self._clock.sleep(0)
            step = max(1, _ASKED_AT_ONCE // self._asking.flights)
            for begin in range(0, len(self.sellers), step):
                if begin:
                    await self._clock.sleep(0)
                for seller in self.sellers[begin : begin + step]:
                    if seller.seller_id in self._open and seller.seller_id not in self._waiting:
                        self._ask_one(seller)
        finally:
            self._asking.flights -= 1

    def _ask_one(self, seller: Seller) -> None:
        first, *others = self._customers
        waiting = self._gatherer.ask(
            seller,
            self._question,
            customer_id=first,
            until_s=self._until_s,
            on_answer=self._answered,
            purpose=self._purpose,
            fresh=self.key.fresh,
        )
        self._waiting[seller.seller_id] = waiting
        for customer_id in others:
            self._gatherer.ask_for(waiting, customer_id)

    def _ask_again(self, until_s: float) -> None:
        """Ask those again that were not asked for lack of time, if there is clearly more of it now.

        Also those whose quotes have expired meanwhile: who had them knows until when they were good, who comes now has
        new ones.
        """
        more_s = _CLEARLY_MORE * (until_s - self._clock.monotonic())
        again = {
            seller_id
            for seller_id, skipped_until_s in self._short_of_time.items()
            if until_s - skipped_until_s > more_s
        }
        expired = self._expired_now()
        again.update(answer.seller_id for answer in expired)
        if not again:
            return
        self.asked_again = True
        self._expired += [answer for answer in expired if not answer.cached]
        self.answers = [answer for answer in self.answers if answer.seller_id not in again]
        for seller in self.sellers:
            if seller.seller_id in again:
                self._short_of_time.pop(seller.seller_id, None)
                self._open[seller.seller_id] = seller
                self._ask_one(seller)

    def _expired_now(self) -> list[Answer]:
        now = self._clock.now()
        if now < self._first_expires_at:
            return []
        ends = [
            (answer.outcome.expires_at, answer)
            for answer in self.answers
            if isinstance(answer.outcome, Quote)
        ]
        later = (expires_at for expires_at, _ in ends if expires_at > now)
        self._first_expires_at = min(later, default=_NEVER)
        return [answer for expires_at, answer in ends if expires_at <= now]

    def _answered(self, answer: Answer) -> None:
        del self._waiting[answer.seller_id]
        self._take((answer,))

    def _take(self, answers: Sequence[Answer]) -> None:
        """Take answers: the first at once, later ones with what comes within a moment, the last without delay."""
        for answer in answers:
            del self._open[answer.seller_id]
        self._arrived += answers
        if self._flush is None:
            self._keep_settling()
        elif not self._open:
            self.settle()

    def _keep_settling(self) -> None:
        self._flush = None
        if self._arrived:
            self.settle()
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(self._flush_s, self._keep_settling)

    def settle(self) -> None:
        """Hand out the answers that have arrived, if any have."""
        if self._arrived:
            self._hand_out()

    def _hand_out(self) -> None:
        arrived, self._arrived = self._arrived, []
        put = []
        for answer in arrived:
            outcome = answer.outcome
            if isinstance(outcome, Quote):
                self._first_expires_at = min(self._first_expires_at, outcome.expires_at)
            if not isinstance(outcome, Skipped):
                if not answer.cached:
                    put.append(answer)
            elif outcome.reason in _LACK_OF_TIME:
                # Not put: others may do better, they have more time, perhaps, or a share of their own.
                self._short_of_time[answer.seller_id] = self._until_s
        if put:
            self._cache.put(self._question, put)
        self.answers += arrived
        if not self._open:
            self._settled.set()
        if self.over:
            self.ended.set()
        for collection in self._joined:
            collection.take(arrived)


class Collection:
    """A collection as one caller sees it. Every seller gets exactly one answer.

    Attributes:
        wish: what its caller wants.
        until_s: when its caller must have the last answer, by the monotonic clock.
        ended_for: why those that have not answered are not waited for, STOPPED or TIMED_OUT.

    """

    def __init__(
        self,
        flight: Flight,
        wish: Wish,
        time_left_s: float,
        *,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self.wish = wish
        self._flight = flight
        self._clock = clock
        self._started_at = clock.now()
        self._started_s = clock.monotonic()
        self._time_left_s = time_left_s
        self.until_s = self._started_s + max(0.0, time_left_s - limits.merge_margin_s)
        self.ended_for = MissReason.STOPPED
        self._arrived = asyncio.Event()
        self._complete = False
        self._have: set[str] = set()
        self._new: list[Answer] = []
        self._given: list[Answer] = []
        self._totals: list[int] = []
        self._whole = False
        self._summary: Summary | None = None

    @property
    def collection_id(self) -> UUID:
        """The id of the collection that its caller shares."""
        return self._flight.collection_id

    @property
    def of(self) -> int:
        """How many sellers could be asked."""
        return self._flight.of

    def take(self, answers: Iterable[Answer]) -> None:
        """Take answers that have arrived; a seller's first one stays."""
        for answer in answers:
            if answer.seller_id not in self._have:
                self._have.add(answer.seller_id)
                self._new.append(answer)
        if len(self._have) == len(self._flight.sellers) and not self._flight.choosing:
            self._complete = True
        self._arrived.set()

    async def batches(self) -> AsyncIterator[Sequence[Answer]]:
        """Give all answers: the first at once, later ones gathered for a moment, the last without delay."""
        if self.until_s <= self._started_s:
            # There is no time to ask, but what is known may be all that there is to say.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._time_left_s / 2):
                    await self._flight.looked.wait()
        while True:
            batch, self._new = self._new, []
            self._arrived.clear()
            self._give(batch)
            for part in _parts(batch):
                yield part
            reason = self._over()
            if reason is not None:
                break
            await self._wait()
        self.ended_for = reason
        rest = self._rest(reason)
        self._given += rest
        self._whole = not rest
        for part in _parts(rest):
            yield part

    def summary(self) -> Summary:
        """Say how it came out, once the batches have ended."""
        if self._summary is None:
            flight = self._flight
            shared = self._whole and not flight.asked_again
            counted = flight.summary() if shared else flight.summary_of(self._given)
            self._summary = replace(
                counted,
                started_at=self._started_at,
                elapsed_s=self._clock.monotonic() - self._started_s,
            )
        return self._summary

    def _give(self, batch: Sequence[Answer]) -> None:
        self._given += batch
        for answer in batch:
            if isinstance(answer.outcome, Quote):
                insort(self._totals, answer.outcome.total.minor)

    def _over(self) -> MissReason | None:
        """Say why nothing more is waited for; None as long as something is."""
        if self._complete and not self._new:
            return MissReason.STOPPED
        if self._clock.monotonic() >= self.until_s:
            return MissReason.TIMED_OUT
        policy = self.wish.policy
        if (
            policy is not Policy.BEST_PRICE
            and self._has_affordable()
            and not self._flight.worth_waiting(policy)
        ):
            return MissReason.STOPPED
        return None

    async def _wait(self) -> None:
        """Wait for answers until the caller's deadline; one that might stop early looks around now and then."""
        left_s = self.until_s - self._clock.monotonic()
        if self.wish.policy is not Policy.BEST_PRICE:
            left_s = min(left_s, _LOOK_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._arrived.wait()

    def _rest(self, reason: MissReason) -> list[Answer]:
        """Give an answer to every seller that has none."""
        self._flight.settle()
        return [
            # What has come since the last look.
            *self._new,
            *(
                self._flight.unanswered(seller.seller_id, reason)
                for seller in self._flight.sellers
                if seller.seller_id not in self._have
            ),
        ]

    def _has_affordable(self) -> bool:
        """Say whether the lowest plausible total that was given is affordable."""
        limit = self.wish.affordable_minor
        index = bisect_left(self._totals, least_plausible(self._totals))
        return index < len(self._totals) and (limit is None or self._totals[index] <= limit)


def _lives_s(opened: Opened) -> dict[str, float]:
    """Say for how long each quote that is known was good when its seller gave it.

    A "no" is long enough; what failed is not asked ahead.
    """
    return {
        answer.seller_id: opened.good_for_s[answer.seller_id] + answer.age_s
        if isinstance(answer.outcome, Quote)
        else (inf if answer.answered else 0.0)
        for answer in opened.answers
    }


def _parts(answers: Sequence[Answer]) -> list[Sequence[Answer]]:
    return [answers[i : i + MAX_BATCH] for i in range(0, len(answers), MAX_BATCH)]


def _log_end(summary: Summary) -> None:
    _log.info(
        "collected",
        collection_id=str(summary.collection_id),
        book_id=summary.book_id,
        sellers=summary.sellers,
        answered=summary.answered,
        quoted=summary.quoted,
        cached=summary.cached,
        elapsed_s=round(summary.elapsed_s, 3),
    )
