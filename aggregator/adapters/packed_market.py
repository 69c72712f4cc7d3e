"""What is remembered of the market, as bytes. Pure. A later version reads what an earlier one wrote, or forgets it.

A book takes 4.25 bytes a seller, and 3 more where there was a price: the sellers' numbers as differences, states in two
bits, ages in minutes, totals in three bytes. A row for each would take sixty.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from aggregator.selection.columns import BookColumns, State

_VERSION = 1
_HEAD = struct.Struct("<BBId")
"""Version, bytes of a difference, how many sellers, time of the newest answer."""

_MINUTE_S = 60.0
_OLDEST = 0xFFFF
"""Minutes that stand for themselves and for more: 45 days."""

_TOTAL_BYTES = 3
MOST_TOTAL = 2 ** (8 * _TOTAL_BYTES) - 1


class UnreadableError(ValueError):
    """The bytes are not of a form that this version knows."""


def pack_book(columns: BookColumns) -> bytes:
    """Write what is known of a book; rows are the sellers' numbers, ascending."""
    count = len(columns.rows)
    newest_s = float(columns.at_s.max(initial=0.0))
    differences = np.diff(columns.rows, prepend=np.int32(0))
    width = 2 if differences.max(initial=0) <= np.iinfo(np.uint16).max else 4
    ages = np.minimum(np.round((newest_s - columns.at_s) / _MINUTE_S), _OLDEST)
    states = np.zeros(-(-count // 4) * 4, np.uint8)
    states[:count] = columns.state
    quads = states.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    totals = np.minimum(columns.total_minor[columns.state == State.IN_STOCK], MOST_TOTAL)
    return b"".join(
        (
            _HEAD.pack(_VERSION, width, count, newest_s),
            differences.astype(f"<u{width}").tobytes(),
            np.bitwise_or.reduce(quads, axis=1).astype(np.uint8).tobytes(),
            ages.astype("<u2").tobytes(),
            totals.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :_TOTAL_BYTES].tobytes(),
        )
    )


def unpack_book(book_id: str, packed: bytes) -> BookColumns:
    """Read what ``pack_book`` wrote; times are right to half a minute.

    Raises:
        UnreadableError: if it is of another version, or damaged.

    """
    try:
        version, width, count, newest_s = _HEAD.unpack_from(packed)
        if version != _VERSION:
            raise UnreadableError(f"version {version}")
        at = _HEAD.size
        differences = np.frombuffer(packed, f"<u{width}", count, at)
        at += differences.nbytes
        quads = np.frombuffer(packed, np.uint8, -(-count // 4), at)
        at += quads.nbytes
        ages = np.frombuffer(packed, "<u2", count, at)
        at += ages.nbytes
        parts = np.frombuffer(packed, np.uint8, -1, at).reshape(-1, _TOTAL_BYTES)
        state = ((quads[:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3).reshape(-1)[:count]
        totals = np.zeros((len(parts), 4), np.uint8)
        totals[:, :_TOTAL_BYTES] = parts
        total_minor = np.zeros(count, np.int32)
        total_minor[state == State.IN_STOCK] = totals.view("<u4")[:, 0]
    except (struct.error, ValueError, TypeError) as error:
        raise UnreadableError(f"what is kept of book {book_id} cannot be read: {error}") from None
    return BookColumns(
        book_id=book_id,
        rows=np.cumsum(differences, dtype=np.int64).astype(np.int32),
        state=state.astype(np.uint8),
        total_minor=total_minor,
        at_s=newest_s - ages * _MINUTE_S,
    )


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write arrays by name."""
    file = BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def unpack_arrays(packed: bytes) -> dict[str, NDArray[Any]]:
    """Read what ``pack_arrays`` wrote.

    Raises:
        UnreadableError: if it is damaged.

    """
    try:
        with np.load(BytesIO(packed), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, KeyError, EOFError, BadZipFile) as error:
        raise UnreadableError(f"what was learned of sellers cannot be read: {error}") from None
