"""Questions that wait for one seller, and when they go.

A lot that waits for company learns from each of its calls how much of the seller's budget is left, and spaces its calls
so that it lasts.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from aggregator.domain.collection import Answer, MissReason, Question
from aggregator.domain.demand import Demand
from sellers.admission.model import (
    NO_LIMIT,
    Allowed,
    Grant,
    Limits,
    Purpose,
)
from sellers.model import Seller

_MOST_CALLS = 16
"""Most calls to one seller that are asked for in one round of admission."""

WINDOW_S = 60.0
"""Over how long sellers' limits count: what is used up now is free again by then."""

_RATE_S = 20.0
"""Over about how long it is counted how often questions come."""

_SAME_TIME_S = 0.003
"""Questions that are no further apart come together."""

_SLACK = 1.1
"""By how much calls are further apart than the budget bears: some come earlier, with others or in full batches."""

_MOST_OTHERS = 5.0
"""A lot counts on no more calls of others for each of its own: where it has hardly begun nobody knows."""

USUAL, OTHER_IDS, FIRST_PART = 0, 1, 2
"""Parts of what is asked alike of one seller: everything, ids that are no ISBNs, and from there on single parts."""


@dataclass(frozen=True, slots=True)
class GatherSettings:
    """How questions are gathered; times in seconds."""

    linger_s: float = 0.003
    """How long a seller's batch waits for more while its budget is plenty."""
    longest_linger_s: float = 4.0
    """How long it waits at most, while calls are spread so that the budget lasts."""
    longest_browse_s: float = 1.5
    """How long it waits at most for those who only compare prices: they look at a screen meanwhile."""
    plenty: float = 0.9
    """The budget is plenty while so much of what the seller allows in a minute is left."""
    tight: float = 0.75
    """Once no more than this is left, calls are as far apart as the budget bears."""
    seller_s: float = 3.0
    """The most that one seller gets for an answer."""
    try_again_s: float = 30.0
    """A seller that was not asked for so long is asked although it is usually too slow: it may have changed."""


@dataclass(slots=True)
class Search:
    """For the books for which a batch was refused; calls may be spent on it as long as some are left."""

    calls_left: int


class Waiting:
    """A question that waits at one seller, or is under way. ``until_s`` may be put off while it waits."""

    __slots__ = (
        "asked_s",
        "call",
        "context",
        "customers",
        "followers",
        "follows",
        "lot",
        "on_answer",
        "part",
        "purpose",
        "question",
        "search",
        "send_by_s",
        "sent",
        "until_s",
    )

    def __init__(
        self,
        question: Question,
        customer_id: str,
        until_s: float,
        asked_s: float,
        *,
        on_answer: Callable[[Answer], None],
        purpose: Purpose,
    ) -> None:
        self.context = copy_context()
        self.question = question
        self.purpose = purpose
        self.customers = [customer_id]
        self.until_s = until_s
        self.asked_s = asked_s
        self.send_by_s = math.inf
        self.on_answer: Callable[[Answer], None] | None = on_answer
        self.lot: Lot | None = None
        self.call: Call | None = None
        self.sent = False
        self.follows: Waiting | None = None
        self.followers: list[Waiting] = []
        self.part = USUAL
        self.search: Search | None = None

    @property
    def lacking(self) -> MissReason | None:
        """What it waits for, as far as that is known; None once it is sent."""
        lot = self.lot if self.follows is None else self.follows.lot
        return None if lot is None else lot.lacking

    @property
    def asked(self) -> bool:
        """Whether its seller has been asked."""
        return self.sent if self.follows is None else self.follows.sent


class Call:
    """A call under way, and the questions that it answers.

    Attributes:
        seller: who is asked.
        grant: by which the call is made.
        questions: what it answers.
        begun: whether carrying it out has begun: cancelled before, it never does.
        task: carries it out, in the trace of the first who asked.

    """

    __slots__ = ("begun", "grant", "questions", "seller", "task")

    def __init__(
        self,
        seller: Seller,
        grant: Grant,
        questions: Sequence[Waiting],
        carry_out: Callable[[Call], Coroutine[None, None, None]],
    ) -> None:
        self.seller = seller
        self.grant = grant
        self.questions = questions
        self.begun = False
        self.task = asyncio.create_task(carry_out(self), context=questions[0].context)
        for waiting in questions:
            waiting.call = self


class Turns:
    """Which customer's question was sent to a seller how long ago, in whatever lot it was."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._count = 0

    def last(self, customer_id: str) -> int:
        """Give the number of a customer's last turn; 0 without one."""
        return self._last.get(customer_id, 0)

    def had(self, customer_id: str) -> None:
        """Take note that it was a customer's turn."""
        self._count += 1
        self._last[customer_id] = self._count

    def plan(self, lots: Sequence[Lot]) -> Iterator[tuple[Lot, int]]:
        """Give the calls in which lots of one seller would go out, each for the customer whose turn it is by then."""
        turns, count = dict[str, int](), self._count
        calls = [deque(lot.calls()) for lot in lots]
        # Who waits in which lot with how many questions, by turns; where nobody had one, the lot that did not for long.
        waiting = [
            (self.last(customer_id), lot.sent_s, number, customer_id, questions)
            for number, lot in enumerate(lots)
            for customer_id, questions in lot.customers()
        ]
        heapify(waiting)
        while waiting:
            turn, sent_s, number, customer_id, questions = heappop(waiting)
            if not calls[number]:
                continue
            if turns.get(customer_id, turn) > turn:
                # It has had one meanwhile, in another lot.
                entry = (turns[customer_id], sent_s, number, customer_id, questions)
                heappush(waiting, entry)
                continue
            books = calls[number].popleft()
            yield lots[number], books
            for other_id, _ in lots[number].customers()[: books - 1]:
                count += 1
                turns[other_id] = count
            count += 1
            turns[customer_id] = count
            if questions > 1:
                heappush(waiting, (count, sent_s, number, customer_id, questions - 1))
        for lot, left in zip(lots, calls, strict=True):
            yield from ((lot, books) for books in left)


class Lot:
    """Questions for one seller in one currency and conditions, taken by turns from each customer.

    Attributes:
        seller: whom to ask.
        purpose: what for.
        at_once: whether it waits for nothing more.
        limits: how often it may be.
        size: how many questions wait.
        most: most books in the next call, where the seller's limit of books allows fewer than a batch.
        first_s: since when the first of them waits, or the others went without it.
        send_by_s: when the first of them has to be sent at the latest.
        until_s: none of them has to be answered before.
        retry_s: admission is not asked before.
        lacking: what questions wait for that admission has not let pass; those that it makes too late are answered so.
        late_s: when the first of these is too late.
        scarce: how much the budget was below plenty at ``scarce_s``: 0, to 1 where it was tight.
        scarce_s: see there.
        pace_s: how far apart calls have to be, so that what is left, and what frees up meanwhile, is enough for them.
        sent_s: when a call was sent last.

    """

    __slots__ = (
        "_by_customer",
        "_came",
        "_came_s",
        "_sent",
        "at_once",
        "first_s",
        "lacking",
        "late_s",
        "limits",
        "most",
        "pace_s",
        "purpose",
        "retry_s",
        "scarce",
        "scarce_s",
        "seller",
        "send_by_s",
        "sent_s",
        "size",
        "until_s",
    )

    def __init__(self, seller: Seller, purpose: Purpose, *, at_once: bool) -> None:
        self.seller = seller
        self.purpose = purpose
        self.at_once = at_once
        self.limits = Limits.of(seller)
        self.size = 0
        self.most = NO_LIMIT
        self.first_s = 0.0
        self.send_by_s = math.inf
        self.until_s = math.inf
        self.retry_s = 0.0
        self.lacking: MissReason | None = None
        self.late_s = math.inf
        self.scarce = 0.0
        self.scarce_s = 0.0
        self.pace_s = WINDOW_S
        self.sent_s = -math.inf
        self._by_customer: dict[str, deque[Waiting]] = {}
        # How often questions came, each counting less as time goes by, at the last of these moments.
        self._came = 0.0
        self._came_s = -math.inf
        # How many calls were sent in which second; those of the last minute, oldest first.
        self._sent: dict[int, int] = {}

    @property
    def batch(self) -> int:
        """Most questions in one call."""
        return max(1, min(self.seller.capabilities.max_batch_size, self.most))

    @property
    def used_s(self) -> float:
        """When it was used last."""
        return max(self.first_s, self.scarce_s, self.sent_s)

    def put(self, waiting: Waiting) -> None:
        if not self.size:
            self.first_s = waiting.asked_s
        if waiting.asked_s - self._came_s > _SAME_TIME_S:
            self._came = self._rate(waiting.asked_s) * _RATE_S + 1.0
            self._came_s = waiting.asked_s
        self.size += 1
        self.send_by_s = min(self.send_by_s, waiting.send_by_s)
        self.until_s = min(self.until_s, waiting.until_s)
        waiting.lot = self
        for customer_id in waiting.customers:
            self.put_for(waiting, customer_id)

    def put_for(self, waiting: Waiting, customer_id: str) -> None:
        """Let a question that waits here have its turn with one more customer's too."""
        self._by_customer.setdefault(customer_id, deque()).append(waiting)

    def forget(self, waiting: Waiting) -> None:
        """Count a question out that nobody wants any more, or that has been taken; it is passed over from now on."""
        waiting.lot = None
        self.size -= 1
        if not self.size:
            self._by_customer.clear()
            self.send_by_s = self.until_s = math.inf

    def customers(self) -> list[tuple[str, int]]:
        """Give who has questions here and how many about, in the order of their turns."""
        return [(customer_id, len(queue)) for customer_id, queue in self._by_customer.items()]

    def calls(self) -> list[int]:
        """Give the sizes of the calls in which it would go out, were it sent now."""
        batch = self.batch
        full, rest = divmod(self.size, batch)
        return ([batch] * full + ([rest] if rest else []))[:_MOST_CALLS]

    def for_little(self, demand: Demand, now: float) -> int:
        """Give about how many questions wait of customers who do not want much."""
        if not demand.uneven:
            return self.size
        return sum(
            count for customer_id, count in self.customers() if not demand.is_much(customer_id, now)
        )

    def _rate(self, now: float) -> float:
        """Say how often questions come lately, a second; above 0."""
        return max(self._came * math.exp((self._came_s - now) / _RATE_S), 1e-9) / _RATE_S

    def take(self, most: int, now: float, turns: Turns | None, demand: Demand) -> list[Waiting]:
        """Take questions, one of each customer in turn; what is left begins to linger anew.

        Those who want much come after the others. ``turns`` are those of the customers in all lots of the seller, where
        it has several.
        """
        taken: list[Waiting] = []
        if turns is not None:
            by_turn = sorted(self._by_customer.items(), key=lambda item: turns.last(item[0]))
            self._by_customer = dict(by_turn)
        if demand.uneven and len(self._by_customer) > 1:
            little_first = sorted(
                self._by_customer.items(), key=lambda item: demand.is_much(item[0], now)
            )
            self._by_customer = dict(little_first)
        while self.size and len(taken) < most:
            customer_id = next(iter(self._by_customer))
            queue = self._by_customer.pop(customer_id)
            waiting = self._next(queue)
            if queue:
                # Behind the others.
                self._by_customer[customer_id] = queue
            if waiting is not None:
                self.forget(waiting)
                taken.append(waiting)
                if turns is not None:
                    turns.had(customer_id)
        self.first_s = now
        if self.size and self.send_by_s < math.inf:
            self.send_by_s = min(waiting.send_by_s for waiting in self)
        return taken

    def sent(self, now: float) -> None:
        """Take note of a call."""
        self.sent_s = now
        second = int(now)
        self._sent[second] = self._sent.get(second, 0) + 1

    def learn_budget(self, allowed: Allowed, settings: GatherSettings, now: float) -> None:
        """Take note of how many more calls the seller allows, after one that it has allowed."""
        left = allowed.calls_left / max(1, allowed.calls_left + allowed.calls_used)
        scarce = (settings.plenty - left) / (settings.plenty - settings.tight)
        self.scarce, self.scarce_s = min(max(scarce, 0.0), 1.0), now
        while self._sent and (oldest := next(iter(self._sent))) + 1 + WINDOW_S <= now:
            del self._sent[oldest]
        if self.scarce:
            self.pace_s = self._pace_s(allowed, now)

    def _pace_s(self, allowed: Allowed, now: float) -> float:
        """Say how far apart calls have to be.

        Until the slots of the calls of some second are free again there are those that are left, and those that have
        become free before. Whoever else calls the seller is taken to go on doing so, at the same times as this lot.
        """
        own = sum(self._sent.values()) + 1
        others = min(max(allowed.calls_used / own, 1.0), _MOST_OTHERS)
        slots, pace_s = max(1.0, allowed.calls_left), 0.0
        for second, calls in self._sent.items():
            pace_s = max(pace_s, (second + 1 + WINDOW_S - now) / slots)
            slots += calls * others
        return max(pace_s, WINDOW_S / slots) * others

    def drop(self, why: Callable[[Waiting], MissReason | None]) -> list[tuple[Waiting, MissReason]]:
        """Take out the questions for which there is a reason, and give them with it."""
        dropped = []
        for waiting in list(self):
            if waiting.lot is self and (reason := why(waiting)) is not None:
                self.forget(waiting)
                dropped.append((waiting, reason))
        self.until_s = min((waiting.until_s for waiting in self), default=math.inf)
        return dropped

    def __iter__(self) -> Iterator[Waiting]:
        """Give the questions that wait; one that several customers want comes several times."""
        for queue in self._by_customer.values():
            for waiting in queue:
                if waiting.lot is self:
                    yield waiting

    def due_s(self, settings: GatherSettings) -> float:
        """Say when the lot should be sent, if nothing more arrives."""
        if self.at_once or self.seller.capabilities.max_batch_size <= 1 or self.size >= self.batch:
            return self.retry_s
        scarcity = max(0.0, self.scarce - (self.first_s - self.scarce_s) / WINDOW_S)
        # Who slows down only when little is left has nothing for the rest of the minute. Where questions are usually so
        # far apart themselves, or this one is, there is nothing to wait for.
        pace_s = self.pace_s * scarcity
        above_s = pace_s - 1.0 / self._rate(self.first_s)
        linger_s = min(_SLACK * above_s, self.sent_s + _SLACK * pace_s - self.first_s)
        longest_s = settings.longest_linger_s
        if self.purpose is Purpose.BROWSE:
            longest_s = min(longest_s, settings.longest_browse_s)
        linger_s = max(settings.linger_s, min(longest_s, linger_s))
        return max(self.retry_s, min(self.first_s + linger_s, self.send_by_s))

    def _next(self, queue: deque[Waiting]) -> Waiting | None:
        while queue:
            waiting = queue.popleft()
            if waiting.lot is self:
                return waiting
        return None
