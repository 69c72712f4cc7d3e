"""The history of quotes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from uuid import UUID

from aggregator.domain.history import CollectionRecord
from mesh import errors


class MemoryHistoryStore:
    """Implements ``aggregator.ports.HistoryStore``.

    Attributes:
        reachable: whether it answers.
        days: for which there are partitions.
        writes: the collections of each write that was carried out.

    """

    def __init__(self) -> None:
        self.reachable = True
        self.days: set[date] = set()
        self.writes: list[list[UUID]] = []
        self._records: dict[UUID, CollectionRecord] = {}

    async def write(self, records: Sequence[CollectionRecord]) -> None:
        self._check()
        for record in records:
            if record.started_at.date() not in self.days:
                raise LookupError(f"no partition for {record.started_at}")
            if "\0" in record.book_id:
                raise ValueError("no text")
        self.writes.append([record.collection_id for record in records])
        for record in records:
            self._records.setdefault(record.collection_id, record)

    async def make_partitions(self, first_day: date, days: int) -> None:
        self._check()
        self.days |= {first_day + timedelta(days=number) for number in range(days)}

    async def drop_partitions(self, before_day: date) -> int:
        self._check()
        old = {day for day in self.days if day < before_day}
        self.days -= old
        for record in list(self._records.values()):
            if record.started_at.date() in old:
                del self._records[record.collection_id]
        return len(old)

    def stored(self) -> list[CollectionRecord]:
        """Give what is stored, in the order in which it came."""
        return list(self._records.values())

    def _check(self) -> None:
        if not self.reachable:
            raise errors.Unavailable("the test says so")
