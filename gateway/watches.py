"""Watches of purchases: asked for once, however many see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from bookmesh.customer.v1 import customer_pb2 as pb
from gateway import convert
from gateway.ports import Orchestrator
from gateway.streams import Event
from mesh import errors
from mesh.errors import MeshError
from mesh.grpc import deadline

PurchaseEvent: TypeAlias = Event[pb.WatchPurchaseRequestResponse]

_log = structlog.get_logger(__name__)


class Watches:
    """Events of purchases as their customers see them.

    Of a purchase that several watch here, the orchestrator is asked once, and each event is made once for all of them.
    What has happened is kept while somebody watches, for those who come later.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._shared: dict[tuple[str, str], _Shared] = {}

    async def events(
        self, customer_id: str, request_id: str, heartbeat_s: float | None = None
    ) -> AsyncGenerator[Sequence[PurchaseEvent], None]:
        """Give all events of a purchase from the first, each once, as they happen; end after its ``result``.

        Those that are there together are given together. With ``heartbeat_s`` there are none whenever nothing happened
        for so long.

        Raises:
            MeshError: as ``Orchestrator.watch``; one of its own for each who watches.

        """
        key = customer_id, request_id
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared()
            shared.following = asyncio.create_task(self._follow(key, shared))
        shared.watchers += 1
        told = 0
        try:
            while True:
                if news := shared.events[told:]:
                    told += len(news)
                    yield news
                    continue
                if shared.error is not None:
                    raise deepcopy(shared.error)
                if shared.over:
                    return
                try:
                    async with asyncio.timeout(heartbeat_s):
                        await shared.news.wait()
                except TimeoutError:
                    yield ()
        finally:
            shared.watchers -= 1
            if not shared.watchers and shared.following is not None:
                self._forget(key, shared)
                shared.following.cancel()

    async def _follow(self, key: tuple[str, str], shared: _Shared) -> None:
        # It began with one call, but ends with the last.
        deadline.leave()
        try:
            async for event in self._orchestrator.watch(*key):
                shared.events.append(_told(convert.event(event)))
                shared.wake()
        except MeshError as error:
            shared.error = error
        except Exception:  # noqa: BLE001  nobody awaits this task: all who watch would take a defect for a quiet end
            _log.exception("watch failed")
            shared.error = errors.Internal("something of ours went wrong; it has been logged")
        finally:
            self._forget(key, shared)
            shared.over = True
            shared.wake()

    def _forget(self, key: tuple[str, str], shared: _Shared) -> None:
        """Have who comes next begin anew."""
        if self._shared.get(key) is shared:
            del self._shared[key]


@dataclass(slots=True, eq=False)
class _Shared:
    """A purchase that somebody watches.

    Attributes:
        events: what has happened.
        news: set when more has, and then replaced.
        watchers: how many watch it.
        over: whether nothing more will come, by ``error`` if there is one.
        following: gets the events.

    """

    events: list[PurchaseEvent] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: int = 0
    over: bool = False
    error: MeshError | None = None
    following: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let all who watch look."""
        news, self.news = self.news, asyncio.Event()
        news.set()


def _told(message: pb.WatchPurchaseRequestResponse) -> PurchaseEvent:
    return Event(message.WhichOneof("event") or "", message.event_id, message)
