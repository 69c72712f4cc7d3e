"""What the use cases of notifications need from the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from orchestrator.domain.notifications import DeliveryState, TryOutcome, Verdict
    from orchestrator.ports import PurchaseView, SealedToken


class UnusableAddress(Exception):
    """An address to which nothing can ever be sent as it is; the message is a sentence for the customer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address for webhooks; ``disabled_reason`` is None while it is enabled."""

    endpoint_id: UUID
    url: str
    disabled_reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """A delivery as its customer sees it."""

    delivery_id: UUID
    message_id: UUID
    request_id: UUID
    type: str
    receiver: str
    state: DeliveryState
    tries: int
    last_status: int | None
    last_error: str
    last_try_at: datetime | None
    next_try_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """Something to tell, and whom.

    Attributes:
        message_id: the same in every try to tell it.
        request_id: the purchase that it tells of.
        customer_id: whose that is.
        kind: ``final`` or ``refunded``.
        created_at: when it happened.
        endpoints: URLs of the customer's enabled endpoints, by their ids.
        email: the customer's address for e-mail; None without one.

    """

    message_id: UUID
    request_id: UUID
    customer_id: str
    kind: str
    created_at: datetime
    endpoints: Mapping[UUID, str]
    email: str | None


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """One message to one receiver: in which lane, to which address, and exactly what is sent."""

    delivery_id: UUID
    lane: UUID
    receiver: str
    content: str


@dataclass(frozen=True, slots=True)
class BegunTry:
    """A try that this process has begun and has to make.

    Attributes:
        delivery_id: of which delivery.
        tries: which try, from 1.
        message_id: what it tells.
        lane: the endpoint, or e-mail.
        receiver: the address.
        content: what is sent.
        troubled: whether the last try to this receiver failed.
        enabled: whether the endpoint is there and enabled; of no meaning for e-mail.
        secrets: what a webhook is signed with, sealed: the present one first.

    """

    delivery_id: UUID
    tries: int
    message_id: UUID
    lane: UUID
    receiver: str
    content: str
    troubled: bool
    enabled: bool
    secrets: tuple[SealedToken, ...]


@dataclass(frozen=True, slots=True)
class Addresses:
    """A customer's address that is told by e-mail, and one that waits for its code; None without."""

    email: str | None
    unconfirmed: str | None


@dataclass(frozen=True, slots=True)
class MailedCode:
    """The code that was mailed to an address, sealed under its id."""

    code_id: UUID
    code: SealedToken


class NotificationStore(Protocol):
    """Whom to tell, and what was told. Every method raises ``mesh.errors.Unavailable`` without its database."""

    async def add_endpoint(
        self, endpoint_id: UUID, customer_id: str, url: str, secret: SealedToken, most: int
    ) -> Endpoint | None:
        """Register an endpoint; None when its customer has ``most`` already."""
        ...

    async def endpoints(self, customer_id: str) -> list[Endpoint]:
        """Give a customer's endpoints, the oldest first."""
        ...

    async def rotate_secret(
        self, endpoint_id: UUID, customer_id: str, secret: SealedToken, overlap_s: float
    ) -> bool:
        """Give an endpoint another secret; False when this customer has none with this id."""
        ...

    async def enable_endpoint(self, endpoint_id: UUID, customer_id: str) -> Endpoint | None:
        """Have an endpoint sent to again; None when this customer has none with this id."""
        ...

    async def remove_endpoint(self, endpoint_id: UUID, customer_id: str) -> bool:
        """Remove an endpoint and give up what waits for it; False when this customer has none with this id."""
        ...

    async def begin_email(self, customer_id: str, email: str, code: MailedCode) -> bool:
        """Have an address wait for its code, instead of the one before; False when there were too many lately."""
        ...

    async def keep_email(self, customer_id: str) -> None:
        """Have no address wait for its code any more."""
        ...

    async def try_code(self, customer_id: str) -> MailedCode | None:
        """Give the code that an address waits for, and count that it is compared; None when there is none in force."""
        ...

    async def confirm_email(self, code_id: UUID) -> str | None:
        """Have the address of a code told by e-mail and give it; None when the code was used or superseded."""
        ...

    async def remove_email(self, customer_id: str) -> None:
        """Remove the address that is told by e-mail, and give up what waits for it, or for a code."""
        ...

    async def email(self, customer_id: str) -> Addresses:
        """Give the address that is told by e-mail, and the one that waits for its code."""
        ...

    async def deliveries(
        self, customer_id: str, request_id: UUID | None, before: UUID | None, limit: int
    ) -> list[LoggedDelivery]:
        """Give a customer's deliveries, of one purchase or of all, made before the one named, the newest first."""
        ...

    async def to_spread(self, limit: int, *, with_email: bool) -> list[OutboxMessage]:
        """Give messages that have no deliveries yet and somebody to receive them."""
        ...

    async def spread(self, message_id: UUID, deliveries: Sequence[NewDelivery]) -> None:
        """Make the deliveries of a message, once: nothing happens when somebody else has."""
        ...

    async def step_back(self, message_id: UUID, delay_s: float) -> None:
        """Leave a message alone for a while that could not be spread."""
        ...

    async def claim(
        self,
        *,
        room: int,
        room_troubled: int,
        per_lane: int,
        lease_s: float,
        busy: Mapping[UUID, int],
    ) -> list[BegunTry]:
        """Begin tries of what is due, fairly between receivers.

        Args:
            room: most for receivers whose last try did not fail.
            room_troubled: most for receivers whose last try failed; one at a time each.
            per_lane: most at once for one receiver, those of ``busy`` included.
            lease_s: after how many seconds others may begin the next try.
            busy: how many tries this process has under way, by lane.

        """
        ...

    async def finish(self, begun: BegunTry, verdict: Verdict) -> None:
        """Say what became of a try; nothing happens when another one has begun since."""
        ...

    async def forget(self, days: int) -> None:
        """Remove deliveries that are over and older than that, and secrets and codes that are of no use any more."""
        ...


class Contents(Protocol):
    """What is sent, in words. Pure."""

    def webhook(self, view: PurchaseView, kind: str, happened_at: datetime) -> str:
        """Give the body of a webhook."""
        ...

    def email(self, view: PurchaseView, kind: str) -> str:
        """Give an e-mail, in a form that ``Mailer.send`` reads."""
        ...

    def confirmation(self, code: str) -> str:
        """Give the e-mail with the code by which its receiver confirms the address."""
        ...


class WebhookSender(Protocol):
    """The way to customers' webhook endpoints."""

    async def check(self, url: str) -> None:
        """Return when a URL may be sent to, as far as can be told now.

        Raises:
            UnusableAddress: when it may not.
            mesh.errors.Unavailable: when its name cannot be resolved at the moment.

        """
        ...

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> TryOutcome:
        """Post a body once. Nothing that the receiver or the network does raises."""
        ...


class Mailer(Protocol):
    """The way to customers' mail boxes."""

    async def send(self, message_id: UUID, receiver: str, content: str) -> TryOutcome:
        """Hand an e-mail to the mail server. Nothing that it or the network does raises."""
        ...
