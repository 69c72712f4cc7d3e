"""Defects planted into the real code, by a few lines each. The simulator must catch every one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from uuid import uuid5

import asyncpg

from mesh.money import Money
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.app.notify import Notifier
from orchestrator.app.steps import Steps, Work
from orchestrator.app.worker import Worker, _Ahead, _Done, _Live
from orchestrator.domain.events import Collected, Event
from orchestrator.domain.notifications import (
    DeliveryState,
    NotDelivered,
    TryOutcome,
    Undeliverable,
    Verdict,
)
from orchestrator.domain.observations import Decision, Resolve
from orchestrator.domain.purchase import (
    Attempt,
    Candidate,
    FailureReason,
    Purchase,
    Stage,
    Status,
)
from orchestrator.domain.saga import Moment, Next, PaymentFound, Resolution, Saga
from orchestrator.notification_ports import BegunTry
from orchestrator.ports import AuthorizeOutcome, Commit, Committed, Loaded, Submission, VoidOutcome
from tests.fakes.purchase_store import MemoryPurchaseStore, Row
from tests.simulation.ways import ProviderWay
from tests.simulation.world import REAL, Parts


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted defect.

    Attributes:
        name: for the table.
        parts: the code with it.
        scenario: where it shows.
        caught_by: the invariants that are violated, at the least.
        faults: how many faults it takes.
        sql: a change to the SQL of the store in PostgreSQL, over which it is hunted then.

    """

    name: str
    parts: Parts
    scenario: str
    caught_by: frozenset[str]
    faults: int = 1
    sql: SqlChange | None = None


@dataclass(frozen=True, slots=True)
class SqlChange:
    """A statement of the store, a part of it, and what stands there instead."""

    statement: str
    part: str
    instead: str

    def store(self, pool: asyncpg.Pool[asyncpg.Record], dsn: str) -> PostgresPurchaseStore:
        """Make a store with that change."""
        store = PostgresPurchaseStore(pool, dsn)
        text = store._sql[self.statement]
        assert self.part in text
        store._sql[self.statement] = text.replace(self.part, self.instead)
        return store


class NoFence(MemoryPurchaseStore):
    """A commit is not compared with the epoch."""

    def _fenced(self, purchase: Purchase) -> Row | None:
        return self.rows[purchase.request_id]


class NoGuard(MemoryPurchaseStore):
    """The table lets a final status change."""

    def _guard(self, row: Row, purchase: Purchase) -> None:
        pass


class FreshAuthorizeKey(ProviderWay):
    """Each try to authorize has a key of its own."""

    numbers = count(1)

    async def authorize(
        self, key: str, token: str, amount: Money, reference: str, intended_at: datetime
    ) -> AuthorizeOutcome:
        fresh = f"{key}:{next(self.numbers)}"
        return await super().authorize(fresh, token, amount, reference, intended_at)


class FreshVoidKey(ProviderWay):
    """Each try to void has a key of its own."""

    numbers = count(1)

    async def void(self, key: str, provider_id: str) -> VoidOutcome:
        return await super().void(f"{key}:{next(self.numbers)}", provider_id)


class NextSellerOnUnknown(Steps):
    """An order whose outcome is unknown is taken for one that was not placed."""

    async def _resolve_order(self, work: Work) -> Next:
        return self._saga.unreached(work.purchase, "unknown", work.moment())


class NoTombstone(Steps):
    """An order that is not found is given up without closing its key."""

    async def _close(self, work: Work, attempt: Attempt) -> Next:
        return self._saga.unreached(work.purchase, "closed", work.moment())


class TrustsUnavailable(Steps):
    """UNAVAILABLE is taken for "not done", whatever was done under the key before."""

    async def _place(self, work: Work, attempt: Attempt) -> Next:
        return await super()._place(replace(work, fresh=True, purchase=_as_new(work)), attempt)


class OrdersWhenItIsTooLate(Steps):
    """An order is sent whatever its not_after is."""

    async def _order(self, work: Work) -> Next:
        assert work.purchase.attempt is not None
        return await self._place(work, work.purchase.attempt)


class OrdersWhenItHasStoodStill(Steps):
    """Its not_after is looked at only where it may have been sent before."""

    async def _order(self, work: Work) -> Next:
        assert work.purchase.attempt is not None
        if work.fresh:
            return await self._place(work, work.purchase.attempt)
        return await super()._order(work)


class TakesTheLateForUnsent(Steps):
    """What is past its not_after is taken for never sent, by whomever it was committed to."""

    async def _order(self, work: Work) -> Next:
        return await super()._order(replace(work, fresh=True))


class ToldIsNew(Worker):
    """After what others have told, a stage is taken for one that was committed to just now."""

    async def _ahead(self, live: _Live, last: _Ahead, done: _Done, observed: int) -> _Ahead:
        ahead = await super()._ahead(live, last, done, observed)
        told = bool(last.observations)
        return replace(ahead, work=replace(ahead.work, fresh=told or ahead.work.fresh))


class NewByItsStage(Worker):
    """A try is taken for the one before it when its stage is the same."""

    async def _ahead(self, live: _Live, last: _Ahead, done: _Done, observed: int) -> _Ahead:
        ahead = await super()._ahead(live, last, done, observed)
        same = last.work.purchase.stage is ahead.work.purchase.stage
        return replace(ahead, work=replace(ahead.work, fresh=ahead.work.fresh and not same))


class AlwaysMine(Worker):
    """What is left of the lease is not looked at before an effect."""

    async def _certainly_mine(self, live: _Live) -> bool:
        return True


class YoungerThanItIs(Worker):
    """The age of a purchase counts from when it was read, however long that took."""

    async def _carry_out_loaded(self, live: _Live, loaded: Loaded, asked_s: float) -> None:
        await super()._carry_out_loaded(live, loaded, self._clock.monotonic())


class CaptureBeforeOrder(Saga):
    """The hold is charged."""

    def held(self, purchase: Purchase, hold_id: str, total: Money, moment: Moment) -> Next:
        following = super().held(purchase, hold_id, total, moment)
        attempt = following.purchase.attempt
        if following.purchase.stage is not Stage.ORDER or attempt is None:
            return following
        charged = replace(attempt, charged=total, outcome="confirmed", order_id="o")
        charging = replace(following.purchase, stage=Stage.CAPTURE, attempt=charged)
        return replace(following, purchase=charging)


class QuotedAmount(Saga):
    """What is charged is the quote, not the order."""

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        assert purchase.attempt is not None
        return super().ordered(purchase, order_id, purchase.attempt.quoted)


class NoReleaseCommitted(Saga):
    """The next seller is tried without giving back what the last one holds."""

    def _release(
        self, purchase: Purchase, why: str, moment: Moment, *, refused: bool = False
    ) -> Next:
        return self._advance(purchase, moment)


class LastWordWins(Saga):
    """What turns up after the purchase was given up makes it pending again."""

    def authorized(
        self, purchase: Purchase, provider_id: str, capture_before: datetime | None
    ) -> Next:
        revived = replace(purchase, status=Status.PENDING, failure_reason=None)
        return super().authorized(revived, provider_id, capture_before)


class NotFoundCountsAtOnce(Saga):
    """NOT_FOUND is taken for "no" while the order may still arrive."""

    def resolution(self, purchase: Purchase, moment: Moment) -> Resolution:
        found = super().resolution(purchase, moment)
        return Resolution.POLL_FOR_GOOD if found is Resolution.POLL else found


class TrustsNotAfter(Saga):
    """NOT_FOUND is taken for "no" some time after not_after, whether or not the seller heeds that."""

    def resolution(self, purchase: Purchase, moment: Moment) -> Resolution:
        found = super().resolution(purchase, moment)
        assert purchase.attempt is not None
        settled = purchase.attempt.not_after + timedelta(seconds=5)
        over = found is Resolution.POLL and moment.now >= settled
        return Resolution.POLL_FOR_GOOD if over else found


class ChargesTheNumber(Saga):
    """What a seller charges is compared and charged as a number, whatever its currency is."""

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        number = replace(total, currency=purchase.max_price.currency)
        return super().ordered(purchase, order_id, number)


class TakesSilenceForNo(Saga):
    """Sellers that do not answer are taken for sellers that do not have the book."""

    def collected(
        self,
        purchase: Purchase,
        candidates: Iterable[Candidate],
        summary: Collected,
        moment: Moment,
    ) -> Next:
        answered = replace(summary, answered=summary.sellers, misses=())
        return super().collected(purchase, candidates, answered, moment)


class DearestFirst(Saga):
    """The dearest affordable seller is tried first."""

    def collected(
        self,
        purchase: Purchase,
        candidates: Iterable[Candidate],
        summary: Collected,
        moment: Moment,
    ) -> Next:
        dearest = max(candidates, key=Candidate.rank)
        return super().collected(purchase, [dearest], summary, moment)


class ForgetsTheVoid(Saga):
    """A purchase that comes to nothing keeps its reservation."""

    def _answer(self, purchase: Purchase, moment: Moment) -> Next:
        following = super()._answer(purchase, moment)
        return replace(following, purchase=replace(following.purchase, stage=Stage.DONE))


class IgnoresARefusedCapture(Saga):
    """A capture that is refused is taken for done."""

    def capture_refused(self, purchase: Purchase, reason: str) -> Next:
        assert purchase.attempt is not None
        assert purchase.attempt.charged is not None
        return self.captured(purchase, purchase.attempt.charged)


class TrustsAnUnknownCapture(Saga):
    """A capture whose outcome is unknown is taken for done."""

    def again(self, purchase: Purchase, moment: Moment) -> Next:
        if purchase.stage is Stage.CAPTURE and purchase.attempt and purchase.attempt.charged:
            return self.captured(purchase, purchase.attempt.charged)
        return super().again(purchase, moment)


class GivesUpAnUnknownCapture(Saga):
    """A capture whose outcome is unknown is taken for refused."""

    def again(self, purchase: Purchase, moment: Moment) -> Next:
        if purchase.stage is Stage.CAPTURE:
            return self.capture_refused(purchase, "unknown")
        return super().again(purchase, moment)


class IgnoresTheCancel(Saga):
    """The customer's cancel is not looked at."""

    def cancelled(self, purchase: Purchase, moment: Moment) -> None:
        return None


class OrdersAfterTheCancel(MemoryPurchaseStore):
    """The intent to order is committed whatever the customer has asked for."""

    def _cancel_comes_first(self, row: Row) -> bool:
        return False


class LosesNews(MemoryPurchaseStore):
    """The outbox row is not part of the commit."""

    def _tell(self, row: Row, commit: Commit) -> None:
        pass


class TellsTwice(MemoryPurchaseStore):
    """The outbox takes the same news again."""

    def _tell(self, row: Row, commit: Commit) -> None:
        row.outbox += [*commit.news, *commit.news]


class VoidsWhatIsCharged(Steps):
    """A void that finds a charge is taken for done."""

    async def _void(self, work: Work) -> Next:
        following = await super()._void(work)
        if following.purchase.stage is Stage.FLAGGED:
            return self._saga.voided(work.purchase, work.moment())
        return following


class RefundsRegardless(Steps):
    """All that was charged is given back, whatever was given back by hand before."""

    async def _refund(self, work: Work) -> Next:
        following = await super()._refund(work)
        charged = work.purchase.authorization.captured
        provider_id = work.purchase.authorization.provider_id
        if following.purchase.stage is Stage.FLAGGED and charged and provider_id:
            key = f"{work.purchase.request_id}:refund"
            await self._provider.refund(key, provider_id, charged)
        return following


class OrdersAgainOnRetry(Saga):
    """An operator's retry of an order sends it again, as if it had never been sent."""

    def _resolve(self, purchase: Purchase, what: Resolve, by: str, moment: Moment) -> Next:
        following = super()._resolve(purchase, what, by, moment)
        if purchase.resume is not Stage.ORDER or what.decision is not Decision.RETRY:
            return following
        return replace(following, purchase=replace(following.purchase, stage=Stage.ORDER))


class TakesTheDearerOrder(Saga):
    """What the seller charges is compared with max_price alone, not with what was agreed."""

    def ordered(self, purchase: Purchase, order_id: str, total: Money) -> Next:
        following = super().ordered(purchase, order_id, total)
        if total.minor > purchase.max_price.minor:
            return following
        return replace(following, purchase=replace(following.purchase, stage=Stage.CAPTURE))


class ClosesWithTheReservation(Saga):
    """What is still reserved when a purchase was closed is left to lapse."""

    def payment_checked(
        self, purchase: Purchase, payment: PaymentFound | None, moment: Moment
    ) -> Next:
        return self._rest(purchase, moment)


class AcceptsTwice(MemoryPurchaseStore):
    """Any number of purchases is made of an offer."""

    async def submit(self, submission: Submission, events: Sequence[Event]) -> bool:
        offer = submission.purchase.accepted_offer_of
        unbound = replace(submission.purchase, accepted_offer_of=None)
        done = await super().submit(replace(submission, purchase=unbound), events)
        if done and offer is not None:
            row = self.rows[submission.purchase.request_id]
            row.purchase = replace(row.purchase, accepted_offer_of=offer)
        return done


class DeliveredBeforeItIsSent(Notifier):
    """A try is taken for a success before it is made."""

    async def _try(self, begun: BegunTry) -> None:
        await self._store.finish(begun, Verdict(DeliveryState.DELIVERED))
        await super()._try(begun)


class AnotherIdPerTry(Notifier):
    """Each try of a message has an id of its own."""

    async def _send(self, begun: BegunTry) -> TryOutcome:
        message_id = uuid5(begun.message_id, str(begun.tries))
        return await super()._send(replace(begun, message_id=message_id))


class GivesUpAfterTheFirstTry(Notifier):
    """What did not arrive is not sent again."""

    async def _send(self, begun: BegunTry) -> TryOutcome:
        outcome = await super()._send(begun)
        return Undeliverable(outcome.error) if isinstance(outcome, NotDelivered) else outcome


class GivesUpAnUnknownAuthorization(Saga):
    """An authorization without an answer is taken for declined."""

    def authorization_unknown(self, purchase: Purchase, moment: Moment) -> Next:
        return self.declined(purchase, FailureReason.PAYMENT_UNAVAILABLE)


class ActsBeforeTheCommit(Steps):
    """The order follows the hold at once, before the intent to order is committed."""

    async def _hold(self, work: Work) -> Next:
        following = await super()._hold(work)
        if following.purchase.stage is not Stage.ORDER:
            return following
        assert following.purchase.attempt is not None
        ordering = replace(work, purchase=following.purchase)
        return await self._place(ordering, following.purchase.attempt)


class ErasesTheTokenTooEarly(MemoryPurchaseStore):
    """The token goes with the first commit, answered or not."""

    async def commit(self, commit: Commit) -> Committed:
        return await super().commit(replace(commit, erase_token=True))


def _as_new(work: Work) -> Purchase:
    return replace(work.purchase, stage=Stage.ORDER)


BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug("no fence in memory", replace(REAL, store=NoFence), "hold", frozenset({"I4"})),
        Bug(
            "fresh key per authorization",
            replace(REAL, provider_way=FreshAuthorizeKey),
            "hold",
            frozenset({"I5"}),
        ),
        Bug(
            "fresh key per void",
            replace(REAL, provider_way=FreshVoidKey),
            "too_dear",
            frozenset({"I5"}),
        ),
        Bug(
            "next seller on unknown",
            replace(REAL, steps=NextSellerOnUnknown),
            "two_careless_sellers",
            frozenset({"I2"}),
        ),
        Bug(
            "no tombstone",
            replace(REAL, steps=NoTombstone),
            "two_careless_sellers",
            frozenset({"I2"}),
            faults=2,
        ),
        Bug(
            "trusts UNAVAILABLE",
            replace(REAL, steps=TrustsUnavailable),
            "two_careless_sellers",
            frozenset({"I2"}),
            faults=2,
        ),
        Bug(
            "not_after ignored",
            replace(REAL, steps=OrdersWhenItIsTooLate),
            "two_careless_sellers",
            frozenset({"in time"}),
        ),
        Bug(
            "not_after ignored after a pause",
            replace(REAL, steps=OrdersWhenItHasStoodStill),
            "atomic",
            frozenset({"in time"}),
        ),
        Bug(
            "too late is unsent",
            replace(REAL, steps=TakesTheLateForUnsent),
            "two_careless_sellers",
            frozenset({"I2"}),
        ),
        Bug(
            "told is new",
            replace(REAL, worker=ToldIsNew),
            "told_of_the_payment",
            frozenset({"I2"}),
        ),
        Bug(
            "new by its stage",
            replace(REAL, worker=NewByItsStage),
            "order_costs_more",
            frozenset({"unsent"}),
        ),
        Bug(
            "told is tried",
            replace(REAL, worker=NewByItsStage),
            "told_of_the_payment",
            frozenset({"unsent"}),
        ),
        Bug(
            "lease ignored",
            replace(REAL, worker=AlwaysMine),
            "atomic",
            frozenset({"lease"}),
        ),
        Bug(
            "age from the end of the reading",
            replace(REAL, worker=YoungerThanItIs),
            "costs_less",
            frozenset({"in time"}),
        ),
        Bug(
            "capture before the order",
            replace(REAL, saga=CaptureBeforeOrder),
            "hold",
            frozenset({"I1"}),
        ),
        Bug(
            "amount of the quote",
            replace(REAL, saga=QuotedAmount),
            "order_costs_less",
            frozenset({"I3"}),
        ),
        Bug(
            "no release before the next seller",
            replace(REAL, saga=NoReleaseCommitted),
            "hold_costs_more",
            frozenset({"I2"}),
        ),
        Bug(
            "final status overwritten",
            replace(REAL, saga=LastWordWins, store=NoGuard),
            "nobody_has_it",
            frozenset({"I4"}),
            faults=2,
        ),
        Bug(
            "NOT_FOUND is no",
            replace(REAL, saga=NotFoundCountsAtOnce),
            "two_careless_sellers",
            frozenset({"I2"}),
            faults=2,
        ),
        Bug(
            "not_after trusted",
            replace(REAL, saga=TrustsNotAfter),
            "careless_and_not_closable",
            frozenset({"I2"}),
            faults=2,
        ),
        Bug(
            "numbers across currencies",
            replace(REAL, saga=ChargesTheNumber),
            "charges_in_another_currency",
            frozenset({"I3"}),
        ),
        Bug(
            "silence is no",
            replace(REAL, saga=TakesSilenceForNo),
            "nobody_answers",
            frozenset({"answer"}),
        ),
        Bug("dearest first", replace(REAL, saga=DearestFirst), "first_sold_out", frozenset({"I6"})),
        Bug(
            "no void", replace(REAL, saga=ForgetsTheVoid), "nobody_has_it", frozenset({"I9", "I10"})
        ),
        Bug(
            "refused capture ignored",
            replace(REAL, saga=IgnoresARefusedCapture),
            "capture_refused",
            frozenset({"I8"}),
        ),
        Bug(
            "unknown capture is done",
            replace(REAL, saga=TrustsAnUnknownCapture),
            "hold",
            frozenset({"I8", "I12"}),
        ),
        Bug(
            "unknown authorization is declined",
            replace(REAL, saga=GivesUpAnUnknownAuthorization),
            "hold",
            frozenset({"I9", "I12"}),
        ),
        Bug(
            "order before its intent",
            replace(REAL, steps=ActsBeforeTheCommit),
            "hold",
            frozenset({"I5"}),
        ),
        Bug(
            "void of a charge is done",
            replace(REAL, steps=VoidsWhatIsCharged),
            "charged_by_hand",
            frozenset({"I8", "I12"}),
        ),
        Bug(
            "refund regardless",
            replace(REAL, steps=RefundsRegardless),
            "recalled_partly_refunded",
            frozenset({"I10"}),
        ),
        Bug(
            "retry orders again",
            replace(REAL, saga=OrdersAgainOnRetry),
            "operator_retries",
            frozenset({"I9"}),
            faults=2,
        ),
        Bug(
            "dearer order taken",
            replace(REAL, saga=TakesTheDearerOrder),
            "overcharges",
            frozenset({"I3"}),
        ),
        Bug(
            "reservation left at the close",
            replace(REAL, saga=ClosesWithTheReservation),
            "operator_writes_it_off",
            frozenset({"I9"}),
        ),
        Bug(
            "offer accepted twice",
            replace(REAL, store=AcceptsTwice),
            "accept_offer_new_token",
            frozenset({"I5"}),
        ),
        Bug(
            "delivered before it is sent",
            replace(REAL, notifier=DeliveredBeforeItIsSent),
            "told",
            frozenset({"I11"}),
        ),
        Bug(
            "another id per try",
            replace(REAL, notifier=AnotherIdPerTry),
            "told",
            frozenset({"I11"}),
        ),
        Bug(
            "given up after the first try",
            replace(REAL, notifier=GivesUpAfterTheFirstTry),
            "told_when_it_listens",
            frozenset({"I11"}),
        ),
        Bug(
            "token erased too early",
            replace(REAL, store=ErasesTheTokenTooEarly),
            "declined",
            frozenset({"I7"}),
            faults=2,
        ),
        Bug(
            "unknown capture is refused",
            replace(REAL, saga=GivesUpAnUnknownCapture),
            "hold",
            frozenset({"I7"}),
        ),
        Bug(
            "cancel ignored",
            replace(REAL, saga=IgnoresTheCancel, store=OrdersAfterTheCancel),
            "cancel_atomic",
            frozenset({"I5"}),
        ),
        Bug(
            "no fence in the SQL",
            REAL,
            "hold",
            frozenset({"I4"}),
            sql=SqlChange("commit", "AND epoch = $2", "AND epoch >= $2"),
        ),
        Bug(
            "cancel ignored in the SQL",
            replace(REAL, saga=IgnoresTheCancel),
            "cancel_atomic",
            frozenset({"I5"}),
            sql=SqlChange("commit", "AND NOT ($13 AND", "AND NOT (false AND $13 AND"),
        ),
        Bug(
            "outbox row lost in the SQL",
            REAL,
            "hold",
            frozenset({"I11"}),
            sql=SqlChange("commit", "unnest($26::text[])", "unnest(($26::text[])[2:])"),
        ),
        Bug("outbox row lost", replace(REAL, store=LosesNews), "hold", frozenset({"I11"})),
        Bug("outbox row doubled", replace(REAL, store=TellsTwice), "hold", frozenset({"I11"})),
    )
}
