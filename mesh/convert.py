"""Protobuf's common types to and from what the mesh uses inside."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import money_pb2

from mesh import money

if TYPE_CHECKING:
    from mesh.money import Money

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 24 * 3600
_MICROS_PER_S = 1_000_000
_NANOS_PER_MICRO = 1_000


def money_to_proto(amount: Money) -> money_pb2.Money:
    """Give the ``google.type.Money`` of an amount."""
    units, nanos = amount.units_nanos()
    return money_pb2.Money(currency_code=amount.currency, units=units, nanos=nanos)


def money_from_proto(amount: money_pb2.Money) -> Money:
    """Read a ``google.type.Money``.

    Raises:
        MoneyError: if the currency is unknown, or the amount negative, too large or finer than the currency.

    """
    return money.from_units_nanos(amount.currency_code, amount.units, amount.nanos)


def timestamp(moment: datetime) -> Timestamp:
    """Give the ``Timestamp`` of an aware datetime, as ``FromDatetime`` does, in a third of its time."""
    since = moment - _EPOCH
    return Timestamp(
        seconds=since.days * _DAY_S + since.seconds, nanos=since.microseconds * _NANOS_PER_MICRO
    )


def from_timestamp(proto: Timestamp) -> datetime:
    """Give the aware datetime, in UTC, of a ``Timestamp``."""
    return proto.ToDatetime(tzinfo=UTC)


def duration(seconds: float) -> Duration:
    """Give the ``Duration`` of seconds, to the microsecond, as ``FromTimedelta`` does, in half of its time."""
    whole, micros = divmod(round(abs(seconds) * _MICROS_PER_S), _MICROS_PER_S)
    sign = -1 if seconds < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * micros * _NANOS_PER_MICRO)


def seconds(proto: Duration) -> float:
    """Give the seconds of a ``Duration``."""
    return proto.seconds + proto.nanos / 1e9
