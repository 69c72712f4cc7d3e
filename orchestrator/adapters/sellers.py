"""One seller at a time, by its id in the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from orchestrator.adapters.sales import Sale
from orchestrator.domain.purchase import Candidate
from orchestrator.domain.saga import SellerKind
from sellers.admission.model import Ask, Limits, Outcome, Purpose, Refused
from sellers.admission.outcomes import outcome_of
from sellers.model import (
    CallFailed,
    Confirmed,
    FailureKind,
    Held,
    HoldRef,
    Quote,
    QuoteRef,
    Rejected,
    RejectionReason,
    SellerState,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from mesh.clock import Clock
    from orchestrator.domain.purchase import Attempt, Purchase, Release
    from sellers.admission.admission import Admission
    from sellers.model import (
        CancelOutcome,
        GetOrderOutcome,
        HoldOutcome,
        ListOrdersOutcome,
        PlaceOutcome,
        ReleaseOutcome,
        Seller,
    )
    from sellers.registry import Directory
    from sellers.transport import SellerTransport

_OutcomeT = TypeVar("_OutcomeT")

QUOTE_S = 3.0
HOLD_S = 2.0
RELEASE_S = 2.0
ORDER_S = 3.0
LIST_S = 4.0
"""How long a seller has for each kind of call, in seconds."""

SLOT_S = 2.0
"""How long a call waits for a slot at a seller that is called as often as it allows, in seconds."""

LEISURE_SLOT_S = 70.0
"""Likewise, where nobody waits for the answer: longer than the window in which calls are counted."""

LIST_PAGE = 500
"""Orders in a page of a seller's list."""


_BROKEN = frozenset(
    {RejectionReason.OUT_OF_STOCK, RejectionReason.PRICE_CHANGED, RejectionReason.REFUSED}
)
"""Reasons for which a seller does not do what it quoted; the others are about the time that it took us."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What admission must know of a call."""

    purpose: Purpose
    timeout_s: float
    books: int = 0
    slot_s: float = SLOT_S
    not_after: datetime | None = None
    """After this it is not made any more, however long it has waited for a slot; save at a seller that cannot be asked
    for its orders: that one heeds not_after itself, and is asked by sending again."""


class TransportSellers:
    """The way to one seller, through admission and ``sellers.transport``."""

    def __init__(
        self,
        directory: Directory,
        transport: SellerTransport,
        admission: Admission,
        clock: Clock,
        *,
        on_sale: Callable[[Sale], None] = lambda _sale: None,
    ) -> None:
        """Look sellers up in the directory, ask admission, call them by the transport.

        ``on_sale`` is told when a seller stands by what it quoted, and when it does not.
        """
        self._directory = directory
        self._transport = transport
        self._admission = admission
        self._clock = clock
        self._on_sale = on_sale

    def kind_of(self, seller_id: str) -> SellerKind | None:
        """Tell what a purchase must know of a seller; None when it is not known or may not be called."""
        seller = self._find(seller_id)
        if seller is None:
            return None
        return SellerKind(
            supports_holds=seller.capabilities.supports_holds,
            supports_cancel_before_order=seller.capabilities.supports_cancel_before_order,
            supports_get_order=seller.capabilities.supports_get_order,
            honours_not_after=seller.capabilities.honours_not_after,
        )

    async def requote(self, purchase: Purchase, seller_id: str) -> Candidate | CallFailed | None:
        """Ask one seller again for the purchase's book; None when it has no price."""
        outcome = await self._call(
            seller_id,
            _Call(Purpose.PURCHASE, QUOTE_S, books=1),
            lambda seller: self._transport.get_quote(
                seller,
                purchase.book_id,
                purchase.max_price.currency,
                frozenset(purchase.conditions),
                timeout_s=QUOTE_S,
            ),
        )
        if isinstance(outcome, CallFailed):
            return outcome
        if not isinstance(outcome, Quote):
            return None
        return Candidate(seller_id, outcome.quote_id, outcome.total, outcome.expires_at)

    async def hold(self, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        """Have a copy set aside under the attempt's key."""
        outcome = await self._call(
            attempt.seller_id,
            _Call(Purpose.PURCHASE, HOLD_S, not_after=attempt.not_after),
            lambda seller: self._transport.hold_book(
                seller,
                attempt.key,
                quote_id=attempt.quote_id,
                book_id=purchase.book_id,
                currency=purchase.max_price.currency,
                not_after=attempt.not_after,
                timeout_s=HOLD_S,
            ),
        )
        self._tell(purchase, attempt, outcome)
        return outcome

    async def release(self, release: Release) -> ReleaseOutcome:
        """Have what is held under a key given back."""
        return await self._call(
            release.seller_id,
            _Call(Purpose.RESOLVE, RELEASE_S),
            lambda seller: self._transport.release_hold(seller, release.key, timeout_s=RELEASE_S),
        )

    async def place_order(self, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        """Buy the copy under the attempt's key."""
        source = HoldRef(attempt.hold_id) if attempt.hold_id else QuoteRef(attempt.quote_id)
        outcome = await self._call(
            attempt.seller_id,
            _Call(Purpose.PURCHASE, ORDER_S, not_after=attempt.not_after),
            lambda seller: self._transport.place_order(
                seller,
                attempt.key,
                source=source,
                book_id=purchase.book_id,
                buyer_reference=str(purchase.request_id),
                delivery_reference="",
                max_total=attempt.agreed,
                not_after=attempt.not_after,
                timeout_s=ORDER_S,
            ),
        )
        self._tell(purchase, attempt, outcome)
        return outcome

    async def get_order(self, attempt: Attempt) -> GetOrderOutcome:
        """Ask what became of the attempt's order."""
        return await self._call(
            attempt.seller_id,
            _Call(Purpose.RESOLVE, ORDER_S),
            lambda seller: self._transport.get_order(seller, attempt.key, timeout_s=ORDER_S),
        )

    async def cancel_order(self, attempt: Attempt) -> CancelOutcome:
        """Cancel the attempt's order, or close its key."""
        return await self._call(
            attempt.seller_id,
            _Call(Purpose.RESOLVE, ORDER_S),
            lambda seller: self._transport.cancel_order(seller, attempt.key, timeout_s=ORDER_S),
        )

    # Comparing books: nobody waits for these, and they need no attempt of ours.

    def ids(self) -> list[str]:
        """Give the ids of all sellers that may be called, in alphabetical order."""
        snapshot = self._directory.snapshot
        sellers = snapshot.sellers if snapshot is not None else {}
        return sorted(
            i for i, seller in sellers.items() if seller.state is not SellerState.DISABLED
        )

    async def list_orders(
        self, seller_id: str, changed_from: datetime, page_token: str
    ) -> ListOrdersOutcome:
        """List our orders at a seller that changed at or after a time, oldest change first, a page a call."""
        return await self._call(
            seller_id,
            _Call(Purpose.RESOLVE, LIST_S, slot_s=LEISURE_SLOT_S),
            lambda seller: self._transport.list_orders(
                seller,
                updated_from=changed_from,
                page_size=LIST_PAGE,
                page_token=page_token,
                timeout_s=LIST_S,
            ),
        )

    async def find_order(self, seller_id: str, key: str) -> GetOrderOutcome:
        """Ask a seller for the order under a key."""
        return await self._call(
            seller_id,
            _Call(Purpose.RESOLVE, ORDER_S, slot_s=LEISURE_SLOT_S),
            lambda seller: self._transport.get_order(seller, key, timeout_s=ORDER_S),
        )

    async def cancel_stray(self, seller_id: str, key: str) -> CancelOutcome:
        """Cancel the order under a key that no purchase of ours has."""
        return await self._call(
            seller_id,
            _Call(Purpose.RESOLVE, ORDER_S, slot_s=LEISURE_SLOT_S),
            lambda seller: self._transport.cancel_order(seller, key, timeout_s=ORDER_S),
        )

    async def _call(
        self, seller_id: str, call: _Call, make: Callable[[Seller], Awaitable[_OutcomeT]]
    ) -> _OutcomeT | CallFailed:
        """Make a call once admission lets it pass; one that it does not let pass was certainly not made."""
        seller = self._find(seller_id)
        if seller is None:
            return _not_made(FailureKind.UNREACHABLE, "not in the registry, or disabled")
        ask = Ask(Limits.of(seller), timeout_s=call.timeout_s, books=call.books)
        until = self._clock.monotonic() + call.slot_s
        decision = await self._admission.acquire(ask, call.purpose, until=until)
        if isinstance(decision, Refused):
            return _not_made(FailureKind.RATE_LIMITED, f"not called: {decision.reason}")
        grant = decision.grant
        too_late = (
            call.not_after is not None
            and seller.capabilities.supports_get_order
            and self._clock.now() >= call.not_after
        )
        if too_late or not grant.still_good(self._clock.monotonic()):
            self._admission.report(grant, Outcome.NOT_SENT)
            why = "it is past its not_after" if too_late else "this process was too slow"
            return _not_made(FailureKind.TIMED_OUT, f"not called: {why}")
        try:
            outcome = await make(seller)
        except BaseException:
            self._admission.report(grant, Outcome.OURS)
            raise
        self._admission.report(grant, outcome_of(outcome))
        if isinstance(outcome, CallFailed) and outcome.kind is FailureKind.RATE_LIMITED:
            self._admission.hold_off(seller_id, outcome.retry_after_s)
        return outcome

    def _tell(
        self, purchase: Purchase, attempt: Attempt, outcome: HoldOutcome | PlaceOutcome
    ) -> None:
        """Tell whether the seller stands by its quote, where this answer says it."""
        match outcome:
            case Confirmed(total=total) if total.minor <= attempt.quoted.minor:
                refused = False
            case Held(total=total) if total.minor > attempt.quoted.minor:
                refused = True
            case Rejected(reason=reason) if reason in _BROKEN:
                refused = True
            case _:
                return
        self._on_sale(Sale(purchase.book_id, attempt.seller_id, refused))

    def _find(self, seller_id: str) -> Seller | None:
        snapshot = self._directory.snapshot
        seller = snapshot.sellers.get(seller_id) if snapshot is not None else None
        return None if seller is None or seller.state is SellerState.DISABLED else seller


def _not_made(kind: FailureKind, detail: str) -> CallFailed:
    return CallFailed(kind, definitely_not_done=True, detail=detail)
