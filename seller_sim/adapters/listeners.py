"""The addresses of the sellers: a gRPC server each, opened and closed while the process runs."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import structlog

from seller_sim.adapters.files import ADDRESSES_FILE, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import grpc

    ServerFactory = Callable[[Sequence[str]], grpc.aio.Server]

HOST = "127.0.0.1"
_MOST_OWN_ADDRESSES = 500

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

    The system chooses a port the first time; it is remembered in the folder and used again, unless something else
    has taken it meanwhile.
    """

    def __init__(
        self, folder: Path, addresses: dict[str, list[str]], make_server: ServerFactory
    ) -> None:
        """Reserve a port for each address; nothing answers yet.

        Raises:
            DataFolderError: if the ports cannot be read or remembered.

        """
        path = folder / ADDRESSES_FILE
        remembered = read_json(path)
        self._listeners: dict[str, _Listener] = {}
        ports: dict[str, object] = {}
        for name, seller_ids in addresses.items():
            listener = _Listener(_reserve(name, remembered.get(name)), seller_ids, make_server)
            ports[name] = listener.port
            self._listeners.update(dict.fromkeys(seller_ids, listener))
        if ports != remembered:
            write_json(path, {**remembered, **ports})

    def endpoint_of(self, seller_id: str) -> str:
        """Give the ``host:port`` of a seller."""
        return f"{HOST}:{self._listeners[seller_id].port}"

    def shared(self, seller_id: str) -> bool:
        """Say whether a seller shares its address with others."""
        return len(self._listeners[seller_id].seller_ids) > 1

    async def open(self, seller_id: str) -> None:
        """Answer at the address of a seller from now on."""
        await self._listeners[seller_id].open()

    async def refuse(self, seller_id: str) -> None:
        """End all connections to the address of a seller and refuse new ones."""
        await self._listeners[seller_id].close(grace_s=0)

    async def close(self, grace_s: float) -> None:
        """Stop answering anywhere, giving calls under way some seconds."""
        await asyncio.gather(*(one.close(grace_s) for one in self._unique()))

    def _unique(self) -> Iterable[_Listener]:
        return {id(listener): listener for listener in self._listeners.values()}.values()


class _Listener:
    """One address: a port that stays reserved, and a server while it is open."""

    def __init__(
        self, reservation: socket.socket, seller_ids: list[str], make_server: ServerFactory
    ) -> None:
        self.port: int = reservation.getsockname()[1]
        self.seller_ids = seller_ids
        self._reservation = reservation
        self._make_server = make_server
        self._server: grpc.aio.Server | None = None
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        async with self._changing:
            if self._server is None:
                server = self._make_server(self.seller_ids)
                server.add_insecure_port(f"{HOST}:{self.port}")
                await server.start()
                self._server = server

    async def close(self, grace_s: float) -> None:
        async with self._changing:
            if self._server is not None:
                await self._server.stop(grace_s)
                self._server = None


def _reserve(name: str, port: object) -> socket.socket:
    # A bound socket that does not listen: others are refused the port, connections to it are refused, and SO_REUSEADDR
    # lets our own server listen on it.
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        reservation.bind((HOST, port if isinstance(port, int) else 0))
    except OSError:
        _log.warning("the port of an address is taken; another is chosen", address=name, port=port)
        reservation.bind((HOST, 0))
    return reservation
