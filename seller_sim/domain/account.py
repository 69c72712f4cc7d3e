"""What a seller has held and sold, and how many copies that leaves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from seller_sim.domain.records import (
    Confirmed,
    Hold,
    HoldRecord,
    HoldState,
    OrderRecord,
    Pending,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seller_sim.domain.catalogue import Condition

Record = HoldRecord | OrderRecord
_Copy = tuple[str, "Condition | None"]


class Account:
    """The records of one seller, by key, and the copies that they take.

    It changes only by ``apply``, which is for records that are safely written.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        """Start with records that were written earlier."""
        self.holds: dict[str, HoldRecord] = {}
        self.orders: dict[str, OrderRecord] = {}
        self._key_of_hold: dict[str, str] = {}
        self._sold: Counter[_Copy] = Counter()
        # Holds and undecided orders take a copy for a time only.
        self._undecided: dict[_Copy, dict[tuple[type[Record], str], Record]] = {}
        self.apply(records)

    def apply(self, records: Iterable[Record]) -> None:
        """Take over records that are new or replace those of the same kind and key."""
        for record in records:
            if isinstance(record, HoldRecord):
                self._forget(self.holds.get(record.key))
                self.holds[record.key] = record
                if isinstance(record.answer, Hold):
                    self._key_of_hold[record.answer.hold_id] = record.key
            else:
                self._forget(self.orders.get(record.key))
                self.orders[record.key] = record
            self._count(record)

    def hold_with_id(self, hold_id: str) -> HoldRecord | None:
        """Give the record of a hold by the seller's own name for it."""
        key = self._key_of_hold.get(hold_id)
        return None if key is None else self.holds[key]

    def taken(self, book_id: str, condition: Condition, now_us: int) -> int:
        """Give how many copies are sold or held at a moment."""
        copy = (book_id, condition)
        undecided = self._undecided.get(copy)
        if undecided:
            for record in tuple(undecided.values()):
                current = record.at(now_us)
                if current is not record:
                    self.apply([current])
        return self._sold[copy] + len(self._undecided.get(copy, ()))

    def _count(self, record: Record) -> None:
        copy = (record.book_id, record.condition)
        if record.state is HoldState.HELD or isinstance(record.state, Pending):
            self._undecided.setdefault(copy, {})[type(record), record.key] = record
        elif isinstance(record.state, Confirmed):
            self._sold[copy] += 1

    def _forget(self, record: Record | None) -> None:
        if record is None:
            return
        copy = (record.book_id, record.condition)
        if record.state is HoldState.HELD or isinstance(record.state, Pending):
            del self._undecided[copy][type(record), record.key]
            if not self._undecided[copy]:
                del self._undecided[copy]
        elif isinstance(record.state, Confirmed):
            self._sold[copy] -= 1
