"""Watching a purchase: everything from its beginning, then as it happens, until it is final."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.app.purchases import wait_for
from orchestrator.domain.events import Collected, Finished, Step
from orchestrator.ports import PurchaseView, Recorded, RecordedBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import datetime

    from orchestrator.app.purchases import Purchases
    from orchestrator.app.signals import Signals
    from orchestrator.domain.events import AnswerBatch
    from orchestrator.ports import Broadcast, PurchaseStore

_POLL_S = 1.0
_LOOKS_PER_S = 250.0

Shown: TypeAlias = "Step | Collected | AnswerBatch | PurchaseView"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """An event as it is shown: its id is the same in every stream."""

    event_id: str
    happened_at: datetime
    shown: Shown


class Watch:
    """Streams of purchases, from whichever replica."""

    def __init__(
        self, purchases: Purchases, store: PurchaseStore, broadcast: Broadcast, signals: Signals
    ) -> None:
        """Keep what is needed."""
        self._purchases = purchases
        self._store = store
        self._broadcast = broadcast
        self._signals = signals
        self._open = 0

    async def watch(self, customer_id: str, request_id: str) -> AsyncIterator[WatchEvent]:
        """Give all events in order; end after the final one.

        Steps come from the database. Batches of quotes come from the broadcast, each behind the step after which it was
        passed on; those that were lost there are missing. Whoever watches is woken by signals, and looks for itself
        once a second; with more than 250 that watch here, all together look 250 times a second, so that those who only
        wait do not keep the database from working.

        Raises:
            NotFound: when this customer has no purchase with this id.

        """
        view = await self._purchases.get(customer_id, request_id)
        seq, entry_id = 0, None
        with self._counted(), self._signals.listening(view.request_id) as changed:
            while True:
                # Batches are passed on before the step that follows them is committed: read in this order, all batches
                # before a step are there when the step is. Those behind a step not yet seen wait for it.
                steps = await self._store.events(view.request_id, seq)
                last_seq = steps[-1].seq if steps else seq
                batches = [
                    batch
                    for batch in await self._broadcast.batches(view.request_id, entry_id)
                    if batch.after_seq <= last_seq
                ]
                together: list[Recorded | RecordedBatch] = [*steps, *batches]
                for recorded in sorted(together, key=_place):
                    if isinstance(recorded, RecordedBatch):
                        entry_id = recorded.entry_id
                        yield WatchEvent(
                            f"{recorded.after_seq}-{entry_id}", recorded.happened_at, recorded.batch
                        )
                        continue
                    seq = recorded.seq
                    if isinstance(recorded.event, Finished):
                        final = await self._purchases.get(customer_id, request_id)
                        yield WatchEvent(str(seq), recorded.happened_at, final)
                        return
                    yield WatchEvent(str(seq), recorded.happened_at, recorded.event)
                await wait_for(changed, max(_POLL_S, self._open / _LOOKS_PER_S))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def _place(recorded: Recorded | RecordedBatch) -> tuple[int, int]:
    """Give the place of an event among those read together; the sort keeps the order of batches."""
    if isinstance(recorded, RecordedBatch):
        return recorded.after_seq, 1
    return recorded.seq, 0
