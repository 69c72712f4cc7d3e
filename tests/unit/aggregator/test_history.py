"""The history is written behind the collections: never in their way, bounded, and it says what it dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest
from structlog.testing import capture_logs

from aggregator.app.history import HistorySettings, WriteBehindHistory
from mesh import errors
from tests.fakes.ended_collections import STARTED_AT, record
from tests.fakes.history_store import MemoryHistoryStore
from tests.fakes.manual_clock import ManualClock

SETTINGS = HistorySettings(
    buffer_quotes=10,
    batch_quotes=4,
    write_every_s=0.5,
    longest_backoff_s=2.0,
    days=30,
    upkeep_every_s=3600.0,
)
DROPPED = "dropped from the history of quotes"
CANNOT_WRITE = "the history of quotes cannot be written"


class Running:
    """A history that is written to a store in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryHistoryStore()
        self.history = WriteBehindHistory(self.store, self.clock, SETTINGS)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.history.run())
        await settle()
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()


@pytest.fixture
def running() -> Running:
    return Running()


async def settle() -> None:
    """Let all that can go on go on; nothing here waits for anything but the clock."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_what_is_recorded_is_written_soon_after_in_batches(running: Running) -> None:
    records = [record(2) for _ in range(5)]
    async with running.run():
        for each in records:
            running.history.record(each)
        await settle()
        assert running.store.writes == []
        await running.advance(SETTINGS.write_every_s)
        ids = [each.collection_id for each in records]
        assert running.store.writes == [ids[:2], ids[2:4], ids[4:]]
        assert running.store.stored() == records


async def test_a_collection_larger_than_a_batch_is_written_alone(running: Running) -> None:
    records = [record(1), record(5), record(1)]
    async with running.run():
        for each in records:
            running.history.record(each)
        await running.advance(SETTINGS.write_every_s)
    assert [len(batch) for batch in running.store.writes] == [1, 1, 1]


async def test_while_the_store_is_gone_records_wait_and_one_line_is_logged(
    running: Running,
) -> None:
    records = [record(2) for _ in range(5)]
    async with running.run():
        running.store.reachable = False
        with capture_logs() as logs:
            for each in records:
                running.history.record(each)
                await running.advance(SETTINGS.longest_backoff_s)
        assert [entry["event"] for entry in logs] == [CANNOT_WRITE]
        running.store.reachable = True
        await running.advance(SETTINGS.longest_backoff_s)
        assert running.store.stored() == records


async def test_pauses_grow_while_the_store_is_gone_and_are_short_again_after(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = running.clock.sleep

    async def noting(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(delay_s)

    monkeypatch.setattr(running.clock, "sleep", noting)
    async with running.run():
        pauses.clear()
        running.store.reachable = False
        running.history.record(record())
        for pause_s in (0.5, 1.0, 2.0, 2.0):
            await running.advance(pause_s)
        running.store.reachable = True
        await running.advance(2.0)
    assert pauses == [1.0, 2.0, 2.0, 2.0, 0.5]


async def test_when_the_buffer_is_full_the_oldest_are_dropped_and_counted(
    running: Running,
) -> None:
    records = [record(3) for _ in range(5)]
    with capture_logs() as logs:
        for each in records:
            running.history.record(each)
    assert [(e["event"], e["collections"], e["quotes"]) for e in logs] == [(DROPPED, 1, 3)]
    async with running.run():
        with capture_logs() as logs:
            await running.advance(1.0)
        assert [(e["collections"], e["quotes"]) for e in logs if e["event"] == DROPPED] == [(1, 3)]
    assert running.store.stored() == records[2:]


async def test_a_collection_without_new_quotes_takes_room_too(running: Running) -> None:
    known = record([replace(answer, cached=True) for answer in record(3).answers])
    for _ in range(SETTINGS.buffer_quotes):
        running.history.record(replace(known))
    with capture_logs() as logs:
        running.history.record(record(1))
    assert [(e["collections"], e["quotes"]) for e in logs] == [(1, 0)]


async def test_the_log_says_at_most_once_a_second_what_was_dropped(running: Running) -> None:
    with capture_logs() as logs:
        for _ in range(40):
            running.history.record(record(5))
            running.clock.advance(0.1)
    assert [e["collections"] for e in logs] == [1, 10, 10, 10]


async def test_room_that_was_written_is_free_again(running: Running) -> None:
    async with running.run():
        with capture_logs() as logs:
            for _ in range(10):
                running.history.record(record(5))
                running.history.record(record(5))
                await running.advance(SETTINGS.write_every_s)
        assert logs == []
    assert len(running.store.stored()) == 20


async def test_what_can_never_be_stored_is_dropped_alone(running: Running) -> None:
    good, bad = [record(1) for _ in range(3)], record(1, book_id="\0")
    async with running.run():
        for each in (good[0], bad, good[1], good[2]):
            running.history.record(each)
        with capture_logs() as logs:
            await running.advance(SETTINGS.write_every_s)
            await running.advance(SETTINGS.write_every_s)
        assert [(e["event"], e["collections"], e["quotes"]) for e in logs] == [(DROPPED, 1, 1)]
        assert "ValueError" in logs[0]["why"]
        assert running.store.stored() == good
        more = [record(1) for _ in range(3)]
        for each in more:
            running.history.record(each)
        await running.advance(SETTINGS.write_every_s)
    assert [len(batch) for batch in running.store.writes] == [1, 1, 1, 3]


async def test_when_it_ends_what_is_left_is_written(running: Running) -> None:
    async with running.run():
        running.history.record(record(1))
    assert len(running.store.stored()) == 1


async def test_when_it_ends_without_the_store_it_says_what_is_lost(running: Running) -> None:
    with capture_logs() as logs:
        async with running.run():
            running.store.reachable = False
            running.history.record(record(2))
    assert [(e["event"], e["collections"], e["quotes"]) for e in logs] == [(DROPPED, 1, 2)]


async def test_partitions_are_made_before_they_are_needed_and_dropped_when_too_old(
    running: Running,
) -> None:
    today = STARTED_AT.date()
    running.store.days = {today - timedelta(days=ago) for ago in range(28, 34)}
    async with running.run():
        assert min(running.store.days) == today - timedelta(days=SETTINGS.days)
        assert {today + timedelta(days=n) for n in range(-1, 4)} < running.store.days
        await running.advance(24 * 3600.0)
        assert min(running.store.days) == today - timedelta(days=SETTINGS.days - 1)
        assert max(running.store.days) == today + timedelta(days=4)


async def test_whatever_is_wrong_with_partitions_the_service_goes_on_and_nothing_is_lost(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(first_day: date, days: int) -> None:
        raise PermissionError("not yours")

    async with running.run():
        with capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr(running.store, "make_partitions", forbidden)
            running.store.days.clear()
            await running.advance(SETTINGS.upkeep_every_s)
            assert {entry["detail"] for entry in logs} == {"not yours"}
        await running.advance(SETTINGS.longest_backoff_s)
        running.history.record(record(1, started_at=running.clock.now()))
        await running.advance(SETTINGS.write_every_s)
        assert len(running.store.stored()) == 1


async def test_nothing_is_written_before_there_are_partitions(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(first_day: date, days: int) -> None:
        raise errors.Unavailable("the test says so")

    monkeypatch.setattr(running.store, "make_partitions", unavailable)
    async with running.run():
        running.history.record(record(1))
        with capture_logs() as logs:
            await running.advance(SETTINGS.write_every_s)
        assert DROPPED not in {entry["event"] for entry in logs}
        monkeypatch.undo()
        await running.advance(SETTINGS.longest_backoff_s)
        await running.advance(SETTINGS.longest_backoff_s)
        assert len(running.store.stored()) == 1
