"""Clients that no honest program would be, on raw sockets. Each ends when it was cut off, or has done its worst."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATH = "/api/v1/purchase-requests"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS, _CONTINUATION = 1, 3, 4, 9
_END_STREAM, _END_HEADERS = 1, 4
_CANCEL = 8
_FRAME = 16_000
_SMALL_BUFFER = 4096


@asynccontextmanager
async def connected(
    address: str, receive_buffer: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)  # noqa: FBT003  the name says it
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        # What is left of it is of no interest.
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def headers_that_never_end(address: str) -> bytes:
    """Begin a request and say no more; give what comes before the connection is closed."""
    async with connected(address) as (reader, writer):
        writer.write(f"GET {PATH} HTTP/1.1\r\nhost: bookmesh\r\nx-slow: ".encode())
        return await _until_closed(reader)


async def body_that_never_ends(address: str, token: str) -> bytes:
    """Send a byte of a body and no more; give what comes before the connection is closed."""
    async with connected(address) as (reader, writer):
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nhost: bookmesh\r\nauthorization: Bearer {token}\r\n"
            "content-type: application/json\r\ncontent-length: 1000\r\n\r\n{".encode()
        )
        return await _until_closed(reader)


@asynccontextmanager
async def never_reading(address: str, token: str, path: str) -> AsyncIterator[None]:
    """Ask for something again and again, and read nothing of it."""
    async with connected(address, _SMALL_BUFFER) as (_, writer):
        request = f"GET {path} HTTP/1.1\r\nhost: bookmesh\r\nauthorization: Bearer {token}\r\n\r\n"
        writer.write(request.encode() * 50)
        yield


async def opening_and_resetting(address: str, token: str, streams: int) -> bool:
    """Open streams and reset each at once; say whether the connection was closed for it."""
    fields = {
        ":method": "GET",
        ":scheme": "http",
        ":path": PATH,
        ":authority": "bookmesh",
        "authorization": f"Bearer {token}",
    }
    async with connected(address) as (reader, writer):
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        closed = asyncio.ensure_future(_until_closed(reader))
        for number in range(streams):
            stream = 2 * number + 1
            writer.write(
                _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, _fields(fields))
                + _frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))
            )
            try:
                await writer.drain()
            except OSError:
                break
        with contextlib.suppress(OSError):
            writer.write_eof()
        return await _closed_in_time(closed)


async def headers_without_end(address: str, frames: int) -> None:
    """Send headers of one request, more and more."""
    async with connected(address) as (_, writer):
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, 0, 1, b""))
        for number in range(frames):
            block = _fields({f"x-{number}": "a" * _FRAME})
            writer.write(_frame(_CONTINUATION, 0, 1, block))
            try:
                await writer.drain()
            except OSError:
                break


async def headers_that_swell(address: str) -> bool:
    """Send a little that stands for tens of megabytes of headers; say whether it was refused or cut off.

    A field is put into the table once, and named by its place there again and again (RFC 7541, 6.1).
    """
    remembered = b"\x40" + _string(b"x-swelling") + _string(b"a" * 3_900)
    block = remembered + b"\xbe" * (_FRAME - len(remembered))
    async with connected(address) as (reader, writer):
        writer.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_STREAM | _END_HEADERS, 1, block)
        )
        return await _reset_or_closed(reader)


async def _reset_or_closed(reader: asyncio.StreamReader) -> bool:
    """Read frames until there is no answer to be had any more; False if there was one, or none of that in time."""
    try:
        async with asyncio.timeout(10):
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3]))
                if head[3] in {_HEADERS, _RST_STREAM}:
                    return head[3] == _RST_STREAM
    except (OSError, asyncio.IncompleteReadError):
        return True
    except TimeoutError:
        return False


async def _closed_in_time(closed: asyncio.Future[bytes]) -> bool:
    try:
        async with asyncio.timeout(10):
            await closed
    except TimeoutError:
        return False
    return True


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while part := await reader.read(65_536):
            received += part
    return received


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Give a frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _fields(fields: dict[str, str]) -> bytes:
    """Give header fields as literals that no table remembers (RFC 7541, 6.2.2)."""
    return b"".join(
        b"\x00" + _string(name.encode()) + _string(value.encode()) for name, value in fields.items()
    )


def _string(text: bytes) -> bytes:
    length, prefix = len(text), 127
    if length < prefix:
        return bytes([length]) + text
    rest, encoded = length - prefix, bytes([prefix])
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest]) + text
