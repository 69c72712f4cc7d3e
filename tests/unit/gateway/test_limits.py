"""What customers may have open at a gateway at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.limits import Limits
from mesh import errors


class Open:
    """Calls and streams that are open until they are told to end."""

    def __init__(self) -> None:
        self.limits = Limits(calls=2, streams=2, all_streams=3)
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, customer: str) -> asyncio.Task[None]:
        return await self._open(lambda: self.limits.call(customer))

    async def stream(self, customer: str) -> asyncio.Task[None]:
        return await self._open(lambda: self.limits.stream(customer))

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, count: Callable[[], None]) -> asyncio.Task[None]:
        admitted = asyncio.get_running_loop().create_future()

        async def answer() -> None:
            try:
                count()
            except errors.ResourceExhausted as refused:
                admitted.set_exception(refused)
                return
            admitted.set_result(None)
            await asyncio.Event().wait()

        task = asyncio.create_task(answer())
        self._tasks.add(task)
        await admitted
        return task


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    opened = Open()
    yield opened
    await opened.end()


async def test_a_customer_has_so_many_calls_open_and_others_are_not_concerned(opened: Open) -> None:
    await opened.call("alice")
    await opened.call("alice")
    with pytest.raises(errors.ResourceExhausted) as refused:
        await opened.call("alice")
    assert refused.value.reason == "TOO_MANY_CALLS"
    assert refused.value.retry_after_s is not None
    await opened.call("bob")
    await opened.stream("alice")


async def test_a_call_that_has_ended_makes_room_however_it_ended(opened: Open) -> None:
    await opened.call("alice")
    ending = await opened.call("alice")
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    await opened.call("alice")


async def test_streams_have_a_limit_for_each_and_one_for_all(opened: Open) -> None:
    await opened.stream("alice")
    ending = await opened.stream("alice")
    with pytest.raises(errors.ResourceExhausted) as refused:
        await opened.stream("alice")
    assert refused.value.reason == "TOO_MANY_STREAMS"
    await opened.stream("bob")
    with pytest.raises(errors.ResourceExhausted) as all_taken:
        await opened.stream("carol")
    assert all_taken.value.reason == "TOO_MANY_STREAMS"
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    await opened.stream("carol")
