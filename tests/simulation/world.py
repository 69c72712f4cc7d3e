"""A run of a scenario under a schedule: the real orchestrator in several processes, until everything is quiet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil
from random import Random
from typing import TypeVar, cast
from uuid import UUID

from mesh.errors import AlreadyExists, FailedPrecondition, Unavailable
from orchestrator.adapters.notifications.contents import CustomerContents
from orchestrator.app.notify import Notifier, NotifierSettings
from orchestrator.app.operators import Operators
from orchestrator.app.payment_events import PaymentEvents
from orchestrator.app.purchases import Acceptance, Order, Purchases
from orchestrator.app.signals import Signals
from orchestrator.app.steps import Steps
from orchestrator.app.worker import Worker, WorkerSettings
from orchestrator.domain.observations import Told
from orchestrator.domain.purchase import Status
from orchestrator.domain.saga import Saga
from orchestrator.notification_ports import NotificationStore
from orchestrator.ports import Commit, ProviderEvent
from sellers.model import Condition
from tests.fakes.purchase_store import MemoryPurchaseStore
from tests.simulation.faults import Fault, Planned, Schedule
from tests.simulation.invariants import (
    AT_CHANGES,
    AT_EFFECTS,
    AT_SENDING,
    OVER,
    Change,
    Ledgers,
    Violation,
    asked_on,
    judge_quiet,
    note,
    note_answer,
    note_sent,
)
from tests.simulation.ledgers import Effect, ProviderLedger, SellerLedger, Sent, usd
from tests.simulation.loop import LeanLoop, LoopClock
from tests.simulation.others import Others
from tests.simulation.ours import Books, MemoryBooks, OurRow
from tests.simulation.scenarios import Scenario, Wish
from tests.simulation.seam import Crossing, Process, ProcessClock, Seam
from tests.simulation.telling import NotificationsWay, Receiver, WebhooksWay, not_told
from tests.simulation.ways import (
    BroadcastWay,
    OpenVault,
    ProviderWay,
    QuotesWay,
    RecordsWay,
    SellersWay,
    StoreWay,
)

T = TypeVar("T")

PROCESSES = 2
RESTART_S = 3.0
POLL_S = 0.5
QUIET_S = 3.0
RECONCILED_S = 20.0
BOUND_S = 900.0
"""Until then every purchase must be final or flagged (I7)."""

_SETTINGS = WorkerSettings(concurrency=10, poll_s=3600.0, free_dead_s=5.0)
_NOTIFIER_SETTINGS = NotifierSettings(
    lease_s=10.0, poll_s=4.0, step_back_s=5.0, schedule_s=(0.0, *[5.0] * 11)
)
_ENDPOINT = UUID(int=999_999)
_RNG = Random(1)
"""Of all workers: it spreads their polls, which would come after the end."""
_CUSTOMER_WAITS_S = 6.0
_CUSTOMER_TRIES = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """The real code under test; a planted bug replaces some of it."""

    store: Callable[[LoopClock], MemoryPurchaseStore] = MemoryPurchaseStore
    saga: type[Saga] = Saga
    steps: type[Steps] = Steps
    worker: type[Worker] = Worker
    provider_way: type[ProviderWay] = ProviderWay
    sellers_way: type[SellersWay] = SellersWay
    notifier: type[Notifier] = Notifier


REAL = Parts()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown.

    Attributes:
        violations: what does not hold.
        crossings: all that passed the seam.
        rows: our books at the end.
        also: schedules without violations to which the run is the same so far, and what had passed the seam by then: a
            request that is late is lost until it arrives, so once all else is quiet, that is how its loss ends.

    """

    violations: tuple[Violation, ...]
    crossings: tuple[Crossing, ...]
    rows: dict[UUID, OurRow] = field(repr=False)
    also: dict[Schedule, tuple[Crossing, ...]] = field(repr=False)


class World:
    """The other side, our books, the seam, and the processes."""

    def __init__(self, scenario: Scenario, schedule: Schedule, parts: Parts, books: Books) -> None:
        self.scenario = scenario
        self.violations: list[Violation] = []
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._clock = LoopClock(self._loop)
        self._books = books
        self._seam = Seam(schedule, self._happen)
        self._seam.kill = self._kill
        self._seam.has_claims = lambda process: books.has_claims(process.owner)
        self._ledgers = Ledgers(
            {
                seller_id: SellerLedger(seller_id, script, self._clock, self._on_effect)
                for seller_id, script in scenario.sellers.items()
            },
            ProviderLedger(scenario.provider, self._clock, self._on_effect),
            {},
            scenario.limits,
            scenario.may_flag | ({"I7"} if _may_be_left(scenario, schedule) else set()),
            frozenset(wish.customer_id for wish in scenario.wishes),
            {},
        )
        self._settings = replace(_SETTINGS, lease_s=scenario.lease_s)
        self._schedule = schedule
        self._also: dict[Schedule, tuple[Crossing, ...]] = {}
        self._rows: dict[UUID, OurRow] = {}
        self._receiver = Receiver(scenario.busy_for)
        self._ids = count(1_000_000)
        self._signals = Signals()
        self._living: dict[int, _Orchestrator] = {}
        self._processes: list[Process] = []
        self._polls: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._others = Others(scenario, self._ledgers, lambda: self._rows, self._ask, self._observe)

    async def run(self) -> Outcome:
        """Run until everything is quiet, and judge it."""
        began_s = self._loop.time()
        await self._books.run(self._register)
        tasks = [asyncio.create_task(self._keep_running(place)) for place in range(PROCESSES)]
        customers = [
            asyncio.create_task(self._customer(number, wish))
            for number, wish in enumerate(self.scenario.wishes, start=1)
        ]
        await asyncio.wait(customers, timeout=BOUND_S)
        while self._loop.time() - began_s < BOUND_S:
            wait_s = QUIET_S
            if self._quiet() and not (self.scenario.told and await self._books.anything_to_tell()):
                if self._seam.late:
                    self._note_also()
                    wait_s = self._looks_past(min(self._seam.late.values()))
                elif await self._others.reconcile():
                    wait_s = RECONCILED_S
                else:
                    break
            else:
                wait_s = self._looks_past(max(process.thaws_at_s for process in self._processes))
            await asyncio.sleep(wait_s)
        for task in (*tasks, *customers, *self._others.tasks):
            if task.done() and (error := task.exception()) is not None:
                raise error
        self.violations += self._judge()
        for process in self._processes:
            process.end()
        return Outcome(tuple(self.violations), tuple(self._seam.crossings), self._rows, self._also)

    def _judge(self) -> Iterator[Violation]:
        """Judge everything, when all is quiet."""
        yield from judge_quiet(self._ledgers, self._rows)
        if self.scenario.told:
            for message in not_told(self._receiver, self._rows):
                yield Violation("I11", message)

    def _looks_past(self, until_s: float) -> float:
        """Give how long to wait for the first look after a time before which no look can find what it looks for."""
        return QUIET_S * max(ceil((until_s - self._loop.time()) / QUIET_S), 1)

    def _note_also(self) -> None:
        """Note the schedule under which a run would end here: with requests that are lost where these are late.

        Not when books are compared then, and not when a planned fault is still to come, which would not happen at all.
        """
        late, crossings = self._seam.late, self._seam.crossings
        lost = tuple(
            Planned(planned.crossing, Fault.LOST_REQUEST) if planned.crossing in late else planned
            for planned in self._schedule
        )
        if self.scenario.reconciled or lost in self._also or lost[-1].crossing >= len(crossings):
            return
        if not self.violations and not [*self._judge()]:
            self._also[lost] = tuple(crossings)

    async def changed(self, books: Books, commit: Commit | None) -> None:
        """Judge what an operation of the store has changed."""
        rows = await books.rows()
        for request_id, row in rows.items():
            before = self._rows.get(request_id)
            if before is row or before == row:
                continue
            change = Change(before, row, commit)
            if before is not None:
                for name, invariant in AT_CHANGES.items():
                    self._found(name, invariant(self._ledgers, change))
            note(self._ledgers, change)
            self._others.look(row)
        self._rows = rows
        due_at = await books.next_due()
        if due_at is not None:
            self._poll_in((due_at - self._clock.now()).total_seconds())

    def poll(self) -> None:
        """Have all workers look for due work soon, as they do by themselves, all the time."""
        self._poll_in(0.0)

    def _poll_in(self, seconds: float) -> None:
        """Have the workers look once something is due; what is due later, that look is the time to see."""
        at_s = self._loop.time() + max(seconds, 0.0) + POLL_S
        if self._polls is not None:
            if self._polls.when() <= at_s:
                return
            self._polls.cancel()
        self._polls = self._loop.call_at(at_s, self._look)

    def _look(self) -> None:
        self._polls = None
        self._looking = asyncio.create_task(self._have_looked())

    async def _have_looked(self) -> None:
        # A look at nothing changes nothing, save that one who stands still is at it when he goes on.
        if await self._books.anything_due() or any(p.stands_still for p in self._processes):
            self._wake_all()
        due_at = await self._books.run(self._books.next_due)
        if due_at is not None:
            self._poll_in((due_at - self._clock.now()).total_seconds())

    def refused(self, error: Exception) -> None:
        """Note that the database has refused what should never have been tried."""
        self._found("I4", str(error))

    def sent(self, process: Process, sent: Sent) -> None:
        """Judge a request for an effect as it leaves a process."""
        if process.stands_still:
            return
        for name, invariant in AT_SENDING.items():
            self._found(name, invariant(self._ledgers, sent))

    def has_left(self, sent: Sent) -> None:
        """Note a request that has left, or may have."""
        note_sent(self._ledgers, sent)

    def _on_effect(self, effect: Effect) -> None:
        note_answer(self._ledgers, effect)
        for name, invariant in AT_EFFECTS.items():
            self._found(name, invariant(self._ledgers, effect))
        self._others.see(effect)

    def _found(self, invariant: str, message: str | None) -> None:
        if message is not None:
            self.violations.append(Violation(invariant, message))

    def _quiet(self) -> bool:
        """Say whether nobody is about to do anything; requests may still be on their way."""
        now_s = self._loop.time()
        return (
            self._others.quiet
            and all(process.thaws_at_s < now_s for process in self._processes)
            and all(row.purchase.stage in OVER or asked_on(row) for row in self._rows.values())
        )

    # Processes

    async def _keep_running(self, place: int) -> None:
        """Run a process, and another one whenever it has ended."""
        life = 0
        while True:
            life += 1
            orchestrator = self._start(Process(f"{place}.{life}", self._loop))
            self._living[place] = orchestrator
            running = asyncio.create_task(orchestrator.worker.run())
            if orchestrator.notifier is not None:
                orchestrator.telling = asyncio.create_task(orchestrator.notifier.run())
            died = asyncio.create_task(orchestrator.process.died.wait())
            await asyncio.wait({running, died}, return_when=asyncio.FIRST_COMPLETED)
            if running.done() and (error := running.exception()) is not None:
                self.violations.append(Violation("I7", f"a worker ended itself: {error!r}"))
            del self._living[place]
            await asyncio.sleep(RESTART_S)

    def _start(self, process: Process) -> _Orchestrator:
        self._processes.append(process)
        clock = ProcessClock(process)
        seam, ledgers, parts = self._seam, self._ledgers, self._parts
        store = StoreWay(seam, process, self._books, self)
        sellers = parts.sellers_way(seam, process, ledgers.sellers, self)
        broadcast = BroadcastWay(
            seam, process, self._signals.changed, self._wake_all, self._tell_of_cancel
        )
        provider = parts.provider_way(seam, process, ledgers.provider, self)
        saga = parts.saga(
            self.scenario.limits, sellers.kind_of, reusable_tokens=provider.reusable_tokens
        )
        vault = OpenVault()
        steps = parts.steps(
            saga,
            quotes=QuotesWay(seam, process, ledgers.sellers, ledgers.collections),
            sellers=sellers,
            provider=provider,
            vault=vault,
            broadcast=broadcast,
            clock=clock,
            collect_by_s=self.scenario.limits.collect_by_s,
        )
        worker = parts.worker(
            store,
            broadcast,
            steps,
            saga,
            settings=self._settings,
            clock=clock,
            rng=_RNG,
        )
        purchases = Purchases(
            store,
            vault,
            broadcast,
            self._signals,
            clock=clock,
            wake_worker=worker.wake,
            reusable_tokens=provider.reusable_tokens,
        )
        records = RecordsWay(seam, process, self._books)
        operators = Operators(store, records, broadcast, wake_worker=worker.wake)
        payment_events = PaymentEvents(
            store, records, broadcast, verify=_event, wake_worker=worker.wake
        )
        notifier = self._notifier(process, clock, store, vault) if self.scenario.told else None
        return _Orchestrator(process, worker, purchases, operators, payment_events, notifier)

    def _notifier(
        self, process: Process, clock: ProcessClock, store: StoreWay, vault: OpenVault
    ) -> Notifier:
        notifications = NotificationsWay(self._seam, process, self._books)
        return self._parts.notifier(
            cast("NotificationStore", notifications),
            store,
            contents=CustomerContents(),
            webhooks=WebhooksWay(self._seam, process, self._receiver),
            mailer=None,
            vault=vault,
            settings=_NOTIFIER_SETTINGS,
            clock=clock,
            rng=Random(1),
            new_id=lambda: UUID(int=next(self._ids)),
        )

    async def _register(self) -> None:
        """Have the customers register their endpoint."""
        if not self.scenario.told:
            return
        secret = OpenVault().seal("whsec_c2VjcmV0", _ENDPOINT)
        for wish in self.scenario.wishes:
            await self._books.notifications.add_endpoint(
                _ENDPOINT, wish.customer_id, "https://customer.example/hook", secret, 10
            )

    def _wake_all(self) -> None:
        for orchestrator in self._living.values():
            orchestrator.worker.wake()

    def _tell_of_cancel(self, request_id: UUID) -> None:
        for orchestrator in self._living.values():
            orchestrator.worker.cancel(request_id)

    async def _kill(self, process: Process) -> None:
        process.die()
        if process.owner is not None:
            await self._books.end_session(process.owner)

    async def _happen(self, fault: Fault, process: Process) -> None:
        match fault:
            case Fault.SESSION_LOST:
                if process.owner is not None:
                    await self._books.end_session(process.owner)
            case Fault.DRAIN:
                for orchestrator in list(self._living.values()):
                    if orchestrator.process is process:
                        orchestrator.draining = asyncio.create_task(orchestrator.drain())
            case Fault.CANCEL:
                await self._cancel()
            case Fault.VANISH | Fault.SHRINK:
                self._change_sellers(fault)
            case Fault.WEAR_OUT:
                if process.owner is not None:
                    await self._books.wear_out(process.owner, _SETTINGS.most_claims)
            case _:
                raise NotImplementedError(fault)

    # Others

    def _change_sellers(self, fault: Fault) -> None:
        """Have those sellers vanish, or allow less, of which the scenario says so."""
        for seller in self._ledgers.sellers.values():
            if fault is Fault.VANISH:
                seller.vanish()
            else:
                seller.shrink()

    async def _observe(self, request_id: UUID, by: str, told: Told) -> None:
        async def observe() -> None:
            await self._books.store.observe(request_id, by, told)
            await self.changed(self._books, None)

        await self._books.run(observe)

    async def _cancel(self) -> None:
        """The first customer cancels."""
        request_id, row = next(iter(self._rows.items()), (None, None))
        if request_id is None or row is None:
            return
        customer_id = row.purchase.customer_id

        async def cancel() -> None:
            await self._books.store.request_cancel(request_id, customer_id)
            await self.changed(self._books, None)

        await self._books.run(cancel)
        self._tell_of_cancel(request_id)

    # Customers

    async def _customer(self, number: int, wish: Wish) -> None:
        """Do as the wish says."""
        numbers = count(number, step=1000)
        await asyncio.sleep(wish.after_s)

        def order() -> Order:
            return Order(
                # The gateway makes a new one for each call.
                request_id=UUID(int=next(numbers)),
                customer_id=wish.customer_id,
                idempotency_key="k",
                book_id="9780134685991",
                max_price=usd(wish.max_price),
                payment_token="tok",
                conditions=(Condition.NEW,),
            )

        bought = await self._ask(lambda replica: replica.purchases.submit(order(), 0))
        if bought is None:
            return
        request_id = str(bought.request_id)
        if wish.cancels_after_s is not None:
            await asyncio.sleep(wish.cancels_after_s)
            with suppress(FailedPrecondition):
                await self._ask(
                    lambda replica: replica.purchases.cancel(wish.customer_id, request_id, 0)
                )
        if wish.accepts and await self._has_offer(bought.request_id):
            token = "" if self.scenario.provider.reusable_tokens else "tok"
            with suppress(FailedPrecondition):
                await self._ask(
                    lambda replica: replica.purchases.accept_offer(
                        Acceptance(wish.customer_id, request_id, UUID(int=next(numbers)), token), 0
                    )
                )

    async def _ask(self, ask: Callable[[_Orchestrator], Awaitable[T]]) -> T | None:
        """Call a process, and another when there is no answer, as clients do."""
        for number in range(_CUSTOMER_TRIES):
            living = list(self._living.values())
            try:
                if living:
                    async with asyncio.timeout(_CUSTOMER_WAITS_S):
                        return await ask(living[number % len(living)])
            except (TimeoutError, Unavailable):
                pass
            except AlreadyExists as error:
                self.violations.append(Violation("I5", f"a retry was refused: {error}"))
                return None
            await asyncio.sleep(1.0)
        return None

    async def _has_offer(self, request_id: UUID) -> bool:
        """Wait for the purchase to be final; say whether it has ended with an offer."""
        while self._rows[request_id].purchase.status is Status.PENDING:  # noqa: ASYNC110  of state without an event
            await asyncio.sleep(0.5)
        return self._rows[request_id].purchase.offer is not None


@dataclass(slots=True)
class _Orchestrator:
    """A process, and what can be asked of it."""

    process: Process
    worker: Worker
    purchases: Purchases
    operators: Operators
    payment_events: PaymentEvents
    notifier: Notifier | None = None
    telling: asyncio.Task[None] | None = None
    draining: asyncio.Task[None] | None = None

    async def drain(self) -> None:
        """Have it end its work, for a deploy."""
        if self.notifier is not None:
            await self.notifier.drain()
        await self.worker.drain()


def _may_be_left(scenario: Scenario, schedule: Schedule) -> bool:
    """Say whether there are so many faults that a purchase may have been left to an operator."""
    return scenario.operator is None and len(schedule) >= _SETTINGS.most_claims


def _event(payload: bytes, _signature: str) -> ProviderEvent:
    """Read an event of the provider: its name is that of the event, its last word that of the payment."""
    text = payload.decode()
    return ProviderEvent(text, text.split()[-1], None)


def simulate(scenario: Scenario, schedule: Schedule, parts: Parts = REAL) -> Outcome:
    """Run a scenario under a schedule, in memory and in virtual time."""

    async def main() -> Outcome:
        clock = LoopClock(asyncio.get_running_loop())
        books = MemoryBooks(parts.store(clock), clock)
        return await World(scenario, schedule, parts, books).run()

    return LeanLoop().run_until_complete(main())
