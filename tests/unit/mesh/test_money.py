from __future__ import annotations

from decimal import Decimal

import pytest
from google.type import money_pb2
from hypothesis import given
from hypothesis import strategies as st

from mesh import convert
from mesh.money import (
    DECIMALS,
    MAX_UNITS,
    Money,
    MoneyError,
    from_decimal,
    from_units_nanos,
)

amounts = st.sampled_from(sorted(DECIMALS)).flatmap(
    lambda currency: st.builds(
        Money,
        st.just(currency),
        st.integers(min_value=0, max_value=MAX_UNITS * 10 ** DECIMALS[currency]),
    )
)


@given(amounts)
def test_every_amount_survives_units_and_nanos(amount: Money) -> None:
    assert from_units_nanos(amount.currency, *amount.units_nanos()) == amount


@given(amounts)
def test_every_amount_survives_protobuf(amount: Money) -> None:
    assert convert.money_from_proto(convert.money_to_proto(amount)) == amount


@given(amounts)
def test_every_amount_survives_a_double(amount: Money) -> None:
    """What the customer contract relies on: a double holds it, and its shortest form gives it back."""
    double = float(amount.decimal())
    assert from_decimal(amount.currency, Decimal(repr(double))) == amount


@pytest.mark.parametrize(
    ("currency", "text", "minor"),
    [("USD", "29.99", 2999), ("USD", "30", 3000), ("JPY", "2999", 2999), ("KWD", "1.234", 1234)],
)
def test_decimals_are_those_of_the_currency(currency: str, text: str, minor: int) -> None:
    assert from_decimal(currency, Decimal(text)) == Money(currency, minor)


@pytest.mark.parametrize(
    ("currency", "text", "said"),
    [
        ("USD", "29.999", "more than the 2 decimals of USD"),
        ("JPY", "1.5", "more than the 0 decimals of JPY"),
        ("KWD", "1.2345", "more than the 3 decimals of KWD"),
        ("USD", "-0.01", "0 or more"),
        ("USD", "NaN", "0 or more"),
        ("USD", "Infinity", "0 or more"),
        ("USD", "100000.01", "at most 100,000"),
        ("USD", "1e12", "at most 100,000"),
        ("USD", "1e999999", "at most 100,000"),
        ("XXX", "1", "'XXX' is not an ISO 4217 currency"),
        ("usd", "1", "'usd' is not an ISO 4217 currency"),
    ],
)
def test_what_is_not_money_is_refused_with_the_reason(currency: str, text: str, said: str) -> None:
    with pytest.raises(MoneyError, match=said):
        from_decimal(currency, Decimal(text))


@pytest.mark.parametrize(
    ("units", "nanos"),
    [(-1, 0), (0, -1), (0, 1_000_000_000), (0, 5_000_000), (100_000, 10_000_000), (2**63 - 1, 0)],
)
def test_protobuf_money_out_of_range_is_refused(units: int, nanos: int) -> None:
    with pytest.raises(MoneyError):
        convert.money_from_proto(
            money_pb2.Money(currency_code="USD", units=units, nanos=nanos),
        )


def test_people_read_dollars_with_the_sign_and_others_with_the_code() -> None:
    assert str(Money("USD", 3499)) == "$34.99"
    assert str(Money("USD", 10_000_000)) == "$100,000.00"
    assert str(Money("USD", 5)) == "$0.05"
    assert str(Money("EUR", 3499)) == "34.99 EUR"
    assert str(Money("JPY", 3499)) == "3,499 JPY"
    assert str(Money("KWD", 3499)) == "3.499 KWD"
