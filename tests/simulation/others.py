"""What happens around the orchestrator in a run: acts by hand, the provider's events, operators, the reconciler."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from mesh.errors import FailedPrecondition
from orchestrator.app.operators import Operators
from orchestrator.app.payment_events import PaymentEvents
from orchestrator.domain.observations import OrderChanged, PaymentChanged, Resolve, Told
from orchestrator.domain.purchase import Stage
from tests.simulation.hands import PART, Act, Hand
from tests.simulation.invariants import Ledgers, order_disagrees, payment_disagrees
from tests.simulation.ledgers import Effect
from tests.simulation.ours import OurRow
from tests.simulation.scenarios import Scenario

OPERATOR_S = 5.0
"""How long an operator takes to see a flag."""
_LOOKS_S = 30.0
"""How long one waits for a decision to be acted on before taking it again."""
_MOST_DECISIONS = 10
_MOST_REPORTS = 5

_RECONCILED = frozenset({Stage.DONE, Stage.OFFER})


class Replica(Protocol):
    """A process of the orchestrator, as others may call it."""

    operators: Operators
    payment_events: PaymentEvents


class Others:
    """Everybody but us, our sellers, the provider and the customers.

    ``ask`` calls a living process, again until it answers; ``observe`` notes what is told of a purchase.
    """

    def __init__(
        self,
        scenario: Scenario,
        ledgers: Ledgers,
        rows: Callable[[], Mapping[UUID, OurRow]],
        ask: Callable[[Callable[[Replica], Awaitable[None]]], Awaitable[None]],
        observe: Callable[[UUID, str, Told], Awaitable[None]],
    ) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._scenario = scenario
        self._ledgers = ledgers
        self._rows = rows
        self._ask = ask
        self._observe = observe
        self._decided: Counter[UUID] = Counter()
        self._deciding: set[UUID] = set()
        self._reported: Counter[UUID] = Counter()

    @property
    def quiet(self) -> bool:
        """Whether nobody is about to do anything."""
        return all(task.done() for task in self.tasks)

    def see(self, effect: Effect) -> None:
        """Do what follows an effect."""
        for act in self._scenario.acts:
            if act.after == effect.name and effect.done:
                self._begin(self._do(act, effect.request_id))

    def look(self, row: OurRow) -> None:
        """Have an operator look at a purchase that waits for one."""
        request_id = row.purchase.request_id
        if self._scenario.operator is None or request_id in self._deciding:
            return
        if row.purchase.stage is Stage.FLAGGED:
            self._deciding.add(request_id)
            self._begin(self._decide(request_id))

    async def reconcile(self) -> bool:
        """Compare all books, as the reconciler does once things are quiet; True when something was to be told."""
        if not self._scenario.reconciled:
            return False
        found = False
        for request_id, row in list(self._rows().items()):
            if self._reported[request_id] >= _MOST_REPORTS:
                continue
            for told in self._disagreements(row):
                found = True
                self._reported[request_id] += 1
                await self._observe(request_id, "reconciler", told)
        return found

    def _begin(self, work: Awaitable[None]) -> None:
        self.tasks.add(asyncio.ensure_future(work))

    async def _do(self, act: Act, request_id: UUID) -> None:
        await asyncio.sleep(act.in_s)
        provider = self._ledgers.provider
        match act.does:
            case Hand.RECALL:
                for seller in self._ledgers.sellers.values():
                    seller.cancel_by_itself(request_id)
            case Hand.CHARGE:
                provider.charge_by_hand(request_id)
            case Hand.GIVE_BACK:
                provider.give_back_by_hand(request_id)
            case Hand.GIVE_BACK_PART:
                provider.give_back_by_hand(request_id, PART)
            case Hand.TELL:
                pass
        if act.told:
            [entry] = provider.of(request_id)
            event = f"{act.does} after {act.after} {entry.provider_id}".encode()
            await self._ask(lambda replica: replica.payment_events.receive(event, ""))

    async def _decide(self, request_id: UUID) -> None:
        operator = self._scenario.operator
        assert operator is not None
        while self._decided[request_id] < _MOST_DECISIONS:
            await asyncio.sleep(OPERATOR_S)
            row = self._rows()[request_id]
            if row.purchase.stage is not Stage.FLAGGED:
                break
            self._decided[request_id] += 1
            await self._resolve(request_id, operator(self._ledgers, row))
            await self._acted_on(request_id)
        self._deciding.discard(request_id)

    async def _resolve(self, request_id: UUID, what: Resolve) -> None:
        # When an answer was lost, what is asked for again may be done already.
        with suppress(FailedPrecondition):
            await self._ask(lambda replica: replica.operators.resolve(request_id, "olga", what))

    async def _acted_on(self, request_id: UUID) -> None:
        until_s = asyncio.get_running_loop().time() + _LOOKS_S
        while self._rows()[request_id].purchase.stage is Stage.FLAGGED:
            if asyncio.get_running_loop().time() > until_s:
                return
            await asyncio.sleep(1.0)

    def _disagreements(self, row: OurRow) -> Iterator[Told]:
        purchase = row.purchase
        if row.flags or purchase.stage not in _RECONCILED:
            return
        attempt = purchase.attempt
        if attempt is not None and order_disagrees(self._ledgers, row) is not None:
            yield OrderChanged(attempt.key, "as the seller has it")
        if payment_disagrees(self._ledgers, row) is not None:
            for entry in self._ledgers.provider.of(purchase.request_id):
                yield PaymentChanged("as the provider has it", entry.provider_id)
