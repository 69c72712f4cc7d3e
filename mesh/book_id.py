"""Book ids: every spelling of an ISBN becomes its 13 digits, so that two spellings are one book."""

from __future__ import annotations

import re

MAX_LENGTH = 64
_ISBN_PREFIX = re.compile(r"^\s*(?:urn:)?isbn(?:-?1[03](?=[:\s]))?[\s:\-]*", re.IGNORECASE)
_ISBN10_LENGTH = 10
_ISBN13_LENGTH = 13
_BOOKLAND = ("978", "979")


class BookIdError(ValueError):
    """A string that cannot be a book id; the message says why, for people."""


def normalise(text: str) -> str:
    """Give the one spelling of a book id.

    An ISBN-10 or ISBN-13 in any spelling (``isbn-978-0134685991``, ``0-13-468599-7``, ``ISBN 0134685997``) becomes the
    13 digits of its ISBN-13. What has the shape of an ISBN must have the right check digit: 10 digits (the last may be
    X), or 13 digits from 978 or 979, hyphens and spaces aside. Anything else is returned without the white space around
    it. Check digits: ISBN Users' Manual, 7th edition, appendix 1.

    Raises:
        BookIdError: if it is empty, longer than 64 characters, has control characters, is called an ISBN without being
            one, or has a wrong check digit.

    """
    text = text.strip()
    if not 1 <= len(text) <= MAX_LENGTH:
        msg = f"must have 1 to {MAX_LENGTH} characters, has {len(text)}"
        raise BookIdError(msg)
    if not text.isprintable():
        msg = "must not have control characters"
        raise BookIdError(msg)
    prefix = _ISBN_PREFIX.match(text)
    digits = re.sub(r"[\s\-\u2010-\u2015]", "", text[prefix.end() :] if prefix else text).upper()
    if re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return _isbn13_of_isbn10(text, digits)
    if re.fullmatch(r"[0-9]{13}", digits) and digits.startswith(_BOOKLAND):
        if digits[-1] != isbn13_check_digit(digits[:-1]):
            msg = f"{text!r} has a wrong check digit: it should end in {isbn13_check_digit(digits[:-1])}"
            raise BookIdError(msg)
        return digits
    if prefix:
        msg = f"{text!r} is not an ISBN: it needs 10 digits, or 13 digits from 978 or 979"
        raise BookIdError(msg)
    return text


def is_isbn(book_id: str) -> bool:
    """Say whether a book id as ``normalise`` gives it is an ISBN."""
    return len(book_id) == _ISBN13_LENGTH and book_id.isdecimal() and book_id.startswith(_BOOKLAND)


def isbn13_check_digit(first12: str) -> str:
    """Give the check digit of the first 12 digits of an ISBN-13: weights 1 and 3 in turn, modulo 10."""
    return str(-sum(int(digit) * (1, 3)[i % 2] for i, digit in enumerate(first12)) % 10)


def _isbn13_of_isbn10(text: str, digits: str) -> str:
    check = -sum(int(digit) * (_ISBN10_LENGTH - i) for i, digit in enumerate(digits[:9])) % 11
    expected = "X" if check == 10 else str(check)  # noqa: PLR2004  the Roman numeral of ISBN-10
    if digits[-1] != expected:
        msg = f"{text!r} has a wrong check digit: it should end in {expected}"
        raise BookIdError(msg)
    first12 = "978" + digits[:9]
    return first12 + isbn13_check_digit(first12)
