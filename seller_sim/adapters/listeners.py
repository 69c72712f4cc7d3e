"""The addresses of the sellers: a gRPC server each, opened and closed while the process runs."""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import TYPE_CHECKING

import structlog

from seller_sim.adapters.files import ADDRESSES_FILE, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import grpc

    ServerFactory = Callable[[Sequence[str]], grpc.aio.Server]

HOST = "127.0.0.1"
_MOST_OWN_ADDRESSES = 500

PORTS = range(25_000, 32_768)
"""Below what Linux (32768 on) and macOS (49152 on) give to outgoing connections, and above what the other programs of a
local mesh are given: those may not listen yet when a seller looks for a port."""

_log = structlog.get_logger(__name__)


def addresses_for(
    seller_ids: Sequence[str], sellers_per_address: int | None
) -> dict[str, list[str]]:
    """Give the names of addresses and who is at each.

    An address with one seller is named like the seller. Without ``sellers_per_address``, up to 500 sellers have one
    each, and more share one by 500.
    """
    if sellers_per_address is None:
        sellers_per_address = 1 if len(seller_ids) <= _MOST_OWN_ADDRESSES else _MOST_OWN_ADDRESSES
    if sellers_per_address == 1:
        return {seller_id: [seller_id] for seller_id in seller_ids}
    return {
        f"shared-{number:03d}": list(seller_ids[start : start + sellers_per_address])
        for number, start in enumerate(range(0, len(seller_ids), sellers_per_address), 1)
    }


class GrpcListeners:
    """Implements ``ports.Listeners``.

    A port is chosen the first time, remembered in the folder and used again, unless something else has taken it
    meanwhile.
    """

    def __init__(
        self, folder: Path, addresses: dict[str, list[str]], make_server: ServerFactory
    ) -> None:
        """Choose a port for each address; nothing answers yet.

        Raises:
            DataFolderError: if the ports cannot be read or remembered.

        """
        self._path = folder / ADDRESSES_FILE
        self._remembered = read_json(self._path)
        self._by_name: dict[str, _Listener] = {}
        self._by_seller: dict[str, _Listener] = {}
        for name, seller_ids in addresses.items():
            port = self._remembered.get(name)
            known_port = port if isinstance(port, int) else _free_port()
            self._by_name[name] = _Listener(known_port, seller_ids, make_server)
            self._by_seller.update(dict.fromkeys(seller_ids, self._by_name[name]))
        self._remember()

    def endpoint_of(self, seller_id: str) -> str:
        """Give the ``host:port`` of a seller."""
        return f"{HOST}:{self._by_seller[seller_id].port}"

    def shared(self, seller_id: str) -> bool:
        """Say whether a seller shares its address with others."""
        return len(self._by_seller[seller_id].seller_ids) > 1

    async def open(self, seller_id: str) -> None:
        """Answer at the address of a seller from now on; at another one, if its port is taken."""
        await self._by_seller[seller_id].open()
        self._remember()

    async def refuse(self, seller_id: str) -> None:
        """End all connections to the address of a seller and refuse new ones."""
        await self._by_seller[seller_id].close(grace_s=0)

    async def close(self, grace_s: float) -> None:
        """Stop answering anywhere, giving calls under way some seconds."""
        await asyncio.gather(*(listener.close(grace_s) for listener in self._by_name.values()))

    def _remember(self) -> None:
        ports = {name: listener.port for name, listener in self._by_name.items()}
        if not ports.items() <= self._remembered.items():
            self._remembered.update(ports)
            write_json(self._path, self._remembered)


class _Listener:
    """One address: a port, and a server while it is open."""

    def __init__(self, port: int, seller_ids: list[str], make_server: ServerFactory) -> None:
        self.port = port
        self.seller_ids = seller_ids
        self._make_server = make_server
        self._server: grpc.aio.Server | None = None
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        async with self._changing:
            if self._server is not None:
                return
            server = self._make_server(self.seller_ids)
            while True:
                try:
                    server.add_insecure_port(f"{HOST}:{self.port}")
                    break
                except RuntimeError:
                    taken, self.port = self.port, _free_port()
                    _log.warning("a port is taken; another one is used", port=taken, new=self.port)
            await server.start()
            self._server = server

    async def close(self, grace_s: float) -> None:
        async with self._changing:
            if self._server is not None:
                await self._server.stop(grace_s)
                self._server = None


def _free_port() -> int:
    """Give a port that nothing uses and that no outgoing connection is given by the system.

    That is why the system does not choose: it would choose among those, and while a seller does not listen, some
    connection could take its port away (even one that is trying to reach it).
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
