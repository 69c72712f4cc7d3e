"""The worker: claims due purchases and carries them out, one effect and one fenced commit at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from mesh import telemetry
from mesh.errors import MeshError, Unavailable
from orchestrator.app.steps import Work
from orchestrator.domain.events import Finished
from orchestrator.domain.purchase import AuthorizationState, Stage
from orchestrator.domain.saga import Moment, Next, Saga, without_releases
from orchestrator.ports import Claim, Commit, Fenced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random
    from uuid import UUID

    from mesh.clock import Clock
    from orchestrator.app.steps import Steps
    from orchestrator.domain.purchase import Purchase, Release
    from orchestrator.ports import Broadcast, Loaded, PurchaseStore, WorkerSession

_log = structlog.get_logger(__name__)

_OVER = (Stage.DONE, Stage.FLAGGED)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works; times in seconds."""

    concurrency: int = 200
    """Purchases under way at once."""
    lease_s: float = 15.0
    """How long a claim holds without renewal."""
    effect_s: float = 5.0
    """What must be left of the lease before an effect; longer ones (collecting) are covered by renewal."""
    poll_s: float = 0.5
    """The longest that due work waits when no wake-up arrives."""
    free_dead_s: float = 0.25
    """How often dead peers are looked for."""
    longest_pause_s: float = 2.0
    """A purchase that goes on within this time stays with its worker; one that goes on later is given back."""
    drain_s: float = 5.0
    """How long steps under way may take when the worker is told to stop."""


@dataclass(slots=True)
class _Live:
    """A purchase under way: until when its lease certainly holds (monotonic), its task, and its releases."""

    claim: Claim
    held_until_s: float
    task: asyncio.Task[None] | None = None
    answered: set[Release] = field(default_factory=set)


class Worker:
    """Carries purchases out until it is told to drain.

    Several run at once, in several processes. What makes that safe is the fence: every commit names the epoch of its
    claim. What makes it quick is the session: peers free the purchases of a worker whose session is gone.
    """

    def __init__(
        self,
        store: PurchaseStore,
        broadcast: Broadcast,
        steps: Steps,
        saga: Saga,
        *,
        settings: WorkerSettings,
        clock: Clock,
        rng: Random,
    ) -> None:
        """Keep what is needed; ``run`` starts the work."""
        self._store = store
        self._broadcast = broadcast
        self._steps = steps
        self._saga = saga
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._live: dict[UUID, _Live] = {}
        self._wake = asyncio.Event()
        self._draining = asyncio.Event()
        self._drained = asyncio.Event()

    def wake(self) -> bool:
        """Look for due work now; False when this worker has no room for it."""
        self._wake.set()
        return len(self._live) < self._settings.concurrency

    async def run(self) -> None:
        """Work until ``drain``."""
        try:
            while not self._draining.is_set():
                try:
                    async with self._store.session() as session:
                        await self._work_in(session)
                except Unavailable as error:
                    _log.warning("the database does not answer; trying again", error=error.message)
                    await self._pause(self._settings.poll_s)
        finally:
            self._drained.set()

    async def drain(self) -> None:
        """Take no new purchases, finish the steps under way and let others take the rest."""
        self._draining.set()
        self._wake.set()
        await self._drained.wait()

    async def _work_in(self, session: WorkerSession) -> None:
        """Work for as long as the session lasts."""
        async with asyncio.TaskGroup() as tasks:
            lost = tasks.create_task(session.lost())
            helpers = [
                lost,
                tasks.create_task(self._every(self._settings.lease_s / 3, self._renew)),
                tasks.create_task(self._every(self._settings.free_dead_s, self._free_dead)),
            ]
            while not self._draining.is_set() and not lost.done():
                if not await self._claim(session, tasks):
                    await self._pause(self._settings.poll_s * self._rng.uniform(0.75, 1.0), lost)
            await self._stop_working()
            for helper in helpers:
                helper.cancel()

    async def _claim(self, session: WorkerSession, tasks: asyncio.TaskGroup) -> bool:
        """Take what is due and start on it; True when there may be more."""
        room = self._settings.concurrency - len(self._live)
        if room <= 0:
            return False
        self._wake.clear()
        held_until_s = self._clock.monotonic() + self._settings.lease_s
        try:
            claims = await self._store.claim(session.owner, room, self._settings.lease_s)
        except Unavailable as error:
            _log.warning("cannot claim", error=error.message)
            return False
        if self._draining.is_set():
            # Told to stop while the claim was under way.
            await self._store.give_back(claims)
            return False
        for claim in claims:
            live = _Live(claim, held_until_s)
            self._live[claim.request_id] = live
            live.task = tasks.create_task(self._carry_out(live))
        return len(claims) == room

    async def _pause(self, at_most_s: float, *until: asyncio.Task[None]) -> None:
        """Wait until there may be work, the worker is told to drain, one of these tasks ends or the time is over."""
        waiting = [
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._draining.wait()),
        ]
        try:
            await asyncio.wait(
                [*waiting, *until], timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for future in waiting:
                future.cancel()

    async def _carry_out(self, live: _Live) -> None:
        """Carry one purchase as far as it goes."""
        request_id = live.claim.request_id
        try:
            loaded = await self._store.load(live.claim)
            if loaded is not None:
                with (
                    telemetry.resumed(loaded.purchase.traceparent),
                    structlog.contextvars.bound_contextvars(request_id=str(request_id)),
                ):
                    await self._carry_out_loaded(live, loaded)
        # Out of the task group of the releases, errors come in groups.
        except* Fenced:
            _log.info("another worker has taken over", request_id=str(request_id))
        except* MeshError as several:
            error = str(several.exceptions[0])
            _log.warning("left to the lease", request_id=str(request_id), error=error)
        except* Exception:  # noqa: BLE001  one purchase that cannot be read must not stop the others
            _log.exception("a purchase cannot be carried on", request_id=str(request_id))
        finally:
            if self._live.get(request_id) is live:
                del self._live[request_id]
            self._wake.set()

    async def _carry_out_loaded(self, live: _Live, loaded: Loaded) -> None:
        begun_s = self._clock.monotonic() - loaded.age_s

        def moment() -> Moment:
            return Moment(self._clock.now(), self._clock.monotonic() - begun_s)

        work = Work(loaded.purchase, loaded.token, loaded.event_seq, fresh=False, moment=moment)
        async with asyncio.TaskGroup() as releases:
            while await self._certainly_mine(live):
                following = await self._step(work)
                purchase = without_releases(following.purchase, live.answered)
                keep = (
                    purchase.stage not in _OVER
                    and following.delay_s <= self._settings.longest_pause_s
                    and not self._draining.is_set()
                )
                event_seq = await self._commit(live, purchase, following, keep=keep)
                for release in set(purchase.plan.releases) - set(work.purchase.plan.releases):
                    releases.create_task(self._release(live, release))
                if not keep:
                    return
                token = work.token if _needs_token(purchase.authorization.state) else None
                fresh = purchase.stage is not work.purchase.stage
                work = replace(
                    work, purchase=purchase, token=token, event_seq=event_seq, fresh=fresh
                )
                await self._clock.sleep(following.delay_s)

    async def _step(self, work: Work) -> Next:
        try:
            return await self._steps.step(work)
        except (MeshError, Fenced):
            raise
        except Exception:  # noqa: BLE001  a fault of ours in one purchase must not stop the others
            _log.exception("a step failed", stage=work.purchase.stage.value)
            return self._saga.again(work.purchase)

    async def _commit(self, live: _Live, purchase: Purchase, following: Next, *, keep: bool) -> int:
        if purchase.stage in _OVER:
            due_in_s = None
        elif keep:
            due_in_s = self._settings.lease_s
        else:
            due_in_s = following.delay_s
        asked_s = self._clock.monotonic()
        event_seq = await self._store.commit(
            Commit(
                purchase,
                following.events,
                due_in_s=due_in_s,
                keep=keep,
                erase_token=not _needs_token(purchase.authorization.state),
            )
        )
        live.held_until_s = asked_s + self._settings.lease_s
        if following.events:
            await self._broadcast.changed(purchase.request_id)
        if any(isinstance(event, Finished) for event in following.events):
            _log.info("final", status=purchase.status.value, reason=purchase.failure_reason)
        if purchase.stage is Stage.FLAGGED:
            _log.error("an operator has to decide", stage=purchase.stage.value)
        return event_seq

    async def _release(self, live: _Live, release: Release) -> None:
        """Have a hold given back beside the main path; if it fails, the last stage does it again."""
        if await self._steps.release(release):
            live.answered.add(release)

    async def _certainly_mine(self, live: _Live) -> bool:
        """Say whether enough is left of the lease for an effect, after renewing it if need be."""
        if live.held_until_s - self._clock.monotonic() < self._settings.effect_s:
            await self._renew_these([live])
        return live.held_until_s - self._clock.monotonic() >= self._settings.effect_s

    async def _renew(self) -> None:
        await self._renew_these(list(self._live.values()))

    async def _renew_these(self, lives: list[_Live]) -> None:
        if not lives:
            return
        held_until_s = self._clock.monotonic() + self._settings.lease_s
        mine = await self._store.renew([live.claim for live in lives], self._settings.lease_s)
        for live in lives:
            if live.claim.request_id in mine:
                live.held_until_s = held_until_s
            elif live.task is not None and self._live.get(live.claim.request_id) is live:
                live.task.cancel()

    async def _free_dead(self) -> None:
        if await self._store.free_dead():
            self._wake.set()

    async def _every(self, interval_s: float, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(interval_s)
            with suppress(Unavailable):
                await chore()

    async def _stop_working(self) -> None:
        """Let the steps under way come to their commits; what is not done in time is left to others."""
        running = [live.task for live in self._live.values() if live.task is not None]
        if running:
            await asyncio.wait(running, timeout=self._settings.drain_s)
        left = list(self._live.values())
        for live in left:
            if live.task is not None:
                live.task.cancel()
        with suppress(Unavailable):
            await self._store.give_back([live.claim for live in left])


def _needs_token(state: AuthorizationState) -> bool:
    return state is AuthorizationState.INTENDED
