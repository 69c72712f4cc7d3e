"""Sellers that break the rules below gRPC: what they send is bytes on a connection, HTTP/2 or not even that."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1

# HPACK (RFC 7541): ":status: 200" of the static table, "content-type" of the static table with a literal value.
_RESPONSE = b"\x88" + b"\x0f\x10\x10" + b"application/grpc"


class Stream:
    """A call that has arrived, and the way to answer it frame by frame."""

    def __init__(self, number: int, writer: asyncio.StreamWriter) -> None:
        self._number = number
        self._writer = writer

    async def headers(self) -> None:
        """Begin an answer, as gRPC does."""
        await self.send(_HEADERS, _END_HEADERS, _RESPONSE)

    async def data(self, data: bytes) -> None:
        """Send a part of the body."""
        await self.send(_DATA, 0, data)

    async def trailers(self, *fields: tuple[str, bytes]) -> None:
        """End the answer."""
        block = b"".join(_literal(name.encode(), value) for name, value in fields)
        await self.send(_HEADERS, _END_HEADERS | _END_STREAM, block)

    async def endless_headers(self) -> None:
        """Begin an answer whose headers never end."""
        await self.send(_HEADERS, 0, _RESPONSE)
        while True:
            await self.send(_CONTINUATION, 0, _literal(b"x-more", b"x" * 1000))

    async def reset(self, code: int) -> None:
        """Break the stream off."""
        await self.send(_RST_STREAM, 0, struct.pack(">I", code))

    async def go_away(self) -> None:
        """Say that the connection ends, without having looked at any stream."""
        self._write(_GOAWAY, 0, 0, struct.pack(">II", 0, 0))
        await self._writer.drain()
        self._writer.close()

    async def raw(self, data: bytes) -> None:
        """Send bytes that are no frame."""
        self._writer.write(data)
        await self._writer.drain()

    async def send(self, kind: int, flags: int, payload: bytes) -> None:
        """Send a frame of this stream."""
        self._write(kind, flags, self._number, payload)
        await self._writer.drain()
        # Who never ends lets the others in this process do something, too.
        await asyncio.sleep(0)

    def _write(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self._writer.write(_frame(kind, flags, number, payload))


Misbehaviour = Callable[[Stream], Awaitable[None]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def message(body: bytes) -> bytes:
    """Give a gRPC message as it stands in the body."""
    return b"\0" + struct.pack(">I", len(body)) + body


def speaks_http2(misbehave: Misbehaviour) -> Talk:
    """Talk HTTP/2 well enough to get a call, then misbehave in it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(_PREFACE))
        writer.write(_frame(_SETTINGS, 0, 0, b""))
        async with asyncio.TaskGroup() as group:
            while True:
                head = await reader.readexactly(9)
                kind, flags = head[3], head[4]
                payload = await reader.readexactly(int.from_bytes(head[:3]))
                if kind in {_SETTINGS, _PING} and not flags & _ACK:
                    writer.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
                if kind == _HEADERS:
                    stream = Stream(int.from_bytes(head[5:]), writer)
                    group.create_task(_until_gone(misbehave(stream)))

    return talk


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept the connection, and that is all."""
    await reader.read()


async def talks_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what no protocol knows."""
    writer.write(bytes(range(256)) * 64)
    await writer.drain()


async def talks_http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a web server of old."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html></html>")
    await writer.drain()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection at once."""


@asynccontextmanager
async def rogue(talk: Talk) -> AsyncIterator[str]:
    """Run such a seller until the block ends; give its endpoint."""
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        # Not cancelled to the end: asyncio 3.11 takes that for an error of the server.
        with suppress(asyncio.CancelledError):
            await _until_gone(talk(reader, writer))
        talks.discard(task)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await server.wait_closed()


async def _until_gone(talking: Awaitable[None]) -> None:
    try:
        await talking
    except* (ConnectionError, asyncio.IncompleteReadError):
        pass


def _literal(name: bytes, value: bytes) -> bytes:
    """Give a field that is not to be indexed; names up to 126 bytes."""
    return b"\0" + bytes([len(name)]) + name + _integer(len(value)) + value


def _integer(number: int) -> bytes:
    """Give an integer with a prefix of 7 bits (RFC 7541, 5.1)."""
    if number < 0x7F:
        return bytes([number])
    encoded, number = bytearray([0x7F]), number - 0x7F
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
