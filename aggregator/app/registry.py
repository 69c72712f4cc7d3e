"""The registry of sellers: kept in the store, served from memory, the same on every replica within a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from aggregator.domain.registration import problems
from aggregator.ports import SellerStore
from mesh import errors
from mesh.clock import Clock
from mesh.errors import FieldViolation
from sellers.model import Capabilities, Seller, SellerState
from sellers.registry import Directory, Snapshot

CHUNK = 50
"""Most sellers in a chunk: with the longest TLS roots that is 3.3 MB as a message, and 4 MB is the limit."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of what a watcher has to learn.

    Attributes:
        sellers: new or changed.
        complete: whether the watcher now knows all sellers of ``revision``.
        revision: of the registry.

    """

    sellers: Sequence[Seller]
    complete: bool
    revision: int


class Registry:
    """Registers sellers, and brings every replica's changes into this one's directory.

    While the store cannot be reached the directory stays as it was: collections go on.
    """

    def __init__(
        self,
        store: SellerStore,
        directory: Directory,
        clock: Clock,
        on_change: Callable[[Snapshot], None],
        *,
        poll_s: float,
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._on_change = on_change
        self._poll_s = poll_s
        self._changed = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._closed = False

    async def register(self, sellers: Sequence[Seller]) -> int:
        """Add or replace sellers, all or none; give the registry's revision after it.

        Raises:
            InvalidArgument: for sellers that must not be registered, naming each.
            Unavailable: while the store cannot be reached.

        """
        _check(sellers)
        revision = await self._store.put(sellers)
        await self.refresh()
        return revision

    async def set_state(self, seller_ids: Sequence[str], state: SellerState) -> int:
        """Change the state of sellers, all or none; give the registry's revision after it.

        Raises:
            NotFound: naming those that are not registered.
            Unavailable: while the store cannot be reached.

        """
        revision = await self._store.set_state(seller_ids, state)
        await self.refresh()
        return revision

    async def set_capabilities(self, seller: Seller, capabilities: Capabilities) -> None:
        """Take over what a seller says it can do, and nothing else; if it has been changed meanwhile, not even that.

        Raises:
            InvalidArgument: if it can do less than it must.
            Unavailable: while the store cannot be reached.

        """
        _check([replace(seller, capabilities=capabilities)])
        await self._store.set_capabilities(seller.seller_id, capabilities, seller.revision)
        await self.refresh()

    async def follow(self) -> None:
        """Look for changes, by polling, until cancelled; whatever is wrong with the store, collections go on."""
        reachable = True
        while True:
            try:
                await self.refresh()
                reachable = True
            except errors.Unavailable as error:
                if reachable:
                    _log.warning(
                        "the registry cannot be read: going on with what is known",
                        detail=error.message,
                    )
                reachable = False
            except Exception:  # noqa: BLE001  what is known is enough to go on with
                if reachable:
                    _log.exception(
                        "the registry is not as it should be: going on with what is known"
                    )
                reachable = False
            await self._clock.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Bring what has changed in the store into the directory.

        Raises:
            Unavailable: while the store cannot be reached.

        """
        async with self._refreshing:
            revision = await self._store.revision()
            known = self._directory.snapshot
            if known is not None and revision == known.revision:
                return
            if known is None or revision < known.revision:
                # Counted down: the store was set back. What is there now is everything.
                snapshot = self._directory.replace(await self._store.since(0), revision)
            else:
                snapshot = self._directory.apply(await self._store.since(known.revision), revision)
            _log.info("registry read", revision=revision, active=len(snapshot.active))
            self._on_change(snapshot)
            self._wake_watchers()

    async def watch(self) -> AsyncIterator[Chunk]:
        """Give all sellers, in chunks, then every change, until ``close``."""
        seen: int | None = None
        while not self._closed:
            changed = self._changed
            snapshot = self._directory.snapshot
            if snapshot is None or snapshot.revision == seen:
                await changed.wait()
                continue
            if seen is not None and snapshot.revision < seen:
                # The watcher would take what we send for changes: it has to start again.
                return
            after = -1 if seen is None else seen
            sellers = [seller for seller in snapshot.sellers.values() if seller.revision > after]
            while len(sellers) > CHUNK:
                yield Chunk(sellers[:CHUNK], complete=False, revision=snapshot.revision)
                del sellers[:CHUNK]
            yield Chunk(sellers, complete=True, revision=snapshot.revision)
            seen = snapshot.revision

    def close(self) -> None:
        """End all watches."""
        self._closed = True
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _check(sellers: Sequence[Seller]) -> None:
    found = problems(sellers)
    if found:
        raise errors.InvalidArgument(
            "; ".join(problem.description for problem in found),
            fields=tuple(
                FieldViolation(f"sellers[{problem.index}].{problem.field}", problem.description)
                for problem in found
            ),
        )
