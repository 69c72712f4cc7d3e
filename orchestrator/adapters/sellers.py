"""One seller at a time, by its id in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from orchestrator.domain.purchase import Candidate
from orchestrator.domain.saga import SellerKind
from sellers.model import CallFailed, FailureKind, HoldRef, Quote, QuoteRef, SellerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from orchestrator.domain.purchase import Attempt, Purchase, Release
    from sellers.model import (
        CancelOutcome,
        GetOrderOutcome,
        HoldOutcome,
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
"""How long a seller has for each kind of call, in seconds."""


class TransportSellers:
    """The way to one seller, through ``sellers.transport``."""

    def __init__(self, directory: Directory, transport: SellerTransport) -> None:
        """Look sellers up in the directory, call them by the transport."""
        self._directory = directory
        self._transport = transport

    def kind_of(self, seller_id: str) -> SellerKind | None:
        """Tell what a purchase must know of a seller; None when it is not known or may not be called."""
        seller = self._find(seller_id)
        if seller is None:
            return None
        return SellerKind(
            supports_holds=seller.capabilities.supports_holds,
            supports_cancel_before_order=seller.capabilities.supports_cancel_before_order,
        )

    async def requote(self, purchase: Purchase, seller_id: str) -> Candidate | None:
        """Ask one seller again for the purchase's book; None when it gives no usable price."""
        seller = self._find(seller_id)
        if seller is None:
            return None
        outcome = await self._transport.get_quote(
            seller,
            purchase.book_id,
            purchase.max_price.currency,
            frozenset(purchase.conditions),
            timeout_s=QUOTE_S,
        )
        if not isinstance(outcome, Quote):
            return None
        return Candidate(seller_id, outcome.quote_id, outcome.total, outcome.expires_at)

    async def hold(self, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        """Have a copy set aside under the attempt's key."""
        return await self._with(
            attempt.seller_id,
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

    async def release(self, release: Release) -> ReleaseOutcome:
        """Have what is held under a key given back."""
        return await self._with(
            release.seller_id,
            lambda seller: self._transport.release_hold(seller, release.key, timeout_s=RELEASE_S),
        )

    async def place_order(self, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        """Buy the copy under the attempt's key."""
        source = HoldRef(attempt.hold_id) if attempt.hold_id else QuoteRef(attempt.quote_id)
        return await self._with(
            attempt.seller_id,
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

    async def get_order(self, attempt: Attempt) -> GetOrderOutcome:
        """Ask what became of the attempt's order."""
        return await self._with(
            attempt.seller_id,
            lambda seller: self._transport.get_order(seller, attempt.key, timeout_s=ORDER_S),
        )

    async def cancel_order(self, attempt: Attempt) -> CancelOutcome:
        """Cancel the attempt's order, or close its key."""
        return await self._with(
            attempt.seller_id,
            lambda seller: self._transport.cancel_order(seller, attempt.key, timeout_s=ORDER_S),
        )

    async def _with(
        self, seller_id: str, call: Callable[[Seller], Awaitable[_OutcomeT]]
    ) -> _OutcomeT | CallFailed:
        seller = self._find(seller_id)
        if seller is None:
            return CallFailed(
                FailureKind.UNREACHABLE,
                definitely_not_done=True,
                detail="not in the registry, or disabled",
            )
        return await call(seller)

    def _find(self, seller_id: str) -> Seller | None:
        snapshot = self._directory.snapshot
        seller = snapshot.sellers.get(seller_id) if snapshot is not None else None
        return None if seller is None or seller.state is SellerState.DISABLED else seller
