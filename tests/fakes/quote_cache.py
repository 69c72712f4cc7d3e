"""The quote cache of a fleet in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from aggregator.domain.cached import CacheSettings, good_for_s
from aggregator.domain.collection import Answer, Question
from aggregator.ports import Opened
from mesh.clock import Clock
from sellers.model import Quote


@dataclass
class Lead:
    """Who leads a question, until when, and whether somebody was refused it."""

    owner: object
    until: float
    followed: bool = False


@dataclass
class Memory:
    """What the processes share.

    Attributes:
        answers: by question and seller, with the moment until which each is good and that at which it was put.
        leads: by question.
        watchers: events by question, with whose they are.

    """

    answers: defaultdict[Question, dict[str, tuple[Answer, float, datetime]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    leads: dict[Question, Lead] = field(default_factory=dict)
    watchers: defaultdict[Question, list[tuple[object, asyncio.Event]]] = field(
        default_factory=lambda: defaultdict(list)
    )


class MemoryQuoteCache:
    """Implements ``aggregator.ports.QuoteCache``: each instance is a process, those with one memory are a fleet."""

    def __init__(self, memory: Memory, clock: Clock, settings: CacheSettings) -> None:
        self._memory = memory
        self._clock = clock
        self._settings = settings
        self._leading: Counter[Question] = Counter()

    async def open(
        self, question: Question, sellers: Collection[str], *, ahead_s: float = 0.0
    ) -> Opened:
        now = self._clock.monotonic()
        known = self._memory.answers[question]
        good_for = {
            seller_id: left_s
            for seller_id in sellers
            if seller_id in known and (left_s := known[seller_id][1] - now) > 0
        }
        missing = any(good_for.get(seller_id, 0.0) <= ahead_s for seller_id in sellers)
        leading = missing and self._lead(question)
        if leading:
            self._leading[question] += 1
        elif missing:
            self._memory.leads[question].followed = True
        utc = self._clock.now()
        answers = [_aged(known[seller_id], utc) for seller_id in good_for]
        return Opened(answers, good_for, leading)

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        utc, now = self._clock.now(), self._clock.monotonic()
        known = self._memory.answers[question]
        for answer in answers:
            until = now + good_for_s(answer.outcome, utc, self._settings)
            before = known.get(answer.seller_id)
            if not answer.cached and (before is None or answer.answered or before[1] <= until):
                known[answer.seller_id] = replace(answer, latency_s=0.0, cached=True), until, utc
        self.renew(question)
        self._tell(question)

    def renew(self, question: Question) -> None:
        if self._leading[question]:
            self._lead(question)

    def close(self, question: Question) -> None:
        if not self._leading[question]:
            return
        self._leading[question] -= 1
        lead = self._memory.leads.get(question)
        if not self._leading[question] and lead is not None and lead.owner is self:
            self._tell(question)
            del self._memory.leads[question]

    @contextmanager
    def changes(self, question: Question) -> Iterator[asyncio.Event]:
        watcher = (self, asyncio.Event())
        self._memory.watchers[question].append(watcher)
        try:
            yield watcher[1]
        finally:
            self._memory.watchers[question].remove(watcher)

    def _lead(self, question: Question) -> bool:
        """Take the lead, or renew it, unless somebody else has it."""
        now = self._clock.monotonic()
        lead = self._memory.leads.get(question)
        if lead is None or lead.until <= now:
            lead = self._memory.leads[question] = Lead(self, now)
        if lead.owner is not self:
            return False
        lead.until = now + self._settings.lease_s
        return True

    def _tell(self, question: Question) -> None:
        lead = self._memory.leads.get(question)
        if lead is not None and lead.followed:
            for owner, event in self._memory.watchers[question]:
                if owner is not self:
                    event.set()


def _aged(known: tuple[Answer, float, datetime], now: datetime) -> Answer:
    answer, _, said_at = known
    age_s = (now - said_at).total_seconds() if isinstance(answer.outcome, Quote) else 0.0
    return replace(answer, age_s=age_s)
