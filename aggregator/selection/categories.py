"""What kind of book it is, as far as its name alone says: who sold some of a kind is likely to sell the others."""

from __future__ import annotations

from mesh.book_id import is_isbn

OTHER = "other"
"""The one category of books whose id is no ISBN."""

_REGISTRANT_DIGITS = 2
_GROUP_979_8 = "8"


def category_of(book_id: str) -> str:
    """Give the category of a book, from its id as ``mesh.book_id.normalise`` gives it.

    It is the registration group of an ISBN, a country or a language, with the first two digits of the registrant, the
    publisher: 9780134685991 is of ``978-0-13``. Publishers of two digits are told apart; of the smaller ones those with
    the same beginning are one category, since where a number ends is known only from the agency's table, which changes.
    """
    if not is_isbn(book_id):
        return OTHER
    prefix, rest = book_id[:3], book_id[3:]
    end = _group_digits(prefix, rest)
    return f"{prefix}-{rest[:end]}-{rest[end : end + _REGISTRANT_DIGITS]}"


def _group_digits(prefix: str, rest: str) -> int:
    """Say how many digits the registration group has (ISBN Users' Manual, 7th edition, 4.2, and the groups so far)."""
    if prefix == "979":
        return 1 if rest.startswith(_GROUP_979_8) else 2
    first = rest[0]
    if first in "0123457":
        return 1
    if first == "6":
        return 2 if rest.startswith("65") else 3
    if first == "8" or rest[:2] < "95":
        return 2
    if rest[:2] < "99":
        return 3
    return 5 if rest.startswith("999") else 4
