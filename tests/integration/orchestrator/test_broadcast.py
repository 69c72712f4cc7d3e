"""Wake-ups between replicas, through a real Valkey."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from redis.asyncio import Redis

from mesh.clock import SystemClock
from orchestrator.adapters.valkey import ValkeyBroadcast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE, OTHER = UUID(int=1), UUID(int=2)


class Replica:
    """What one replica is told, in its order."""

    def __init__(self, client: Redis) -> None:
        self.told = asyncio.Queue[UUID | str]()
        self.broadcast = ValkeyBroadcast(
            client,
            SystemClock(),
            on_changed=self.told.put_nowait,
            on_work=lambda: self.told.put_nowait("work"),
            on_cancel=lambda request_id: self.told.put_nowait(f"cancel {request_id}"),
        )


@asynccontextmanager
async def replicas(url: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Run two; both listen when the block begins."""
    async with Redis.from_url(url) as client, asyncio.TaskGroup() as tasks:
        both = Replica(client), Replica(client)
        running = [tasks.create_task(replica.broadcast.run()) for replica in both]
        while (await client.pubsub_numsub("bookmesh:purchase:cancel"))[0][1] < len(both):
            pass
        yield both
        for task in running:
            task.cancel()


async def test_what_happens_in_one_replica_wakes_those_who_watch_in_another(
    valkey_url: str,
) -> None:
    async with replicas(valkey_url) as (here, there):
        await here.broadcast.changed(ONE)
        await here.broadcast.cancel(ONE)
        await here.broadcast.work()
        async with asyncio.timeout(10):
            told = [await there.told.get() for _ in range(3)]
    assert told == [ONE, f"cancel {ONE}", "work"]


async def test_nobody_waits_until_the_other_replicas_are_told(valkey_url: str) -> None:
    """A purchase goes on at once; its own process knows at once, and what comes together is told together."""
    async with replicas(valkey_url) as (here, there):
        first = here.broadcast.changed(ONE)
        # To its end without the event loop: it waits for nothing.
        assert list(first.__await__()) == []
        assert here.told.get_nowait() == ONE
        await here.broadcast.changed(ONE)
        await here.broadcast.changed(OTHER)
        async with asyncio.timeout(10):
            told = [await there.told.get() for _ in range(2)]
    assert told == [ONE, OTHER]


async def test_a_purchase_does_not_notice_that_valkey_is_gone() -> None:
    async with (
        Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.5) as client,
        asyncio.TaskGroup() as tasks,
    ):
        replica = Replica(client)
        running = tasks.create_task(replica.broadcast.run())
        for _ in range(3):
            await replica.broadcast.changed(ONE)
            assert await replica.told.get() == ONE
        running.cancel()
