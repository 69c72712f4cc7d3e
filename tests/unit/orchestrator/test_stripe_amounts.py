"""Amounts in the units that Stripe counts in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.money import DECIMALS, Money, MoneyError
from orchestrator.adapters.stripe.amounts import AmountError, from_units, to_units


@pytest.mark.parametrize(
    ("amount", "units"),
    [
        (Money("USD", 2999), 2999),
        (Money("JPY", 2999), 2999),
        (Money("HUF", 299_900), 299_900),
        (Money("ISK", 2999), 299_900),
        (Money("UGX", 2999), 299_900),
        (Money("MGA", 299_900), 2999),
        (Money("KWD", 29_990), 29_990),
    ],
    ids=str,
)
def test_are_what_stripe_documents(amount: Money, units: int) -> None:
    assert to_units(amount) == units
    assert from_units(amount.currency.lower(), units) == amount


@pytest.mark.parametrize("amount", [Money("KWD", 29_995), Money("MGA", 299_950)], ids=str)
def test_are_never_rounded(amount: Money) -> None:
    with pytest.raises(AmountError, match="exactly"):
        to_units(amount)


def test_are_not_finer_than_the_currency() -> None:
    with pytest.raises(AmountError, match="finer"):
        from_units("isk", 150)


def test_are_of_a_currency_that_is_known() -> None:
    with pytest.raises(MoneyError, match="ISO 4217"):
        from_units("xyz", 100)


@given(st.sampled_from(sorted(DECIMALS)), st.integers(min_value=0, max_value=10_000_000))
def test_come_back_as_they_went(currency: str, minor: int) -> None:
    amount = Money(currency, minor)
    try:
        units = to_units(amount)
    except AmountError:
        assert currency == "MGA" or DECIMALS[currency] == 3
        return
    assert from_units(currency, units) == amount
