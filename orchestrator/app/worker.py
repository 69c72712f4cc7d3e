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
from orchestrator.domain.events import Finished, Step, StepName
from orchestrator.domain.flags import Flag, Invariant
from orchestrator.domain.purchase import Stage
from orchestrator.domain.saga import (
    Moment,
    Next,
    Saga,
    begins_order,
    settled_by_itself,
    without_releases,
)
from orchestrator.ports import (
    CancelledFirst,
    Claim,
    Commit,
    Committed,
    Fenced,
    Loaded,
    News,
    Unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random
    from uuid import UUID

    from mesh.clock import Clock
    from orchestrator.app.steps import Steps
    from orchestrator.domain.observations import Observation
    from orchestrator.domain.purchase import Purchase, Release
    from orchestrator.ports import Broadcast, PurchaseStore, WorkerSession

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
    most_claims: int = 5
    """A purchase that was claimed more often without a commit, and for ``poisonous_after_s``, ends its workers: it is
    left to an operator."""
    poisonous_after_s: float = 120.0
    """Any number of claims in less time may be the doing of what kills PostgreSQL and workers, not of the purchase."""
    unreadable_s: float = 30.0
    """How long a purchase that a newer version has written is left to workers of that version each time."""
    most_unreadable_claims: int = 20
    """How often, before it is left to an operator."""


@dataclass(slots=True)
class _Live:
    """A purchase under way.

    Attributes:
        claim: the worker's claim.
        held_until_s: until when its lease certainly holds (monotonic).
        task: carries it out.
        answered: releases that its sellers have answered.
        cancelled: set when its customer wants it cancelled.

    """

    claim: Claim
    held_until_s: float
    task: asyncio.Task[None] | None = None
    answered: set[Release] = field(default_factory=set)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is to be done next.

    Attributes:
        work: the purchase as its step sees it.
        observed: the number of the last observation that was acted on.
        observations: those after it.
        problem: why it is left to an operator, when it is.

    """

    work: Work
    observed: int
    observations: tuple[Observation, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is to be committed, and the number of the last observation that was acted on with it."""

    following: Next
    observed: int


@dataclass(frozen=True, slots=True)
class _Done:
    """What was committed, what the commit found, and whether this worker goes on with the purchase."""

    following: Next
    committed: Committed
    keep: bool


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
        self._asked: set[UUID] = set()
        self._asking = asyncio.Event()
        self._wake = asyncio.Event()
        self._draining = asyncio.Event()
        self._drained = asyncio.Event()

    def cancel(self, request_id: UUID) -> None:
        """Look whether a purchase is to be cancelled, if this worker has it."""
        if request_id in self._live:
            self._asked.add(request_id)
            self._asking.set()

    def wake(self) -> bool:
        """Look for due work now; False when this worker has no room for it."""
        self._wake.set()
        return len(self._live) < self._settings.concurrency

    async def run(self, when: Callable[[], bool] = lambda: True) -> None:
        """Work until ``drain``, once ``when`` says that all is there that purchases need."""
        try:
            while not when() and not self._draining.is_set():
                await self._pause(self._settings.poll_s)
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
                tasks.create_task(self._look_for_cancels()),
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
            with suppress(Unavailable):
                await self._store.give_back(claims)
            return False
        for claim in claims:
            live = _Live(claim, held_until_s)
            self._live[claim.request_id] = live
            live.task = tasks.create_task(self._carry_out(live))
        return len(claims) == room

    async def _pause(self, at_most_s: float, *until: asyncio.Task[None]) -> None:
        """Wait until there may be work, the worker is told to drain, one of these tasks ends or the time is over."""
        # A drain wakes it too.
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait(
                [woken, *until], timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()
        if not self._draining.is_set():
            # Who cannot claim now, being full or without a database, would not pause again before he can.
            self._wake.clear()

    async def _carry_out(self, live: _Live) -> None:
        """Carry one purchase as far as it goes."""
        request_id = live.claim.request_id
        try:
            asked_s = self._clock.monotonic()
            loaded = await self._store.load(live.claim)
            if isinstance(loaded, Unreadable):
                await self._leave_alone(live.claim, loaded)
            elif loaded is not None:
                with (
                    telemetry.resumed(loaded.purchase.traceparent),
                    structlog.contextvars.bound_contextvars(request_id=str(request_id)),
                ):
                    await self._carry_out_loaded(live, loaded, asked_s)
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

    async def _leave_alone(self, claim: Claim, unreadable: Unreadable) -> None:
        """Leave what a newer version has written to its workers; when none comes, to an operator."""
        _log.warning(
            "a purchase cannot be read; left to newer workers",
            request_id=str(claim.request_id),
            stage=unreadable.stage,
            problem=unreadable.problem,
        )
        if unreadable.claims <= self._settings.most_unreadable_claims:
            await self._store.leave(claim, self._settings.unreadable_s)
            return
        flag = Flag(
            Invariant.ENDS,
            f"no worker can read it in stage {unreadable.stage}: {unreadable.problem}",
            "run the version that wrote it, or repair the row; then retry",
        )
        await self._store.set_aside(claim, flag)
        _log.error("an operator has to decide", request_id=str(claim.request_id), why=flag.detail)

    async def _carry_out_loaded(self, live: _Live, loaded: Loaded, asked_s: float) -> None:
        # Its age is that of some moment since then: it is taken for older than it is rather than for younger.
        begun_s = asked_s - loaded.age_s

        def moment() -> Moment:
            return Moment(self._clock.now(), self._clock.monotonic() - begun_s)

        ahead = _Ahead(
            Work(loaded.purchase, loaded.token, loaded.event_seq, fresh=False, moment=moment),
            loaded.observed,
            loaded.observations,
            problem=poisonous(loaded, self._settings),
        )
        async with asyncio.TaskGroup() as releases:
            while await self._certainly_mine(live):
                before = ahead.work.purchase
                decided = await self._decide(live, ahead)
                try:
                    done = await self._commit(live, before, decided)
                except CancelledFirst:
                    instead = self._saga.forestalled(before, decided.following, moment())
                    done = await self._commit(live, before, replace(decided, following=instead))
                purchase = done.following.purchase
                for release in set(purchase.plan.releases) - set(before.plan.releases):
                    releases.create_task(self._release(live, release))
                if not done.keep:
                    return
                ahead = await self._ahead(live, ahead, done, decided.observed)
                await self._rest(live, done.following.delay_s)

    async def _ahead(self, live: _Live, last: _Ahead, done: _Done, observed: int) -> _Ahead:
        """Go on from what was committed, and from what others have told since."""
        purchase = done.following.purchase
        observations: tuple[Observation, ...] = ()
        if done.committed.observations_wait:
            loaded = await self._store.load(live.claim)
            if not isinstance(loaded, Loaded):
                raise Fenced(str(purchase.request_id))
            observations = loaded.observations
            purchase = replace(purchase, flag=loaded.purchase.flag)
        if purchase.cancel_requested is not done.committed.cancel_requested:
            purchase = replace(purchase, cancel_requested=done.committed.cancel_requested)
        work = Work(
            purchase,
            last.work.token if self._saga.needs_token(purchase, self._clock.now()) else None,
            done.committed.event_seq,
            fresh=_fresh(last, purchase),
            moment=last.work.moment,
        )
        return _Ahead(work, observed, observations)

    async def _decide(self, live: _Live, ahead: _Ahead) -> _Decided:
        """Give what to commit next: what follows from what others told, else from a step."""
        purchase, moment = ahead.work.purchase, ahead.work.moment()
        observed = ahead.observed
        if ahead.problem:
            return _Decided(self._saga.poisoned(purchase, ahead.problem), observed)
        if ahead.observations:
            observed = ahead.observations[0].number
            following = self._observed(purchase, ahead.observations[0], moment)
        else:
            following = self._saga.cancelled(purchase, moment) or await self._step(live, ahead.work)
        return _Decided(settled_by_itself(purchase, following), observed)

    def _observed(self, purchase: Purchase, observation: Observation, moment: Moment) -> Next:
        try:
            return self._saga.observed(purchase, observation, moment)
        except Exception as error:  # noqa: BLE001  as for a step; an observation is not tried twice
            _log.exception("an observation cannot be acted on", number=observation.number)
            problem = f"observation {observation.number} led to {_word_for(error)}"
            return self._saga.poisoned(purchase, problem)

    async def _step(self, live: _Live, work: Work) -> Next:
        try:
            if work.purchase.stage is Stage.COLLECT:
                return await self._unless_cancelled(live, work)
            return await self._steps.step(work)
        except (MeshError, Fenced):
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours in one purchase must not stop the others
            _log.exception("a step failed", stage=work.purchase.stage.value)
            return self._saga.stumbled(work.purchase, _word_for(error))

    async def _unless_cancelled(self, live: _Live, work: Work) -> Next:
        """Collect quotes; once the customer does not want the book any more, stop: nobody is bound by asking."""
        step = asyncio.ensure_future(self._steps.step(work))
        cancelled = asyncio.ensure_future(live.cancelled.wait())
        try:
            await asyncio.wait((step, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                return step.result()
        finally:
            for task in (step, cancelled):
                task.cancel()
            await asyncio.wait((step, cancelled))
        unwanted = replace(work.purchase, cancel_requested=True)
        following = self._saga.cancelled(unwanted, work.moment())
        return following if following is not None else self._saga.unchanged(unwanted)

    async def _commit(self, live: _Live, before: Purchase, decided: _Decided) -> _Done:
        """Commit a decision, less the releases that were answered meanwhile."""
        following = decided.following
        purchase = without_releases(following.purchase, live.answered)
        if purchase is not following.purchase:
            following = replace(following, purchase=purchase)
        keep = (
            purchase.stage not in _OVER
            and following.delay_s <= self._settings.longest_pause_s
            and not self._draining.is_set()
        )
        if purchase.stage in _OVER:
            due_in_s = None
        elif keep:
            due_in_s = self._settings.lease_s
        else:
            due_in_s = following.delay_s
        asked_s = self._clock.monotonic()
        committed = await self._store.commit(
            Commit(
                purchase,
                following.events,
                due_in_s=due_in_s,
                keep=keep,
                erase_token=not self._saga.needs_token(purchase, self._clock.now()),
                ended=following.ended,
                begins_order=begins_order(before, purchase),
                flags=following.flags,
                settled=following.settled,
                news=_news(following),
                observed=decided.observed,
                same_plan=purchase.plan == before.plan,
            )
        )
        live.held_until_s = asked_s + self._settings.lease_s
        if committed.cancel_requested:
            live.cancelled.set()
        if following.events:
            await self._broadcast.changed(purchase.request_id)
        if any(isinstance(event, Finished) for event in following.events):
            _log.info("final", status=purchase.status.value, reason=purchase.failure_reason)
        for flag in following.flags:
            _log.error("an operator has to know", invariant=flag.invariant.value, why=flag.detail)
        return _Done(following, committed, keep)

    async def _rest(self, live: _Live, delay_s: float) -> None:
        """Wait before the next step, or until the customer wants it cancelled."""
        if delay_s <= 0 or live.cancelled.is_set():
            await self._clock.sleep(delay_s)
            return
        sleep = asyncio.ensure_future(self._clock.sleep(delay_s))
        cancelled = asyncio.ensure_future(live.cancelled.wait())
        try:
            await asyncio.wait((sleep, cancelled), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleep, cancelled):
                task.cancel()

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
                if mine[live.claim.request_id]:
                    live.cancelled.set()
            elif live.task is not None and self._live.get(live.claim.request_id) is live:
                live.task.cancel()

    async def _look_for_cancels(self) -> None:
        """Find out which purchases are to be cancelled, whenever somebody says so."""
        while True:
            await self._asking.wait()
            self._asking.clear()
            asked = [live for key, live in self._live.items() if key in self._asked]
            self._asked.clear()
            with suppress(Unavailable):
                await self._renew_these(asked)

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


def _fresh(last: _Ahead, purchase: Purchase) -> bool:
    """Say whether the effect of the stage that was just committed cannot have been tried before.

    That is proven by who has committed its intent: this worker, and it has not begun the effect since. Who finds the
    intent, having claimed the purchase, knows nothing of that: the one before may have been stopped at any moment.
    """
    before = last.work.purchase
    if _number(before) != _number(purchase):
        return True
    if before.stage is not purchase.stage:
        # An operator's decision leads back to a stage whose effect was tried before it came to the flag.
        return before.stage is not Stage.FLAGGED
    return last.work.fresh and bool(last.observations)


def _number(purchase: Purchase) -> int | None:
    return purchase.attempt.number if purchase.attempt is not None else None


def poisonous(loaded: Loaded, settings: WorkerSettings) -> str:
    """Say how the workers of a purchase have ended with it; empty when that may be no fault of it."""
    before, since_s = loaded.claims - 1, loaded.claimed_for_s
    if before < settings.most_claims or since_s < settings.poisonous_after_s:
        return ""
    return f"{before} workers in a row have ended or failed with it, within {since_s:.0f} s"


def _word_for(error: Exception) -> str:
    """Name a fault, the first of several."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__


def _news(following: Next) -> tuple[News, ...]:
    """Say what the customer is told of these events, besides those who watch."""
    news = []
    for event in following.events:
        if isinstance(event, Finished):
            news.append(News.FINAL)
        elif isinstance(event, Step) and event.name is StepName.REFUNDED:
            news.append(News.REFUNDED)
    return tuple(news)
