"""Receivers of webhooks that do what a test says, over real TCP and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import trustme

HOST = "receiver.test"


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: str
    sni: str | None


Answer: TypeAlias = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answering(status: int, body: bytes = b"", **headers: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def endless(status: int) -> Answer:
    """A body without an end, as fast as it is read."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Whatever\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()

    return answer


def dripping(status: int) -> Answer:
    """A body of which a byte comes now and then."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Whatever\r\ncontent-length: 100000\r\n\r\n".encode())
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


@dataclass
class Receiver:
    """A receiver at ``url``; ``answer`` may be changed at any time.

    Attributes:
        received: requests, as they came.
        under_way: requests that are being answered now.
        most_at_once: the most of them that there ever were.
        asked_for: the names (SNI) that TLS connections were opened for.

    """

    url: str
    port: int
    answer: Answer = field(default_factory=lambda: answering(200))
    received: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    asked_for: dict[object, str | None] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (one.partition(":") for one in rest)
            }
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            sni = self.asked_for.get(writer.get_extra_info("ssl_object"))
            self.received.append(Received(line, headers, body, sni))
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            try:
                await self.answer(writer)
            finally:
                self.under_way -= 1
        with suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()


class Authority:
    """A certificate authority for receivers."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def trusting(self) -> ssl.SSLContext:
        """Give a client's context that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self._ca.cert_pem.bytes()

    @asynccontextmanager
    async def receiver(
        self, name: str = HOST, answer: Answer | None = None, *, tls: bool = True
    ) -> AsyncIterator[Receiver]:
        """Run a receiver whose certificate is for ``name``, on this machine."""
        receiver = Receiver("", 0)
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert(name).configure_cert(context)

            def note(tls_object: object, name: str | None, _context: object) -> None:
                receiver.asked_for[tls_object] = name

            context.sni_callback = note
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(receiver.serve(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        receiver.port = server.sockets[0].getsockname()[1]
        receiver.url = f"{'https' if tls else 'http'}://{name}:{receiver.port}/hook?x=1"
        if answer is not None:
            receiver.answer = answer
        try:
            yield receiver
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


@dataclass
class Names:
    """A name server: what each name means now, and what was asked."""

    known: dict[str, list[str]] = field(default_factory=lambda: {HOST: ["127.0.0.1"]})
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.known.get(host, ["127.0.0.1"])
