"""Asks sellers, each as often as it allows, and many books in one call where it takes them.

Questions for one seller wait in its lot. A seller that takes batches gathers them for a moment: a few milliseconds
while its budget is plenty, longer as it gets scarce, never so long that a question would miss its deadline. Lots that
are due are admitted together, in one round trip. Where the budget is used up, questions wait for the next slot, if it
comes in time.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

import structlog

from aggregator.app.lots import (
    FIRST_PART,
    OTHER_IDS,
    USUAL,
    WINDOW_S,
    Call,
    GatherSettings,
    Lot,
    Search,
    Turns,
    Waiting,
)
from aggregator.domain.collection import Answer, MissReason, Question, Skipped
from aggregator.domain.demand import Demand
from aggregator.domain.outlook import Outlooks
from aggregator.ports import CallAdmission, QuoteSource
from mesh.book_id import is_isbn
from mesh.clock import Clock
from sellers.admission.model import (
    NO_LIMIT,
    Allowed,
    Ask,
    Decision,
    Grant,
    Limits,
    Outcome,
    Purpose,
    Reason,
    Refused,
    Wait,
)
from sellers.admission.outcomes import outcome_of
from sellers.model import BatchOutcome, CallFailed, Condition, FailureKind, QuoteOutcome, Seller

_LEAST_NAP_S = 0.001

_LONGEST_NAP_S = 0.25
"""Where the budget is used up admission is asked so often: others may have given theirs back, and questions that have
arrived meanwhile may have less time than it takes."""

_MOST_BOOKS = 1000
"""Most books that are asked about in one round: reading so many answers takes some 30 ms."""

_LAST_PART = 0.1
"""A lot that has no more than this part of its wait left goes with those that are due, in the same round trip."""

_LAST_HALF = 0.5
"""With lots that have waited for about as long, one goes that has no more than this part left: a collection has waited
when the last of its sellers has been asked, so sellers are best asked at the same time. Each lot's own pace sees to it
that the budget lasts nevertheless."""

_WARY_S = 600.0
"""For so long after a seller did not understand a batch, ISBNs and other book ids do not travel together to it."""

_AGAIN_SHARE = 0.2
"""Of the calls that a seller allows in a minute, so many at most ask again in parts what it did not understand."""

_OUR_FAULT = CallFailed(
    FailureKind.INVALID_ANSWER,
    definitely_not_done=False,
    detail="a fault of ours; it has been logged",
)

_LACKING = {
    Reason.NO_BUDGET: MissReason.NO_BUDGET,
    Reason.WARMING_UP: MissReason.NO_BUDGET,
    Reason.CONCURRENCY: MissReason.BUSY,
    Reason.CIRCUIT_OPEN: MissReason.CIRCUIT_OPEN,
}
"""How a question is answered that admission did not let pass in time."""

_log = structlog.get_logger(__name__)

_Key = tuple[str, str, frozenset[Condition], Purpose, int]
"""Of a lot: seller, currency, conditions, what for, and which part."""


@dataclass(slots=True)
class _Refusals:
    """What is known of a seller that does not understand some batch.

    Attributes:
        wary_s: until when ISBNs and other ids travel apart.
        again_s: since when calls that ask again are counted.
        again: how many there were since.

    """

    wary_s: float = -math.inf
    again_s: float = -math.inf
    again: int = 0

    def allow(self, calls: int, of: int, now: float) -> bool:
        """Count calls that ask again, if so many more are in proportion to what the seller allows."""
        if now - self.again_s > WINDOW_S:
            self.again_s, self.again = now, 0
        if self.again + calls > max(calls, _AGAIN_SHARE * of):
            return False
        self.again += calls
        return True


class Gatherer:
    """Asks sellers for all collections of this process. ``run`` does the work."""

    def __init__(
        self,
        source: QuoteSource,
        admission: CallAdmission,
        outlooks: Outlooks,
        settings: GatherSettings,
        clock: Clock,
    ) -> None:
        self._source = source
        self._admission = admission
        self._outlooks = outlooks
        self._settings = settings
        self._clock = clock
        self._lots: dict[_Key, Lot] = {}
        self._filled: dict[_Key, Lot] = {}
        self._changed = asyncio.Event()
        self._calls: set[Call] = set()
        self._busy: defaultdict[str, set[Lot]] = defaultdict(set)
        self._sentinels: dict[str, Call] = {}
        self._swept_s = -math.inf
        self._refusals: defaultdict[str, _Refusals] = defaultdict(_Refusals)
        self._parts = itertools.count(FIRST_PART)
        # Of sellers with questions in several lots.
        self._turns: dict[str, Turns] = {}
        self._demand = defaultdict[Purpose, Demand](Demand)
        # Who may be asked; everybody before ``retain`` has said so.
        self._active: Container[str] | None = None
        # What is asked before somebody waits for it.
        self._ahead: dict[tuple[str, Question], Waiting] = {}

    def ask(
        self,
        seller: Seller,
        question: Question,
        *,
        customer_id: str,
        until_s: float,
        on_answer: Callable[[Answer], None],
        purpose: Purpose = Purpose.QUOTE,
        ahead: bool = False,
        fresh: bool = False,
    ) -> Waiting:
        """Ask a seller; ``on_answer`` is called once, unless the question is cancelled before.

        What is being asked ahead is not asked twice: who comes meanwhile has its answer too, or is asked for if there
        is none in time.

        Args:
            seller: whom.
            question: what.
            customer_id: for whom, first of all.
            until_s: when the answer must be there, by the monotonic clock.
            on_answer: gets the answer, or why there is none.
            purpose: what for; only questions of one purpose travel in one call.
            ahead: whether it is asked before somebody waits for it.
            fresh: whether what has been asked before is not good enough.

        """
        waiting = Waiting(
            question,
            customer_id,
            until_s,
            self._clock.monotonic(),
            on_answer=on_answer,
            purpose=purpose,
        )
        key = (seller.seller_id, question)
        first = self._ahead.get(key)
        if first is not None and not fresh:
            waiting.follows = first
            first.followers.append(waiting)
            return waiting
        if ahead:
            self._ahead[key] = waiting
        self._put(seller, waiting)
        return waiting

    def note_demand(self, customer_id: str, purpose: Purpose) -> None:
        """Take note that sellers are to be asked for a customer, once for each collection that does so."""
        self._demand[purpose].note(customer_id, self._clock.monotonic())

    def ask_for(self, waiting: Waiting, customer_id: str) -> None:
        """Let a question have its turn also as one of another customer, who wants the same."""
        if customer_id not in waiting.customers:
            waiting.customers.append(customer_id)
            if waiting.lot is not None:
                waiting.lot.put_for(waiting, customer_id)

    def cancel(self, questions: Iterable[Waiting]) -> set[asyncio.Task[None]]:
        """Forget questions; give the calls that answer nothing else any more: they are cancelled, and end soon."""
        calls = set()
        for waiting in questions:
            waiting.on_answer = None
            if waiting.lot is not None:
                waiting.lot.forget(waiting)
            call = waiting.call
            if (
                call is not None
                and all(other.on_answer is None for other in call.questions)
                and not self._goes_on(call)
            ):
                calls.add(call.task)
                self._cancel(call)
        return calls

    def retain(self, seller_ids: Container[str]) -> None:
        """Answer the questions that wait at other sellers than these, or come to them: they are not asked any more.

        Collections that began before they were let go may still come to ask them.
        """
        self._active = seller_ids
        self._let_go()

    def _let_go(self) -> None:
        for lot in list(self._filled.values()):
            if self._active is not None and lot.seller.seller_id not in self._active:
                self._skip(lot, lambda _: MissReason.STOPPED)

    def _goes_on(self, call: Call) -> bool:
        """Say whether a call goes on although nobody waits for its answer.

        A call that its callers leave blames nobody, so a seller that hangs would never be found out if they all left
        early: once a seller has said nothing for as long as a call may take, one call at a time runs to its end. That
        costs no call more, and blames no healthy seller: only one that lets a call's whole time pass is blamed, by the
        same rule as ever, and any answer ends its silence.
        """
        seller_id = call.seller.seller_id
        sentinel = self._sentinels.setdefault(seller_id, call)
        silent_s = self._clock.monotonic() - self._outlooks[seller_id].silent_since_s
        if silent_s < self._settings.seller_s and sentinel is call:
            del self._sentinels[seller_id]
            return False
        return sentinel is call

    async def run(self) -> None:
        """Send what is due, until cancelled; then calls under way are cancelled too."""
        try:
            while True:
                await self._until_due()
                self._changed.clear()
                await self._send_due()
                self._forget_idle()
        finally:
            calls = list(self._calls)
            for call in calls:
                self._cancel(call)
            await asyncio.gather(*[call.task for call in calls], return_exceptions=True)

    def _forget_idle(self) -> None:
        """Drop lots that have not been used for so long that nothing they know still matters, every now and then."""
        now = self._clock.monotonic()
        if now - self._swept_s < WINDOW_S:
            return
        self._swept_s = now
        for key, lot in list(self._lots.items()):
            if key not in self._filled and now - lot.used_s > WINDOW_S:
                del self._lots[key]
        for seller_id, refusals in list(self._refusals.items()):
            if now > refusals.wary_s:
                del self._refusals[seller_id]

    async def _until_due(self) -> None:
        while not self._changed.is_set():
            due_s = min(
                (min(lot.due_s(self._settings), lot.late_s) for lot in self._filled.values()),
                default=None,
            )
            delay_s = None if due_s is None else due_s - self._clock.monotonic()
            if delay_s is not None and delay_s <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._changed.wait()

    async def _send_due(self) -> None:
        self._let_go()
        now = self._clock.monotonic()
        calls: list[tuple[int, Lot, int]] = []
        for seller_id, lots in self._due(now).items():
            if len(lots) == 1:
                planned = [(lots[0], books) for books in lots[0].calls()]
            else:
                planned = list(self._turns.setdefault(seller_id, Turns()).plan(lots))
            calls.extend((turn, lot, books) for turn, (lot, books) in enumerate(planned))
        # Sellers have turns, so that no one's calls take up a round.
        calls.sort(key=lambda call: call[0])
        due = [(lot, books) for _, lot, books in calls]
        # Whoever buys goes first.
        for purpose in (Purpose.QUOTE, Purpose.BROWSE):
            for part in _rounds([one for one in due if one[0].purpose is purpose]):
                await self._send(part, purpose)
        for key, lot in list(self._filled.items()):
            if not lot.size:
                del self._filled[key]
                if lot.at_once:
                    del self._lots[key]
        for seller_id in self._turns.keys() - {key[0] for key in self._filled}:
            del self._turns[seller_id]

    def _due(self, now: float) -> dict[str, list[Lot]]:
        """Give the lots that are to be sent, by seller.

        Where one is due, some that are not yet go along.
        """
        due: list[Lot] = []
        later: list[tuple[Lot, float]] = []
        for lot in self._filled.values():
            due_s = lot.due_s(self._settings)
            if due_s <= now:
                due.append(lot)
            else:
                later.append((lot, due_s))
        if later:
            asked = {(lot.seller.seller_id, lot.purpose) for lot in due}
            waited_s = max((now - lot.first_s for lot in due if lot.lacking is None), default=0.0)
            for lot, due_s in later:
                if _goes_along(lot, due_s, asked, waited_s, now):
                    due.append(lot)
                elif lot.late_s <= now:
                    self._skip_later_than(now, lot, now)
        by_seller: defaultdict[str, list[Lot]] = defaultdict(list)
        for lot in due:
            if lot.size:
                self._skip_later_than(now, lot, now)
            if lot.size:
                by_seller[lot.seller.seller_id].append(lot)
        return by_seller

    async def _send(self, due: Sequence[tuple[Lot, int]], purpose: Purpose) -> None:
        """Have calls admitted, in one round trip, and send those that are."""
        now = self._clock.monotonic()
        demand = self._demand[purpose]
        for_little = {lot: lot.for_little(demand, now) for lot, _ in due}
        asks = []
        for lot, books in due:
            asks.append(
                Ask(
                    lot.limits,
                    timeout_s=self._settings.seller_s,
                    books=books,
                    # How long each question can wait is decided here, one by one.
                    wait_s=math.inf,
                    for_much=for_little[lot] <= 0,
                )
            )
            for_little[lot] -= books
        decisions = await self._admission.admit(asks, purpose)
        for ask, (lot, books), decision in zip(asks, due, decisions, strict=True):
            self._follow(lot, books, decision, for_much=ask.for_much)

    def _follow(self, lot: Lot, books: int, decision: Decision, *, for_much: bool) -> None:
        """Send a call that may be sent; else keep the questions that can wait and answer the others."""
        now = self._clock.monotonic()
        match decision:
            case Allowed(grant) if not grant.still_good(now):
                # It is asked for anew.
                self._admission.report(grant, Outcome.NOT_SENT)
            case Allowed(grant) as allowed:
                lot.learn_budget(allowed, self._settings, now)
                lot.most, lot.retry_s, lot.lacking = NO_LIMIT, 0.0, None
                turns = self._turns.get(lot.seller.seller_id)
                self._start(lot, grant, lot.take(books, now, turns, self._demand[lot.purpose]))
            case Wait(after_s, _, books_left) if books_left < books > 1 and (
                books_left or math.isinf(after_s)
            ):
                # Only for so many books, but for fewer at once.
                lot.most = max(1, books_left)
            case Wait(after_s, reason):
                if reason is Reason.NO_BUDGET:
                    lot.scarce, lot.scarce_s, lot.pace_s = 1.0, now, WINDOW_S
                lot.most, lot.retry_s = NO_LIMIT, now + min(after_s, _LONGEST_NAP_S)
                lot.lacking = _LACKING[reason]
                if reason is Reason.CONCURRENCY:
                    # A call may end at any time.
                    self._busy[lot.seller.seller_id].add(lot)
                    self._skip_later_than(now, lot, now)
                else:
                    self._skip_later_than(now + after_s, lot, now, of_much=for_much)
            case Refused(reason):
                self._skip(lot, lambda _: _LACKING[reason])
            case _:
                assert_never(decision)

    def _skip_later_than(
        self, sent_s: float, lot: Lot, now: float, *, of_much: bool = False
    ) -> None:
        """Answer the questions that would come too late if they were sent at a time.

        Only those of customers who want much, if ``of_much``.
        """
        if lot.lacking is None and not self._takes(lot, lot.until_s - sent_s, now):
            lot.late_s = math.inf
            return
        usual_s = self._usual_s(lot, now)
        demand = self._demand[lot.purpose]

        def too_late(waiting: Waiting) -> MissReason | None:
            if waiting.until_s > sent_s + usual_s:
                return None
            if of_much and not all(demand.is_much(one, now) for one in waiting.customers):
                return None
            never = waiting.until_s <= waiting.asked_s + usual_s
            return MissReason.TOO_SLOW if never or lot.lacking is None else lot.lacking

        if lot.until_s <= sent_s + usual_s:
            self._skip(lot, too_late)
        lot.late_s = (
            math.inf if lot.lacking is None else max(lot.until_s - usual_s, now + _LEAST_NAP_S)
        )

    def _takes(self, lot: Lot, time_s: float, now: float) -> bool:
        """Say whether the lot's seller usually takes at least so long, as ``_usual_s`` has it."""
        if now - lot.sent_s > self._settings.try_again_s:
            return time_s <= 0.0
        return self._outlooks[lot.seller.seller_id].takes(time_s)

    def _usual_s(self, lot: Lot, now: float) -> float:
        """Give the time that the lot's seller takes; 0 if it should be found out anew."""
        if now - lot.sent_s > self._settings.try_again_s:
            return 0.0
        return self._outlooks[lot.seller.seller_id].usual_s()

    def _skip(self, lot: Lot, why: Callable[[Waiting], MissReason | None]) -> None:
        """Answer the questions that are not asked, for whatever reason is given."""
        now = self._clock.monotonic()
        for waiting, reason in lot.drop(why):
            self._answer(lot.seller, waiting, Skipped(reason, asked=False), now)

    def _start(self, lot: Lot, grant: Grant, questions: Sequence[Waiting]) -> None:
        if not questions:
            self._admission.report(grant, Outcome.NOT_SENT)
            return
        lot.sent(self._clock.monotonic())
        self._outlooks.learn_asked(lot.seller.seller_id, lot.sent_s)
        self._calls.add(Call(lot.seller, grant, questions, self._carry_out))

    def _cancel(self, call: Call) -> None:
        call.task.cancel()
        if not call.begun and not call.grant.reported:
            self._admission.report(call.grant, Outcome.NOT_SENT)
            self._ended(call)

    def _ended(self, call: Call) -> None:
        self._calls.discard(call)
        seller_id = call.seller.seller_id
        if self._sentinels.get(seller_id) is call:
            del self._sentinels[seller_id]
        if seller_id in self._busy:
            for lot in self._busy.pop(seller_id):
                # What waits for a call to end need not wait any longer.
                lot.retry_s = 0.0
            self._changed.set()

    async def _carry_out(self, call: Call) -> None:
        """Make a call and hand its answers on."""
        call.begun = True
        sent_s = self._clock.monotonic()
        try:
            if not call.grant.still_good(sent_s):
                self._admission.report(call.grant, Outcome.NOT_SENT)
                self._put_back(call)
                return
            for waiting in call.questions:
                waiting.sent = True
            try:
                answer = await self._call(call.seller, call.questions)
            except Exception:  # noqa: BLE001  a fault of ours with one seller must not cost the others their answers
                seller_id = call.seller.seller_id
                _log.exception("asking a seller failed in our own code", seller_id=seller_id)
                answer, outcome = _OUR_FAULT, Outcome.OURS
            else:
                outcome = outcome_of(answer)
            self._admission.report(call.grant, outcome)
            now = self._clock.monotonic()
            self._outlooks.learn_latency(call.seller.seller_id, answer, now - sent_s)
            self._hand_on(call.seller, call.questions, answer, now)
        except asyncio.CancelledError:
            # Sent, and perhaps not arrived yet: its slot is not free before it would have timed out.
            waited_s = self._clock.monotonic() - sent_s
            self._outlooks.learn_unanswered(call.seller.seller_id, waited_s)
            self._admission.report(call.grant, Outcome.OURS)
            raise
        finally:
            # Not when the task is done: that would be one more turn of the event loop for each call.
            self._ended(call)

    def _put_back(self, call: Call) -> None:
        """Let the questions of a call that is not made wait for another one."""
        for waiting in call.questions:
            if waiting.on_answer is not None:
                waiting.call = None
                self._put(call.seller, waiting)

    def _hand_on(
        self,
        seller: Seller,
        questions: Sequence[Waiting],
        answer: QuoteOutcome | BatchOutcome,
        now: float,
    ) -> None:
        """Answer the questions of a call, or have them asked again in parts."""
        if isinstance(answer, tuple):
            by_book = dict(zip(_books(questions), answer, strict=True))
            for waiting in questions:
                self._answer(seller, waiting, by_book[waiting.question.book_id], now)
            return
        if isinstance(answer, CallFailed) and answer.kind is FailureKind.NOT_UNDERSTOOD:
            questions = self._ask_again(seller, questions, now)
        for waiting in questions:
            self._answer(seller, waiting, answer, now)

    def _ask_again(
        self, seller: Seller, questions: Sequence[Waiting], now: float
    ) -> Sequence[Waiting]:
        """Ask in two parts what a seller did not understand, so that one odd book id costs only itself.

        Gives the questions that are not asked again: a single book's, or where that has taken too many calls. Of a
        batch of n books one odd one takes about 2 log2(n).
        """
        books = _books([waiting for waiting in questions if waiting.on_answer is not None])
        if len(books) <= 1:
            return questions
        search = questions[0].search or Search(2 * len(books).bit_length() + 2)
        refusals = self._refusals[seller.seller_id]
        refusals.wary_s = now + _WARY_S
        parts = _halves(books)
        calls_per_minute = seller.capabilities.calls_per_minute
        if search.calls_left < len(parts) or not refusals.allow(len(parts), calls_per_minute, now):
            return questions
        search.calls_left -= len(parts)
        for part in parts:
            number = next(self._parts)
            for waiting in questions:
                if waiting.on_answer is not None and waiting.question.book_id in part:
                    waiting.call, waiting.search, waiting.part = None, search, number
                    self._put(seller, waiting)
        return ()

    def _call(
        self, seller: Seller, questions: Sequence[Waiting]
    ) -> Awaitable[QuoteOutcome | BatchOutcome]:
        first = questions[0].question
        books = _books(questions)
        # Whoever has less time than that cancels. So a seller is blamed for its own silence only, and whoever joins
        # later with more time has it.
        timeout_s = self._settings.seller_s
        if len(books) == 1:
            return self._source.get_quote(
                seller, first.book_id, first.currency, first.conditions, timeout_s=timeout_s
            )
        return self._source.batch_get_quotes(
            seller, books, first.currency, first.conditions, timeout_s=timeout_s
        )

    def _put(self, seller: Seller, waiting: Waiting) -> None:
        question, purpose = waiting.question, waiting.purpose
        if waiting.part == USUAL and self._travels_apart(seller, question, waiting.asked_s):
            waiting.part = OTHER_IDS
        key = (seller.seller_id, question.currency, question.conditions, purpose, waiting.part)
        lot = self._lots.get(key)
        if lot is None:
            at_once = waiting.part >= FIRST_PART
            lot = self._lots[key] = Lot(seller, purpose, at_once=at_once)
        if lot.seller is not seller:
            lot.seller, lot.limits = seller, Limits.of(seller)
        if lot.batch > 1:
            # Half of what time there is may go by in waiting for company.
            spare_s = waiting.until_s - waiting.asked_s - self._usual_s(lot, waiting.asked_s)
            waiting.send_by_s = waiting.asked_s + max(0.0, spare_s) / 2
        lot.put(waiting)
        self._filled[key] = lot
        self._changed.set()

    def _travels_apart(self, seller: Seller, question: Question, now: float) -> bool:
        refusals = self._refusals.get(seller.seller_id)
        return refusals is not None and now <= refusals.wary_s and not is_isbn(question.book_id)

    def _answer(
        self, seller: Seller, waiting: Waiting, outcome: QuoteOutcome | Skipped, now: float
    ) -> None:
        key = (seller.seller_id, waiting.question)
        if self._ahead.get(key) is waiting:
            del self._ahead[key]
        on_answer, waiting.on_answer = waiting.on_answer, None
        if on_answer is not None:
            on_answer(Answer(seller.seller_id, outcome, now - waiting.asked_s))
        for follower in waiting.followers:
            follower.follows = None
            if follower.on_answer is not None and isinstance(outcome, Skipped):
                self._put(seller, follower)
            else:
                self._answer(seller, follower, outcome, now)


def _goes_along(
    lot: Lot,
    due_s: float,
    asked: Collection[tuple[str, Purpose]],
    waited_s: float,
    now: float,
) -> bool:
    """Say whether a lot that is due at a later time goes with those of these sellers that are due now.

    One that waits for its seller's budget does with others of the seller: the budget may be for any of them. One that
    waits for company does when it has waited nearly long enough, or half of it beside one that has waited as long.
    """
    if lot.lacking is not None:
        return (lot.seller.seller_id, lot.purpose) in asked
    linger_s = due_s - lot.first_s
    part = _LAST_HALF if waited_s >= _LAST_HALF * linger_s else _LAST_PART
    return bool(asked) and due_s - now <= part * linger_s


def _rounds(due: Sequence[tuple[Lot, int]]) -> Iterator[Sequence[tuple[Lot, int]]]:
    """Split calls so that those of one round can all be sent while their grants are good."""
    begin = books = 0
    for end, (_, more) in enumerate(due):
        if books and books + more > _MOST_BOOKS:
            yield due[begin:end]
            begin, books = end, 0
        books += more
    if begin < len(due):
        yield due[begin:]


def _halves(books: Sequence[str]) -> tuple[set[str], set[str]]:
    """Split books into those with an ISBN and the others, which are odd sooner; else into halves."""
    isbns = {book for book in books if is_isbn(book)}
    if 0 < len(isbns) < len(books):
        return isbns, set(books) - isbns
    middle = len(books) // 2
    return set(books[:middle]), set(books[middle:])


def _books(questions: Sequence[Waiting]) -> list[str]:
    """Give the books of a call, each once: who must have it fresh and who need not may ask about the same one."""
    if len(questions) == 1:
        return [questions[0].question.book_id]
    return list(dict.fromkeys([waiting.question.book_id for waiting in questions]))
