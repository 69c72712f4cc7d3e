"""One effect a stage: what a worker does for a purchase, before it commits what follows."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, assert_never

import structlog

from mesh.errors import MeshError
from orchestrator.domain.events import AnswerBatch
from orchestrator.domain.purchase import Candidate, Stage
from orchestrator.domain.saga import PaymentFound, Resolution
from orchestrator.ports import (
    AlreadyCaptured,
    Authorized,
    Captured,
    Declined,
    PaymentState,
    ProviderPayment,
    Refunded,
    Refused,
    Unknown,
    Voided,
)
from sellers.model import (
    CallFailed,
    Cancelled,
    Closed,
    Confirmed,
    FailureKind,
    Held,
    OrderNotFound,
    Pending,
    Rejected,
    Released,
    TooLate,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from mesh.clock import Clock
    from orchestrator.domain.purchase import Attempt, Purchase, Release
    from orchestrator.domain.saga import Moment, Next, Saga
    from orchestrator.ports import (
        Broadcast,
        PaymentProvider,
        Quotes,
        SealedToken,
        Sellers,
        TokenVault,
    )
    from sellers.model import Quote, ReleaseOutcome

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_LEAST_COLLECTION_S = 0.5
_BATCH_INTERVAL_S = 0.25

_ORDER_WORDS: dict[type, str] = {
    Rejected: "rejected",
    Cancelled: "cancelled",
    Closed: "closed",
    OrderNotFound: "nothing",
}
"""What a seller without a standing order says of it."""


@dataclass(frozen=True, slots=True)
class Work:
    """A purchase under way, and what its worker has at hand for it.

    Attributes:
        purchase: as it was last committed.
        token: its sealed payment token, while there is one.
        event_seq: the number of its last event.
        fresh: whether this worker itself has committed the intent of this stage and try just now, so that its effect
            cannot have been tried before.
        moment: tells the time.

    """

    purchase: Purchase
    token: SealedToken | None
    event_seq: int
    fresh: bool
    moment: Callable[[], Moment]


class Steps:
    """The effects of purchases."""

    def __init__(
        self,
        saga: Saga,
        *,
        quotes: Quotes,
        sellers: Sellers,
        provider: PaymentProvider,
        vault: TokenVault,
        broadcast: Broadcast,
        clock: Clock,
        collect_by_s: float,
    ) -> None:
        """Keep the ways to everybody involved; ``collect_by_s`` ends the collecting of a purchase, by its age."""
        self._saga = saga
        self._quotes = quotes
        self._sellers = sellers
        self._provider = provider
        self._vault = vault
        self._broadcast = broadcast
        self._clock = clock
        self._collect_by_s = collect_by_s
        self._effects: dict[Stage, Callable[[Work], Awaitable[Next]]] = {
            Stage.AUTHORIZE: self._authorize,
            Stage.SETTLE_AUTHORIZATION: self._authorize,
            Stage.COLLECT: self._collect,
            Stage.REQUOTE: self._requote,
            Stage.HOLD: self._hold,
            Stage.ORDER: self._order,
            Stage.RESOLVE_ORDER: self._resolve_order,
            Stage.CAPTURE: self._capture,
            Stage.CANCEL_ORDER: self._cancel_order,
            Stage.VOID: self._void,
            Stage.RELEASE: self._release_all,
            Stage.OFFER: self._offer,
            Stage.CHECK_PAYMENT: self._check_payment,
            Stage.SETTLE_PAYMENT: self._settle_payment,
            Stage.CHECK_ORDER: self._check_order,
            Stage.REFUND: self._refund,
            Stage.DONE: self._nothing,
            Stage.FLAGGED: self._nothing,
        }

    async def step(self, work: Work) -> Next:
        """Run the effect of the purchase's stage and give what to commit."""
        return await self._effects[work.purchase.stage](work)

    async def release(self, release: Release) -> bool:
        """Have a hold given back; True when the seller has answered that nothing is held any more.

        That an order was made from the hold is for the purchase's last stage to find out, and to flag.
        """
        return _given_back(release, await self._sellers.release(release))

    async def _authorize(self, work: Work) -> Next:
        purchase = work.purchase
        if purchase.stage is Stage.AUTHORIZE:
            too_late = self._saga.claimed_too_late(purchase, work.moment())
            if too_late is not None:
                return too_late
        if work.token is None:
            msg = f"{purchase.request_id} has no payment token although it is not authorized"
            raise ValueError(msg)
        outcome = await self._provider.authorize(
            f"{purchase.request_id}:authorize",
            self._vault.open(work.token, purchase.request_id),
            purchase.max_price,
            str(purchase.request_id),
            purchase.created_at,
        )
        match outcome:
            case Authorized(provider_id, capture_before):
                return self._saga.authorized(purchase, provider_id, capture_before)
            case Declined(reason):
                return self._saga.declined(purchase, reason)
            case Unknown():
                return self._saga.authorization_unknown(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _collect(self, work: Work) -> Next:
        purchase = work.purchase
        timeout_s = self._collect_by_s - work.moment().age_s
        if timeout_s < _LEAST_COLLECTION_S:
            return self._saga.collection_failed(purchase, work.moment())
        async with self._passing_on(purchase.request_id, work.event_seq) as pass_on:
            try:
                gathered = await self._quotes.collect(purchase, timeout_s, pass_on)
            except MeshError as error:
                _log.warning("collection failed", error=error.message)
                return self._saga.collection_failed(purchase, work.moment())
        return self._saga.collected(purchase, gathered.candidates, gathered.summary, work.moment())

    async def _requote(self, work: Work) -> Next:
        purchase = work.purchase
        seller_id = purchase.plan.candidates[0].seller_id
        found = await self._sellers.requote(purchase, seller_id)
        if isinstance(found, CallFailed):
            return self._saga.requoted(purchase, None, work.moment(), reached=False)
        return self._saga.requoted(purchase, found, work.moment())

    async def _hold(self, work: Work) -> Next:
        purchase, attempt = work.purchase, _attempt(work.purchase)
        if work.moment().now >= attempt.not_after:
            return self._too_late(work, self._saga.hold_unknown)
        outcome = await self._sellers.hold(purchase, attempt)
        match outcome:
            case Held(hold_id, total):
                return self._saga.held(purchase, hold_id, total, work.moment())
            case Rejected(reason, updated):
                candidate = _updated(purchase, attempt, updated)
                return self._saga.refused(purchase, reason.value, candidate, work.moment())
            case CallFailed(kind, definitely_not_done=True) if _nothing_done(work, kind):
                return self._saga.unreached(purchase, kind.value, work.moment())
            case CallFailed(FailureKind.IN_FLIGHT):
                return self._saga.in_flight(purchase, work.moment())
            case CallFailed():
                return self._saga.hold_unknown(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _order(self, work: Work) -> Next:
        attempt = _attempt(work.purchase)
        if work.moment().now >= attempt.not_after:
            return self._too_late(work, self._saga.order_unknown)
        return await self._place(work, attempt)

    def _too_late(self, work: Work, unknown: Callable[[Purchase, Moment], Next]) -> Next:
        """Do not send what is past its not_after: a seller that does not heed that would sell long after all is over.

        What somebody else has committed to may have been sent in time: then its outcome is ``unknown``.
        """
        if work.fresh:
            too_slow = FailureKind.TIMED_OUT.value
            return self._saga.unreached(work.purchase, too_slow, work.moment())
        return unknown(work.purchase, work.moment())

    async def _place(self, work: Work, attempt: Attempt) -> Next:
        purchase = work.purchase
        outcome = await self._sellers.place_order(purchase, attempt)
        match outcome:
            case Confirmed(order_id, total):
                return self._saga.ordered(purchase, order_id, total)
            case Pending(retry_after_s):
                return self._saga.order_pending(purchase, retry_after_s, work.moment())
            case Rejected(reason, updated):
                candidate = _updated(purchase, attempt, updated)
                return self._saga.refused(purchase, reason.value, candidate, work.moment())
            case CallFailed(kind, definitely_not_done=True) if _nothing_done(work, kind):
                return self._saga.unreached(purchase, kind.value, work.moment())
            case CallFailed(FailureKind.IN_FLIGHT):
                return self._saga.in_flight(purchase, work.moment())
            case CallFailed(definitely_not_done=nothing_done):
                # One that certainly did nothing may follow one that did: an earlier try, or a worker's that died.
                again = nothing_done and not work.fresh
                return self._saga.order_unknown(purchase, work.moment(), sent_again=again)
            case _:
                assert_never(outcome)

    async def _resolve_order(self, work: Work) -> Next:
        purchase, attempt = work.purchase, _attempt(work.purchase)
        resolution = self._saga.resolution(purchase, work.moment())
        match resolution:
            case Resolution.REPLAY:
                return await self._place(work, attempt)
            case Resolution.CANCEL:
                return await self._close(work, attempt)
            case Resolution.POLL | Resolution.POLL_FOR_GOOD:
                return await self._poll(
                    work, attempt, for_good=resolution is Resolution.POLL_FOR_GOOD
                )
            case _:
                assert_never(resolution)

    async def _poll(self, work: Work, attempt: Attempt, *, for_good: bool) -> Next:
        purchase = work.purchase
        outcome = await self._sellers.get_order(attempt)
        match outcome:
            case Confirmed(order_id, total):
                return self._saga.ordered(purchase, order_id, total)
            case Pending(retry_after_s):
                return self._saga.order_pending(purchase, retry_after_s, work.moment())
            case Rejected(reason, updated):
                candidate = _updated(purchase, attempt, updated)
                return self._saga.refused(purchase, reason.value, candidate, work.moment())
            case Cancelled() | Closed():
                return self._saga.refused(purchase, "cancelled", None, work.moment())
            case OrderNotFound() if for_good:
                return self._saga.unreached(purchase, "not_placed", work.moment())
            case OrderNotFound() | CallFailed():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _close(self, work: Work, attempt: Attempt) -> Next:
        purchase = work.purchase
        outcome = await self._sellers.cancel_order(attempt)
        match outcome:
            case Closed() | Cancelled():
                return self._saga.unreached(purchase, "closed", work.moment())
            case TooLate(Confirmed(order_id, total)):
                return self._saga.ordered(purchase, order_id, total)
            case TooLate(Pending(retry_after_s)):
                return self._saga.order_pending(
                    purchase, max(retry_after_s, 1.0), work.moment(), too_late=True
                )
            case TooLate() | OrderNotFound() | CallFailed():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _capture(self, work: Work) -> Next:
        purchase, attempt = work.purchase, _attempt(work.purchase)
        amount = _known(attempt.charged, "charged")
        outcome = await self._provider.capture(
            f"{purchase.request_id}:capture",
            _provider_id(purchase),
            amount,
        )
        match outcome:
            case Captured():
                return self._saga.captured(purchase, amount)
            case Refused(reason):
                return self._saga.capture_refused(purchase, reason)
            case Unknown():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _cancel_order(self, work: Work) -> Next:
        purchase = work.purchase
        outcome = await self._sellers.cancel_order(_attempt(purchase))
        match outcome:
            case Closed() | Cancelled():
                return self._saga.order_cancelled(purchase, work.moment())
            case TooLate():
                return self._saga.order_stands(purchase)
            case OrderNotFound() | CallFailed():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _void(self, work: Work) -> Next:
        purchase = work.purchase
        outcome = await self._provider.void(
            f"{purchase.request_id}:void",
            _provider_id(purchase),
        )
        match outcome:
            case Voided():
                return self._saga.voided(purchase, work.moment())
            case AlreadyCaptured():
                return self._saga.void_found_capture(purchase)
            case Unknown():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _release_all(self, work: Work) -> Next:
        outcomes = [(r, await self._sellers.release(r)) for r in work.purchase.plan.releases]
        return self._saga.released(
            work.purchase,
            [r for r, outcome in outcomes if _given_back(r, outcome)],
            work.moment(),
            [r for r, outcome in outcomes if outcome is Released.ORDERED and not r.refused],
        )

    async def _offer(self, work: Work) -> Next:
        return self._saga.offer_ended(work.purchase, work.moment())

    async def _nothing(self, work: Work) -> Next:
        """Somebody may have told something of a purchase in which nothing is to be done about it."""
        return self._saga.unchanged(work.purchase)

    async def _check_payment(self, work: Work) -> Next:
        found = await self._provider.get(_provider_id(work.purchase))
        if isinstance(found, Unknown):
            return self._saga.again(work.purchase, work.moment())
        return self._saga.payment_checked(work.purchase, _found(found), work.moment())

    async def _settle_payment(self, work: Work) -> Next:
        found = await self._provider.get(_provider_id(work.purchase))
        if isinstance(found, Unknown):
            return self._saga.again(work.purchase, work.moment())
        return self._saga.payment_settled(work.purchase, _found(found), work.moment())

    async def _check_order(self, work: Work) -> Next:
        purchase = work.purchase
        outcome = await self._sellers.get_order(_attempt(purchase))
        match outcome:
            case Confirmed(_, total):
                return self._saga.order_checked(purchase, total, "confirmed", work.moment())
            case Pending():
                agreed = _attempt(purchase).agreed
                return self._saga.order_checked(purchase, agreed, "pending", work.moment())
            case Rejected() | Cancelled() | Closed() | OrderNotFound():
                word = _ORDER_WORDS[type(outcome)]
                return self._saga.order_checked(purchase, None, word, work.moment())
            case CallFailed():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    async def _refund(self, work: Work) -> Next:
        """Give back all that is charged. What was given back before, by us or by hand, is not given back again."""
        purchase = work.purchase
        provider_id = _provider_id(purchase)
        payment = await self._provider.get(provider_id)
        if isinstance(payment, Unknown):
            return self._saga.again(purchase, work.moment())
        if payment is not None and payment.captured.minor == payment.refunded.minor > 0:
            return self._saga.refunded(purchase, payment.captured)
        if payment is None or not payment.captured.minor or payment.refunded.minor:
            charged = payment is not None and payment.captured.minor
            word = "partly_refunded" if charged else "nothing_charged"
            return self._saga.refund_refused(purchase, word)
        key = f"{purchase.request_id}:refund"
        outcome = await self._provider.refund(key, provider_id, payment.captured)
        match outcome:
            case Refunded():
                return self._saga.refunded(purchase, payment.captured)
            case Refused(reason):
                return self._saga.refund_refused(purchase, reason)
            case Unknown():
                return self._saga.again(purchase, work.moment())
            case _:
                assert_never(outcome)

    @asynccontextmanager
    async def _passing_on(
        self, request_id: UUID, after_seq: int
    ) -> AsyncIterator[Callable[[AnswerBatch], None]]:
        """Pass answers on to those who watch, the first at once, then at most four times a second, none too late."""
        waiting: list[AnswerBatch] = []
        arrived = asyncio.Event()
        closing = asyncio.Event()

        def pass_on(batch: AnswerBatch) -> None:
            waiting.append(batch)
            arrived.set()

        async def keep_passing_on() -> None:
            while waiting or not closing.is_set():
                await arrived.wait()
                arrived.clear()
                if waiting:
                    together = AnswerBatch.joined(waiting)
                    waiting.clear()
                    await self._broadcast.add_batch(request_id, after_seq, together)
                    await self._broadcast.changed(request_id)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BATCH_INTERVAL_S):
                        await closing.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_passing_on())
            try:
                yield pass_on
            finally:
                closing.set()
                arrived.set()


def _updated(purchase: Purchase, attempt: Attempt, quote: Quote | None) -> Candidate | None:
    """Take a price that came with a refusal, where the customer would accept that copy and its currency."""
    if quote is None or quote.condition not in purchase.conditions:
        return None
    if quote.total.currency != purchase.max_price.currency:
        return None
    return Candidate(attempt.seller_id, quote.quote_id, quote.total, quote.expires_at)


def _given_back(release: Release, outcome: ReleaseOutcome) -> bool:
    """Say whether nothing is held under a key any more: neither by itself nor in an order."""
    if outcome is Released.ORDERED:
        return release.refused
    return not isinstance(outcome, CallFailed)


def _nothing_done(work: Work, kind: FailureKind) -> bool:
    """Say whether a call that certainly did nothing is the only one that was made under its key."""
    return (
        work.fresh
        and work.purchase.stage is not Stage.RESOLVE_ORDER
        and kind is not FailureKind.KEY_MISMATCH
    )


def _found(payment: ProviderPayment | None) -> PaymentFound | None:
    if payment is None:
        return None
    reserved = payment.state in (PaymentState.AUTHORIZED, PaymentState.UNDECIDED)
    return PaymentFound(reserved, payment.captured, payment.refunded)


def _provider_id(purchase: Purchase) -> str:
    return _known(purchase.authorization.provider_id, "provider_id")


def _attempt(purchase: Purchase) -> Attempt:
    return _known(purchase.attempt, "attempt")


def _known(value: T | None, name: str) -> T:
    if value is None:
        msg = f"{name} must be known in this stage"
        raise ValueError(msg)
    return value
