"""A TCP proxy that can be cut: a server behind it is gone and comes back as often as a test likes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from deploy.local.ports import Ports


class Proxy:
    """Passes connections on to a port of this machine.

    Attributes:
        port: where it listens; nobody else is given it while it does not.
        taken: how many connections it has taken.

    """

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self.taken = 0
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()

    def hang(self) -> None:
        """Take what comes and pass nothing on, as one does that hangs."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass on what has come meanwhile, and all that comes."""
        self._passing.set()

    async def restore(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Refuse new connections and break those that there are."""
        self._passing.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for writer in self._writers:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._copy(reader, far_writer))
                directions.create_task(self._copy(far_reader, writer))
        finally:
            self._writers -= pair

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy(to_port: int) -> AsyncIterator[Proxy]:
    """Run a proxy until the block ends."""
    with Ports(Path(os.devnull)) as ports:
        running = Proxy(ports.take("proxy"), to_port)
        await running.restore()
        try:
            yield running
        finally:
            await running.cut()
