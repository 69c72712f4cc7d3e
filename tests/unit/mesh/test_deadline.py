from __future__ import annotations

import asyncio

from mesh.grpc import deadline


async def test_outside_a_call_there_is_no_deadline() -> None:
    assert deadline.remaining() is None
    assert deadline.timeout(3.0) == 3.0


async def test_a_call_to_the_next_hop_gets_what_is_left_less_the_margin() -> None:
    deadline.enter(2.0)
    left = deadline.remaining()
    assert left is not None
    assert 0 < deadline.timeout(60.0) <= left - deadline.REPORT_MARGIN_S


async def test_a_call_to_the_next_hop_never_gets_more_than_it_asked_for() -> None:
    deadline.enter(60.0)
    assert deadline.timeout(3.0) == 3.0


async def test_a_deadline_that_has_passed_leaves_nothing() -> None:
    deadline.enter(-1.0)
    assert deadline.timeout(3.0) == 0.0


async def test_the_tasks_of_a_call_inherit_its_deadline() -> None:
    deadline.enter(60.0)

    async def child() -> float | None:
        return deadline.remaining()

    assert await asyncio.create_task(child()) is not None


async def test_a_deadline_stays_in_its_own_task() -> None:
    async def call() -> None:
        deadline.enter(60.0)

    await asyncio.create_task(call())
    assert deadline.remaining() is None
