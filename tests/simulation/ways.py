"""The orchestrator's ports as one process has them: each call crosses the seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NoReturn, Protocol, TypeVar
from uuid import UUID

from mesh.errors import MeshError, Unavailable
from mesh.money import Money
from orchestrator.domain.events import AnswerBatch, Collected, Event
from orchestrator.domain.flags import Flag
from orchestrator.domain.observations import Told
from orchestrator.domain.purchase import Attempt, Candidate, Purchase, Release
from orchestrator.domain.saga import SellerKind
from orchestrator.operator_ports import Dossier, FlagRecord
from orchestrator.ports import (
    AuthorizeOutcome,
    CancelledFirst,
    CaptureOutcome,
    Claim,
    Commit,
    Committed,
    Fenced,
    Gathered,
    Loaded,
    Offered,
    Place,
    ProviderPayment,
    PurchaseView,
    Recorded,
    RecordedBatch,
    RefundOutcome,
    SealedToken,
    Submission,
    Submitted,
    Unknown,
    Unreadable,
    VoidOutcome,
    Wanted,
    WorkerSession,
)
from sellers.model import (
    CallFailed,
    CancelOutcome,
    Confirmed,
    FailureKind,
    GetOrderOutcome,
    Held,
    HoldOutcome,
    PlaceOutcome,
    ReleaseOutcome,
)
from tests.simulation.faults import Fault, Kind
from tests.simulation.ledgers import Collection, ProviderLedger, SellerLedger, Sent, purchase_of
from tests.simulation.ours import Books
from tests.simulation.seam import Passage, Process, Seam

T = TypeVar("T")

PROVIDER_S = 2.0
HOLD_S = 2.0
ORDER_S = 3.0
COLLECT_S = 3.0
STORE_S = 5.0
"""How long callers wait for answers, in seconds, as the adapters do."""
SLOT_S = 2.0
"""How long a call waits at a seller that is called as often as it allows, in seconds, as in the adapter."""


class Watcher(Protocol):
    """Looks at our books after each change."""

    async def changed(self, books: Books, commit: Commit | None) -> None:
        """Compare with what was there before; ``commit`` is what a worker has just committed."""
        ...

    def poll(self) -> None:
        """Have all workers look for due work soon, as they do by themselves, all the time."""
        ...

    def refused(self, error: Exception) -> None:
        """Note that the database has refused what should never have been tried."""
        ...

    def sent(self, process: Process, sent: Sent) -> None:
        """Judge a request for an effect as it leaves a process."""
        ...

    def has_left(self, sent: Sent) -> None:
        """Note a request that has left, or may have."""
        ...


class StoreWay:
    """The way to the store."""

    def __init__(self, seam: Seam, process: Process, books: Books, watcher: Watcher) -> None:
        self._seam = seam
        self._process = process
        self._books = books
        self._watcher = watcher

    async def submit(self, submission: Submission, events: Sequence[Event]) -> bool:
        return await self._change(
            Kind.COMMIT, "submit", lambda: self._books.store.submit(submission, events)
        )

    async def find_submitted(
        self, request_id: UUID, customer_id: str, idempotency_key: str | None
    ) -> Submitted | None:
        return await self._look(
            "find_submitted",
            lambda: self._books.store.find_submitted(request_id, customer_id, idempotency_key),
        )

    async def claim(self, owner: int, room: int, lease_s: float) -> list[Claim]:
        """Claim. One that would take nothing is no crossing: a fault there changes nothing."""
        if not self._process.untouched:
            await self._process.running()
        if not await self._books.anything_due():
            return []

        async def claiming() -> list[Claim]:
            claims = await self._books.store.claim(owner, room, lease_s)
            self._leased((claim.request_id for claim in claims), lease_s)
            return claims

        try:
            return await self._change(Kind.COMMIT, "claim", claiming)
        except Unavailable:
            self._watcher.poll()
            raise

    async def request_cancel(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        return await self._change(
            Kind.COMMIT,
            "request_cancel",
            lambda: self._books.store.request_cancel(request_id, customer_id),
        )

    async def observe(self, request_id: UUID, by: str, what: Told) -> bool:
        return await self._change(
            Kind.COMMIT, "observe", lambda: self._books.store.observe(request_id, by, what)
        )

    async def load(self, claim: Claim) -> Loaded | Unreadable | None:
        return await self._look("load", lambda: self._books.store.load(claim))

    async def commit(self, commit: Commit) -> Committed:
        async def committing() -> Committed:
            committed = await self._books.store.commit(commit)
            self._leased((commit.purchase.request_id,), (commit.due_in_s or 0.0) * commit.keep)
            return committed

        name = f"commit {commit.purchase.stage.value}"
        return await self._change(Kind.FENCED, name, committing, commit)

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> dict[UUID, bool]:
        async def renewing() -> dict[UUID, bool]:
            renewed = await self._books.store.renew(claims, lease_s)
            self._leased(renewed, lease_s)
            return renewed

        return await self._change(Kind.FENCED, "renew", renewing)

    async def give_back(self, claims: Sequence[Claim]) -> None:
        if claims:
            await self._change(
                Kind.FENCED, "give_back", lambda: self._books.store.give_back(claims)
            )

    async def leave(self, claim: Claim, delay_s: float) -> None:
        await self._change(Kind.FENCED, "leave", lambda: self._books.store.leave(claim, delay_s))

    async def set_aside(self, claim: Claim, flag: Flag) -> None:
        await self._change(
            Kind.FENCED, "set_aside", lambda: self._books.store.set_aside(claim, flag)
        )

    async def free_dead(self) -> int:
        """Free what the dead have left; when that is nothing, it is no crossing."""
        if not self._process.untouched:
            await self._process.running()
        if not await self._books.anything_left():
            return 0
        return await self._change(Kind.COMMIT, "free_dead", self._books.store.free_dead)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[WorkerSession]:
        """Open a session. No crossing: nothing is claimed before there is one."""
        await self._process.running()
        async with self._books.store.session() as session:
            self._process.owner = session.owner
            yield session

    async def get(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        return await self._look("get", lambda: self._books.store.get(request_id, customer_id))

    async def offered(self, request_id: UUID, customer_id: str) -> Offered | None:
        return await self._look(
            "offered", lambda: self._books.store.offered(request_id, customer_id)
        )

    async def page(
        self, customer_id: str, wanted: Wanted, behind: Place | None, limit: int
    ) -> list[PurchaseView]:
        return await self._look(
            "page", lambda: self._books.store.page(customer_id, wanted, behind, limit)
        )

    async def events(self, request_id: UUID, after: int) -> list[Recorded]:
        return await self._look("events", lambda: self._books.store.events(request_id, after))

    async def ping(self) -> bool:
        return await self._look("ping", self._books.store.ping)

    def _leased(self, request_ids: Iterable[UUID], lease_s: float) -> None:
        until_s = self._process.loop.time() + lease_s
        for request_id in request_ids:
            self._process.leases[request_id] = until_s

    async def _look(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        passage = Passage(Kind.LOOK, name, STORE_S)
        return await self._seam.cross(
            self._process, passage, lambda: self._books.run(work), _no_database
        )

    async def _change(
        self, kind: Kind, name: str, work: Callable[[], Awaitable[T]], commit: Commit | None = None
    ) -> T:
        async def watched() -> T:
            try:
                outcome = await work()
            except (Fenced, CancelledFirst, MeshError):
                raise
            except Exception as error:
                self._watcher.refused(error)
                raise
            await self._watcher.changed(self._books, commit)
            return outcome

        passage = Passage(kind, name, STORE_S)
        return await self._seam.cross(
            self._process, passage, lambda: self._books.run(watched), _no_database
        )


class RecordsWay:
    """The way to the store as operators and the provider's events use it."""

    def __init__(self, seam: Seam, process: Process, books: Books) -> None:
        self._seam = seam
        self._process = process
        self._books = books

    async def open_flags(self, after: int, limit: int) -> list[FlagRecord]:
        return await self._look("open_flags", lambda: self._books.records.open_flags(after, limit))

    async def inspect(self, request_id: UUID) -> Dossier | None:
        return await self._look("inspect", lambda: self._books.records.inspect(request_id))

    async def of_payment(self, provider_id: str, event_id: str) -> UUID | None:
        return await self._look(
            "of_payment", lambda: self._books.records.of_payment(provider_id, event_id)
        )

    async def _look(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        passage = Passage(Kind.LOOK, name, STORE_S)
        return await self._seam.cross(
            self._process, passage, lambda: self._books.run(work), _no_database
        )


class SellersWay:
    """The way to the sellers."""

    def __init__(
        self, seam: Seam, process: Process, sellers: dict[str, SellerLedger], watcher: Watcher
    ) -> None:
        self._seam = seam
        self._process = process
        self._sellers = sellers
        self._watcher = watcher

    def kind_of(self, seller_id: str) -> SellerKind | None:
        """Tell of a seller."""
        seller = self._sellers[seller_id]
        return None if seller.gone else seller.kind()

    async def requote(self, purchase: Purchase, seller_id: str) -> Candidate | CallFailed | None:
        return await self._call(
            seller_id,
            Passage(Kind.QUESTION, f"requote {seller_id}", ORDER_S),
            self._sellers[seller_id].candidate,
        )

    async def hold(self, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        def holding() -> HoldOutcome:
            answer = self._of(attempt).hold(attempt.key, attempt.quote_id, attempt.not_after)
            if isinstance(answer, Held) and answer.total.currency != attempt.agreed.currency:
                return _unreadable("an amount in another currency")
            return answer

        return await self._change("hold", attempt, HOLD_S, holding)

    async def release(self, release: Release) -> ReleaseOutcome:
        """Have a hold given back. That may be asked for at any time, by anybody: nothing is lost by it."""
        return await self._call(
            release.seller_id,
            Passage(Kind.SELLER, f"release {release.seller_id}", HOLD_S),
            lambda: self._sellers[release.seller_id].release(release.key),
        )

    async def place_order(self, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        source = attempt.hold_id or attempt.quote_id

        def placing() -> PlaceOutcome:
            answer = self._of(attempt).place_order(
                attempt.key, source, attempt.agreed, attempt.not_after
            )
            if isinstance(answer, Confirmed):
                if answer.total.currency != attempt.agreed.currency:
                    return _unreadable("an amount in another currency")
                if answer.total.minor > attempt.agreed.minor:
                    return _unreadable("above max_total")
            return answer

        return await self._change("order", attempt, ORDER_S, placing)

    async def get_order(self, attempt: Attempt) -> GetOrderOutcome:
        return await self._call(
            attempt.seller_id,
            Passage(Kind.QUESTION, f"get_order {attempt.seller_id}", ORDER_S),
            lambda: self._of(attempt).get_order(attempt.key),
        )

    async def cancel_order(self, attempt: Attempt) -> CancelOutcome:
        return await self._change(
            "cancel", attempt, ORDER_S, lambda: self._of(attempt).cancel_order(attempt.key)
        )

    async def _change(
        self, name: str, attempt: Attempt, takes_s: float, work: Callable[[], T]
    ) -> T | CallFailed:
        request_id = purchase_of(attempt.key)

        def sent() -> Sent:
            left_s = _lease_left_s(self._process, request_id)
            return Sent(name, request_id, takes_s, left_s, attempt)

        bound = self._sellers[attempt.seller_id].script.answers and name != "cancel"
        answer = await self._call(
            attempt.seller_id,
            Passage(Kind.SELLER, f"{name} {attempt.seller_id}", takes_s),
            work,
            lambda: self._watcher.sent(self._process, sent()),
            attempt.not_after if bound else None,
        )
        if not (isinstance(answer, CallFailed) and answer.definitely_not_done):
            self._watcher.has_left(sent())
        return answer

    def _of(self, attempt: Attempt) -> SellerLedger:
        return self._sellers[attempt.seller_id]

    async def _call(
        self,
        seller_id: str,
        passage: Passage,
        work: Callable[[], T],
        leaves: Callable[[], None] = lambda: None,
        not_after: datetime | None = None,
    ) -> T | CallFailed:
        """Make a call, unless the seller is gone from the registry, or allows none soon enough."""
        seller = self._sellers[seller_id]
        if seller.gone:
            return _not_made(FailureKind.UNREACHABLE)
        if 0 < (wait_s := seller.slot_in_s()) <= SLOT_S:
            await asyncio.sleep(wait_s)
            await self._process.running()
            if not_after is not None and seller.now_after(not_after) >= 0:
                return _not_made(FailureKind.TIMED_OUT)
        if not seller.take_slot():
            return _not_made(FailureKind.RATE_LIMITED)

        async def working() -> T | CallFailed:
            return work()

        leaves()
        return await self._seam.cross(self._process, passage, working, _call_failed)


class QuotesWay:
    """The way to quotes; ``collections`` keeps what each collection gave, by its id."""

    def __init__(
        self,
        seam: Seam,
        process: Process,
        sellers: dict[str, SellerLedger],
        collections: dict[str, Collection],
    ) -> None:
        self._seam = seam
        self._process = process
        self._sellers = sellers
        self._collections = collections

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        async def gather() -> Gathered:
            known = [seller for seller in self._sellers.values() if not seller.gone]
            answering = [seller for seller in known if not seller.silent()]
            found = tuple(
                candidate for seller in answering if (candidate := seller.candidate()) is not None
            )
            name = f"c{len(self._collections) + 1}"
            self._collections[name] = Collection(found, len(answering))
            on_batch(AnswerBatch(b""))
            asked, answered = len(known), len(answering)
            misses = (("timed_out", asked - answered),) if asked > answered else ()
            started_at = datetime(2026, 1, 1, tzinfo=UTC)
            summary = Collected(name, asked, asked, answered, len(found), misses, started_at, 0.1)
            return Gathered(found, summary)

        def failed(fault: Fault) -> NoReturn:
            raise Unavailable(f"the aggregator does not answer: {fault}")

        passage = Passage(Kind.QUESTION, "collect", min(timeout_s, COLLECT_S))
        return await self._seam.cross(self._process, passage, gather, failed)


class ProviderWay:
    """The way to the payment provider."""

    def __init__(
        self, seam: Seam, process: Process, ledger: ProviderLedger, watcher: Watcher
    ) -> None:
        self._seam = seam
        self._process = process
        self._ledger = ledger
        self._watcher = watcher
        self.reusable_tokens = ledger.script.reusable_tokens

    async def authorize(
        self, key: str, token: str, amount: Money, reference: str, intended_at: datetime
    ) -> AuthorizeOutcome:
        return await self._change(
            "authorize", key, lambda: self._ledger.authorize(key, amount, reference)
        )

    async def capture(self, key: str, provider_id: str, amount: Money) -> CaptureOutcome:
        return await self._change(
            "capture", key, lambda: self._ledger.capture(key, provider_id, amount)
        )

    async def void(self, key: str, provider_id: str) -> VoidOutcome:
        return await self._change("void", key, lambda: self._ledger.void(key, provider_id))

    async def refund(self, key: str, provider_id: str, amount: Money) -> RefundOutcome:
        return await self._change(
            "refund", key, lambda: self._ledger.refund(key, provider_id, amount)
        )

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        return await self._call(Kind.QUESTION, "get_payment", lambda: self._ledger.get(provider_id))

    def list_since(self, since: datetime, page_size: int = 100) -> AsyncIterator[ProviderPayment]:
        """List all; nothing that is simulated uses it."""
        return self._ledger.list_since(since)

    async def _change(self, name: str, key: str, work: Callable[[], T]) -> T | Unknown:
        request_id = purchase_of(key)
        left_s = _lease_left_s(self._process, request_id)
        self._watcher.sent(self._process, Sent(name, request_id, PROVIDER_S, left_s))
        return await self._call(Kind.PAYMENT, name, work)

    async def _call(self, kind: Kind, name: str, work: Callable[[], T]) -> T | Unknown:
        async def working() -> T | Unknown:
            return work()

        def failed(fault: Fault) -> Unknown:
            return Unknown(fault.value)

        passage = Passage(kind, name, PROVIDER_S)
        return await self._seam.cross(self._process, passage, working, failed)


class BroadcastWay:
    """The way to other replicas: wake-ups, for which nobody waits."""

    def __init__(
        self,
        seam: Seam,
        process: Process,
        on_changed: Callable[[UUID], None],
        on_work: Callable[[], None],
        on_cancel: Callable[[UUID], None],
    ) -> None:
        self._seam = seam
        self._process = process
        self._on_changed = on_changed
        self._on_work = on_work
        self._on_cancel = on_cancel
        self._telling: set[asyncio.Task[None]] = set()

    async def changed(self, request_id: UUID) -> None:
        """Wake those who watch. No crossing: none of them is simulated elsewhere."""
        self._on_changed(request_id)

    async def work(self) -> None:
        self._tell("work", self._on_work)

    async def cancel(self, request_id: UUID) -> None:
        self._tell("cancel", lambda: self._on_cancel(request_id))

    async def add_batch(self, request_id: UUID, after_seq: int, batch: AnswerBatch) -> None:
        await self._send("add_batch", lambda: None)

    async def batches(self, request_id: UUID, after: str | None) -> list[RecordedBatch]:
        return []

    def _tell(self, name: str, work: Callable[[], None]) -> None:
        task = asyncio.create_task(self._send(name, work))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _send(self, name: str, work: Callable[[], None]) -> None:
        async def working() -> None:
            work()

        def failed(_fault: Fault) -> None:
            """Nobody is told."""

        passage = Passage(Kind.WAKE, name, 0.5)
        await self._seam.cross(self._process, passage, working, failed)


class OpenVault:
    """Keeps tokens as they are: that they are encrypted is tested elsewhere, and slow."""

    def seal(self, token: str, request_id: UUID) -> SealedToken:
        return SealedToken("k", token.encode())

    def open(self, token: SealedToken, request_id: UUID) -> str:
        return token.sealed.decode()

    def digest(self, content: bytes, key_id: str | None = None) -> bytes:
        return content


def _lease_left_s(process: Process, request_id: UUID) -> float:
    return process.leases.get(request_id, 0.0) - process.loop.time()


def _no_database(fault: Fault) -> NoReturn:
    raise Unavailable(f"the database does not answer: {fault}")


def _unreadable(detail: str) -> CallFailed:
    """Give what the adapter makes of an answer that breaks the contract."""
    return CallFailed(FailureKind.INVALID_ANSWER, definitely_not_done=False, detail=detail)


def _not_made(kind: FailureKind) -> CallFailed:
    """Give what the adapter makes of a call that it does not make."""
    return CallFailed(kind, definitely_not_done=True, detail="not called")


def _call_failed(fault: Fault) -> CallFailed:
    match fault:
        case Fault.UNAVAILABLE:
            return CallFailed(FailureKind.RATE_LIMITED, definitely_not_done=True, detail=fault)
        case Fault.CLAIMED:
            return CallFailed(FailureKind.SELLER_ERROR, definitely_not_done=False, detail=fault)
        case _:
            return CallFailed(FailureKind.TIMED_OUT, definitely_not_done=False, detail=fault)
