"""The ledger in one SQLite file.

Every change is one transaction, on the event loop: it takes less than 100 µs, since a commit in WAL mode with
``synchronous=NORMAL`` waits for no disk. What is committed survives a kill of the process; a power cut may take the
last moments, which a simulator can afford.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from seller_sim.adapters.files import DataFolderError
from seller_sim.domain.catalogue import Condition
from seller_sim.domain.records import (
    Cancelled,
    Closed,
    Confirmed,
    Hold,
    HoldRecord,
    HoldState,
    OrderRecord,
    OrderState,
    Pending,
    Rejection,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seller_sim.domain.account import Record

LEDGER_FILE = "ledger.sqlite3"

_sql = resources.files("seller_sim.adapters") / "sql"
_SCHEMA = (_sql / "schema.sql").read_text()
_WRITE_HOLD = (_sql / "write_hold.sql").read_text()
_WRITE_ORDER = (_sql / "write_order.sql").read_text()
_READ_HOLDS = (_sql / "read_holds.sql").read_text()
_READ_ORDERS = (_sql / "read_orders.sql").read_text()

_KINDS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (Hold, Confirmed, Pending, Rejection, Cancelled, Closed)
}


class SqliteLedger:
    """Keeps records in ``ledger.sqlite3`` of a folder, which it locks for itself."""

    def __init__(self, folder: Path) -> None:
        """Open the ledger, making it if there is none.

        Raises:
            DataFolderError: if it cannot be opened, or another process has it open.

        """
        path = folder / LEDGER_FILE
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise DataFolderError(f"{path}: {error} (is another simulator using it?)") from None

    def write(self, seller_id: str, records: Sequence[Record]) -> None:
        """Write records of one seller in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                if isinstance(record, HoldRecord):
                    self._connection.execute(_WRITE_HOLD, _hold_row(seller_id, record))
                else:
                    self._connection.execute(_WRITE_ORDER, _order_row(seller_id, record))
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    def read_all(self) -> Mapping[str, Sequence[Record]]:
        """Give all records, by seller."""
        records: dict[str, list[Record]] = defaultdict(list)
        for seller_id, *row in self._connection.execute(_READ_HOLDS):
            records[seller_id].append(_read_hold(*row))
        for seller_id, *row in self._connection.execute(_READ_ORDERS):
            records[seller_id].append(_read_order(*row))
        return records

    def close(self) -> None:
        """Close the file and give up its lock."""
        self._connection.close()


def _hold_row(seller_id: str, record: HoldRecord) -> tuple[object, ...]:
    return (
        seller_id,
        record.key,
        record.content,
        record.book_id,
        record.condition,
        _dump(record.answer),
        record.state.value,
    )


def _order_row(seller_id: str, record: OrderRecord) -> tuple[object, ...]:
    return (
        seller_id,
        record.key,
        record.content,
        record.buyer_reference,
        record.book_id,
        record.condition,
        _dump(record.answer),
        _dump(record.state),
        record.created_us,
        record.updated_us,
        record.too_late,
    )


def _read_hold(  # noqa: PLR0917  the columns, in their order
    key: str, content: bytes, book_id: str, condition: int | None, answer: str | None, state: str
) -> HoldRecord:
    return HoldRecord(
        key=key,
        content=content,
        book_id=book_id,
        condition=_condition(condition),
        answer=_load(answer),
        state=HoldState(state),
    )


def _read_order(  # noqa: PLR0917  the columns, in their order
    key: str,
    content: bytes,
    buyer_reference: str,
    book_id: str,
    condition: int | None,
    answer: str | None,
    state: str,
    created_us: int,
    updated_us: int,
    too_late: int,
) -> OrderRecord:
    return OrderRecord(
        key=key,
        content=content,
        buyer_reference=buyer_reference,
        book_id=book_id,
        condition=_condition(condition),
        answer=_load(answer),
        state=_load(state),
        created_us=created_us,
        updated_us=updated_us,
        too_late=bool(too_late),
    )


def _condition(number: int | None) -> Condition | None:
    return None if number is None else Condition(number)


def _dump(state: Hold | OrderState | None) -> str | None:
    if state is None:
        return None
    name = type(state).__name__
    return json.dumps({name: _KINDS[name].dump_python(state, mode="json")})


# Any, because the caller knows which kinds its column can have.
def _load(text: str | None) -> Any:  # noqa: ANN401
    if text is None:
        return None
    ((name, content),) = json.loads(text).items()
    return _KINDS[name].validate_python(content)
