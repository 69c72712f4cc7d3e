"""Collects quotes: asks all active sellers at once and hands on the answers as they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import structlog

from aggregator.domain.collection import Answer, Question, Summary, summarise
from aggregator.ports import QuoteSource
from mesh import errors
from mesh.clock import Clock
from mesh.ids import NewId
from sellers.model import CallFailed, FailureKind, Seller
from sellers.registry import Directory

MAX_BATCH = 1000
"""Most answers in a batch: with the longest names that is 1 MB as a message."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of a collection, in seconds.

    Attributes:
        seller_s: the most that one seller gets.
        merge_margin_s: what is kept of the caller's time to hand on the last answers.
        flush_s: how long answers are gathered after a batch before the next one goes out.

    """

    seller_s: float = 3.0
    merge_margin_s: float = 0.15
    flush_s: float = 0.05


class QuoteCollector:
    """Opens collections over the sellers of a directory."""

    def __init__(
        self, directory: Directory, source: QuoteSource, clock: Clock, new_id: NewId, limits: Limits
    ) -> None:
        self._directory = directory
        self._source = source
        self._clock = clock
        self._new_id = new_id
        self._limits = limits

    @asynccontextmanager
    async def open(self, question: Question, time_left_s: float) -> AsyncIterator[Collection]:
        """Ask every active seller; leaving the context cancels the calls that are still under way.

        Args:
            question: what to ask.
            time_left_s: how long the caller can wait for the end of the collection.

        Raises:
            Unavailable: before the registry has been read.

        """
        snapshot = self._directory.snapshot
        if snapshot is None:
            raise errors.Unavailable(
                "the registry of sellers has not been read yet: try again", retry_after_s=1.0
            )
        collection = Collection(
            self._new_id(),
            question,
            snapshot.active,
            time_left_s=time_left_s,
            source=self._source,
            clock=self._clock,
            limits=self._limits,
        )
        asking = asyncio.create_task(collection.run())
        try:
            yield collection
        finally:
            asking.cancel()
            await asyncio.wait((asking,))
        if not asking.cancelled():
            asking.result()
            _log_end(collection.summary())


class Collection:
    """One gathering of quotes for one book. Every seller gets exactly one answer.

    Attributes:
        collection_id: names it.
        sellers: who is asked.

    """

    def __init__(
        self,
        collection_id: UUID,
        question: Question,
        sellers: Sequence[Seller],
        *,
        time_left_s: float,
        source: QuoteSource,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self.collection_id = collection_id
        self.sellers = sellers
        self._question = question
        self._source = source
        self._clock = clock
        self._timeout_s = max(0.0, time_left_s - limits.merge_margin_s)
        self._seller_timeout_s = min(limits.seller_s, self._timeout_s)
        self._flush_s = limits.flush_s
        self._started_at = clock.now()
        self._started = clock.monotonic()
        self._answers: list[Answer] = []
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Ask, and return when every seller has its answer: what it said, or that its time ran out."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s), asyncio.TaskGroup() as calls:
                    for seller in self.sellers:
                        calls.create_task(self._ask(seller))
            self._time_out_the_others()
        finally:
            self._ended.set()
            self._arrived.set()

    async def batches(self) -> AsyncIterator[Sequence[Answer]]:
        """Give all answers: the first at once, later ones gathered for a moment, the last without delay."""
        given = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while given < len(self._answers):
                batch = self._answers[given : given + MAX_BATCH]
                given += len(batch)
                yield batch
            if self._ended.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._ended.wait()

    def summary(self) -> Summary:
        """Say how it came out, once the batches have ended."""
        return summarise(
            self._answers,
            collection_id=self.collection_id,
            book_id=self._question.book_id,
            started_at=self._started_at,
            elapsed_s=self._clock.monotonic() - self._started,
        )

    async def _ask(self, seller: Seller) -> None:
        question = self._question
        asked = self._clock.monotonic()
        try:
            outcome = await self._source.get_quote(
                seller,
                question.book_id,
                question.currency,
                question.conditions,
                timeout_s=self._seller_timeout_s,
            )
        except Exception:  # noqa: BLE001  a fault of ours with one seller must not cost the others their answers
            _log.exception("asking a seller failed in our own code", seller_id=seller.seller_id)
            outcome = CallFailed(
                FailureKind.INVALID_ANSWER,
                definitely_not_done=False,
                detail="a fault of ours; it has been logged",
            )
        self._answers.append(Answer(seller.seller_id, outcome, self._clock.monotonic() - asked))
        self._arrived.set()

    def _time_out_the_others(self) -> None:
        elapsed_s = self._clock.monotonic() - self._started
        answered = {answer.seller_id for answer in self._answers}
        timed_out = CallFailed(
            FailureKind.TIMED_OUT,
            definitely_not_done=False,
            detail="the collection's time was over",
        )
        self._answers.extend(
            Answer(seller.seller_id, timed_out, elapsed_s)
            for seller in self.sellers
            if seller.seller_id not in answered
        )


def _log_end(summary: Summary) -> None:
    _log.info(
        "collected",
        collection_id=str(summary.collection_id),
        book_id=summary.book_id,
        sellers=summary.sellers,
        answered=summary.answered,
        quoted=summary.quoted,
        elapsed_s=round(summary.elapsed_s, 3),
    )
