"""A mail server that keeps what it takes, over real SMTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Mailbox:
    """A mail server at ``port`` of this machine.

    Attributes:
        refusals: what it says to the next receivers instead of taking them, one each ("550 no such user").
        letters: what it has taken, in order.
        receivers: for whom, likewise.
        logins: who has logged in.

    """

    port: int = 0
    refusals: list[str] = field(default_factory=list)
    letters: list[EmailMessage] = field(default_factory=list)
    receivers: list[list[str]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_RCPT(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        letter = message_from_bytes(content, _class=EmailMessage, policy=default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        self.receivers.append(list(envelope.rcpt_tos))
        return "250 OK"

    def log_in(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = data.password == b"secret"
        if good:
            self.logins.append(data.login.decode())
        return AuthResult(success=good, handled=good)


@asynccontextmanager
async def mailbox(
    tls: ssl.SSLContext | None = None, *, from_the_first_byte: bool = False
) -> AsyncIterator[Mailbox]:
    """Run a mail server; with ``tls`` it insists on STARTTLS, or speaks TLS from the first byte."""
    box = Mailbox()
    loop = asyncio.get_running_loop()

    def make() -> SMTP:
        starttls = None if from_the_first_byte else tls
        return SMTP(
            box,
            hostname="mail.test",
            loop=loop,
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=box.log_in,
            auth_require_tls=False,
        )

    context = tls if from_the_first_byte else None
    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
