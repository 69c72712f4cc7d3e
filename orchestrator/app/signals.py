"""Wakes those in this process who wait for something to happen in a purchase."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID


class Signals:
    """Wake-ups by purchase. One may be lost or come for nothing, so whoever waits looks for itself."""

    def __init__(self) -> None:
        self._listeners: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)

    def changed(self, request_id: UUID) -> None:
        """Wake all who listen to a purchase."""
        for listener in self._listeners.get(request_id, ()):
            listener.set()

    @contextmanager
    def listening(self, request_id: UUID) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something happens in a purchase; the listener clears it."""
        event = asyncio.Event()
        self._listeners[request_id].add(event)
        try:
            yield event
        finally:
            self._listeners[request_id].discard(event)
            if not self._listeners[request_id]:
                del self._listeners[request_id]
