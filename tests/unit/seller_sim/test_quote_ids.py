from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seller_sim.domain.catalogue import Condition
from seller_sim.domain.quote_ids import QuotedPrice, quote_id_of, read_quote_id

KEY = b"secret"
PRICE = QuotedPrice(Condition.GOOD, 2_499, "USD", 1_795_367_838_128_930)


def test_a_quote_id_carries_what_was_quoted() -> None:
    quote_id = quote_id_of(KEY, "9780134685991", PRICE)
    assert len(quote_id) <= 128
    assert read_quote_id(KEY, "9780134685991", quote_id) == PRICE


def test_a_quote_id_is_of_no_use_for_another_book_or_at_another_seller() -> None:
    quote_id = quote_id_of(KEY, "9780134685991", PRICE)
    assert read_quote_id(KEY, "9780132350884", quote_id) is None
    assert read_quote_id(b"another", "9780134685991", quote_id) is None


@pytest.mark.parametrize("position", range(36))
def test_a_quote_id_that_was_changed_is_of_no_use(position: int) -> None:
    quote_id = quote_id_of(KEY, "x", PRICE)
    assert len(quote_id) == 36
    other = "A" if quote_id[position] != "A" else "B"
    forged = quote_id[:position] + other + quote_id[position + 1 :]
    assert read_quote_id(KEY, "x", forged) is None


@given(st.text(max_size=128))
def test_any_other_text_is_of_no_use(text: str) -> None:
    assert read_quote_id(KEY, "x", text) is None
