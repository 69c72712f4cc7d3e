"""Protobuf's common types to and from what the mesh uses inside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mesh import convert


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_what_protobuf_makes_of_it(moment: datetime) -> None:
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert convert.timestamp(moment) == expected
    assert convert.from_timestamp(expected) == moment


@given(st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)))
def test_a_time_is_what_protobuf_makes_of_it_to_the_microsecond(time: timedelta) -> None:
    expected = Duration()
    expected.FromTimedelta(timedelta(seconds=time.total_seconds()))
    assert convert.duration(time.total_seconds()) == expected
