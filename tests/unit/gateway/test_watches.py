"""What is shared by those who watch the same purchase, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from bookmesh.orchestrator.v1 import orchestrator_pb2
from gateway.ports import Orchestrator
from gateway.watches import Watches
from mesh import errors
from mesh.grpc import deadline
from tests.fakes.orchestrators import step


class Purchase:
    """An orchestrator's stream that tells one event and breaks off with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0
        self.time_left_s: float | None = 0.0

    async def watch(
        self, customer_id: str, request_id: str
    ) -> AsyncIterator[orchestrator_pb2.WatchPurchaseResponse]:
        self.asked += 1
        self.time_left_s = deadline.remaining()
        yield step("1", "SUBMITTED")
        raise self.error


async def two_who_watch(purchase: Purchase) -> tuple[errors.MeshError, errors.MeshError]:
    """Give what each of them is told in the end."""
    watches = Watches(cast("Orchestrator", purchase))

    async def watching() -> errors.MeshError:
        # As the call that each of them makes.
        deadline.enter(3600)
        events = watches.events("alice", "id")
        assert [event.event_id for event in await anext(events)] == ["1"]
        with pytest.raises(errors.MeshError) as caught:
            await anext(events)
        return caught.value

    return await asyncio.gather(watching(), watching())


async def test_an_error_is_everybodys_own() -> None:
    purchase = Purchase(errors.Unavailable("try again", retry_after_s=1.0))
    first, second = await two_who_watch(purchase)
    assert purchase.asked == 1
    first.metadata["last_event_id"] = "1"
    assert second.metadata == {}
    assert (type(second), second.message, second.retry_after_s) == (
        errors.Unavailable,
        "try again",
        1.0,
    )


async def test_what_went_wrong_inside_is_not_told() -> None:
    [first, _] = await two_who_watch(Purchase(RuntimeError("secret")))
    assert type(first) is errors.Internal
    assert "secret" not in first.message


async def test_the_deadline_of_who_came_first_is_not_that_of_all() -> None:
    purchase = Purchase(errors.Unavailable("try again"))
    await two_who_watch(purchase)
    assert purchase.time_left_s is None
