"""A market of scripted sellers behind the orchestrator's ports: what they answer is set by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar, cast

from bookmesh.aggregator.v1 import aggregator_pb2
from bookmesh.common.v1 import quote_pb2
from bookmesh.seller.v1 import seller_pb2
from mesh import convert as mesh_convert
from mesh.money import Money
from orchestrator import convert
from orchestrator.domain.events import AnswerBatch, Collected
from orchestrator.domain.purchase import Attempt, Candidate, Purchase, Release
from orchestrator.domain.saga import SellerKind
from orchestrator.ports import Gathered
from sellers.model import (
    CallFailed,
    Cancelled,
    CancelOutcome,
    Closed,
    Confirmed,
    FailureKind,
    GetOrderOutcome,
    Held,
    HoldOutcome,
    OrderNotFound,
    Pending,
    PlaceOutcome,
    Rejected,
    RejectionReason,
    Released,
    ReleaseOutcome,
    TooLate,
)

T = TypeVar("T")

LOST = CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail="the answer was lost")
UNREACHED = CallFailed(
    FailureKind.RATE_LIMITED, definitely_not_done=True, detail="called too often"
)


@dataclass
class ScriptedSeller:
    """One seller. It keeps the contract (keys, tombstones, holds) unless the script says otherwise.

    Attributes:
        quote_minor: the total that it quotes; None when it does not have the book.
        hold_minor: the total of a hold; the quote's when None.
        stock: copies it has.
        with_holds: whether it has holds.
        quote_life_s: how long its quotes live.
        cancels: whether a confirmed order can still be cancelled.
        pending_polls: how many times an order is pending before it is confirmed.
        script: outcomes that replace the answers to its next calls, by method; an outcome that is a CallFailed with an
            unknown effect is given after the effect (the answer is lost), any other one instead of it.

    """

    seller_id: str
    quote_minor: int | None
    hold_minor: int | None = None
    stock: int = 5
    with_holds: bool = True
    quote_life_s: float = 60.0
    cancels: bool = True
    closes_unknown_keys: bool = True
    pending_polls: int = 0
    script: dict[str, list[CallFailed | Rejected]] = field(default_factory=dict)
    before: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    holds: dict[str, HoldOutcome] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    orders: dict[str, PlaceOutcome] = field(default_factory=dict)
    live: dict[str, Money] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def sell_after_all(self, key: str, total: Money) -> None:
        """Have an order under a key, whatever was answered before."""
        self.orders[key] = Confirmed("after-all", total)
        self.live[key] = total
        self.closed.discard(key)


class Market:
    """The sellers of a test, as the orchestrator's ``Quotes`` and ``Sellers``."""

    def __init__(self, *sellers: ScriptedSeller, silent: int = 0) -> None:
        self.sellers = {seller.seller_id: seller for seller in sellers}
        self.silent = silent
        self.log: list[tuple[str, str]] = []
        self.collections = 0
        self._numbers = count(1)

    # Quotes

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        """Ask every seller."""
        self.collections += 1
        await asyncio.sleep(0)
        quoted = [s for s in self.sellers.values() if s.quote_minor is not None and s.stock > 0]
        candidates = tuple(self._candidate(s, purchase.max_price.currency) for s in quoted)
        name = f"collection-{self.collections}"
        misses = [
            quote_pb2.Miss(seller_id=s, reason=quote_pb2.Miss.REASON_OUT_OF_STOCK)
            for s in self.sellers.keys() - {q.seller_id for q in quoted}
        ]
        misses += [
            quote_pb2.Miss(seller_id=f"silent-{i}", reason=quote_pb2.Miss.REASON_TIMED_OUT)
            for i in range(self.silent)
        ]
        shown = aggregator_pb2.AnswerBatch(quotes=map(_shown, candidates), misses=misses)
        on_batch(convert.answer_batch(name, shown))
        summary = Collected(
            collection_id=name,
            sellers=len(self.sellers) + self.silent,
            asked=len(self.sellers) + self.silent,
            answered=len(self.sellers),
            quoted=len(quoted),
            misses=(("timed_out", self.silent),) if self.silent else (),
            started_at=datetime.now(UTC),
            elapsed_s=0.1,
        )
        return Gathered(candidates, summary)

    # Sellers

    def kind_of(self, seller_id: str) -> SellerKind | None:
        """Tell of a seller."""
        seller = self.sellers.get(seller_id)
        if seller is None:
            return None
        return SellerKind(seller.with_holds, seller.closes_unknown_keys)

    async def requote(self, purchase: Purchase, seller_id: str) -> Candidate | None:
        """Ask one seller."""
        seller = self.sellers[seller_id]
        self.log.append(("requote", seller_id))
        if seller.quote_minor is None or seller.stock <= 0:
            return None
        return self._candidate(seller, purchase.max_price.currency)

    async def hold(self, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        """Hold a copy."""

        def work(seller: ScriptedSeller) -> HoldOutcome:
            if attempt.key not in seller.holds:
                seller.holds[attempt.key] = self._hold(seller, purchase, attempt)
            return seller.holds[attempt.key]

        return await self._call("hold", attempt.seller_id, work)

    async def release(self, release: Release) -> ReleaseOutcome:
        """Give a copy back."""

        def work(seller: ScriptedSeller) -> ReleaseOutcome:
            if release.key in seller.held:
                seller.held.discard(release.key)
                seller.stock += 1
                return Released.RELEASED
            seller.holds.setdefault(release.key, Rejected(RejectionReason.KEY_CLOSED, None))
            return Released.CLOSED

        return await self._call("release", release.seller_id, work)

    async def place_order(self, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        """Buy a copy."""

        def work(seller: ScriptedSeller) -> PlaceOutcome:
            if attempt.key not in seller.orders:
                seller.orders[attempt.key] = self._order(seller, purchase, attempt)
            return seller.orders[attempt.key]

        return await self._call("order", attempt.seller_id, work)

    async def get_order(self, attempt: Attempt) -> GetOrderOutcome:
        """Look an order up."""

        def work(seller: ScriptedSeller) -> GetOrderOutcome:
            if attempt.key in seller.closed:
                return Closed()
            outcome = seller.orders.get(attempt.key)
            if isinstance(outcome, Pending):
                seller.pending_polls -= 1
                if seller.pending_polls <= 0:
                    outcome = seller.orders[attempt.key] = self._confirm(seller, attempt)
            if outcome is None:
                return OrderNotFound()
            if attempt.key not in seller.live and isinstance(outcome, Confirmed):
                return Cancelled()
            return outcome

        return await self._call("get_order", attempt.seller_id, work)

    async def cancel_order(self, attempt: Attempt) -> CancelOutcome:
        """Cancel an order or close its key."""

        def work(seller: ScriptedSeller) -> CancelOutcome:
            outcome = seller.orders.get(attempt.key)
            if isinstance(outcome, Confirmed) and attempt.key in seller.live:
                if not seller.cancels:
                    return TooLate(outcome)
                del seller.live[attempt.key]
                return Cancelled()
            if outcome is None and not seller.closes_unknown_keys:
                return OrderNotFound()
            seller.closed.add(attempt.key)
            if not isinstance(outcome, Confirmed):
                seller.orders[attempt.key] = Rejected(RejectionReason.KEY_CLOSED, None)
            return Closed()

        return await self._call("cancel", attempt.seller_id, work)

    # What is true in the end

    def live_orders(self) -> list[tuple[str, Money]]:
        """Give all orders that stand: the seller and what it charges."""
        return [(s.seller_id, total) for s in self.sellers.values() for total in s.live.values()]

    def live_holds(self) -> list[str]:
        """Give the keys of all copies that are held."""
        return [key for seller in self.sellers.values() for key in seller.held]

    async def _call(
        self, method: str, seller_id: str, work: Callable[[ScriptedSeller], T]
    ) -> T | CallFailed:
        seller = self.sellers[seller_id]
        self.log.append((method, seller_id))
        await asyncio.sleep(0)
        if method in seller.before:
            await seller.before[method]()
        scripted = seller.script.get(method)
        if scripted:
            outcome = scripted.pop(0)
            if outcome is LOST:
                work(seller)
            # Whoever writes a script answers a method as it can be answered.
            return cast("T | CallFailed", outcome)
        return work(seller)

    def _candidate(self, seller: ScriptedSeller, currency: str) -> Candidate:
        assert seller.quote_minor is not None
        return Candidate(
            seller.seller_id,
            f"q{next(self._numbers)}",
            Money(currency, seller.quote_minor),
            datetime.now(UTC) + timedelta(seconds=seller.quote_life_s),
        )

    def _hold(self, seller: ScriptedSeller, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        if seller.stock <= 0:
            return Rejected(RejectionReason.OUT_OF_STOCK, None)
        seller.stock -= 1
        seller.held.add(attempt.key)
        minor = seller.hold_minor if seller.hold_minor is not None else attempt.quoted.minor
        total = Money(purchase.max_price.currency, minor)
        return Held(f"h-{attempt.key}", total, datetime.now(UTC) + timedelta(minutes=2))

    def _order(self, seller: ScriptedSeller, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        assert attempt.agreed.minor <= purchase.max_price.minor
        if attempt.not_after < datetime.now(UTC):
            return Rejected(RejectionReason.PAST_NOT_AFTER, None)
        if seller.with_holds:
            if attempt.key not in seller.held:
                return Rejected(RejectionReason.HOLD_EXPIRED, None)
            seller.held.discard(attempt.key)
        elif seller.stock <= 0:
            return Rejected(RejectionReason.OUT_OF_STOCK, None)
        else:
            seller.stock -= 1
        if seller.pending_polls:
            return Pending(0.1)
        return self._confirm(seller, attempt)

    def _confirm(self, seller: ScriptedSeller, attempt: Attempt) -> Confirmed:
        seller.live[attempt.key] = attempt.agreed
        return Confirmed(f"o{next(self._numbers)}", attempt.agreed)


def _shown(candidate: Candidate) -> quote_pb2.Quote:
    total = mesh_convert.money_to_proto(candidate.total)
    return quote_pb2.Quote(
        seller_id=candidate.seller_id,
        quote_id=candidate.quote_id,
        price=total,
        total=total,
        condition=seller_pb2.CONDITION_NEW,
        quantity=1,
        expires_at=mesh_convert.timestamp(candidate.expires_at),
    )
