"""Exact money: an ISO 4217 currency and an integer of its minor units. No float takes part in arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

MAX_UNITS = 100_000
"""The largest amount that any contract of Bookmesh carries, in major units."""

_NANOS_PER_UNIT = 1_000_000_000

_TWO_DECIMALS = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP "
    "CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES "
    "KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK "
    "NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB "
    "TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD XCG YER ZAR ZMW ZWG"
)
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"

DECIMALS: dict[str, int] = (
    dict.fromkeys(_TWO_DECIMALS.split(), 2)
    | dict.fromkeys(_NO_DECIMALS.split(), 0)
    | dict.fromkeys(_THREE_DECIMALS.split(), 3)
)
"""Decimals of each currency in which books are sold (ISO 4217, minor units)."""


class MoneyError(ValueError):
    """An amount that cannot be money here; the message says why, for people."""


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """An amount of one currency, in integer minor units (cents). Amounts of two currencies must not be compared."""

    currency: str
    minor: int

    def __str__(self) -> str:
        """Give ``$34.99`` for dollars, ``34.99 EUR`` for others."""
        amount = f"{self.decimal():,f}"
        return f"${amount}" if self.currency == "USD" else f"{amount} {self.currency}"

    def decimal(self) -> Decimal:
        """Give the amount in major units, exact, with all of the currency's decimals."""
        return Decimal(self.minor).scaleb(-decimals_of(self.currency))

    def units_nanos(self) -> tuple[int, int]:
        """Give the amount as ``google.type.Money`` has it: whole units and billionths."""
        scale = 10 ** decimals_of(self.currency)
        units, rest = divmod(self.minor, scale)
        return units, rest * (_NANOS_PER_UNIT // scale)


def decimals_of(currency: str) -> int:
    """Give the number of decimals of a currency.

    Raises:
        MoneyError: if it is not a currency that Bookmesh knows.

    """
    try:
        return DECIMALS[currency]
    except KeyError:
        msg = f"{currency[:8]!r} is not an ISO 4217 currency code"
        raise MoneyError(msg) from None


def from_units_nanos(currency: str, units: int, nanos: int) -> Money:
    """Make money of the parts of a ``google.type.Money``.

    Raises:
        MoneyError: if the currency is unknown, the amount negative or above 100,000.00, or finer than the currency.

    """
    decimals = decimals_of(currency)
    if units < 0 or not 0 <= nanos < _NANOS_PER_UNIT:
        msg = "the amount is negative or its nanos are out of range"
        raise MoneyError(msg)
    minor_of_nanos, rest = divmod(nanos, _NANOS_PER_UNIT // 10**decimals)
    if rest:
        msg = f"the amount has more than the {decimals} decimals of {currency}"
        raise MoneyError(msg)
    return _within_range(currency, units * 10**decimals + minor_of_nanos, decimals)


def from_decimal(currency: str, amount: Decimal) -> Money:
    """Make money of an amount in major units.

    Raises:
        MoneyError: as for ``from_units_nanos``, and if the amount is not finite.

    """
    decimals = decimals_of(currency)
    if not amount.is_finite() or amount < 0:
        msg = "the amount must be a number of 0 or more"
        raise MoneyError(msg)
    if amount > MAX_UNITS:
        msg = f"the amount must be at most {MAX_UNITS:,}"
        raise MoneyError(msg)
    scaled = amount.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        msg = f"the amount has more than the {decimals} decimals of {currency}"
        raise MoneyError(msg)
    return _within_range(currency, int(scaled), decimals)


def _within_range(currency: str, minor: int, decimals: int) -> Money:
    if minor > MAX_UNITS * 10**decimals:
        msg = f"the amount must be at most {MAX_UNITS:,}"
        raise MoneyError(msg)
    return Money(currency, minor)
