"""What a store of purchases does: one suite over PostgreSQL and over the one in memory that simulations use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import pytest

from mesh import postgres
from mesh.clock import SystemClock
from mesh.ids import uuid7_factory
from mesh.money import Money
from orchestrator.adapters.postgres import PostgresPurchaseStore
from orchestrator.domain.events import Collected, Coverage, Event, Finished, Step, StepName
from orchestrator.domain.flags import Flag, Invariant, Settled
from orchestrator.domain.observations import Decision, OrderChanged, PaymentChanged, Resolve, Told
from orchestrator.domain.purchase import (
    Attempt,
    Authorization,
    AuthorizationState,
    Candidate,
    FailureReason,
    Offer,
    Plan,
    Purchase,
    Release,
    Stage,
    Status,
)
from orchestrator.ports import (
    CancelledFirst,
    Claim,
    Commit,
    Fenced,
    Loaded,
    News,
    Place,
    PurchaseStore,
    SealedToken,
    Submission,
    Wanted,
)
from sellers.model import Condition
from tests.fakes.purchase_store import MemoryPurchaseStore

CLOCK = SystemClock()
LEASE_S = 60.0
LATER = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
TOKEN = SealedToken("k1", b"sealed")

new_id = uuid7_factory(CLOCK, Random(11))


def usd(minor: int) -> Money:
    return Money("USD", minor)


ATTEMPT = Attempt(
    number=1,
    seller_id="a",
    key="key-a",
    quote_id="q1",
    quoted=usd(2000),
    with_hold=True,
    not_after=LATER,
    agreed=usd(2100),
    hold_id="h1",
)


def rich(purchase: Purchase) -> Purchase:
    """Give a purchase with something in every part."""
    return replace(
        purchase,
        stage=Stage.VOID,
        tries=3,
        status=Status.PRICE_NOT_MET,
        offer=Offer(usd(3500), "b", LATER),
        authorization=Authorization(
            AuthorizationState.AUTHORIZED, "auth_1", None, capture_before=LATER
        ),
        plan=Plan(
            candidates=(Candidate("c", "q2", usd(2500), LATER),),
            dearer=Candidate("b", "q3", usd(3500), LATER),
            tries=(("a", 2),),
            collections=1,
            answered=7,
            silent=3,
            releases=(Release("a", "key-a"), Release("b", "key-b", refused=True)),
            stopped=True,
            obstructed=True,
        ),
        attempt=ATTEMPT,
    )


@dataclass
class Subject:
    """A store, and a look at its outbox, which is not part of the port."""

    store: PurchaseStore
    outbox: Callable[[UUID], Awaitable[list[str]]]

    async def submit(
        self,
        *,
        customer_id: str = "alice",
        key: str | None = None,
        request_id: UUID | None = None,
        accepted_offer_of: UUID | None = None,
    ) -> UUID | None:
        """Submit a purchase; give its id, None when something was taken."""
        purchase = Purchase(
            request_id=request_id or new_id(),
            customer_id=customer_id,
            book_id="9780134685991",
            max_price=usd(2999),
            conditions=(Condition.NEW, Condition.GOOD),
            created_at=CLOCK.now(),
            traceparent="00-1-2-01",
            accepted_offer_of=accepted_offer_of,
        )
        submission = Submission(purchase, key, b"digest", TOKEN)
        kept = await self.store.submit(submission, [Step(StepName.SUBMITTED)])
        return purchase.request_id if kept else None

    async def submitted(self, customer_id: str = "alice") -> UUID:
        """Submit a purchase."""
        request_id = await self.submit(customer_id=customer_id)
        assert request_id is not None
        return request_id

    async def claimed(self, lease_s: float = LEASE_S) -> Claim:
        """Claim the one that is due."""
        [claim] = await self.store.claim(1, 1, lease_s)
        return claim

    async def loaded(self, claim: Claim) -> Loaded:
        """Load a claimed purchase."""
        loaded = await self.store.load(claim)
        assert isinstance(loaded, Loaded)
        return loaded


def commit(purchase: Purchase, *events: Event, keep: bool = True) -> Commit:
    return Commit(purchase, events, due_in_s=LEASE_S, keep=keep, erase_token=False)


class Suite:
    """The behaviour; each subclass gives a store to have it."""

    # Submitting

    async def test_a_purchase_is_as_it_was_submitted(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        loaded = await subject.loaded(claim)
        assert claim == Claim(request_id, 1)
        assert loaded.purchase == Purchase(
            request_id=request_id,
            customer_id="alice",
            book_id="9780134685991",
            max_price=usd(2999),
            conditions=(Condition.NEW, Condition.GOOD),
            created_at=loaded.purchase.created_at,
            traceparent="00-1-2-01",
            epoch=1,
        )
        assert (loaded.token, loaded.event_seq, loaded.claims) == (TOKEN, 1, 1)
        assert (loaded.observed, loaded.observations) == (0, ())
        assert 0 <= loaded.age_s < LEASE_S

    async def test_an_id_a_key_and_an_offer_are_taken_once(self, subject: Subject) -> None:
        first = await subject.submit(key="k")
        assert first is not None
        assert await subject.submit(request_id=first) is None
        assert await subject.submit(key="k") is None
        assert await subject.submit(key="k", customer_id="bob") is not None
        assert await subject.submit(accepted_offer_of=first) is not None
        assert await subject.submit(accepted_offer_of=first) is None

    async def test_what_was_submitted_is_found_by_key_before_id(self, subject: Subject) -> None:
        by_key, by_id = await subject.submit(key="k"), await subject.submitted()
        found = await subject.store.find_submitted(by_id, "alice", "k")
        assert found is not None
        assert (found.request_id, found.content_hmac, found.key_id) == (by_key, b"digest", "k1")
        found = await subject.store.find_submitted(by_id, "alice", "other")
        assert found is not None
        assert found.request_id == by_id
        assert await subject.store.find_submitted(by_id, "bob", "k") is None
        assert await subject.store.find_submitted(new_id(), "alice", None) is None

    # The queue

    async def test_a_claim_holds_for_its_lease(self, subject: Subject) -> None:
        await subject.submitted()
        first = await subject.claimed(lease_s=0)
        second = await subject.claimed()
        assert second.epoch == first.epoch + 1
        assert await subject.store.claim(2, 1, LEASE_S) == []
        assert await subject.store.load(first) is None
        assert (await subject.loaded(second)).claims == 2

    async def test_customers_take_turns(self, subject: Subject) -> None:
        busy = [await subject.submitted("busy") for _ in range(4)]
        alice = await subject.submitted("alice")
        bob = await subject.submitted("bob")
        claims = await subject.store.claim(1, 3, LEASE_S)
        assert {claim.request_id for claim in claims} == {busy[0], alice, bob}
        claims = await subject.store.claim(1, 10, LEASE_S)
        assert {claim.request_id for claim in claims} == set(busy[1:])

    async def test_a_lease_is_renewed_while_it_holds(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        old = await subject.claimed(lease_s=0)
        assert await subject.store.renew([old], 0) == {request_id: False}
        new = await subject.claimed()
        assert await subject.store.renew([old, new], LEASE_S) == {request_id: False}
        assert await subject.store.renew([old], LEASE_S) == {}

    async def test_what_is_given_back_is_due_as_if_it_was_not_claimed(
        self, subject: Subject
    ) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        await subject.store.give_back([claim])
        again = await subject.claimed()
        assert (await subject.loaded(again)).claims == 1
        await subject.store.give_back([claim])
        assert await subject.store.claim(2, 1, LEASE_S) == []

    async def test_what_is_left_is_due_after_a_while(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        await subject.store.leave(claim, 0)
        again = await subject.claimed()
        assert (await subject.loaded(again)).claims == 2
        await subject.store.leave(claim, 0)
        assert await subject.store.claim(2, 1, LEASE_S) == []
        await subject.store.leave(again, LEASE_S)
        assert await subject.store.claim(2, 1, LEASE_S) == []

    async def test_what_is_set_aside_waits_with_a_flag(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        flag = Flag(Invariant.ENDS, "cannot be read", "repair it")
        await subject.store.set_aside(await subject.claimed(lease_s=0), flag)
        assert await subject.store.claim(2, 1, LEASE_S) == []
        assert await subject.store.observe(request_id, "ann", PaymentChanged())
        loaded = await subject.loaded(await subject.claimed())
        assert (loaded.purchase.flagged, loaded.purchase.flag) == (True, 1)
        assert loaded.claims == 1

    async def test_the_dead_lose_their_claims(self, subject: Subject) -> None:
        async with subject.store.session() as living, subject.store.session() as other:
            assert living.owner != other.owner
            await subject.submitted()
            assert len(await subject.store.claim(living.owner, 1, LEASE_S)) == 1
            assert await subject.store.free_dead() == 0
        while await subject.store.free_dead() == 0:
            pass
        assert len(await subject.store.claim(other.owner, 1, LEASE_S)) == 1

    @pytest.mark.parametrize(("claims", "at_once"), [(5, True), (11, False)])
    async def test_what_many_workers_have_died_with_is_left_alone_for_a_while(
        self, subject: Subject, claims: int, *, at_once: bool
    ) -> None:
        await subject.submitted()
        async with subject.store.session() as session:
            for claimed in range(claims):
                lease_s = 0 if claimed < claims - 1 else LEASE_S
                assert len(await subject.store.claim(session.owner, 1, lease_s)) == 1
        while await subject.store.free_dead() == 0:
            pass
        assert len(await subject.store.claim(2, 1, LEASE_S)) == at_once

    async def test_how_long_it_is_claimed_in_vain_counts_from_the_first_claim(
        self, subject: Subject
    ) -> None:
        await subject.submitted()
        claim = await subject.claimed(lease_s=0)
        since_s = CLOCK.monotonic()
        while CLOCK.monotonic() - since_s < 0.02:
            claim = await subject.claimed(lease_s=0)
        least_s = CLOCK.monotonic() - since_s
        loaded = await subject.loaded(claim)
        assert loaded.claimed_for_s >= least_s
        # A commit, or a claim that is given back or left, begins it anew.
        await subject.store.commit(replace(commit(loaded.purchase, keep=False), due_in_s=0))
        for back in (True, False, False):
            since_s = CLOCK.monotonic()
            claim = await subject.claimed()
            anew_s = (await subject.loaded(claim)).claimed_for_s
            assert 0 <= anew_s <= CLOCK.monotonic() - since_s
            if back:
                await subject.store.give_back([claim])
            else:
                await subject.store.leave(claim, 0)

    # Commits

    async def test_a_commit_is_kept_whole(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        before = (await subject.loaded(claim)).purchase
        after = rich(before)
        coverage = Coverage(8, 900, 0.02, usd(140))
        collected = Collected(
            "c1", 9, 8, 7, 6, (("timed_out", 1),), LATER, 0.5, 2, usd(1999), coverage
        )
        held = Step(StepName.HELD, "a", usd(2100), "why")
        committed = await subject.store.commit(commit(after, collected, held, Finished()))
        assert committed.event_seq == 4
        assert not committed.cancel_requested
        assert not committed.observations_wait
        loaded = await subject.loaded(claim)
        assert loaded.purchase == after
        assert (loaded.claims, loaded.token) == (0, TOKEN)
        events = await subject.store.events(request_id, 1)
        assert [(recorded.seq, recorded.event) for recorded in events] == [
            (2, collected),
            (3, held),
            (4, Finished()),
        ]

    async def test_an_overtaken_worker_changes_nothing(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        old = await subject.claimed(lease_s=0)
        purchase = (await subject.loaded(old)).purchase
        new = await subject.claimed()
        done = commit(replace(purchase, stage=Stage.DONE), Finished(), keep=False)
        with pytest.raises(Fenced):
            await subject.store.commit(done)
        loaded = await subject.loaded(new)
        assert (loaded.purchase.stage, loaded.event_seq) == (Stage.AUTHORIZE, 1)
        assert await subject.outbox(request_id) == []

    async def test_a_final_status_stays(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        failed = replace(purchase, status=Status.FAILED, failure_reason=FailureReason.CARD_DECLINED)
        await subject.store.commit(commit(failed))
        with pytest.raises(Exception, match="is final and cannot become pending"):
            await subject.store.commit(commit(purchase))
        assert (await subject.loaded(claim)).purchase == failed

    async def test_the_tries_that_have_ended_are_kept_too(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        second = replace(ATTEMPT, number=2, seller_id="b", key="key-b", hold_id=None)
        await subject.store.commit(commit(replace(purchase, attempt=ATTEMPT)))
        ended = replace(ATTEMPT, outcome="out_of_stock")
        following = commit(replace(purchase, attempt=second))
        await subject.store.commit(replace(following, ended=ended))
        assert (await subject.loaded(claim)).purchase.attempt == second

    async def test_a_plan_stays_until_there_is_another(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        planned = replace(purchase, plan=replace(purchase.plan, collections=1, answered=7))
        await subject.store.commit(commit(planned))
        await subject.store.commit(replace(commit(planned), same_plan=True))
        assert (await subject.loaded(claim)).purchase.plan == planned.plan
        await subject.store.commit(commit(purchase))
        assert (await subject.loaded(claim)).purchase.plan == purchase.plan

    async def test_who_keeps_a_purchase_has_its_lease(self, subject: Subject) -> None:
        await subject.submitted()
        purchase = (await subject.loaded(await subject.claimed(lease_s=0))).purchase
        await subject.store.commit(commit(purchase))
        assert await subject.store.claim(2, 1, LEASE_S) == []
        await subject.store.commit(replace(commit(purchase, keep=False), due_in_s=0.0))
        purchase = (await subject.loaded(await subject.claimed(lease_s=0))).purchase
        await subject.store.commit(replace(commit(purchase, keep=False), due_in_s=None))
        assert await subject.store.claim(2, 1, LEASE_S) == []

    async def test_a_token_is_erased(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        await subject.store.commit(replace(commit(purchase), erase_token=True))
        assert (await subject.loaded(claim)).token is None

    async def test_each_kind_of_news_is_kept_once(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        final = replace(commit(purchase), news=(News.FINAL,))
        await subject.store.commit(final)
        await subject.store.commit(final)
        await subject.store.commit(replace(final, news=(News.REFUNDED,)))
        assert sorted(await subject.outbox(request_id)) == ["final", "refunded"]

    async def test_flags_stay_open_until_they_are_settled(self, subject: Subject) -> None:
        await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        flag = Flag(Invariant.ENDS, "it hangs", "look", usd(2999))
        flagged = replace(purchase, stage=Stage.FLAGGED, resume=Stage.VOID)
        await subject.store.commit(replace(commit(flagged), flags=(flag, flag)))
        loaded = (await subject.loaded(claim)).purchase
        assert (loaded.flagged, loaded.stage, loaded.resume) == (True, Stage.FLAGGED, Stage.VOID)
        assert loaded.flag == 2
        await subject.store.commit(commit(flagged))
        assert (await subject.loaded(claim)).purchase.flagged
        await subject.store.commit(replace(commit(purchase), settled=Settled("ann", "all well")))
        settled = (await subject.loaded(claim)).purchase
        assert (settled.flagged, settled.flag) == (False, 0)
        await subject.store.commit(replace(commit(flagged), flags=(flag,)))
        assert (await subject.loaded(claim)).purchase.flag == 3

    # Cancelling and telling

    async def test_a_cancel_is_noted_once_while_it_is_pending(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        assert await subject.store.request_cancel(request_id, "bob") is None
        for _ in range(2):
            view = await subject.store.request_cancel(request_id, "alice")
            assert view is not None
            assert view.cancel_requested
        events = [r.event for r in await subject.store.events(request_id, 0)]
        assert events == [Step(StepName.SUBMITTED), Step(StepName.CANCEL_REQUESTED)]
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        assert purchase.cancel_requested
        cancelled = replace(purchase, status=Status.CANCELLED)
        await subject.store.commit(commit(cancelled, Finished()))
        view = await subject.store.request_cancel(request_id, "alice")
        assert view is not None
        assert view.status is Status.CANCELLED
        assert len(await subject.store.events(request_id, 0)) == 3

    async def test_no_order_begins_after_a_cancel(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        await subject.store.request_cancel(request_id, "alice")
        assert await subject.store.renew([claim], LEASE_S) == {request_id: True}
        ordering = replace(commit(replace(purchase, stage=Stage.ORDER)), begins_order=True)
        with pytest.raises(CancelledFirst):
            await subject.store.commit(ordering)
        assert (await subject.loaded(claim)).purchase.stage is Stage.AUTHORIZE
        committed = await subject.store.commit(commit(purchase))
        assert (committed.event_seq, committed.cancel_requested) == (2, True)

    async def test_an_overtaken_worker_is_fenced_rather_than_cancelled(
        self, subject: Subject
    ) -> None:
        request_id = await subject.submitted()
        purchase = (await subject.loaded(await subject.claimed(lease_s=0))).purchase
        await subject.claimed()
        await subject.store.request_cancel(request_id, "alice")
        with pytest.raises(Fenced):
            await subject.store.commit(replace(commit(purchase), begins_order=True))

    async def test_a_cancel_makes_a_waiting_purchase_due(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        purchase = (await subject.loaded(await subject.claimed())).purchase
        await subject.store.commit(commit(purchase, keep=False))
        assert await subject.store.claim(2, 1, LEASE_S) == []
        await subject.store.request_cancel(request_id, "alice")
        assert (await subject.claimed()).epoch == 2

    async def test_observations_wait_for_the_next_worker(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        told: list[Told] = [
            OrderChanged("key-a", "cancelled"),
            PaymentChanged("refunded"),
            Resolve(Decision.ORDER_STANDS, "they say so", "o1", usd(2000), flag=1),
        ]
        for what in told:
            assert await subject.store.observe(request_id, "ann", what)
        assert not await subject.store.observe(new_id(), "ann", told[0])
        assert await subject.store.claim(2, 1, LEASE_S) == []
        observations = (await subject.loaded(claim)).observations
        assert [(o.number, o.by, o.what) for o in observations] == [
            (number, "ann", what) for number, what in enumerate(told, start=1)
        ]
        committed = await subject.store.commit(replace(commit(purchase), observed=2))
        assert committed.observations_wait
        assert [o.number for o in (await subject.loaded(claim)).observations] == [3]
        done = replace(commit(purchase, keep=False), due_in_s=None, observed=2)
        assert (await subject.store.commit(done)).observations_wait
        claim = await subject.claimed()
        done = replace(done, purchase=(await subject.loaded(claim)).purchase, observed=3)
        assert not (await subject.store.commit(done)).observations_wait
        assert await subject.store.claim(2, 1, LEASE_S) == []
        assert await subject.store.observe(request_id, "ann", told[0])
        assert (await subject.claimed()).request_id == request_id

    # Looking

    async def test_a_customer_sees_what_was_bought(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        view = await subject.store.get(request_id, "alice")
        assert view is not None
        assert (view.status, view.settled, view.committed) == (Status.PENDING, False, False)
        assert await subject.store.get(request_id, "bob") is None
        claim = await subject.claimed()
        purchase = (await subject.loaded(claim)).purchase
        bought = replace(ATTEMPT, order_id="o1", charged=usd(2100), outcome="confirmed")
        ordering = replace(purchase, stage=Stage.CAPTURE, attempt=bought)
        await subject.store.commit(commit(ordering))
        view = await subject.store.get(request_id, "alice")
        assert view is not None
        assert (view.committed, view.seller_id, view.final_price) == (True, None, None)
        captured = Authorization(AuthorizationState.CAPTURED, "auth_1", usd(2100))
        paid = replace(ordering, stage=Stage.DONE, status=Status.PURCHASED, authorization=captured)
        await subject.store.commit(commit(paid))
        view = await subject.store.get(request_id, "alice")
        assert view is not None
        assert (view.status, view.settled, view.committed) == (Status.PURCHASED, True, False)
        assert (view.final_price, view.seller_id, view.confirmation) == (usd(2100), "a", "o1")
        back = replace(captured, state=AuthorizationState.REFUNDED, refunded=usd(2100))
        await subject.store.commit(commit(replace(paid, authorization=back)))
        view = await subject.store.get(request_id, "alice")
        assert view is not None
        assert view.refunded == usd(2100)

    async def test_an_offer_can_be_accepted(self, subject: Subject) -> None:
        request_id = await subject.submitted()
        claim = await subject.claimed()
        purchase = rich((await subject.loaded(claim)).purchase)
        assert await subject.store.offered(request_id, "bob") is None
        offered = await subject.store.offered(request_id, "alice")
        assert offered is not None
        assert offered.offer is None
        await subject.store.commit(commit(purchase))
        offered = await subject.store.offered(request_id, "alice")
        assert offered is not None
        assert (offered.offer, offered.token) == (purchase.offer, TOKEN)
        assert (offered.book_id, offered.conditions) == (purchase.book_id, purchase.conditions)
        accepted = await subject.submit(accepted_offer_of=request_id)
        assert accepted is not None
        old, new = (
            await subject.store.get(request_id, "alice"),
            await subject.store.get(accepted, "alice"),
        )
        assert old is not None
        assert new is not None
        assert (old.offer_accepted_by, new.accepted_offer_of) == (accepted, request_id)

    async def test_pages_go_from_new_to_old(self, subject: Subject) -> None:
        made = [await subject.submitted() for _ in range(4)]
        await subject.submitted("bob")
        everything = Wanted()
        first = await subject.store.page("alice", everything, None, 3)
        assert {view.request_id for view in first} < set(made)
        last = first[-1]
        behind = Place(last.created_at, last.request_id)
        rest = await subject.store.page("alice", everything, behind, 3)
        assert {view.request_id for view in (*first, *rest)} == set(made)
        places = [(view.created_at, view.request_id) for view in (*first, *rest)]
        assert places == sorted(places, reverse=True)

    async def test_a_list_has_what_is_wanted_and_nothing_else(self, subject: Subject) -> None:
        kept, other = await subject.submitted(), await subject.submitted()
        claims = {claim.request_id: claim for claim in await subject.store.claim(7, 9, 15.0)}
        loaded = await subject.loaded(claims[other])
        over = replace(loaded.purchase, status=Status.CANCELLED, stage=Stage.DONE)
        await subject.store.commit(commit(over, Finished()))
        [view] = [
            view
            for view in await subject.store.page("alice", Wanted(), None, 9)
            if view.request_id == kept
        ]
        at, later = view.created_at, view.created_at + timedelta(days=1)

        async def listed(wanted: Wanted) -> set[UUID]:
            page = await subject.store.page("alice", wanted, None, 9)
            return {view.request_id for view in page}

        pending, cancelled = frozenset({Status.PENDING}), frozenset({Status.CANCELLED})
        both = {kept, other}
        for book_id in (None, view.book_id):
            assert await listed(Wanted(book_id=book_id)) == both
            assert await listed(Wanted(pending | cancelled, book_id)) == both
            assert await listed(Wanted(pending, book_id)) == {kept}
            assert await listed(Wanted(cancelled, book_id)) == {other}
            assert await listed(Wanted(frozenset({Status.FAILED}), book_id)) == set()
            assert kept in await listed(Wanted(book_id=book_id, created_after=at))
            assert kept not in await listed(Wanted(book_id=book_id, created_before=at))
            assert await listed(Wanted(book_id=book_id, created_before=later)) == both
            assert await listed(Wanted(book_id=book_id, created_after=later)) == set()
        assert await listed(Wanted(book_id="another")) == set()

    async def test_it_answers(self, subject: Subject) -> None:
        assert await subject.store.ping()


class TestInMemory(Suite):
    @pytest.fixture
    def subject(self) -> Subject:
        """Give an empty store in memory."""
        store = MemoryPurchaseStore(CLOCK)

        async def outbox(request_id: UUID) -> list[str]:
            return list(store.rows[request_id].outbox)

        return Subject(store, outbox)


class TestInPostgres(Suite):
    @pytest.fixture
    async def subject(self, postgres_dsn: str) -> AsyncIterator[Subject]:
        """Give an empty store in PostgreSQL."""
        pool: asyncpg.Pool[asyncpg.Record] = await postgres.open_pool(
            postgres_dsn, max_size=4, application_name="tests"
        )

        async def outbox(request_id: UUID) -> list[str]:
            rows = await pool.fetch(
                "SELECT kind FROM orchestrator.outbox WHERE request_id = $1", request_id
            )
            return [row["kind"] for row in rows]

        async with pool:
            yield Subject(PostgresPurchaseStore(pool, postgres_dsn), outbox)
