"""The registry is the same on every replica soon after a change, and is served from memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from aggregator.app.registry import CHUNK, Chunk, Registry
from mesh import errors
from sellers.model import SellerState
from sellers.registry import Directory, Snapshot
from tests.fakes.manual_clock import ManualClock
from tests.fakes.seller import registered
from tests.fakes.seller_store import MemorySellerStore

ACME = registered("acme", "acme:443")
BETA = registered("beta", "beta:443")
POLL_S = 0.25


class Replica:
    """One replica's registry and what it knows."""

    def __init__(self, store: MemorySellerStore) -> None:
        self.clock = ManualClock()
        self.directory = Directory()
        self.changes: list[Snapshot] = []
        self.registry = Registry(
            store, self.directory, self.clock, self.changes.append, poll_s=POLL_S
        )

    def active(self) -> list[str]:
        assert self.directory.snapshot is not None
        return [seller.seller_id for seller in self.directory.snapshot.active]


@pytest.fixture
def store() -> MemorySellerStore:
    return MemorySellerStore()


@pytest.fixture
def replica(store: MemorySellerStore) -> Replica:
    return Replica(store)


async def test_a_registration_is_known_at_once_where_it_was_made(replica: Replica) -> None:
    assert await replica.registry.register([ACME, BETA]) == 1
    assert replica.active() == ["acme", "beta"]


async def test_other_replicas_know_it_after_the_next_poll(
    replica: Replica, store: MemorySellerStore
) -> None:
    other = Replica(store)
    async with following(other):
        await replica.registry.register([ACME])
        await replica.registry.register([replace(ACME, state=SellerState.DRAINING), BETA])
        await poll(other)
        assert other.active() == ["beta"]
        assert [snapshot.revision for snapshot in other.changes] == [0, 2]


@asynccontextmanager
async def following(replica: Replica) -> AsyncIterator[None]:
    """Have the replica follow, and wait until it has looked once."""
    task = asyncio.create_task(replica.registry.follow())
    await settle()
    yield
    task.cancel()
    await asyncio.wait((task,))


async def poll(replica: Replica) -> None:
    replica.clock.advance(POLL_S)
    await settle()


async def settle() -> None:
    """Let all that can go on go on; nothing here waits for anything but the clock."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_changes_where_nothing_changed(replica: Replica) -> None:
    assert await replica.registry.register([ACME]) == 1
    assert await replica.registry.register([ACME]) == 1
    assert len(replica.changes) == 1


async def test_a_wrong_registration_registers_none_and_names_each_wrong_seller(
    replica: Replica,
) -> None:
    lost = replace(
        BETA,
        capabilities=replace(BETA.capabilities, supports_get_order=False, honours_not_after=False),
    )
    with pytest.raises(errors.InvalidArgument) as caught:
        await replica.registry.register([ACME, lost])
    assert [violation.field for violation in caught.value.fields] == ["sellers[1].capabilities"]
    assert "beta" in caught.value.message
    await replica.registry.refresh()
    assert replica.active() == []


async def test_without_the_store_what_is_known_stays_and_one_line_is_logged(
    replica: Replica, store: MemorySellerStore
) -> None:
    await replica.registry.register([ACME])
    async with following(replica):
        store.reachable = False
        with capture_logs() as logs:
            for _ in range(3):
                await poll(replica)
        assert replica.active() == ["acme"]
        assert [entry["log_level"] for entry in logs] == ["warning"]
        with pytest.raises(errors.Unavailable):
            await replica.registry.register([BETA])
        store.reachable = True
        await Replica(store).registry.register([BETA])
        await poll(replica)
        assert replica.active() == ["acme", "beta"]


async def test_a_store_that_was_set_back_is_read_as_a_whole(replica: Replica) -> None:
    await replica.registry.register([ACME])
    await replica.registry.register([BETA])
    restored = MemorySellerStore()
    await restored.put([replace(ACME, display_name="Acme before")])
    replica.registry._store = restored
    await replica.registry.refresh()
    assert replica.active() == ["acme"]


async def test_a_watcher_sees_everything_then_every_change(replica: Replica) -> None:
    await replica.registry.register([ACME, BETA])
    watch = replica.registry.watch()
    first = await anext(watch)
    assert ([seller.seller_id for seller in first.sellers], first.complete, first.revision) == (
        ["acme", "beta"],
        True,
        1,
    )
    following_chunk = asyncio.ensure_future(anext(watch))
    await replica.registry.register([replace(BETA, state=SellerState.DISABLED)])
    change = await following_chunk
    assert [(seller.seller_id, seller.state) for seller in change.sellers] == [
        ("beta", SellerState.DISABLED)
    ]
    assert (change.complete, change.revision) == (True, 2)


async def test_changes_that_came_together_are_seen_together(replica: Replica) -> None:
    await replica.registry.refresh()
    watch = replica.registry.watch()
    assert await anext(watch) == Chunk([], complete=True, revision=0)
    await replica.registry.register([ACME])
    await replica.registry.register([BETA])
    change = await anext(watch)
    assert [seller.seller_id for seller in change.sellers] == ["acme", "beta"]
    assert change.revision == 2


async def test_many_sellers_come_in_chunks_of_which_the_last_is_complete(replica: Replica) -> None:
    names = [f"seller-{number:03}" for number in range(2 * CHUNK + 1)]
    await replica.registry.register([registered(name, f"{name}:1") for name in names])
    watch = replica.registry.watch()
    chunks = [await anext(watch) for _ in range(3)]
    assert [chunk.complete for chunk in chunks] == [False, False, True]
    assert [seller.seller_id for chunk in chunks for seller in chunk.sellers] == names


async def test_a_watcher_waits_until_the_registry_has_been_read(replica: Replica) -> None:
    first = asyncio.ensure_future(anext(replica.registry.watch()))
    await settle()
    assert not first.done()
    await replica.registry.refresh()
    assert (await first).complete


async def test_a_watcher_has_to_start_again_when_the_registry_was_set_back(
    replica: Replica,
) -> None:
    await replica.registry.register([ACME])
    watch = replica.registry.watch()
    await anext(watch)
    replica.registry._store = MemorySellerStore()
    await replica.registry.refresh()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_watches_end_when_the_replica_drains(replica: Replica) -> None:
    await replica.registry.refresh()
    watch = replica.registry.watch()
    await anext(watch)
    end = asyncio.ensure_future(anext(watch, None))
    await settle()
    replica.registry.close()
    assert await end is None


async def test_no_fault_of_the_store_ends_the_following(
    replica: Replica, store: MemorySellerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> int:
        raise KeyError("revision")

    await replica.registry.register([ACME])
    async with following(replica):
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(store, "revision", broken)
            for _ in range(3):
                await poll(replica)
        assert replica.active() == ["acme"]
        assert [line["log_level"] for line in logs] == ["error"]
        await store.put([BETA])
        await poll(replica)
        assert replica.active() == ["acme", "beta"]
