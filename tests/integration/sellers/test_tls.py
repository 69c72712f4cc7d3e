"""TLS to sellers: the registry's roots decide whom we believe, and who is not believed is a miss with its reason."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from bookmesh.seller.v1 import seller_pb2
from mesh.clock import SystemClock
from sellers.credentials import Credentials
from sellers.model import (
    SYSTEM_ROOTS,
    CallFailed,
    Condition,
    FailureKind,
    Quote,
    QuoteOutcome,
    Seller,
)
from sellers.transport import SellerTransport
from tests.fakes.seller import FakeSeller, fake_seller, quotes, registered

BOOK = "9780134685991"
SERVICE = seller_pb2.DESCRIPTOR.services_by_name["SellerService"].full_name


@pytest.fixture
async def transport(tmp_path: Path) -> AsyncIterator[SellerTransport]:
    (tmp_path / "credentials.json").write_text(json.dumps({"test": "s3cr3t"}))
    clock = SystemClock()
    async with SellerTransport(
        Credentials(tmp_path / "credentials.json", clock), clock
    ) as transport:
        yield transport


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def selling(certificate: trustme.LeafCert) -> AsyncIterator[FakeSeller]:
    """Run a seller with a certificate."""
    seller = FakeSeller()
    seller.behaviours["GetQuote"] = quotes(2499)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, seller.handlers()),)
    )
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    shown = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    seller.endpoint = f"localhost:{server.add_secure_port('127.0.0.1:0', shown)}"
    await server.start()
    try:
        yield seller
    finally:
        await server.stop(None)


def believing(fake: FakeSeller, roots: trustme.CA | str) -> Seller:
    text = roots if isinstance(roots, str) else roots.cert_pem.bytes().decode()
    return replace(registered("acme", fake.endpoint), tls_roots=text)


async def ask(transport: SellerTransport, seller: Seller) -> QuoteOutcome:
    return await transport.get_quote(
        seller, BOOK, "USD", frozenset({Condition.NEW}), timeout_s=30.0
    )


async def test_a_seller_is_known_by_the_roots_in_its_entry(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    async with selling(authority.issue_cert("localhost")) as fake:
        outcome = await ask(transport, believing(fake, authority))
    assert isinstance(outcome, Quote)
    [(_, _, metadata)] = fake.requests
    assert metadata["authorization"] == "Bearer s3cr3t"


async def unreachable(transport: SellerTransport, fake: FakeSeller, seller: Seller) -> str:
    """Ask a seller that is not believed: it never sees our credential; give the reason of the miss."""
    outcome = await ask(transport, seller)
    assert isinstance(outcome, CallFailed)
    assert outcome.kind is FailureKind.UNREACHABLE
    assert not fake.requests
    return outcome.detail


async def test_wrong_roots_are_a_miss_of_that_entry_alone(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    async with selling(authority.issue_cert("localhost")) as fake:
        for roots in (trustme.CA(), SYSTEM_ROOTS):
            detail = await unreachable(transport, fake, believing(fake, roots))
            assert "CERTIFICATE_VERIFY_FAILED" in detail
        assert isinstance(await ask(transport, believing(fake, authority)), Quote)


async def test_a_certificate_for_another_name_is_a_miss(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    async with selling(authority.issue_cert("seller.example")) as fake:
        detail = await unreachable(transport, fake, believing(fake, authority))
    assert "Hostname Verification" in detail


async def test_a_certificate_that_has_expired_is_a_miss(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificate = authority.issue_cert(
        "localhost", not_before=yesterday - timedelta(days=90), not_after=yesterday
    )
    async with selling(certificate) as fake:
        detail = await unreachable(transport, fake, believing(fake, authority))
    assert "expired" in detail


async def test_a_seller_with_tls_where_none_is_due_is_a_miss(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    async with selling(authority.issue_cert("localhost")) as fake:
        await unreachable(transport, fake, registered("acme", fake.endpoint))


async def test_a_seller_without_tls_where_it_is_due_is_a_miss(
    transport: SellerTransport, authority: trustme.CA
) -> None:
    async with fake_seller(GetQuote=quotes(2499)) as fake:
        seller = believing(fake, authority)
        assert "WRONG_VERSION_NUMBER" in await unreachable(transport, fake, seller)
