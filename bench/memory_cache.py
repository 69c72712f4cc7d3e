"""The quote cache of a fleet of one process, in its memory: what simulations use instead of Valkey."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from aggregator.domain.cached import CacheSettings, good_for_s
from aggregator.domain.collection import Answer, Question
from aggregator.ports import Opened
from mesh.clock import Clock


class MemoryCache:
    """Implements ``aggregator.ports.QuoteCache``. Its one process always leads."""

    def __init__(self, clock: Clock, settings: CacheSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._known: dict[Question, dict[str, tuple[Answer, float]]] = {}
        self._look_at: deque[tuple[float, Question]] = deque()

    async def open(
        self, question: Question, sellers: Collection[str], *, ahead_s: float = 0.0
    ) -> Opened:
        now = self._clock.monotonic()
        self._forget(now)
        known = self._known.get(question)
        if known is None:
            return Opened((), {}, leading=True)
        answers: list[Answer] = []
        good_for: dict[str, float] = {}
        missing = False
        for seller_id in sellers:
            answer, until = known.get(seller_id, (None, 0.0))
            if answer is not None and until > now:
                answers.append(answer)
                good_for[seller_id] = until - now
            missing = missing or until <= now + ahead_s
        return Opened(answers, good_for, leading=missing)

    def put(self, question: Question, answers: Sequence[Answer]) -> None:
        utc, now = self._clock.now(), self._clock.monotonic()
        known = self._known.get(question)
        if known is None:
            known = self._known[question] = {}
            self._look_at.append((now + self._settings.longest_s, question))
        for answer in answers:
            until = now + good_for_s(answer.outcome, utc, self._settings)
            before = known.get(answer.seller_id)
            if not answer.cached and (before is None or answer.answered or before[1] <= until):
                again = Answer(answer.seller_id, answer.outcome, 0.0, cached=True)
                known[answer.seller_id] = again, until

    def renew(self, question: Question) -> None:
        pass

    def close(self, question: Question) -> None:
        pass

    @contextmanager
    def changes(self, question: Question) -> Iterator[asyncio.Event]:  # noqa: ARG002  nobody else changes anything
        yield asyncio.Event()

    def _forget(self, now: float) -> None:
        """Drop the questions of which nothing is good any more."""
        while self._look_at and self._look_at[0][0] <= now:
            _, question = self._look_at.popleft()
            last = max(until for _, until in self._known[question].values())
            if last <= now:
                del self._known[question]
            else:
                self._look_at.append((last, question))
