"""Channels to sellers: opened when used, shared by sellers at one address, closed when nobody uses them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self, TypeAlias

import grpc

from mesh.clock import Clock
from mesh.settings import SellerCallerSettings
from sellers.credentials import Metadata
from sellers.model import SYSTEM_ROOTS, CallFailed, FailureKind, Seller, SellerState

MAX_ANSWER_BYTES = 1024 * 1024
"""A batch of 1,000 quotes is about 200 KB, a page of 1,000 orders 300 KB."""

MAX_METADATA_BYTES = 8 * 1024

CLOSE_GRACE_S = 10.0
"""How long calls under way to a seller that has gone may take: longer than any timeout of ours."""

SERVICE = "bookmesh.seller.v1.SellerService"

_LOOKS_A_LIFE = 4
"""How often a channel is looked at in the time after which it is closed."""

_CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Every call counts against the seller's rate, so nothing repeats one behind our back.
    ("grpc.enable_retries", 0),
    # A seller does not configure our channel through DNS.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # An answer may come as a whole, however long it is: so nothing is gained by finding out by pings how much the line
    # bears, which costs a tenth of the CPU of a call.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", MAX_ANSWER_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
    # Not more often than the 5 minutes that gRPC servers allow by default. That it is set at all makes grpc set
    # TCP_USER_TIMEOUT to its timeout too, by which a peer that has vanished is noticed.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    ("grpc.primary_user_agent", "bookmesh"),
)

_Method: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """How many connections there are, and for how long.

    Attributes:
        idle_s: after how long without a call a channel is closed, at the earliest; a quarter later at the latest.
        new_a_second: most channels that are opened in any second; calls on more of them wait for their turn.
        most: most channels that are kept open, some 35 KiB each: for one more the one without a call is closed that was
            used longest ago. As many as there are calls under way there are in any case.

    """

    idle_s: float = 300.0
    new_a_second: int = 256
    most: int = 1000

    @classmethod
    def of(cls, settings: SellerCallerSettings) -> Self:
        """Take what a service is told."""
        return cls(
            idle_s=settings.seller_idle_s,
            new_a_second=settings.seller_connects_per_s,
            most=settings.seller_connections,
        )


class Connections:
    """The channels of one process: one for each endpoint and its TLS roots.

    Sellers that share both share a channel, since they are told apart by the credential that each call carries. Names,
    connections and handshakes are grpc's, each channel's its own: a seller whose name or port is dead delays its own
    calls alone. Use it as an async context manager; at the end all channels are closed.
    """

    def __init__(self, clock: Clock, settings: ConnectionSettings) -> None:
        """Make one without channels."""
        self._clock = clock
        self._settings = settings
        # Those used longest ago first.
        self._links: OrderedDict[tuple[str, str], Link] = OrderedDict()
        self._opened = deque[float](maxlen=settings.new_a_second)
        self._tasks = asyncio.TaskGroup()
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Give how many channels there are."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        """Begin to look for channels that nobody uses."""
        await self._tasks.__aenter__()
        self._sweeper = self._tasks.create_task(self._keep_sweeping())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all channels; calls under way are cancelled."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            await link.channel.close()
        await self._tasks.__aexit__(exc_type, exc, traceback)

    def link(self, seller: Seller) -> Link:
        """Give the channel to a seller. Call on it before anything is awaited, or it may be closed."""
        key = (seller.endpoint, seller.tls_roots)
        link = self._links.get(key)
        if link is None:
            self._make_room()
            link = self._links[key] = Link(*key, clock=self._clock, opens_at=self._turn())
        else:
            self._links.move_to_end(key)
        return link

    def retain(self, sellers: Iterable[Seller]) -> None:
        """Close the channels that none of these sellers needs, once the calls under way on them have ended."""
        needed = {
            (seller.endpoint, seller.tls_roots)
            for seller in sellers
            if seller.state is not SellerState.DISABLED
        }
        self._close(self._links.keys() - needed)

    def _make_room(self) -> None:
        """Close the idle channel that was used longest ago, if there are as many as are kept open."""
        if len(self._links) >= self._settings.most:
            idle = (key for key, link in self._links.items() if not link.calls)
            self._close([*islice(idle, 1)])

    def _turn(self) -> float:
        """Say when one more channel may be opened: a second after the one that so many were opened after."""
        now = self._clock.monotonic()
        full = len(self._opened) == self._settings.new_a_second
        opens_at = max(now, self._opened[0] + 1.0) if full else now
        self._opened.append(opens_at)
        return opens_at

    async def _keep_sweeping(self) -> None:
        while True:
            await self._clock.sleep(self._settings.idle_s / _LOOKS_A_LIFE)
            idle_since = self._clock.monotonic() - self._settings.idle_s
            self._close(
                [
                    key
                    for key, link in self._links.items()
                    if not link.calls and link.used_at <= idle_since
                ]
            )

    def _close(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            self._tasks.create_task(self._links.pop(key).channel.close(CLOSE_GRACE_S))


class Link:
    """The channel to one endpoint, and what calls its methods: bytes in, bytes out.

    Attributes:
        channel: the channel.
        calls: how many calls are under way.
        used_at: when the last call ended, monotonic.

    """

    def __init__(self, endpoint: str, tls_roots: str, *, clock: Clock, opens_at: float) -> None:
        """Open a channel whose first call connects, not before ``opens_at`` (monotonic)."""
        if tls_roots:
            roots = None if tls_roots == SYSTEM_ROOTS else tls_roots.encode()
            self.channel = grpc.aio.secure_channel(
                endpoint, grpc.ssl_channel_credentials(roots), options=_CHANNEL_OPTIONS
            )
        else:
            self.channel = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        self.calls = 0
        self.used_at = opens_at
        self._clock = clock
        self._opens_at = opens_at
        self._methods: dict[str, _Method] = {}

    async def call(
        self, name: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> bytes | CallFailed | None:
        """Call a method of the service, within a time that includes the wait for the channel's turn.

        Raises:
            grpc.aio.AioRpcError: for any status but OK.

        """
        self.calls += 1
        try:
            wait_s = self._opens_at - self._clock.monotonic()
            if wait_s > 0:
                await self._clock.sleep(min(wait_s, timeout_s))
                timeout_s -= wait_s
                if timeout_s <= 0:
                    detail = "too many other sellers were to be connected to first"
                    return CallFailed(
                        FailureKind.TIMED_OUT, definitely_not_done=True, detail=detail
                    )
            return await self._method(name)(request, timeout=timeout_s, metadata=metadata)
        finally:
            self.calls -= 1
            self.used_at = self._clock.monotonic()

    def _method(self, name: str) -> _Method:
        """Give what calls a method. Without codecs: parsing is up to ``sellers.answers``."""
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self.channel.unary_unary(f"/{SERVICE}/{name}")
        return method
