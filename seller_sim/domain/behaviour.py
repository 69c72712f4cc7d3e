"""The settings that make one simulated seller different from another."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from mesh.money import DECIMALS

if TYPE_CHECKING:
    from collections.abc import Mapping


class BehaviourError(ValueError):
    """A setting that does not exist or is out of its range; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the most that a number may be, both included."""

    least: float
    most: float


Rate = Annotated[float, Range(0, 1)]
"""A probability."""

Milliseconds = Annotated[float, Range(0, 600_000)]
"""A time of up to ten minutes."""

_FOREVER_S = 30 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a seller behaves. Which books, copies and prices a rate picks depends on the seed alone."""

    carries: Rate = 0.6
    """The part of all books that it carries."""

    in_stock: Rate = 0.9
    """The part of these of which it has copies."""

    used: Rate = 0.3
    """The part of these of which it has used copies too, cheaper than new."""

    max_copies: Annotated[int, Range(1, 1_000_000)] = 20
    """Most new copies of one book; each book has 1 to this many. Sold copies do not come back."""

    currency: str = "USD"
    """The one currency in which it sells, ISO 4217. Amounts are not converted: 29.99 is 2,999 minor units in each."""

    price_level: Annotated[float, Range(0.01, 100)] = 1.0
    """What its new books cost, as a multiple of a book's base price."""

    price_noise: Annotated[float, Range(0, 0.9)] = 0.1
    """By how much its price of one book may lie above or below that level: 0.1 is up to 10 %."""

    price_drift: Annotated[float, Range(0, 0.9)] = 0.0
    """By how much its prices go up or down from one period to the next: 0.05 is up to 5 % either way."""

    price_drift_period_s: Annotated[float, Range(1, _FOREVER_S)] = 60.0
    """How long a period lasts, in seconds."""

    shipping_minor: Annotated[int, Range(0, 100_000)] = 399
    """What sending a copy costs, in minor units (cents)."""

    latency_constant_ms: Milliseconds = 20.0
    """How long every answer takes at least."""

    latency_exponential_ms: Milliseconds = 80.0
    """How long it takes on top, on average, exponentially distributed."""

    latency_tail_rate: Rate = 0.0
    """The part of answers that take yet longer, log-normally distributed."""

    latency_tail_median_ms: Milliseconds = 2_000.0
    """The median of how much longer."""

    latency_tail_sigma: Annotated[float, Range(0, 5)] = 0.5
    """The deviation of its logarithm: 0.5 gives one in six more than 1.6 times the median."""

    error_rate: Rate = 0.0
    """The part of calls that fail with UNAVAILABLE before anything is done."""

    hang_rate: Rate = 0.0
    """The part of calls that are never worked on and never answered."""

    lost_answer_rate: Rate = 0.0
    """The part of holds, orders, releases and cancels that are done, and then fail with UNAVAILABLE."""

    invalid_quote_rate: Rate = 0.0
    """The part of calls for quotes whose quotes break the contract: they have a total of 0."""

    dead: bool = False
    """Whether it refuses connections (or, where sellers share an address, every call with UNAVAILABLE)."""

    quote_life_s: Annotated[float, Range(1, _FOREVER_S)] = 300.0
    """How long its quotes are valid, in seconds."""

    hold_life_s: Annotated[float, Range(0.001, _FOREVER_S)] = 120.0
    """How long its holds last, in seconds."""

    sold_out_rate: Rate = 0.0
    """The part of holds, and of orders straight from a quote, that find the copy gone."""

    reprice_rate: Rate = 0.0
    """The part of holds, and of orders straight from a quote, that cost something else than was quoted."""

    reprice_by: Annotated[float, Range(-0.9, 10)] = 0.05
    """By how much these cost more (0.05: 5 %) or less (-0.05)."""

    refused_rate: Rate = 0.0
    """The part of holds, and of orders straight from a quote, that it refuses for reasons of its own."""

    pending_rate: Rate = 0.0
    """The part of orders on which it decides later."""

    pending_s: Annotated[float, Range(0, _FOREVER_S)] = 2.0
    """How long it takes to decide, in seconds."""

    pending_rejected_rate: Rate = 0.0
    """The part of these orders that it then rejects as out of stock; it confirms the others."""

    too_late_rate: Rate = 0.0
    """The part of orders that it will not cancel any more."""

    calls_per_minute: Annotated[int, Range(1, 1_000_000_000)] = 6_000
    """Most calls in any 60 seconds; more are RESOURCE_EXHAUSTED."""

    quotes_per_minute: Annotated[int, Range(0, 1_000_000_000)] = 0
    """Most books priced in any 60 seconds; more are RESOURCE_EXHAUSTED. 0 is no such limit."""

    max_batch_size: Annotated[int, Range(0, 1_000)] = 50
    """Most books in one BatchGetQuotes; 0 when it does not have that call."""

    supports_holds: bool = True
    """Whether it has HoldBook and ReleaseHold; else orders are made straight from quotes."""

    supports_cancel_before_order: bool = True
    """Whether CancelOrder closes a key under which nothing was ordered yet."""

    supports_get_order: bool = True
    """Whether it has GetOrder."""

    honours_not_after: bool = True
    """Whether it refuses holds and orders that it works on after their ``not_after``."""

    heeds_max_total: bool = True
    """Whether it refuses orders that cost more than their ``max_total``; else it confirms them, for more."""

    def changed(self, settings: Mapping[str, object]) -> Behaviour:
        """Give this behaviour with some settings changed.

        A whole number may come as a float (2.0), because JSON knows no other.

        Raises:
            BehaviourError: if a setting does not exist, or its value is of the wrong type or out of its range.

        """
        return replace(self, **{name: _checked(name, value) for name, value in settings.items()})


_HINTS = get_type_hints(Behaviour, include_extras=True)
SETTINGS = tuple(field.name for field in fields(Behaviour))
"""The names of all settings."""


def range_of(name: str) -> Range | None:
    """Give the range of a setting that is a number; None for others.

    Raises:
        BehaviourError: if there is no such setting.

    """
    if name not in _HINTS:
        raise BehaviourError(f"{name}: there is no such setting; there are {', '.join(SETTINGS)}")
    hint = _HINTS[name]
    return get_args(hint)[1] if get_origin(hint) is Annotated else None


def is_whole(name: str) -> bool:
    """Say whether a setting is a whole number."""
    return get_args(_HINTS[name])[:1] == (int,)


def _checked(name: str, value: object) -> Any:  # noqa: ANN401  the type is that of the setting
    limits = range_of(name)
    if limits is not None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BehaviourError(f"{name}: must be a number, is {value!r}")
        if not limits.least <= value <= limits.most:
            raise BehaviourError(
                f"{name}: must be {limits.least:g} to {limits.most:g}, is {value!r}"
            )
        if is_whole(name):
            if value != int(value):
                raise BehaviourError(f"{name}: must be a whole number, is {value!r}")
            return int(value)
        return float(value)
    if _HINTS[name] is bool:
        if not isinstance(value, bool):
            raise BehaviourError(f"{name}: must be true or false, is {value!r}")
        return value
    if not isinstance(value, str) or value not in DECIMALS:
        raise BehaviourError(f"{name}: must be an ISO 4217 currency code, is {value!r}")
    return value
