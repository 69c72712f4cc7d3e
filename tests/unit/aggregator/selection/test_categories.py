"""The category of a book, from its id alone."""

from __future__ import annotations

import pytest

from aggregator.selection.categories import category_of


@pytest.mark.parametrize(
    ("book_id", "category"),
    [
        ("9780134685991", "978-0-13"),
        ("9783161484100", "978-3-16"),
        ("9788175257665", "978-81-75"),
        ("9786054445301", "978-605-44"),
        ("9786555320008", "978-65-55"),
        ("9789505470426", "978-950-54"),
        ("9789971502102", "978-9971-50"),
        ("9789992158104", "978-99921-58"),
        ("9798602405453", "979-8-60"),
        ("9791090636071", "979-10-90"),
        ("a-book-by-another-name", "other"),
        ("4006381333931", "other"),
    ],
)
def test_the_group_and_two_digits_of_the_registrant(book_id: str, category: str) -> None:
    assert category_of(book_id) == category
