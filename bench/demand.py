"""Which books are asked for how often: Zipf by default, and any CSV of ``isbn13,demand``."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random

BOOKS = 1_000_000
_FIRST_ISBN = 978_000_000_000
"""Without its check digit."""
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Demand:
    """Books, and how often each is asked for.

    Attributes:
        name: for people.
        file: the CSV that it comes from; None for Zipf's law over a million books.

    """

    name: str
    file: Path | None = None

    def draw(self, rng: Random) -> Iterator[str]:
        """Give one book after the other, without end."""
        if self.file is None:
            books: range | list[str] = range(_FIRST_ISBN, _FIRST_ISBN + BOOKS)
            weights = [1.0 / rank for rank in range(1, BOOKS + 1)]
        else:
            books, weights = _read(self.file)
        cumulated = list(accumulate(weights))
        while True:
            for book in rng.choices(books, cum_weights=cumulated, k=_CHUNK):
                yield book if isinstance(book, str) else _isbn(str(book))


ZIPF = Demand("Zipf(1.0)")


def others() -> list[Demand]:
    """Give the demand that ``BOOKS`` names, if it does.

    Raises:
        SystemExit: if ``BOOKS`` names what is not such a file.

    """
    named = os.environ.get("BOOKS")
    if not named:
        return []
    file = Path(named)
    try:
        _read(file)
    except (OSError, KeyError, ValueError) as error:
        raise SystemExit(
            f"BOOKS={file}: {error!r}; it must be a CSV with a heading and the columns isbn13 and demand (above 0)"
        ) from error
    return [Demand(file.name, file)]


def _isbn(digits: str) -> str:
    """Give an ISBN-13 from its first 12 digits."""
    checked = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))
    return f"{digits}{-checked % 10}"


def _read(file: Path) -> tuple[list[str], list[float]]:
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [(row["isbn13"], float(row["demand"])) for row in csv.DictReader(lines)]
    if not rows or min(demand for _, demand in rows) <= 0:
        raise ValueError("it has no books, or one without demand")
    return [isbn for isbn, _ in rows], [demand for _, demand in rows]
