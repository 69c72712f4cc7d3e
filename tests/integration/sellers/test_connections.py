"""Channels to sellers, over real gRPC: how many there are, when they go, and that the dead delay nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bookmesh.seller.v1 import seller_pb2 as pb
from mesh.clock import SystemClock
from sellers.connections import Connections, ConnectionSettings
from sellers.credentials import Credentials, Metadata
from sellers.model import CallFailed, Condition, FailureKind, Quote, QuoteOutcome, Seller
from sellers.transport import SellerTransport
from tests.fakes.clock import until
from tests.fakes.manual_clock import ManualClock
from tests.fakes.seller import fake_seller, quotes, registered

BOOK = "9780134685991"
LONG_S = 30.0
REQUEST = pb.GetQuoteRequest(book_id=BOOK, currency_code="USD").SerializeToString()
NOBODY = Metadata()


async def call(connections: Connections, seller: Seller, timeout_s: float = LONG_S) -> object:
    return await connections.link(seller).call("GetQuote", REQUEST, timeout_s, NOBODY)


async def test_only_sellers_that_are_called_have_a_channel() -> None:
    async with (
        fake_seller(GetQuote=quotes()) as fake,
        Connections(SystemClock(), ConnectionSettings()) as connections,
    ):
        sellers = [registered(f"seller-{i}", f"127.0.0.1:{i + 1}") for i in range(1000)]
        connections.retain([*sellers, registered("acme", fake.endpoint)])
        await call(connections, registered("acme", fake.endpoint))
        assert len(connections) == 1


async def test_sellers_at_one_address_with_the_same_roots_share_a_channel() -> None:
    async with Connections(SystemClock(), ConnectionSettings()) as connections:
        acme, beta = registered("acme", "localhost:1"), registered("beta", "localhost:1")
        other = replace(beta, credential_reference="other")
        assert connections.link(acme) is connections.link(beta) is connections.link(other)
        assert connections.link(acme) is not connections.link(replace(acme, tls_roots="system"))


async def test_a_channel_that_nobody_uses_is_closed_and_opened_again_when_it_is_used() -> None:
    clock = ManualClock()
    async with (
        fake_seller(GetQuote=quotes()) as fake,
        Connections(clock, ConnectionSettings(idle_s=300.0)) as connections,
    ):
        seller = registered("acme", fake.endpoint)
        await call(connections, seller)
        clock.advance(299.0)
        await call(connections, seller)
        assert len(connections) == 1
        clock.advance(300.0)
        await until(lambda: len(connections) == 0)
        assert isinstance(await call(connections, seller), bytes)


async def test_a_channel_with_a_call_under_way_is_not_idle_however_long_that_takes() -> None:
    clock, go_on = ManualClock(), asyncio.Event()

    async def slow(request: pb.GetQuoteRequest, context: object) -> pb.GetQuoteResponse:
        await go_on.wait()
        return pb.GetQuoteResponse(book_id=request.book_id)

    async with (
        fake_seller(GetQuote=slow) as busy,
        fake_seller(GetQuote=quotes()) as fake,
        Connections(clock, ConnectionSettings(idle_s=300.0)) as connections,
    ):
        under_way = asyncio.create_task(call(connections, registered("busy", busy.endpoint)))
        await busy.arrived.wait()
        await call(connections, registered("acme", fake.endpoint))
        clock.advance(300.0)
        await until(lambda: len(connections) == 1)
        go_on.set()
        assert isinstance(await under_way, bytes)
        assert len(connections) == 1


async def test_of_too_many_channels_the_idle_one_is_closed_that_was_used_longest_ago() -> None:
    go_on = asyncio.Event()

    async def slow(request: pb.GetQuoteRequest, context: object) -> pb.GetQuoteResponse:
        await go_on.wait()
        return pb.GetQuoteResponse(book_id=request.book_id)

    async with (
        fake_seller(GetQuote=slow) as fake,
        Connections(SystemClock(), ConnectionSettings(most=3)) as connections,
    ):
        busy = registered("busy", fake.endpoint)
        held = connections.link(busy)
        under_way = asyncio.create_task(call(connections, busy))
        await until(lambda: held.calls == 1)
        first, second, third, fourth = (
            registered(f"seller-{i}", f"localhost:{i}") for i in range(1, 5)
        )
        links = [connections.link(first), connections.link(second)]
        assert connections.link(first) is links[0]
        connections.link(third)
        assert len(connections) == 3
        assert connections.link(first) is links[0]
        assert connections.link(second) is not links[1]
        connections.link(fourth)
        assert len(connections) == 3
        assert connections.link(busy) is held
        go_on.set()
        assert isinstance(await under_way, bytes)


async def test_no_more_channels_than_allowed_are_opened_in_a_second() -> None:
    clock = ManualClock()
    async with (
        fake_seller(GetQuote=quotes()) as fake,
        Connections(clock, ConnectionSettings(new_a_second=2)) as connections,
    ):
        # The same seller by other spellings of its address.
        spelled = [
            replace(registered("acme", fake.endpoint), endpoint=f"{scheme}{fake.endpoint}")
            for scheme in ("", "dns:", "dns:///", "ipv4:", "ipv4:///")
        ]
        await asyncio.gather(*(call(connections, seller) for seller in spelled[:2]))
        third, fourth, fifth = (
            asyncio.create_task(call(connections, seller, timeout_s))
            for seller, timeout_s in zip(spelled[2:], (LONG_S, LONG_S, 0.5), strict=True)
        )
        # Who has a channel does not wait.
        await call(connections, spelled[0])
        assert not third.done()
        clock.advance(1.0)
        assert isinstance(await third, bytes)
        assert isinstance(await fourth, bytes)
        late = await fifth
        assert isinstance(late, CallFailed)
        assert (late.kind, late.definitely_not_done) == (FailureKind.TIMED_OUT, True)
        assert len(fake.requests) == 5


@pytest.fixture
def silent() -> Iterator[list[str]]:
    """Addresses that take a connection and never say a word: a handshake with them does not end."""
    with ExitStack() as stack:
        addresses = []
        for _ in range(40):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            addresses.append(f"127.0.0.1:{listening.getsockname()[1]}")
        yield addresses


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[SellerTransport]:
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    clock = SystemClock()
    async with SellerTransport(
        Credentials(tmp_path / "credentials.json", clock), clock
    ) as transport:
        yield transport


async def ask(transport: SellerTransport, seller: Seller) -> QuoteOutcome:
    return await transport.get_quote(
        seller, BOOK, "USD", frozenset({Condition.NEW}), timeout_s=LONG_S
    )


async def test_sellers_whose_handshake_never_ends_or_whose_name_is_unknown_delay_nobody(
    transport: SellerTransport, silent: list[str]
) -> None:
    async with fake_seller(GetQuote=quotes(2499)) as fake, asyncio.TaskGroup() as tasks:
        stuck = [
            tasks.create_task(
                ask(transport, replace(registered("stuck", address), tls_roots=roots))
            )
            for address in silent
            for roots in ("", "system")
        ]
        unknown = [
            tasks.create_task(ask(transport, registered("lost", f"seller-{i}.invalid:443")))
            for i in range(40)
        ]
        outcome = await ask(transport, registered("acme", fake.endpoint))
        assert isinstance(outcome, Quote)
        assert not any(task.done() for task in stuck)
        for task in (*stuck, *unknown):
            task.cancel()
