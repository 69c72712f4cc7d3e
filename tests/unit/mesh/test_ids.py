from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

from mesh.clock import SystemClock
from mesh.ids import uuid7_factory

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class StandingClock(SystemClock):
    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time


def test_ids_are_of_version_7_and_hold_the_milliseconds() -> None:
    new_id = uuid7_factory(StandingClock(), Random(1))()
    assert (new_id.version, new_id.variant) == (7, "specified in RFC 4122")
    assert new_id.int >> 80 == int(NOON.timestamp() * 1000)


def test_ids_sort_by_the_time_at_which_they_were_made() -> None:
    clock = StandingClock()
    new_id = uuid7_factory(clock, Random(1))
    made = []
    for _ in range(100):
        made.append(new_id())
        clock.time += timedelta(milliseconds=1)
    assert sorted(made) == made


def test_ids_of_one_millisecond_differ() -> None:
    new_id = uuid7_factory(StandingClock(), Random(1))
    assert len({new_id() for _ in range(1000)}) == 1000
