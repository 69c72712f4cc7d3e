"""What customers may do with their notifications: say whom to tell, and read what was sent."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from mesh import errors
from orchestrator.domain.notifications import (
    MOST_EMAIL_CODES,
    MOST_ENDPOINTS,
    SECRET_BYTES,
    SECRET_OVERLAP_S,
    Delivered,
    NotDelivered,
    Undeliverable,
    write_code,
    write_secret,
)
from orchestrator.notification_ports import MailedCode, UnusableAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.ids import NewId
    from orchestrator.notification_ports import (
        Addresses,
        Contents,
        Endpoint,
        LoggedDelivery,
        Mailer,
        NotificationStore,
        WebhookSender,
    )
    from orchestrator.ports import TokenVault

_DEFAULT_PAGE = 20
_RETRY_MAIL_S = 60.0


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
        contents: Contents,
        mailer: Mailer | None,
        new_id: NewId,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """Keep what is needed; without a ``mailer`` no e-mail is sent."""
        self._store = store
        self._vault = vault
        self._webhooks = webhooks
        self._contents = contents
        self._mailer = mailer
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

    async def set_email(self, customer_id: str, email: str) -> Addresses:
        """Mail a code to the address that is to be told by e-mail; an empty one ends e-mail. Give what is set now.

        Raises:
            FailedPrecondition: reason EMAIL_UNAVAILABLE, when there is no mail server to send with.
            ResourceExhausted: reason TOO_MANY_EMAIL_CODES, when this customer, or this address, got too many lately.
            InvalidArgument: when the mail server refuses the address for good.
            Unavailable: reason EMAIL_NOT_SENT, when it does not take the mail now.

        """
        if not email:
            await self._store.remove_email(customer_id)
        elif self._mailer is None:
            raise errors.FailedPrecondition(
                "no e-mail is sent here: register a webhook endpoint", reason="EMAIL_UNAVAILABLE"
            )
        elif (await self._store.email(customer_id)).email == email:
            await self._store.keep_email(customer_id)
        else:
            await self._mail_code(self._mailer, customer_id, email)
        return await self._store.email(customer_id)

    async def confirm_email(self, customer_id: str, code: str) -> str:
        """Have the address told by e-mail to which this code was mailed; give it.

        Raises:
            FailedPrecondition: reason EMAIL_CODE_WRONG, when the code is not the one, or not in force any more.

        """
        mailed = await self._store.try_code(customer_id)
        if mailed is not None and self._is(mailed, code):
            email = await self._store.confirm_email(mailed.code_id)
            if email is not None:
                return email
        raise errors.FailedPrecondition(
            "the code is wrong, used or too old, or there were too many wrong ones: set the address again for another",
            reason="EMAIL_CODE_WRONG",
        )

    async def email(self, customer_id: str) -> Addresses:
        """Give the address that is told by e-mail, and the one that waits for its code."""
        return await self._store.email(customer_id)

    async def _mail_code(self, mailer: Mailer, customer_id: str, email: str) -> None:
        code_id = self._new_id()
        code = write_code(self._random_bytes(8))
        mailed = MailedCode(code_id, self._vault.seal(code, code_id))
        if not await self._store.begin_email(customer_id, email, mailed):
            raise errors.ResourceExhausted(
                f"{MOST_EMAIL_CODES} codes a day are the most: try again tomorrow",
                reason="TOO_MANY_EMAIL_CODES",
            )
        match await mailer.send(code_id, email, self._contents.confirmation(code)):
            case Delivered():
                return
            case Undeliverable(error):
                await self._store.keep_email(customer_id)
                field = errors.FieldViolation("email", error)
                raise errors.InvalidArgument(f"{field.field}: {field.description}", fields=(field,))
            case NotDelivered(error):
                raise errors.Unavailable(
                    f"the code could not be sent ({error}): try again",
                    reason="EMAIL_NOT_SENT",
                    retry_after_s=_RETRY_MAIL_S,
                )

    def _is(self, mailed: MailedCode, code: str) -> bool:
        try:
            return hmac.compare_digest(self._vault.open(mailed.code, mailed.code_id), code)
        except KeyError:
            # The key that it is sealed under was taken out of the keyring since.
            return False

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
