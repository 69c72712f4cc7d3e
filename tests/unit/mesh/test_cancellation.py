from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from mesh.cancellation import end_if_cancelled


async def test_a_loop_ends_although_what_it_waits_for_swallows_cancellation() -> None:
    async def careless() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    async def loop() -> None:
        while True:
            end_if_cancelled()
            await careless()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_nobody_cancelled_goes_on() -> None:
    end_if_cancelled()
