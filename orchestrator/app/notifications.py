"""What customers may do with their notifications: say whom to tell, and read what was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from mesh import errors
from orchestrator.domain.notifications import (
    MOST_ENDPOINTS,
    SECRET_BYTES,
    SECRET_OVERLAP_S,
    write_secret,
)
from orchestrator.notification_ports import UnusableAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.ids import NewId
    from orchestrator.notification_ports import (
        Endpoint,
        LoggedDelivery,
        NotificationStore,
        WebhookSender,
    )
    from orchestrator.ports import TokenVault

_DEFAULT_PAGE = 20


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries, the newest first, and the token of the next page, empty after the last."""

    deliveries: list[LoggedDelivery]
    next_page_token: str


class Notifications:
    """Notifications as callers see them."""

    def __init__(
        self,
        store: NotificationStore,
        vault: TokenVault,
        webhooks: WebhookSender,
        *,
        with_email: bool,
        new_id: NewId,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Keep what is needed; ``with_email`` says whether there is a mail server."""
        self._store = store
        self._vault = vault
        self._webhooks = webhooks
        self._with_email = with_email
        self._new_id = new_id
        self._random_bytes = random_bytes

    async def create_endpoint(self, customer_id: str, url: str) -> tuple[Endpoint, str]:
        """Register an address; give the endpoint and its secret.

        Raises:
            InvalidArgument: reason WEBHOOK_URL_INVALID, when nothing may be sent there.
            ResourceExhausted: when the customer has ten already.

        """
        try:
            await self._webhooks.check(url)
        except UnusableAddress as unusable:
            field = errors.FieldViolation("url", str(unusable))
            raise errors.InvalidArgument(
                f"{field.field}: {field.description}",
                reason="WEBHOOK_URL_INVALID",
                fields=(field,),
            ) from None
        endpoint_id = self._new_id()
        secret = write_secret(self._random_bytes(SECRET_BYTES))
        sealed = self._vault.seal(secret, endpoint_id)
        endpoint = await self._store.add_endpoint(
            endpoint_id, customer_id, url, sealed, MOST_ENDPOINTS
        )
        if endpoint is None:
            raise errors.ResourceExhausted(
                f"there are {MOST_ENDPOINTS} webhook endpoints, which is the most: delete one first",
                reason="TOO_MANY_WEBHOOK_ENDPOINTS",
            )
        return endpoint, secret

    async def endpoints(self, customer_id: str) -> list[Endpoint]:
        """Give a customer's endpoints, the oldest first."""
        return await self._store.endpoints(customer_id)

    async def rotate_secret(self, customer_id: str, endpoint_id: str) -> str:
        """Make a new secret for an endpoint and give it; the old one stays in force for 24 h besides.

        Raises:
            NotFound: when this customer has none with this id.

        """
        parsed = _endpoint_id(endpoint_id)
        secret = write_secret(self._random_bytes(SECRET_BYTES))
        sealed = self._vault.seal(secret, parsed)
        if not await self._store.rotate_secret(parsed, customer_id, sealed, SECRET_OVERLAP_S):
            raise _not_found()
        return secret

    async def enable_endpoint(self, customer_id: str, endpoint_id: str) -> Endpoint:
        """Have an endpoint sent to again.

        Raises:
            NotFound: when this customer has none with this id.

        """
        endpoint = await self._store.enable_endpoint(_endpoint_id(endpoint_id), customer_id)
        if endpoint is None:
            raise _not_found()
        return endpoint

    async def remove_endpoint(self, customer_id: str, endpoint_id: str) -> None:
        """Remove an endpoint.

        Raises:
            NotFound: when this customer has none with this id.

        """
        if not await self._store.remove_endpoint(_endpoint_id(endpoint_id), customer_id):
            raise _not_found()

    async def set_email(self, customer_id: str, email: str) -> None:
        """Set the address that is told by e-mail; an empty one ends that.

        Raises:
            FailedPrecondition: when there is no mail server to send with.

        """
        if not email:
            await self._store.remove_email(customer_id)
        elif self._with_email:
            await self._store.set_email(customer_id, email)
        else:
            raise errors.FailedPrecondition(
                "no e-mail is sent here: register a webhook endpoint", reason="EMAIL_UNAVAILABLE"
            )

    async def email(self, customer_id: str) -> str:
        """Give the address that is told by e-mail, empty for none."""
        return await self._store.email(customer_id) or ""

    async def deliveries(
        self, customer_id: str, request_id: str, page_size: int, page_token: str
    ) -> DeliveryPage:
        """Give a page of what was sent or tried, of one purchase or of all; 20 when ``page_size`` is 0.

        Raises:
            InvalidArgument: when the page token is not one that was given out.

        """
        before = _parse_id(page_token) if page_token else None
        if page_token and before is None:
            field = errors.FieldViolation("page_token", "is not a token that this service gave out")
            raise errors.InvalidArgument(f"{field.field}: {field.description}", fields=(field,))
        purchase = _parse_id(request_id) if request_id else None
        if request_id and purchase is None:
            return DeliveryPage([], "")
        limit = page_size or _DEFAULT_PAGE
        found = await self._store.deliveries(customer_id, purchase, before, limit + 1)
        page = found[:limit]
        return DeliveryPage(page, str(page[-1].delivery_id) if len(found) > limit else "")


def _endpoint_id(text: str) -> UUID:
    parsed = _parse_id(text)
    if parsed is None:
        raise _not_found()
    return parsed


def _not_found() -> errors.NotFound:
    """Make the one answer for what does not exist and for what is another customer's."""
    return errors.NotFound(
        "there is no webhook endpoint of yours with this id", reason="WEBHOOK_ENDPOINT_NOT_FOUND"
    )


def _parse_id(text: str) -> UUID | None:
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None
