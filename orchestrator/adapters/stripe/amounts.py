"""Money in the units that Stripe counts a currency in: mostly the minor units of ISO 4217, but not always.

Stripe (https://docs.stripe.com/currencies) counts ariary in whole units although ISO gives it decimals, krónur and
Ugandan shillings in hundredths although ISO gives them none, and takes only multiples of ten where ISO has three
decimals.
"""

from __future__ import annotations

from mesh.money import Money, decimals_of

_DECIMALS_AT_STRIPE = {"ISK": 2, "MGA": 0, "UGX": 2}
_THREE_DECIMALS = 3


class AmountError(ValueError):
    """An amount that Stripe cannot charge exactly, or that it cannot have meant; the message says why."""


def to_units(amount: Money) -> int:
    """Give what to send for an amount.

    Raises:
        AmountError: if Stripe cannot charge exactly that.

    """
    decimals = decimals_of(amount.currency)
    units, rest = _scaled(amount.minor, _decimals_at_stripe(amount.currency) - decimals)
    if rest or (decimals == _THREE_DECIMALS and units % 10):
        raise AmountError(f"Stripe cannot charge {amount} exactly")
    return units


def from_units(currency: str, units: int) -> Money:
    """Make money of what Stripe says, with its currency in any case of letters.

    Raises:
        AmountError: if it is finer than the currency.
        mesh.money.MoneyError: if the currency is not one that Bookmesh knows.

    """
    currency = currency.upper()
    minor, rest = _scaled(units, decimals_of(currency) - _decimals_at_stripe(currency))
    if rest:
        raise AmountError(f"{units} of Stripe's units of {currency} is finer than the currency")
    return Money(currency, minor)


def _decimals_at_stripe(currency: str) -> int:
    return _DECIMALS_AT_STRIPE.get(currency, decimals_of(currency))


def _scaled(number: int, shift: int) -> tuple[int, int]:
    """Give a number with its decimal point moved, and what that leaves over."""
    return (number * 10**shift, 0) if shift >= 0 else divmod(number, 10**-shift)
