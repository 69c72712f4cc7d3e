"""What callers may do with purchases: submit one, look at one, list them, cancel one, accept an offer."""

from __future__ import annotations

import asyncio
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from mesh import errors, telemetry
from orchestrator.app import pages
from orchestrator.domain.events import Step, StepName
from orchestrator.domain.purchase import Purchase, Status
from orchestrator.ports import Place, Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.clock import Clock
    from mesh.money import Money
    from orchestrator.app.signals import Signals
    from orchestrator.ports import (
        Broadcast,
        Offered,
        PurchaseStore,
        PurchaseView,
        TokenVault,
        Wanted,
    )
    from sellers.model import Condition

_LOOK_INTERVAL_S = 0.25
_DEFAULT_PAGE = 20


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer asks for; ``idempotency_key`` is None without one."""

    request_id: UUID
    customer_id: str
    idempotency_key: str | None
    book_id: str
    max_price: Money
    payment_token: str
    conditions: tuple[Condition, ...]

    def content(self) -> bytes:
        """Give what must be the same under the same idempotency key, in one spelling."""
        return json.dumps(
            [
                self.customer_id,
                self.book_id,
                self.max_price.currency,
                self.max_price.minor,
                self.payment_token,
                sorted(self.conditions),
            ]
        ).encode()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a customer says to an offer: to which, the id of the purchase made of it, and a token or ""."""

    customer_id: str
    request_id: str
    new_request_id: UUID
    payment_token: str


@dataclass(frozen=True, slots=True)
class Page:
    """Purchases, newest first, and the token of the next page, empty after the last."""

    purchases: list[PurchaseView]
    next_page_token: str


class Purchases:
    """Purchases as callers see them."""

    def __init__(
        self,
        store: PurchaseStore,
        vault: TokenVault,
        broadcast: Broadcast,
        signals: Signals,
        *,
        clock: Clock,
        wake_worker: Callable[[], bool],
        reusable_tokens: bool = False,
    ) -> None:
        """Keep what is needed.

        ``wake_worker`` says whether this process has room for more work, ``reusable_tokens`` whether the token of a
        purchase can pay for its offer too.
        """
        self._store = store
        self._vault = vault
        self._broadcast = broadcast
        self._signals = signals
        self._clock = clock
        self._wake_worker = wake_worker
        self._reusable_tokens = reusable_tokens

    async def submit(self, order: Order, wait_s: float) -> PurchaseView:
        """Commit a purchase and wait up to ``wait_s`` seconds for its authorization; give it as it then is.

        Safe to repeat: the same request id, and the same idempotency key with the same content, give the first one.

        Raises:
            AlreadyExists: reason IDEMPOTENCY_KEY_REUSED, when the key was used for something else.
            Unavailable: when the database does not answer; it may or may not have been kept.

        """
        request_id = order.request_id
        if not await self._commit(order):
            request_id = await self._submitted_before(order)
        return await self._settled(request_id, order.customer_id, wait_s)

    async def get(self, customer_id: str, request_id: str) -> PurchaseView:
        """Give a customer's purchase.

        Raises:
            NotFound: when this customer has none with this id.

        """
        parsed = _parse_id(request_id)
        view = await self._store.get(parsed, customer_id) if parsed else None
        if view is None:
            raise not_found()
        return view

    async def page(self, customer_id: str, wanted: Wanted, page_size: int, page_token: str) -> Page:
        """Give a page of those of a customer's purchases that are wanted; 20 when ``page_size`` is 0.

        Raises:
            InvalidArgument: when the page token is not one that was given out for this customer and these wishes.

        """
        behind = pages.place_of(page_token, customer_id, wanted) if page_token else None
        limit = page_size or _DEFAULT_PAGE
        found = await self._store.page(customer_id, wanted, behind, limit + 1)
        page = found[:limit]
        if len(found) <= limit:
            return Page(page, "")
        last = Place(page[-1].created_at, page[-1].request_id)
        return Page(page, pages.token_of(last, customer_id, wanted))

    async def cancel(self, customer_id: str, request_id: str, wait_s: float) -> PurchaseView:
        """Have a purchase cancelled, and wait up to ``wait_s`` seconds for its end; give it as it then is.

        It is ``CANCELLED``, or ``PENDING`` while something is taken back. Safe to repeat.

        Raises:
            NotFound: when this customer has none with this id.
            FailedPrecondition: reason CANNOT_CANCEL, when an order may stand, or it has ended otherwise. A purchase
                whose order is refused after all is cancelled then.

        """
        parsed = _parse_id(request_id)
        view = await self._store.request_cancel(parsed, customer_id) if parsed else None
        if view is None:
            raise not_found()
        if view.status is Status.PENDING:
            await self._broadcast.cancel(view.request_id)
            await self._wake()
            view = await self._until(
                view.request_id, customer_id, wait_s, lambda v: v.status is not Status.PENDING
            )
        if view.status is Status.PENDING and view.committed:
            msg = "the book is being ordered: it is too late to cancel, unless the seller refuses the order"
            raise errors.FailedPrecondition(msg, reason="CANNOT_CANCEL")
        if view.status not in (Status.PENDING, Status.CANCELLED):
            msg = f"this purchase request has ended: it is {view.status.value}"
            raise errors.FailedPrecondition(msg, reason="CANNOT_CANCEL")
        return view

    async def accept_offer(self, acceptance: Acceptance, wait_s: float) -> PurchaseView:
        """Make a purchase at the offered price, and wait for its authorization as ``submit`` does.

        At most one purchase is made of an offer: accepting it again gives that one.

        Raises:
            NotFound: when this customer has no purchase with this id.
            FailedPrecondition: reason NO_OFFER when it did not end with an offer, OFFER_EXPIRED,
                PAYMENT_TOKEN_REQUIRED when there is no token to pay with.

        """
        view = await self.get(acceptance.customer_id, acceptance.request_id)
        if view.offer_accepted_by is None:
            offered = await self._store.offered(view.request_id, acceptance.customer_id)
            if offered is None or offered.offer is None:
                msg = f"there is no offer to accept: the purchase request is {view.status.value}"
                raise errors.FailedPrecondition(msg, reason="NO_OFFER")
            if offered.offer.expires_at <= self._clock.now():
                msg = "the offer has expired: submit a new request with a higher max_price"
                raise errors.FailedPrecondition(msg, reason="OFFER_EXPIRED")
            order = Order(
                request_id=acceptance.new_request_id,
                customer_id=acceptance.customer_id,
                idempotency_key=None,
                book_id=offered.book_id,
                max_price=offered.offer.total,
                payment_token=acceptance.payment_token or self._first_token(view, offered),
                conditions=offered.conditions,
            )
            if await self._commit(order, accepted_offer_of=view.request_id):
                return await self._settled(order.request_id, acceptance.customer_id, wait_s)
            view = await self.get(acceptance.customer_id, acceptance.request_id)
        if view.offer_accepted_by is None:
            raise _taken()
        return await self._settled(view.offer_accepted_by, acceptance.customer_id, wait_s)

    def _first_token(self, view: PurchaseView, offered: Offered) -> str:
        if offered.token is not None and self._reusable_tokens:
            # A key that was taken out of the keyring opens nothing any more.
            with suppress(KeyError):
                return self._vault.open(offered.token, view.request_id)
        msg = "the first payment token cannot be used again: send one"
        raise errors.FailedPrecondition(msg, reason="PAYMENT_TOKEN_REQUIRED")

    async def _commit(self, order: Order, accepted_offer_of: UUID | None = None) -> bool:
        """Commit a new purchase and have it worked on; False when its id, key or offer is taken."""
        token = self._vault.seal(order.payment_token, order.request_id)
        purchase = Purchase(
            request_id=order.request_id,
            customer_id=order.customer_id,
            book_id=order.book_id,
            max_price=order.max_price,
            conditions=order.conditions,
            created_at=self._clock.now(),
            traceparent=telemetry.current_traceparent(),
            accepted_offer_of=accepted_offer_of,
        )
        submission = Submission(
            purchase,
            order.idempotency_key,
            self._vault.digest(order.content(), token.key_id),
            token,
        )
        if not await self._store.submit(submission, [Step(StepName.SUBMITTED)]):
            return False
        await self._wake()
        return True

    async def _wake(self) -> None:
        """Have due work looked for: here, or elsewhere when there is no room here."""
        if not self._wake_worker():
            await self._broadcast.work()

    async def _submitted_before(self, order: Order) -> UUID:
        found = await self._store.find_submitted(
            order.request_id, order.customer_id, order.idempotency_key
        )
        if found is None:
            raise _taken()
        try:
            digest = self._vault.digest(order.content(), found.key_id)
        except KeyError:
            # Its keyring key was taken out: whether it is the same request cannot be told any more.
            msg = "this idempotency key was used long ago: look for its request in the list, or use a new key"
            raise errors.AlreadyExists(msg, reason="IDEMPOTENCY_KEY_TOO_OLD") from None
        if not hmac.compare_digest(digest, found.content_hmac):
            msg = "this idempotency key was used for another request: use a new key for each new request"
            raise errors.AlreadyExists(msg, reason="IDEMPOTENCY_KEY_REUSED")
        return found.request_id

    async def _settled(self, request_id: UUID, customer_id: str, wait_s: float) -> PurchaseView:
        """Give the purchase once its authorization is settled or the wait is over."""
        return await self._until(
            request_id,
            customer_id,
            wait_s,
            lambda view: view.settled or view.status is not Status.PENDING,
        )

    async def _until(
        self,
        request_id: UUID,
        customer_id: str,
        wait_s: float,
        enough: Callable[[PurchaseView], bool],
    ) -> PurchaseView:
        """Give the purchase once it is far enough or the wait is over."""
        until_s = self._clock.monotonic() + wait_s
        with self._signals.listening(request_id) as changed:
            while True:
                view = await self._store.get(request_id, customer_id)
                if view is None:
                    raise not_found()
                left_s = until_s - self._clock.monotonic()
                if enough(view) or left_s <= 0:
                    return view
                await wait_for(changed, min(left_s, _LOOK_INTERVAL_S))


async def wait_for(changed: asyncio.Event, at_most_s: float) -> None:
    """Wait until the event is set or the time is over, and clear it."""
    try:
        async with asyncio.timeout(at_most_s):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()


def not_found() -> errors.NotFound:
    """Make the one answer for what does not exist and for what is another customer's."""
    return errors.NotFound(
        "there is no purchase request with this id", reason="PURCHASE_REQUEST_NOT_FOUND"
    )


def _taken() -> errors.AlreadyExists:
    """Make the answer for an id that is another purchase's: one of ours never collides, so the caller made it up."""
    msg = "request_id is taken: make a new one for each call"
    return errors.AlreadyExists(msg, reason="REQUEST_ID_TAKEN")


def _parse_id(text: str) -> UUID | None:
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None
