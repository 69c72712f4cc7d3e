from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.book_id import BookIdError, is_isbn, isbn13_check_digit, normalise

EFFECTIVE_JAVA = "9780134685991"


@pytest.mark.parametrize(
    "spelling",
    [
        "9780134685991",
        "isbn-978-0134685991",
        "ISBN-13: 978-0-13-468599-1",
        "ISBN 9780134685991",
        "urn:isbn:9780134685991",
        "978 0 13 468599 1",
        "978\u20100\u201013\u2010468599\u20101",
        "0-13-468599-7",
        "0134685997",
        "isbn:0134685997",
        "ISBN-10 0134685997",
        "  isbn-0134685997  ",
    ],
)
def test_every_spelling_of_an_isbn_is_one_book(spelling: str) -> None:
    assert normalise(spelling) == EFFECTIVE_JAVA
    assert is_isbn(normalise(spelling))


@pytest.mark.parametrize("book_id", ["sku-4711", "1234567890123", "97801346859", "979x134685991"])
def test_what_is_no_isbn_is_not_called_one(book_id: str) -> None:
    assert not is_isbn(normalise(book_id))


@pytest.mark.parametrize("spelling", ["080442957X", "0-8044-2957-x", "isbn 0 8044 2957 X"])
def test_the_check_digit_of_an_isbn10_may_be_x(spelling: str) -> None:
    assert normalise(spelling) == "9780804429573"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9780134685992", "should end in 1"),
        ("isbn-978-0134685990", "should end in 1"),
        ("0134685998", "should end in 7"),
        ("0804429579", "should end in X"),
        ("isbn-12345", "is not an ISBN"),
        ("isbn-1234567890123", "is not an ISBN"),
        ("isbn", "is not an ISBN"),
        ("", "1 to 64 characters"),
        ("   ", "1 to 64 characters"),
        ("b" * 65, "has 65"),
        ("b" * 10_000, "has 10000"),
        ("a\nb", "control characters"),
        ("a\x00b", "control characters"),
    ],
)
def test_what_cannot_be_a_book_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BookIdError, match=said):
        normalise(text)


@pytest.mark.parametrize("text", ["moby-dick", "B00GQT1LKM", "1234567890123", "b" * 64, "本"])
def test_other_strings_are_books_as_they_are(text: str) -> None:
    assert normalise(f" {text} ") == text


@given(st.integers(min_value=0, max_value=10**9 - 1))
def test_the_isbn10_and_the_isbn13_of_a_book_are_the_same(number: int) -> None:
    nine = f"{number:09}"
    isbn13 = f"978{nine}" + isbn13_check_digit(f"978{nine}")
    remainder = sum((10 - i) * int(digit) for i, digit in enumerate(nine)) % 11
    isbn10 = nine + "0123456789X"[-remainder % 11]
    assert normalise(isbn10) == normalise(isbn13) == isbn13


@given(st.text(max_size=64))
def test_normalising_twice_changes_nothing(text: str) -> None:
    try:
        once = normalise(text)
    except BookIdError:
        return
    assert normalise(once) == once
