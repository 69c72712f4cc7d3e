"""E-mail over SMTP."""

from __future__ import annotations

from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING, Literal

import aiosmtplib
import structlog

from orchestrator.adapters.notifications.contents import read_letter
from orchestrator.domain.notifications import (
    Delivered,
    NotDelivered,
    TryOutcome,
    Undeliverable,
)

if TYPE_CHECKING:
    import ssl
    from uuid import UUID

    from mesh.clock import Clock

_PERMANENT = range(500, 600)
_COMMAND_S = 15.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MailServer:
    """A server that takes e-mail for delivery.

    Attributes:
        host: its name.
        port: its port.
        security: ``starttls`` (begun after the greeting, and insisted on), ``tls`` (from the first byte), or ``none``.
        sender: the address that e-mail is from.
        user: whom to log in as; None for no login.
        password: with that.
        tls: whom to trust; None for the usual certificate authorities.

    """

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    sender: str
    user: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


class SmtpMailer:
    """Hands e-mails to a mail server, over a connection each."""

    def __init__(self, server: MailServer, clock: Clock) -> None:
        """Keep which server it is."""
        self._server = server
        self._clock = clock

    async def send(self, message_id: UUID, receiver: str, content: str) -> TryOutcome:
        """Hand an e-mail to the mail server. What the server takes is delivered, as far as can be known here.

        Only a receiver, or a message, that is refused for good is given up at once; other refusals may be about us.
        """
        server = self._server
        try:
            message = self._message(message_id, receiver, content)
        except ValueError:
            return Undeliverable("the address cannot be written to")
        try:
            await aiosmtplib.send(
                message,
                sender=server.sender,
                recipients=[receiver],
                hostname=server.host,
                port=server.port,
                use_tls=server.security == "tls",
                start_tls=server.security == "starttls",
                tls_context=server.tls,
                username=server.user,
                password=server.password,
                timeout=_COMMAND_S,
            )
        except aiosmtplib.SMTPRecipientsRefused as refused:
            [refusal] = refused.recipients
            return _refused(refusal.code)
        except aiosmtplib.SMTPDataError as refusal:
            return _refused(refusal.code)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            _log.warning("the mail server does not take e-mail", host=server.host, error=str(error))
            return NotDelivered("the mail server did not take it")
        return Delivered()

    def _message(self, message_id: UUID, receiver: str, content: str) -> EmailMessage:
        """Write the message.

        Raises:
            ValueError: when an address is none, or a header would not be one line.

        """
        words = read_letter(content)
        sender = _address(self._server.sender)
        message = EmailMessage(policy=SMTP)
        message["From"] = Address("Bookmesh", sender.username, sender.domain)
        message["To"] = _address(receiver)
        message["Subject"] = words.subject
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{message_id}@{sender.domain}>"
        # Asks out-of-office replies not to answer (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(words.text)
        message.add_alternative(words.html, subtype="html")
        return message


def _address(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: when it is none.

    """
    try:
        return Address(addr_spec=text)
    except (
        MessageError,
        IndexError,
    ) as error:  # the second is how the library says that something is missing
        raise ValueError("not an address") from error


def _refused(code: int) -> TryOutcome:
    error = f"the mail server refused it with code {code}"
    return Undeliverable(error) if code in _PERMANENT else NotDelivered(error)
