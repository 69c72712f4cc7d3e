from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from mesh.time_limit import answer_within


async def test_an_answer_that_lies_there_is_read_however_long_the_loop_was_blocked() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def ask() -> bytes:
        async with answer_within(0.01):
            return await reader.readline()

    with theirs:
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0)
        theirs.sendall(b"yes\n")
        # Blocks the loop, until long after the time is over.
        threading.Event().wait(0.05)
        assert await asking == b"yes\n"
    writer.close()
    await writer.wait_closed()


async def test_who_does_not_answer_is_not_waited_for() -> None:
    with pytest.raises(TimeoutError):
        async with answer_within(0.01):
            await asyncio.Event().wait()


async def test_what_was_done_in_time_is_not_interrupted_later() -> None:
    async with answer_within(0.01):
        pass
    await asyncio.sleep(0.05)
