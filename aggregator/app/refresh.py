"""Asks again for books in demand before what is known of them runs out, so that nobody has to wait for it."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from aggregator.app.gather import Gatherer
from aggregator.app.leading import lead_until
from aggregator.domain.collection import Answer, Question
from aggregator.domain.history import CollectionRecord
from aggregator.ports import QuoteCache
from mesh.clock import Clock
from mesh.ids import NewId
from sellers.model import Seller


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    """When to ask ahead; times in seconds."""

    ahead_s: float = 10.0
    """How long before an answer runs out it is asked for again."""
    last_part: float = 0.2
    """Likewise, as a part of the time that it was good for: so often at most are calls spent on it."""
    hot: float = 3.0
    """A question is in demand when it was asked so many times lately."""
    half_life_s: float = 30.0
    """After this time one that was asked counts half."""
    seller_s: float = 3.0
    """How long sellers have."""
    questions: int = 10_000
    """How many questions are watched for demand; those asked longest ago are forgotten first."""


class Refresher:
    """Watches demand, and asks ahead. ``run`` does the asking, one refresh a question at a time."""

    def __init__(
        self,
        gatherer: Gatherer,
        cache: QuoteCache,
        settings: RefreshSettings,
        *,
        clock: Clock,
        new_id: NewId,
        on_ended: Callable[[CollectionRecord], None],
    ) -> None:
        """Keep what is needed; ``on_ended`` is told each refresh as a collection of its own."""
        self._new_id = new_id
        self._on_ended = on_ended
        self._gatherer = gatherer
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self._heat: OrderedDict[Question, tuple[float, float]] = OrderedDict()
        self._wanted: asyncio.Queue[tuple[Question, Mapping[str, Seller], float]] = asyncio.Queue(
            100
        )
        self._under_way: set[Question] = set()

    def served(
        self,
        question: Question,
        sellers: Mapping[str, Seller],
        good_for_s: Mapping[str, float],
        lives_s: Mapping[str, float],
    ) -> None:
        """Take note that a question was answered by what is known.

        Args:
            question: which.
            sellers: those whose answers are known.
            good_for_s: for how long these are still good, by seller.
            lives_s: for how long they were when they were new.

        """
        if self._heat_up(question) < self._settings.hot or question in self._under_way:
            return
        settings = self._settings
        ending = {
            seller_id: sellers[seller_id]
            for seller_id, left_s in good_for_s.items()
            # What is good for a second only is no answer worth refreshing.
            if 1.0 < left_s <= min(settings.ahead_s, settings.last_part * lives_s[seller_id])
            and seller_id in sellers
        }
        if ending:
            ahead_s = max(good_for_s[seller_id] for seller_id in ending)
            with suppress(asyncio.QueueFull):
                self._wanted.put_nowait((question, ending, ahead_s))
                self._under_way.add(question)

    async def run(self) -> None:
        """Ask ahead until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                question, sellers, ahead_s = await self._wanted.get()
                tasks.create_task(self._refresh(question, sellers, ahead_s))

    async def _refresh(
        self, question: Question, sellers: Mapping[str, Seller], ahead_s: float
    ) -> None:
        try:
            # What somebody else in the fleet has refreshed meanwhile is good for longer.
            opened = await self._cache.open(question, sellers.keys(), ahead_s=ahead_s)
            if opened.leading:
                try:
                    await self._ask(question, sellers)
                finally:
                    self._cache.close(question)
        finally:
            self._under_way.discard(question)

    async def _ask(self, question: Question, sellers: Mapping[str, Seller]) -> None:
        answers: list[Answer] = []
        ended = asyncio.Event()

        def on_answer(answer: Answer) -> None:
            self._cache.put(question, (answer,))
            answers.append(answer)
            if len(answers) == len(sellers):
                ended.set()

        started_at, started_s = self._clock.now(), self._clock.monotonic()
        until_s = started_s + self._settings.seller_s
        for seller in sellers.values():
            self._gatherer.ask(
                seller, question, customer_id="", until_s=until_s, on_answer=on_answer, ahead=True
            )
        await lead_until(ended, self._cache, question)
        self._on_ended(
            CollectionRecord(
                collection_id=self._new_id(),
                book_id=question.book_id,
                currency=question.currency,
                conditions=question.conditions,
                started_at=started_at,
                elapsed_s=self._clock.monotonic() - started_s,
                answers=answers,
            )
        )

    def _heat_up(self, question: Question) -> float:
        now = self._clock.monotonic()
        heat, at_s = self._heat.pop(question, (0.0, now))
        heat = heat * math.pow(0.5, (now - at_s) / self._settings.half_life_s) + 1.0
        self._heat[question] = (heat, now)
        if len(self._heat) > self._settings.questions:
            self._heat.popitem(last=False)
        return heat
