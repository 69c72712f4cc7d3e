"""E-mail over real SMTP."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import pytest
import trustme

from mesh.clock import SystemClock
from orchestrator.adapters.notifications.contents import write_letter
from orchestrator.adapters.notifications.letters import Letter
from orchestrator.adapters.notifications.mail import MailServer, SmtpMailer
from orchestrator.domain.notifications import Delivered, NotDelivered, Undeliverable
from orchestrator.notification_ports import Addresses
from tests.fakes.mailbox import Mailbox, mailbox
from tests.integration.notifications.conftest import World, until

if TYPE_CHECKING:
    from tests.fakes.receiver import Authority

MESSAGE_ID = UUID("01980000-0000-7000-8000-000000000001")
LETTER = write_letter(Letter("Bought: book 1 for $24.99", "Bought: für $24.99\n", "<p>Bought</p>"))
ALICE = "alice@customers.test"


def mailer(
    port: int,
    security: Literal["starttls", "tls", "none"] = "none",
    tls: ssl.SSLContext | None = None,
    password: str | None = None,
) -> SmtpMailer:
    server = MailServer(
        host="localhost",
        port=port,
        security=security,
        sender="no-reply@bookmesh.test",
        user="bookmesh" if password else None,
        password=password,
        tls=tls,
    )
    return SmtpMailer(server, SystemClock())


async def test_a_letter_has_both_parts_and_the_id_of_its_message() -> None:
    async with mailbox() as box:
        assert await mailer(box.port).send(MESSAGE_ID, ALICE, LETTER) == Delivered()
    [letter] = box.letters
    assert box.receivers == [[ALICE]]
    assert letter["From"] == "Bookmesh <no-reply@bookmesh.test>"
    assert (letter["To"], letter["Subject"]) == (ALICE, "Bought: book 1 for $24.99")
    assert letter["Message-ID"] == f"<{MESSAGE_ID}@bookmesh.test>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Date"]
    text, html = letter.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert "für $24.99" in text.get_content()
    assert "<p>Bought</p>" in html.get_content()


@pytest.mark.parametrize(
    ("receiver", "subject"),
    [
        ("alice@customers.test\r\nBcc: eve@evil.test", "Bought"),
        ("alice@customers.test, eve@evil.test", "Bought"),
        ("not an address", "Bought"),
        ("", "Bought"),
        ("alice@", "Bought"),
        ("@customers.test", "Bought"),
        (ALICE, "Bought\r\nBcc: eve@evil.test"),
    ],
)
async def test_nothing_can_be_put_into_the_headers(receiver: str, subject: str) -> None:
    async with mailbox() as box:
        content = write_letter(Letter(subject, "text", "html"))
        outcome = await mailer(box.port).send(MESSAGE_ID, receiver, content)
    assert isinstance(outcome, Undeliverable)
    assert box.letters == []


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        ("550 no such user", Undeliverable("the mail server refused it with code 550")),
        ("451 greylisted", NotDelivered("the mail server refused it with code 451")),
    ],
)
async def test_a_receiver_is_refused_for_good_or_for_a_while(
    refusal: str, outcome: Undeliverable | NotDelivered
) -> None:
    async with mailbox() as box:
        box.refusals.append(refusal)
        assert await mailer(box.port).send(MESSAGE_ID, ALICE, LETTER) == outcome


@pytest.fixture
def server_tls(authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give the contexts of a server named localhost and of a client that trusts it."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(client)
    return server, client


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_it_logs_in_over_an_encrypted_connection(
    server_tls: tuple[ssl.SSLContext, ssl.SSLContext], security: Literal["starttls", "tls"]
) -> None:
    server, client = server_tls
    async with mailbox(server, from_the_first_byte=security == "tls") as box:
        good = mailer(box.port, security, client, "secret")
        assert await good.send(MESSAGE_ID, ALICE, LETTER) == Delivered()
        bad = mailer(box.port, security, client, "wrong")
        assert isinstance(await bad.send(MESSAGE_ID, ALICE, LETTER), NotDelivered)
    assert box.logins == ["bookmesh"]


async def test_a_server_without_starttls_or_with_a_strange_certificate_gets_nothing(
    server_tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, client = server_tls
    async with mailbox() as plain, mailbox(server) as strange:
        unsafe = mailer(plain.port, "starttls", client, "secret")
        assert isinstance(await unsafe.send(MESSAGE_ID, ALICE, LETTER), NotDelivered)
        stranger = mailer(strange.port, "starttls", ssl.create_default_context(), "secret")
        assert isinstance(await stranger.send(MESSAGE_ID, ALICE, LETTER), NotDelivered)
    assert (plain.letters, strange.letters, plain.logins) == ([], [], [])


async def test_a_server_that_is_gone_is_tried_again() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        outcome = await mailer(taken.getsockname()[1]).send(MESSAGE_ID, ALICE, LETTER)
    assert outcome == NotDelivered("the mail server did not take it")


async def test_the_end_of_a_purchase_is_told_by_email_once(world: World) -> None:
    async with mailbox() as box:
        world.mailer = mailer(box.port)
        box.refusals.append("451 later")
        await world.confirmed("alice", ALICE)
        async with world.notifying(times=2):
            request_id = await world.ended(book_id="Ünïcode\r\nBcc: <b>x</b>")
            await world.over()
    [letter] = box.letters
    assert letter["Subject"] == "Bought: book Ünïcode  Bcc: <b>x</b> for $24.99"
    assert letter["Bcc"] is None
    text, html = (part.get_content() for part in letter.iter_parts())
    for part in (text, html):
        assert "$24.99" in part
        assert str(request_id) in part
        assert "order-1" in part
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    [delivery] = (await world.notifications.deliveries("alice", "", 0, "")).deliveries
    assert (delivery.receiver, delivery.tries, delivery.last_status) == (ALICE, 2, None)


async def test_no_email_waits_for_an_address_that_was_removed(world: World) -> None:
    async with mailbox() as box:
        world.mailer = mailer(box.port)
        box.refusals.extend(["451 later"] * 3)
        await world.confirmed("alice", ALICE)
        await world.ended()
        async with world.notifying(schedule_s=(0.0, 3600.0)):
            await _refused(box)
            await world.notifications.set_email("alice", "")
            await world.over()
    assert await world.notifications.email("alice") == Addresses(None, None)
    [(state, _)] = await world.states()
    assert state == "failed"


async def _refused(box: Mailbox) -> None:
    async def is_refused() -> bool:
        return len(box.refusals) == 2

    await until(is_refused)
