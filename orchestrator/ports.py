"""What the use cases need from the world."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from orchestrator.domain.purchase import FailureReason, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from uuid import UUID

    from mesh.money import Money
    from orchestrator.domain.events import AnswerBatch, Collected, Event
    from orchestrator.domain.flags import Flag, Settled
    from orchestrator.domain.observations import Observation, Told
    from orchestrator.domain.purchase import Attempt, Candidate, Offer, Purchase, Release
    from sellers.model import (
        CallFailed,
        CancelOutcome,
        Condition,
        GetOrderOutcome,
        HoldOutcome,
        PlaceOutcome,
        ReleaseOutcome,
    )


class Fenced(Exception):
    """Another worker has claimed the purchase since: this one must not go on."""


class ForgedEvent(Exception):
    """What claims to be an event of the payment provider is not its word."""


class CancelledFirst(Exception):
    """The customer's cancel came before this intent to order: the claim holds, and nothing was committed."""


# Purchases


@dataclass(frozen=True, slots=True)
class SealedToken:
    """A payment token, encrypted under the key ``key_id`` of the keyring."""

    key_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """A purchase to be committed; ``content_hmac`` is of what was asked for, under the key of the token."""

    purchase: Purchase
    idempotency_key: str | None
    content_hmac: bytes
    token: SealedToken


@dataclass(frozen=True, slots=True)
class Submitted:
    """A purchase that was committed before, and the digest to compare with."""

    request_id: UUID
    content_hmac: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A purchase that this worker has taken, under this epoch."""

    request_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A claimed purchase.

    Attributes:
        purchase: as it was last committed.
        age_s: its age in seconds, by the database's clock.
        token: its sealed payment token, while there is one.
        event_seq: the number of its last event.
        claims: how often it was claimed since its last commit, this time included.
        claimed_for_s: how long ago it was claimed first since then, in seconds.
        observed: the number of the last observation that was acted on.
        observations: those after it, in order.

    """

    purchase: Purchase
    age_s: float
    token: SealedToken | None
    event_seq: int
    claims: int = 1
    claimed_for_s: float = 0.0
    observed: int = 0
    observations: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A claimed purchase that this program cannot read: a newer version wrote it, or something broke it.

    Attributes:
        stage: the word for its stage.
        problem: what could not be read, for operators.
        claims: as in ``Loaded``.

    """

    stage: str
    problem: str
    claims: int


class News(StrEnum):
    """What a customer is told by webhook and e-mail: at most one message of each kind about a purchase."""

    FINAL = "final"
    """The status is final."""
    REFUNDED = "refunded"
    """What was charged is given back."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a worker decided.

    Attributes:
        purchase: as it is from now on; its epoch is the fence. What it says of ``cancel_requested``, ``flagged``
            and ``flag`` is not written: those follow from ``request_cancel``, ``flags`` and ``settled``.
        events: what happened.
        due_in_s: seconds until it may be claimed (the lease, when the worker goes on with it); None when nothing is
            left to do. A purchase that the worker does not keep is due at once, whatever this says, if there are
            observations after ``observed``.
        keep: whether the worker goes on with it.
        erase_token: whether the payment token is not needed any more.
        ended: the try before the purchase's present one, when it has ended in this very decision.
        begins_order: whether this is the intent to place an order: it is committed only if no cancel was requested.
        flags: what an operator must know, raised with the numbers that follow.
        settled: resolves all open flags; never together with ``flags``. None when they stay.
        news: what the customer is to be told, kept in the outbox; a kind that is there already is left out.
        observed: the number of the last observation that was acted on.
        same_plan: whether the purchase's plan is the one that was committed last: it need not be written again.

    """

    purchase: Purchase
    events: tuple[Event, ...]
    due_in_s: float | None
    keep: bool
    erase_token: bool
    ended: Attempt | None = None
    begins_order: bool = False
    flags: tuple[Flag, ...] = ()
    settled: Settled | None = None
    news: tuple[News, ...] = ()
    observed: int = 0
    same_plan: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit found.

    Attributes:
        event_seq: the number of the purchase's last event.
        cancel_requested: whether its customer has asked for it to be cancelled.
        observations_wait: whether there are observations after the last one that was acted on.

    """

    event_seq: int
    cancel_requested: bool
    observations_wait: bool


@dataclass(frozen=True, slots=True)
class PurchaseView:
    """A purchase as its customer sees it; what was bought is set with ``PURCHASED`` alone."""

    request_id: UUID
    status: Status
    book_id: str
    max_price: Money
    created_at: datetime
    settled: bool
    """Whether the payment has been authorized or refused."""
    failure_reason: FailureReason | None = None
    offer: Offer | None = None
    final_price: Money | None = None
    seller_id: str | None = None
    confirmation: str | None = None
    committed: bool = False
    """Whether an order may stand, so that it is too late to cancel, at least for now."""
    cancel_requested: bool = False
    accepted_offer_of: UUID | None = None
    offer_accepted_by: UUID | None = None
    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which purchases a list is to have.

    Attributes:
        statuses: only those that stand there; all when empty.
        book_id: only those of this book, normalised; of all when None.
        created_after: only those made at this time or later.
        created_before: only those made before this time.

    """

    statuses: frozenset[Status] = frozenset()
    book_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a purchase in a list: later ones stand before it, of those made in the same moment higher ids."""

    created_at: datetime
    request_id: UUID


@dataclass(frozen=True, slots=True)
class Offered:
    """A purchase, as far as accepting its offer needs it; ``offer`` is None when it did not end with one."""

    book_id: str
    conditions: tuple[Condition, ...]
    offer: Offer | None
    token: SealedToken | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event with its number and time."""

    seq: int
    happened_at: datetime
    event: Event


class PurchaseStore(Protocol):
    """Purchases, for good. Every method raises ``mesh.errors.Unavailable`` when the database does not answer.

    Each method is one transaction. Of a purchase everything but ``submit``, ``request_cancel`` and ``observe`` belongs
    to the worker that has claimed it last: to whom the purchase's epoch is that of its claim.
    """

    async def submit(self, submission: Submission, events: Sequence[Event]) -> bool:
        """Commit a new purchase that is due at once; False when its id or the customer's key is taken.

        Also False when it accepts an offer that was accepted before.
        """
        ...

    async def find_submitted(
        self, request_id: UUID, customer_id: str, idempotency_key: str | None
    ) -> Submitted | None:
        """Give the customer's purchase with this key, else the one with this id."""
        ...

    async def request_cancel(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Note that the customer wants a purchase cancelled; give it as it then is, None when there is none.

        Without effect when its status is final or it was asked for before. Else there is an event of it, and the
        purchase is due at once, unless a worker has it: that learns of it by ``renew`` and ``commit``.
        """
        ...

    async def observe(self, request_id: UUID, by: str, what: Told) -> bool:
        """Note what somebody tells of a purchase, also of one that is over; False when there is none.

        It is due at once, unless a worker has it: that learns of it by ``commit``.
        """
        ...

    async def claim(self, owner: int, room: int, lease_s: float) -> list[Claim]:
        """Take at most ``room`` due purchases for a worker.

        Those that were claimed before come when they are due; new ones in the order in which they were submitted, but
        those of one customer count as submitted some seconds apart.
        """
        ...

    async def load(self, claim: Claim) -> Loaded | Unreadable | None:
        """Give a claimed purchase; None when the claim does not hold any more."""
        ...

    async def commit(self, commit: Commit) -> Committed:
        """Commit all of it.

        Raises:
            Fenced: when the claim does not hold any more; then nothing was changed.
            CancelledFirst: when it begins an order and the customer has asked to cancel; then nothing was changed.

        """
        ...

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> dict[UUID, bool]:
        """Lengthen the leases of these claims.

        Gives those that still hold, each with whether its customer has asked for it to be cancelled.
        """
        ...

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others take these purchases at once, as if they had not been claimed."""
        ...

    async def leave(self, claim: Claim, delay_s: float) -> None:
        """Let others take a purchase after a while; the claim counts as one without a commit."""
        ...

    async def set_aside(self, claim: Claim, flag: Flag) -> None:
        """Leave a purchase that cannot be read as it is, with a flag, until somebody tells something of it.

        A flag of the same invariant that is open already is enough. Nothing happens when the claim does not hold.
        """
        ...

    async def free_dead(self) -> int:
        """End the leases of workers whose session is gone; give the number of purchases that were freed.

        They are due at once, but those that several workers in a row have died with only after a while, ever longer.
        """
        ...

    def session(self) -> AbstractAsyncContextManager[WorkerSession]:
        """Open a worker's session, which ends by itself when the process or its connection dies."""
        ...

    async def get(self, request_id: UUID, customer_id: str) -> PurchaseView | None:
        """Give a customer's purchase."""
        ...

    async def offered(self, request_id: UUID, customer_id: str) -> Offered | None:
        """Give what accepting the offer of a customer's purchase needs."""
        ...

    async def page(
        self, customer_id: str, wanted: Wanted, behind: Place | None, limit: int
    ) -> list[PurchaseView]:
        """Give those of a customer's purchases that are wanted, newest first; those behind a place, if there is one."""
        ...

    async def events(self, request_id: UUID, after: int) -> list[Recorded]:
        """Give what happened in a purchase after the event of that number."""
        ...

    async def ping(self) -> bool:
        """Say whether the database answers."""
        ...


class WorkerSession(Protocol):
    """The life of a worker, which its peers can see."""

    owner: int
    """The worker's name in claims."""

    async def lost(self) -> None:
        """Return when the session is gone."""
        ...


# Those who watch


@dataclass(frozen=True, slots=True)
class RecordedBatch:
    """Answers of sellers that were passed on: after which event of the purchase, under which name, and when."""

    after_seq: int
    entry_id: str
    happened_at: datetime
    batch: AnswerBatch


class Broadcast(Protocol):
    """Tells the other replicas what happens, as far as it can: nothing depends on it but speed and live quotes.

    No method raises when the other side does not answer, and wake-ups do not wait for it either.
    """

    async def changed(self, request_id: UUID) -> None:
        """Wake those who watch a purchase, in every replica."""
        ...

    async def work(self) -> None:
        """Wake the workers of every replica."""
        ...

    async def cancel(self, request_id: UUID) -> None:
        """Tell the worker that has a purchase, in whichever replica, that it is to be cancelled."""
        ...

    async def add_batch(self, request_id: UUID, after_seq: int, batch: AnswerBatch) -> None:
        """Pass on answers that arrived, for those who watch now or join later."""
        ...

    async def batches(self, request_id: UUID, after: str | None) -> list[RecordedBatch]:
        """Give the answers passed on after the entry of that name."""
        ...


# Sellers


@dataclass(frozen=True, slots=True)
class Gathered:
    """The quotes that a collection found."""

    candidates: tuple[Candidate, ...]
    summary: Collected


class Quotes(Protocol):
    """The way to prices."""

    async def collect(
        self, purchase: Purchase, timeout_s: float, on_batch: Callable[[AnswerBatch], None]
    ) -> Gathered:
        """Ask all sellers for the purchase's book; ``on_batch`` is called with answers as they arrive.

        Raises:
            mesh.errors.MeshError: when no whole collection could be had.

        """
        ...


class Sellers(Protocol):
    """The way to one seller. Nothing that a seller or the network does raises."""

    async def requote(self, purchase: Purchase, seller_id: str) -> Candidate | CallFailed | None:
        """Ask one seller again for the purchase's book; None when it has no price."""
        ...

    async def hold(self, purchase: Purchase, attempt: Attempt) -> HoldOutcome:
        """Have a copy set aside under the attempt's key."""
        ...

    async def release(self, release: Release) -> ReleaseOutcome:
        """Have what is held under a key given back."""
        ...

    async def place_order(self, purchase: Purchase, attempt: Attempt) -> PlaceOutcome:
        """Buy the copy under the attempt's key."""
        ...

    async def get_order(self, attempt: Attempt) -> GetOrderOutcome:
        """Ask what became of the attempt's order."""
        ...

    async def cancel_order(self, attempt: Attempt) -> CancelOutcome:
        """Cancel the attempt's order, or close its key."""
        ...


# Payments


@dataclass(frozen=True, slots=True)
class Authorized:
    """The amount is reserved, under the provider's name for it.

    ``capture_before`` is when the provider lets the reservation lapse; None when it does not say.
    """

    provider_id: str
    capture_before: datetime | None


@dataclass(frozen=True, slots=True)
class Declined:
    """Nothing is reserved, and nothing ever will be under this key."""

    reason: FailureReason


@dataclass(frozen=True, slots=True)
class Captured:
    """The amount is charged; the rest of the reservation is released."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is charged or given back, and nothing ever will be under this key; a word for why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Voided:
    """Nothing is reserved any more: released now, released before, or lapsed by itself."""


@dataclass(frozen=True, slots=True)
class AlreadyCaptured:
    """What should be released has been charged: somebody has to look."""


@dataclass(frozen=True, slots=True)
class Refunded:
    """The amount is given back, or on its way."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider did not answer, or not clearly: the effect may have happened. The same key resolves it."""

    detail: str


AuthorizeOutcome: TypeAlias = Authorized | Declined | Unknown
CaptureOutcome: TypeAlias = Captured | Refused | Unknown
VoidOutcome: TypeAlias = Voided | AlreadyCaptured | Unknown
RefundOutcome: TypeAlias = Refunded | Refused | Unknown


class PaymentState(StrEnum):
    """Where a payment stands at the provider."""

    UNDECIDED = "undecided"
    """The provider is still at it."""
    DECLINED = "declined"
    """Nothing was ever reserved."""
    AUTHORIZED = "authorized"
    """The amount is reserved."""
    CAPTURED = "captured"
    """Some of it is charged; what was given back since stands beside it."""
    VOIDED = "voided"
    """Nothing is reserved any more: released, or lapsed."""


@dataclass(frozen=True, slots=True)
class ProviderPayment:
    """A payment as the provider has it.

    Attributes:
        provider_id: the provider's name for it.
        reference: our name for the purchase, as it was given with the authorization; None when there is none.
        state: where it stands.
        authorized: what was asked to be reserved.
        captured: what was charged, 0 when nothing was.
        refunded: how much of that was given back.
        capture_before: when the reservation lapses; None when the provider does not say.
        created_at: when it was made, by the provider's clock.

    """

    provider_id: str
    reference: str | None
    state: PaymentState
    authorized: Money
    captured: Money
    refunded: Money
    capture_before: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """A provider's word that something about a payment changed: a hint to look, never the truth itself.

    Attributes:
        event_id: the same when the event is delivered again.
        provider_id: the provider's name for the payment.
        reference: our name for the purchase, when the event carries it.

    """

    event_id: str
    provider_id: str
    reference: str | None


class PaymentProvider(Protocol):
    """Two-phase payment. Idempotent: the same key gives the first answer, without a second effect.

    Nothing that the provider or the network does raises. A key that was used with other content is a fault of this
    program: every method that takes a key raises ``ValueError`` then, and nothing was done.
    """

    reusable_tokens: bool
    """Whether a token that was authorized may be authorized again, for another purchase."""

    async def authorize(
        self, key: str, token: str, amount: Money, reference: str, intended_at: datetime
    ) -> AuthorizeOutcome:
        """Reserve an amount on the card behind a token.

        ``reference`` is our name for the purchase; ``intended_at`` is when this authorization was first committed to,
        before any call: providers forget keys after a day, and only that tells a retry from a second authorization.
        """
        ...

    async def capture(self, key: str, provider_id: str, amount: Money) -> CaptureOutcome:
        """Charge at most what is reserved, once, and release the rest."""
        ...

    async def void(self, key: str, provider_id: str) -> VoidOutcome:
        """Release what is reserved."""
        ...

    async def refund(self, key: str, provider_id: str, amount: Money) -> RefundOutcome:
        """Give back at most what was charged and not given back before. For the reconciler and operators alone."""
        ...

    async def get(self, provider_id: str) -> ProviderPayment | Unknown | None:
        """Give a payment as it is now; None when the provider has none of that name."""
        ...

    def list_since(self, since: datetime, page_size: int = 100) -> AsyncIterator[ProviderPayment]:
        """Give all payments made at ``since`` or later, in no particular order, ``page_size`` a call.

        A payment that changes meanwhile is given as it was or as it is.

        Raises:
            mesh.errors.Unavailable: while iterating, when the provider does not answer; start again.

        """
        ...


# Secrets


class TokenVault(Protocol):
    """Keeps payment tokens unreadable at rest."""

    def seal(self, token: str, request_id: UUID) -> SealedToken:
        """Encrypt a token for one purchase."""
        ...

    def open(self, token: SealedToken, request_id: UUID) -> str:
        """Decrypt the token of a purchase.

        Raises:
            KeyError: when the keyring has no key of that id any more.

        """
        ...

    def digest(self, content: bytes, key_id: str | None = None) -> bytes:
        """Give the HMAC-SHA-256 of some content under the key that seals, or under the one named."""
        ...
