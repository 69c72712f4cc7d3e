"""Keeps the history of quotes, behind the back of those who collect them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import structlog

from aggregator.domain.history import CollectionRecord
from aggregator.ports import HistoryStore
from mesh import errors
from mesh.clock import Clock

_DAYS_AHEAD = 3
"""For so many days after today there are partitions: as long may making them fail before anything is lost."""

_TELL_EVERY_S = 1.0
_LAST_WORDS_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """How the history is written.

    Attributes:
        buffer_quotes: most quotes that wait to be written; when there are more the oldest are dropped.
        batch_quotes: how many are written at once, about.
        write_every_s: how often.
        longest_backoff_s: longest pause between tries while the store cannot be reached.
        days: for how many days the history is kept, today not counted.
        upkeep_every_s: how often to look whether partitions are to be made or dropped.

    """

    buffer_quotes: int = 100_000
    batch_quotes: int = 5_000
    write_every_s: float = 0.5
    longest_backoff_s: float = 10.0
    days: int = 30
    upkeep_every_s: float = 3600.0


class WriteBehindHistory:
    """Implements ``QuoteHistory``: records wait in memory until ``run`` has written them to a store.

    What the store cannot take now waits, as long as there is room; then the oldest is dropped. What it will never take
    is dropped alone. What was dropped is said in the log, at most once a second.
    """

    def __init__(self, store: HistoryStore, clock: Clock, settings: HistorySettings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._waiting: deque[CollectionRecord] = deque()
        self._held = 0
        self._one_by_one = 0
        self._ready = asyncio.Event()
        self._losses = _Losses(clock)

    def record(self, record: CollectionRecord) -> None:
        """Keep a collection. Returns at once and never raises."""
        self._waiting.append(record)
        self._held += _size(record)
        while self._held > self._settings.buffer_quotes and self._waiting:
            oldest = self._waiting.popleft()
            self._held -= _size(oldest)
            self._losses.add(oldest, "too many wait to be written")
        self._losses.tell()

    async def run(self) -> None:
        """Write what is recorded, and see to the partitions, until cancelled; then write what is left."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._see_to_partitions())
                tasks.create_task(self._keep_writing())
        finally:
            await self._write_the_rest()

    async def _keep_writing(self) -> None:
        await self._ready.wait()
        pause_s = self._settings.write_every_s
        failing = False
        while True:
            await self._clock.sleep(pause_s)
            self._losses.tell()
            try:
                while self._waiting:
                    await self._write_batch()
                pause_s = self._settings.write_every_s
                failing = False
            except errors.Unavailable as error:
                if not failing:
                    _log.warning("the history of quotes cannot be written", detail=error.message)
                failing = True
                pause_s = min(pause_s * 2, self._settings.longest_backoff_s)

    async def _write_batch(self) -> None:
        """Write the oldest that wait.

        Raises:
            Unavailable: if they cannot be written now; they wait on.

        """
        batch = self._take_batch()
        try:
            await self._store.write(batch)
        except (errors.Unavailable, asyncio.CancelledError):
            # Perhaps it was written all the same; the store does not mind to get it again.
            self._waiting.extendleft(reversed(batch))
            raise
        except Exception as error:  # noqa: BLE001  what one record brings about must not cost the others their place
            if len(batch) > 1:
                self._waiting.extendleft(reversed(batch))
                self._one_by_one = len(batch)
                return
            self._losses.add(batch[0], f"the store refuses it: {error!r}")
        self._held -= sum(map(_size, batch))

    def _take_batch(self) -> Sequence[CollectionRecord]:
        if self._one_by_one:
            self._one_by_one -= 1
            return (self._waiting.popleft(),)
        batch = [self._waiting.popleft()]
        size = _size(batch[0])
        while (
            self._waiting
            and (size := size + _size(self._waiting[0])) <= self._settings.batch_quotes
        ):
            batch.append(self._waiting.popleft())
        return batch

    async def _write_the_rest(self) -> None:
        with suppress(TimeoutError, errors.Unavailable):
            async with asyncio.timeout(_LAST_WORDS_S):
                while self._waiting and self._ready.is_set():
                    await self._write_batch()
        for record in self._waiting:
            self._losses.add(record, "it could not be written before the end")
        self._losses.tell(at_once=True)

    async def _see_to_partitions(self) -> None:
        """Make partitions before they are needed, and drop those that are too old."""
        pause_s = self._settings.write_every_s
        while True:
            try:
                await self._upkeep()
                pause_s = self._settings.upkeep_every_s
            except Exception as error:  # noqa: BLE001  whatever is wrong with the history, collections go on
                _log.warning("the partitions of the history cannot be seen to", detail=str(error))
                pause_s = min(pause_s * 2, self._settings.longest_backoff_s)
            await self._clock.sleep(pause_s)

    async def _upkeep(self) -> None:
        today = self._clock.now().date()
        # Yesterday's too: collections that began before midnight are written after it.
        await self._store.make_partitions(today - timedelta(days=1), _DAYS_AHEAD + 2)
        self._ready.set()
        dropped = await self._store.drop_partitions(today - timedelta(days=self._settings.days))
        if dropped:
            _log.info("old days of the history of quotes dropped", days=dropped)


class _Losses:
    """Counts what was dropped and says so, at most once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_at = float("-inf")
        self._collections = 0
        self._quotes = 0
        self._why = ""

    def add(self, record: CollectionRecord, why: str) -> None:
        self._collections += 1
        self._quotes += len(record.fresh)
        self._why = why

    def tell(self, *, at_once: bool = False) -> None:
        """Log what was dropped since the last line."""
        now = self._clock.monotonic()
        if not self._collections or (now < self._told_at + _TELL_EVERY_S and not at_once):
            return
        _log.warning(
            "dropped from the history of quotes",
            collections=self._collections,
            quotes=self._quotes,
            why=self._why,
        )
        self._told_at = now
        self._collections = self._quotes = 0


def _size(record: CollectionRecord) -> int:
    """Give the room that a record takes in the buffer, in quotes."""
    return max(1, len(record.fresh))
