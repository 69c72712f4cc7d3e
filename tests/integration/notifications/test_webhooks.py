"""One try of a webhook, against receivers good and bad. Tests that wait for a limit have a short one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mesh.errors import Unavailable
from orchestrator.adapters.notifications.webhooks import (
    HttpWebhookSender,
    Resolve,
    system_resolver,
    tls_context,
)
from orchestrator.domain.notifications import Delivered, NotDelivered
from orchestrator.notification_ports import UnusableAddress
from tests.fakes.receiver import (
    HOST,
    Answer,
    Authority,
    Names,
    answering,
    dripping,
    endless,
    endless_headers,
    hang_up,
    silence,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HEADERS = {"webhook-id": "m1"}
PUBLIC = "93.184.215.14"


def sender(
    authority: Authority, names: Names | None = None, *, loopback: bool = True, try_s: float = 15.0
) -> HttpWebhookSender:
    resolve = (names or Names()).resolve
    return HttpWebhookSender(resolve, authority.trusting(), loopback=loopback, try_s=try_s)


async def test_a_webhook_is_posted_over_tls_to_the_name_that_the_customer_gave(
    authority: Authority,
) -> None:
    names = Names()
    async with authority.receiver() as receiver:
        outcome = await sender(authority, names).send(receiver.url, '{"a":"ü"}', HEADERS)
    assert outcome == Delivered(200)
    [request] = receiver.received
    assert request.line == "POST /hook?x=1 HTTP/1.1"
    assert request.headers["host"] == f"{HOST}:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "m1"
    assert request.body == '{"a":"ü"}'
    assert request.sni == HOST
    assert names.asked == [HOST]


async def test_the_connection_goes_to_the_address_that_was_checked_and_the_name_is_asked_once(
    authority: Authority,
) -> None:
    """A name that means something else a moment later (DNS rebinding) finds nobody who asks."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    async with authority.receiver() as receiver:
        http = HttpWebhookSender(rebinding, authority.trusting(), loopback=True)
        assert await http.send(receiver.url, "{}", HEADERS) == Delivered(200)
        assert asked == [HOST]
        # What it means by now is checked anew the next time.
        assert await http.send(receiver.url, "{}", HEADERS) == NotDelivered(
            "leads to an address that is not public"
        )
    assert len(receiver.received) == 1


async def test_a_name_that_was_public_when_it_was_registered_is_refused_when_it_leads_inside(
    authority: Authority,
) -> None:
    names = Names({HOST: [PUBLIC]})
    http = sender(authority, names, loopback=False)
    async with authority.receiver() as receiver:
        await http.check(receiver.url)
        names.known[HOST] = ["127.0.0.1"]
        outcome = await http.send(receiver.url, "{}", HEADERS)
    assert outcome == NotDelivered("leads to an address that is not public")
    assert receiver.received == []


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["10.0.0.1"], ["::ffff:127.0.0.1"], [PUBLIC, "192.168.0.1"], ["::1"]],
)
async def test_one_address_inside_is_enough_to_refuse_a_name(
    authority: Authority, addresses: list[str]
) -> None:
    http = sender(authority, Names({HOST: addresses}), loopback=False)
    with pytest.raises(UnusableAddress, match="not public"):
        await http.check(f"https://{HOST}/hook")


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.test/",
        "ftp://receiver.test/",
        "//receiver.test/",
        "receiver.test",
        "https://",
        "https:///path",
        "https://user:secret@receiver.test/",
        "https://receiver.test/#part",
        "https://receiver.test:99999/",
        "https://[::1",
        "https://receiver.test/\n",
        "file:///etc/passwd",
    ],
)
async def test_what_is_no_https_url_of_a_host_is_refused(authority: Authority, url: str) -> None:
    with pytest.raises(UnusableAddress):
        await sender(authority, Names({HOST: [PUBLIC]}), loopback=False).check(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::]"],
)
async def test_no_spelling_of_this_machine_gets_past_the_real_resolver(
    authority: Authority, host: str
) -> None:
    async with system_resolver(1) as resolve:
        http = HttpWebhookSender(resolve, authority.trusting())
        with pytest.raises((UnusableAddress, Unavailable)):
            await http.check(f"https://{host}/hook")
        assert isinstance(await http.send(f"https://{host}/hook", "{}", HEADERS), NotDelivered)


async def test_loopback_and_http_to_it_are_allowed_where_that_is_set_and_nothing_more(
    authority: Authority,
) -> None:
    async with authority.receiver("localhost", tls=False) as receiver:
        http = sender(authority, Names({"localhost": ["127.0.0.1"], HOST: [PUBLIC]}))
        await http.check(receiver.url)
        assert await http.send(receiver.url, "{}", HEADERS) == Delivered(200)
        with pytest.raises(UnusableAddress, match="https"):
            await http.check(f"http://{HOST}/")
    http = sender(authority, Names({HOST: ["10.0.0.1"]}))
    with pytest.raises(UnusableAddress, match="not public"):
        await http.check(f"https://{HOST}/")


async def test_a_host_that_nobody_knows_is_refused_and_a_name_server_that_is_gone_is_not_blamed_on_it(
    authority: Authority,
) -> None:
    def failing(number: int) -> Resolve:
        async def resolve(host: str, port: int) -> list[str]:
            raise socket.gaierror(number, "no")

        return resolve

    nobody = HttpWebhookSender(failing(socket.EAI_NONAME), authority.trusting())
    with pytest.raises(UnusableAddress, match="not known"):
        await nobody.check("https://receiver.test/")
    later = HttpWebhookSender(failing(socket.EAI_AGAIN), authority.trusting())
    with pytest.raises(Unavailable):
        await later.check("https://receiver.test/")
    outcome = await later.send("https://receiver.test/", "{}", HEADERS)
    assert outcome == NotDelivered("its host cannot be resolved")


async def test_labels_that_cannot_be_names_are_names_that_nobody_knows(
    authority: Authority,
) -> None:
    async with system_resolver(1) as resolve:
        http = HttpWebhookSender(resolve, authority.trusting())
        for host in (f"{'a' * 70}.example", "a..b"):
            with pytest.raises(UnusableAddress):
                await http.check(f"https://{host}/")


async def test_a_certificate_for_another_name_or_of_a_stranger_is_refused(
    authority: Authority,
) -> None:
    names = Names({"other.test": ["127.0.0.1"]})
    async with authority.receiver() as receiver:
        url = receiver.url.replace(HOST, "other.test")
        outcome = await sender(authority, names).send(url, "{}", HEADERS)
        assert isinstance(outcome, NotDelivered)
        assert "certificate" in outcome.error
        stranger = HttpWebhookSender(names.resolve, tls_context(None), loopback=True)
        outcome = await stranger.send(receiver.url, "{}", HEADERS)
        assert isinstance(outcome, NotDelivered)
        assert "certificate" in outcome.error
    assert receiver.received == []


async def test_authorities_in_a_file_are_trusted_besides(
    authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.pem)
    async with authority.receiver() as receiver:
        http = HttpWebhookSender(Names().resolve, tls_context(file), loopback=True)
        assert await http.send(receiver.url, "{}", HEADERS) == Delivered(200)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_success(authority: Authority, status: int) -> None:
    async with authority.receiver(answer=answering(status)) as receiver:
        assert await sender(authority).send(receiver.url, "{}", HEADERS) == Delivered(status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(authority: Authority, status: int) -> None:
    async with authority.receiver() as target:
        answer = answering(status, location=target.url)
        async with authority.receiver(answer=answer) as receiver:
            outcome = await sender(authority).send(receiver.url, "{}", HEADERS)
    assert isinstance(outcome, NotDelivered)
    assert outcome.status == status
    assert "redirects are not followed" in outcome.error
    assert target.received == []


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
async def test_every_other_status_is_none(authority: Authority, status: int) -> None:
    async with authority.receiver(answer=answering(status, b"secret words")) as receiver:
        outcome = await sender(authority).send(receiver.url, "{}", HEADERS)
    assert outcome == NotDelivered(f"it answered {status}", status)


@pytest.mark.parametrize("answer", [endless(200), dripping(200)], ids=["endless", "dripping"])
async def test_an_answer_without_an_end_is_left_and_its_status_counts(
    authority: Authority, answer: Answer
) -> None:
    async with authority.receiver(answer=answer) as receiver:
        assert await sender(authority).send(receiver.url, "{}", HEADERS) == Delivered(200)


@pytest.mark.parametrize(
    ("answer", "try_s", "error"),
    [
        (silence, 0.5, "it did not answer within 0.5 s"),
        (hang_up, 15.0, "the connection broke off before it had answered"),
        (endless_headers, 15.0, "the connection broke off before it had answered"),
        (
            lambda writer: _write(writer, b"\x00\x01 nonsense\r\n\r\n"),
            15.0,
            "the connection broke off",
        ),
    ],
    ids=["silent", "hangs up", "endless headers", "no HTTP"],
)
async def test_receivers_without_an_answer_are_left_in_time(
    authority: Authority, answer: Answer, try_s: float, error: str
) -> None:
    async with authority.receiver(answer=answer) as receiver:
        outcome = await sender(authority, try_s=try_s).send(receiver.url, "{}", HEADERS)
        while not receiver.received:
            # The machine is so slow that not even the request arrived in time.
            outcome = await sender(authority, try_s=try_s).send(receiver.url, "{}", HEADERS)
    assert isinstance(outcome, NotDelivered)
    assert outcome.error.startswith(error)
    assert outcome.status is None


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@asynccontextmanager
async def full_backlog() -> AsyncIterator[int]:
    """A port at which nobody ever takes a connection: further ones hang."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.settimeout(0)
                one.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for one in waiting:
                one.close()


async def test_a_host_that_hangs_at_the_connection_is_left_in_time(authority: Authority) -> None:
    async with full_backlog() as port:
        outcome = await sender(authority, try_s=0.5).send(f"https://{HOST}:{port}/", "{}", HEADERS)
    assert isinstance(outcome, NotDelivered)


async def test_a_host_without_a_listener_is_said_to_be_so(authority: Authority) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://{HOST}:{taken.getsockname()[1]}/"
        outcome = await sender(authority).send(url, "{}", HEADERS)
    assert outcome == NotDelivered("no connection could be made to it")


async def test_a_host_with_several_addresses_is_reached_at_the_one_that_answers(
    authority: Authority,
) -> None:
    names = Names({HOST: ["127.0.0.2", "::1", "127.0.0.1"]})
    async with authority.receiver() as receiver:
        assert await sender(authority, names).send(receiver.url, "{}", HEADERS) == Delivered(200)


async def test_tls_is_verified_by_default(authority: Authority) -> None:
    context = tls_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
