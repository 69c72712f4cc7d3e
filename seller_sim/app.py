"""What callers and tests can ask of the simulated sellers."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from mesh import errors
from mesh.errors import FieldViolation
from mesh.money import Money
from seller_sim.domain.behaviour import BehaviourError
from seller_sim.domain.records import (
    HoldAnswer,
    HoldRecord,
    OrderAnswer,
    OrderRecord,
    Quote,
    Reason,
    Rejection,
)
from seller_sim.domain.seller import (
    CancelResult,
    Decision,
    HoldRequest,
    Mishaps,
    OrderRequest,
    QuoteRequest,
    Released,
    Seller,
    Unavailable,
)
from seller_sim.domain.traffic import BusyTime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mesh.clock import Clock
    from seller_sim.ports import Ledger, Listeners

AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class _Kept(Protocol[AnswerT_co]):
    @property
    def content(self) -> bytes: ...

    @property
    def answer(self) -> AnswerT_co | None: ...


class Simulation:
    """All simulated sellers.

    Every change of a ledger is decided, written and applied without an await in between, so that calls never see
    half of it. A hold or an order that has arrived is worked on to its end even if its caller gives up, as it is at
    most real sellers.
    """

    def __init__(
        self, sellers: Iterable[Seller], ledger: Ledger, listeners: Listeners, clock: Clock
    ) -> None:
        """Take the sellers, in any order."""
        self.sellers: Mapping[str, Seller] = {
            seller.seller_id: seller
            for seller in sorted(sellers, key=lambda seller: seller.seller_id)
        }
        self._ledger = ledger
        self._listeners = listeners
        self._clock = clock
        self._in_flight: dict[tuple[str, str, str], bytes] = {}
        self._working: set[asyncio.Task[object]] = set()
        self._closing = asyncio.Event()
        self._busy = BusyTime()

    @property
    def busy_s(self) -> float:
        """For how long at least one seller was at work, in seconds, until the last time that none was."""
        return self._busy.total_s

    @property
    def working(self) -> int:
        """How many calls for quotes, holds and orders are being worked on."""
        return self._busy.calls

    async def start(self) -> None:
        """Open the addresses of all sellers that are not dead."""
        for seller in self.sellers.values():
            if not self._refuses(seller):
                await self._listeners.open(seller.seller_id)

    async def close(self) -> None:
        """Let hanging calls go and give up what is still worked on; what was answered is in the ledger."""
        self._closing.set()
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    # What Bookmesh asks of one seller.

    def admit(self, seller: Seller, method: str) -> None:
        """Count a call that arrived.

        Raises:
            ResourceExhausted: when there were too many in the last 60 seconds.
            Unavailable: when the seller is dead.

        """
        now_s = self._clock.monotonic()
        wait_s = seller.traffic.admit_call(method, now_s, seller.behaviour.calls_per_minute)
        if wait_s:
            limit = seller.behaviour.calls_per_minute
            raise _too_many(f"more than {limit} calls in 60 seconds", wait_s)
        if seller.behaviour.dead:
            raise errors.Unavailable("this seller is dead")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count the time in this block as one in which sellers are at work."""
        self._busy.began(self._clock.monotonic())
        try:
            yield
        finally:
            self._busy.ended(self._clock.monotonic())

    async def get_capabilities(self, seller: Seller) -> None:
        """Let time pass as for any call; the capabilities are part of the seller's behaviour."""
        await self._begin(seller, self._mishaps(seller))

    async def get_quotes(
        self, seller: Seller, requests: Sequence[QuoteRequest]
    ) -> list[Quote | Unavailable]:
        """Price books, an answer each, in their order.

        Raises:
            ResourceExhausted: when the seller priced too many in the last 60 seconds.

        """
        now_s = self._clock.monotonic()
        limit = seller.behaviour.quotes_per_minute
        wait_s = seller.traffic.admit_books(len(requests), now_s, limit)
        if wait_s:
            raise _too_many(f"more than {limit} books in 60 seconds", wait_s)
        mishaps = self._mishaps(seller)
        await self._begin(seller, mishaps)
        now_us = self._now_us()
        answers = [seller.quote(request, now_us) for request in requests]
        if mishaps.invalid_quote:
            return [_invalidated(answer) for answer in answers]
        return answers

    async def hold_book(self, seller: Seller, request: HoldRequest) -> HoldAnswer:
        """Set a copy aside, once for each key.

        Raises:
            AlreadyExists: when the key was used for something else.
            Aborted: when the key is being worked on.

        """
        return await self._answer_once(
            seller,
            ("hold", request.key, request.content),
            first=lambda: _first_answer(seller.account.holds.get(request.key), request.content),
            decide=lambda now_us: seller.hold(request, now_us),
        )

    async def place_order(self, seller: Seller, request: OrderRequest) -> OrderAnswer:
        """Sell a copy, once for each key.

        Raises:
            AlreadyExists: when the key was used for something else.
            Aborted: when the key is being worked on.
            InvalidArgument: when the order should have been made from a hold.

        """
        if seller.behaviour.supports_holds and not request.hold_id:
            fault = FieldViolation("quote_id", "this seller has holds: order from a hold_id")
            raise errors.InvalidArgument(f"{fault.field}: {fault.description}", fields=(fault,))
        return await self._answer_once(
            seller,
            ("order", request.key, request.content),
            first=lambda: _first_answer(seller.account.orders.get(request.key), request.content),
            decide=lambda now_us: seller.order(request, now_us),
        )

    async def release_hold(self, seller: Seller, key: str) -> Released:
        """Give a copy back, or close a key."""
        mishaps = self._mishaps(seller)
        await self._begin(seller, mishaps)
        released = self._commit(seller, seller.release(key, self._now_us()))
        _lose_answer(mishaps)
        return released

    async def cancel_order(self, seller: Seller, key: str) -> tuple[CancelResult, OrderRecord]:
        """Cancel an order, or close a key; give the order as it is then.

        Raises:
            NotFound: when there is no such order and the seller does not close keys beforehand.

        """
        mishaps = self._mishaps(seller)
        await self._begin(seller, mishaps)
        now_us = self._now_us()
        decision = seller.cancel(key, now_us)
        if decision is None:
            raise _no_such_order(key)
        result = self._commit(seller, decision)
        _lose_answer(mishaps)
        return result, seller.account.orders[key].at(now_us)

    async def get_order(self, seller: Seller, key: str) -> OrderRecord:
        """Give an order as it is now.

        Raises:
            NotFound: when nothing was worked on under this key.

        """
        await self._begin(seller, self._mishaps(seller))
        record = seller.account.orders.get(key)
        if record is None:
            raise _no_such_order(key)
        return record.at(self._now_us())

    async def list_orders(
        self, seller: Seller, from_us: int, after: tuple[int, str], limit: int
    ) -> list[OrderRecord]:
        """Give up to ``limit`` orders by the time of their last change, then by key.

        Args:
            seller: whose.
            from_us: only orders changed at or after this.
            after: time and key of the last order of the page before; ``(0, "")`` for the first page.
            limit: most orders to give.

        """
        await self._begin(seller, self._mishaps(seller))
        now_us = self._now_us()
        records = (record.at(now_us) for record in seller.account.orders.values())
        wanted = (
            record
            for record in records
            if record.updated_us >= from_us and (record.updated_us, record.key) > after
        )
        return sorted(wanted, key=lambda record: (record.updated_us, record.key))[:limit]

    # What tests and demos ask of the simulation.

    def endpoint_of(self, seller: Seller) -> str:
        """Give the ``host:port`` at which a seller answers."""
        return self._listeners.endpoint_of(seller.seller_id)

    def ledger_of(self, seller: Seller) -> tuple[list[OrderRecord], list[HoldRecord]]:
        """Give all orders and holds of a seller as they are now."""
        now_us = self._now_us()
        orders = [record.at(now_us) for record in seller.account.orders.values()]
        holds = [record.at(now_us) for record in seller.account.holds.values()]
        return orders, holds

    async def change_behaviour(
        self, seller_ids: Collection[str], settings: Mapping[str, object]
    ) -> int:
        """Change settings of some sellers, all when there are no ids; give how many.

        Raises:
            NotFound: when there is no such seller.
            InvalidArgument: when a setting is unknown or out of its range. In both cases nothing was changed.

        """
        for seller_id in seller_ids:
            if seller_id not in self.sellers:
                raise errors.NotFound(f"there is no seller {seller_id!r}")
        sellers = [self.sellers[name] for name in seller_ids or self.sellers]
        try:
            behaviours = [seller.behaviour.changed(settings) for seller in sellers]
        except BehaviourError as error:
            fault = FieldViolation("behaviour", str(error))
            raise errors.InvalidArgument(f"behaviour.{error}", fields=(fault,)) from None
        for seller, behaviour in zip(sellers, behaviours, strict=True):
            seller.behaviour = behaviour
        if "dead" in settings:
            for seller in sellers:
                if self._refuses(seller):
                    await self._listeners.refuse(seller.seller_id)
                else:
                    await self._listeners.open(seller.seller_id)
        return len(sellers)

    def _refuses(self, seller: Seller) -> bool:
        return seller.behaviour.dead and not self._listeners.shared(seller.seller_id)

    def _now_us(self) -> int:
        return round(self._clock.now().timestamp() * 1_000_000)

    @staticmethod
    def _mishaps(seller: Seller) -> Mishaps:
        mishaps = seller.mishaps()
        if mishaps.fails:
            raise errors.Unavailable("this seller failed, as its scenario says")
        return mishaps

    async def _begin(self, seller: Seller, mishaps: Mishaps) -> None:
        """Let the time pass that the call takes, for ever where it hangs."""
        if mishaps.hangs:
            await self._closing.wait()
            raise errors.Unavailable(f"{seller.seller_id} is being stopped")
        await self._clock.sleep(mishaps.latency_s)

    async def _answer_once(
        self,
        seller: Seller,
        call: tuple[str, str, bytes],
        *,
        first: Callable[[], AnswerT | None],
        decide: Callable[[int], Decision[AnswerT]],
    ) -> AnswerT:
        kind, key, content = call
        mishaps = self._mishaps(seller)
        if mishaps.hangs:
            await self._begin(seller, mishaps)
        slot = (seller.seller_id, kind, key)
        under_way = self._in_flight.get(slot)
        if under_way is not None:
            if under_way != content:
                raise _key_reused()
            raise errors.Aborted("a call with this key is being worked on", reason="KEY_IN_FLIGHT")
        first()  # refuses a key that was used for something else before any time passes

        async def work() -> AnswerT:
            try:
                await self._begin(seller, mishaps)
                # The key may have been closed meanwhile.
                known = first()
                return self._commit(seller, decide(self._now_us())) if known is None else known
            finally:
                del self._in_flight[slot]

        self._in_flight[slot] = content
        task = asyncio.create_task(work())
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        answer = await asyncio.shield(task)
        _lose_answer(mishaps)
        return answer

    def _commit(self, seller: Seller, decision: Decision[AnswerT]) -> AnswerT:
        if decision.records:
            self._ledger.write(seller.seller_id, decision.records)
            seller.account.apply(decision.records)
        return decision.answer


def _first_answer(record: _Kept[AnswerT] | None, content: bytes) -> AnswerT | Rejection | None:
    if record is None:
        return None
    if record.answer is None:
        return Rejection(Reason.KEY_CLOSED)
    if record.content != content:
        raise _key_reused()
    return record.answer


def _invalidated(answer: Quote | Unavailable) -> Quote | Unavailable:
    if isinstance(answer, Unavailable):
        return answer
    return replace(answer, total=Money(answer.total.currency, 0))


def _lose_answer(mishaps: Mishaps) -> None:
    if mishaps.loses_answer:
        raise errors.Unavailable("the answer was lost, as the scenario says; the work was done")


def _too_many(what: str, wait_s: float) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(what, reason="RATE_LIMITED", retry_after_s=wait_s)


def _key_reused() -> errors.AlreadyExists:
    return errors.AlreadyExists(
        "idempotency_key: this key was used for a request with other content", reason="KEY_REUSED"
    )


def _no_such_order(key: str) -> errors.NotFound:
    return errors.NotFound(f"no order under key {key!r}", reason="ORDER_NOT_FOUND")
