"""Wake-ups and live quotes through Valkey. No purchase depends on them, so nothing here raises."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from mesh.cancellation import end_if_cancelled
from orchestrator.domain.events import AnswerBatch
from orchestrator.ports import RecordedBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from mesh.clock import Clock

_CHANGED = "bookmesh:purchase:changed"
_WORK = "bookmesh:purchase:work"
_CANCEL = "bookmesh:purchase:cancel"
_KEEP_S = 1800
"""How long those who join late find the quotes of a purchase, in seconds. About 20 KB for 200 sellers."""

_RETRY_S = 0.5

_log = structlog.get_logger(__name__)


class ValkeyBroadcast:
    """Tells the other replicas what happens, by publish and subscribe and one stream a purchase.

    Nobody waits until it is told: ``run`` tells it, together what has happened meanwhile, and hears what others tell.
    """

    def __init__(
        self,
        client: Redis,
        clock: Clock,
        *,
        on_changed: Callable[[UUID], None],
        on_work: Callable[[], object],
        on_cancel: Callable[[UUID], object],
    ) -> None:
        """Use a client whose calls time out by themselves; the callbacks are told what any replica publishes."""
        self._client = client
        self._clock = clock
        self._on_changed = on_changed
        self._on_work = on_work
        self._on_cancel = on_cancel
        self._to_tell: dict[tuple[str, str], None] = {}
        self._telling = asyncio.Event()

    async def changed(self, request_id: UUID) -> None:
        """Wake those who watch a purchase, here at once, in the other replicas if Valkey answers."""
        self._on_changed(request_id)
        self._tell(_CHANGED, str(request_id))

    async def work(self) -> None:
        """Wake the workers of every replica."""
        self._tell(_WORK, "")

    async def cancel(self, request_id: UUID) -> None:
        """Tell the worker that has a purchase that it is to be cancelled: here at once, elsewhere if Valkey answers."""
        self._on_cancel(request_id)
        self._tell(_CANCEL, str(request_id))

    async def add_batch(self, request_id: UUID, after_seq: int, batch: AnswerBatch) -> None:
        """Pass on answers that arrived, for those who watch now or join later."""
        key = _key(request_id)
        with suppress(RedisError, OSError):
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.xadd(key, {"after": after_seq, "batch": batch.packed})
                pipeline.expire(key, _KEEP_S)
                await pipeline.execute()

    async def batches(self, request_id: UUID, after: str | None) -> list[RecordedBatch]:
        """Give the answers passed on after the entry of that name."""
        entries: list[tuple[bytes, dict[bytes, bytes]]]
        try:
            entries = await self._client.xrange(_key(request_id), f"({after}" if after else "-")  # type: ignore[assignment]  # redis-py's types cannot say that nothing is decoded
        except (RedisError, OSError):
            return []
        return [_recorded(entry_id, fields) for entry_id, fields in entries]

    async def run(self) -> None:
        """Tell the others, and pass on what any replica tells to the callbacks, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_telling())
            tasks.create_task(self._listen())

    async def _keep_telling(self) -> None:
        while True:
            end_if_cancelled()
            await self._telling.wait()
            self._telling.clear()
            to_tell, self._to_tell = self._to_tell, {}
            with suppress(RedisError, OSError):
                async with self._client.pipeline(transaction=False) as pipeline:
                    for channel, message in to_tell:
                        pipeline.publish(channel, message)
                    await pipeline.execute()

    async def _listen(self) -> None:
        while True:
            end_if_cancelled()
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(_CHANGED, _WORK, _CANCEL)
                    while True:
                        end_if_cancelled()
                        message = await pubsub.get_message(
                            ignore_subscribe_messages=True, timeout=None
                        )
                        if message is None:
                            continue
                        if message["channel"] == _WORK.encode():
                            self._on_work()
                            continue
                        request_id = UUID(message["data"].decode())
                        if message["channel"] == _CANCEL.encode():
                            self._on_cancel(request_id)
                        else:
                            self._on_changed(request_id)
            except (RedisError, OSError) as error:
                _log.warning("no wake-ups from other replicas for now", error=str(error))
                await self._clock.sleep(_RETRY_S)

    def _tell(self, channel: str, message: str) -> None:
        self._to_tell[channel, message] = None
        self._telling.set()


def _key(request_id: UUID) -> str:
    return f"bookmesh:purchase:{request_id}:quotes"


def _recorded(entry_id: bytes, fields: dict[bytes, bytes]) -> RecordedBatch:
    name = entry_id.decode()
    return RecordedBatch(
        after_seq=int(fields[b"after"]),
        entry_id=name,
        happened_at=datetime.fromtimestamp(int(name.partition("-")[0]) / 1000, UTC),
        batch=AnswerBatch(fields[b"batch"]),
    )
