"""The issuer's keys at the edge: new ones are taken without a restart, from a file and from an address."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import trustme
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from deploy.local.files import write
from deploy.local.keys import AUDIENCE, ISSUER
from tests.e2e.waiting import eventually
from tests.fakes.issuer import Issuer
from tests.integration.envoy.conftest import PATH, Edge, MakeEdge

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = {"iss": ISSUER, "aud": AUDIENCE}


async def answers(envoy: Edge, token: str) -> int:
    async with httpx.AsyncClient(base_url=envoy.rest_url, trust_env=False) as client:
        response = await client.get(PATH, headers={"authorization": f"Bearer {token}"})
    return response.status_code


async def becomes(envoy: Edge, token: str, status: int) -> None:
    """Wait until a token is answered like this, whichever of the edge's threads is asked."""
    in_a_row = 0
    while in_a_row < 10:
        in_a_row = in_a_row + 1 if await answers(envoy, token) == status else 0
        await asyncio.sleep(0.01)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


async def test_keys_in_a_file_are_rotated(make_edge: MakeEdge, issuer: Issuer) -> None:
    """A new one beside the old, RSA this time; then the old one is withdrawn."""
    envoy = await make_edge(jwks_file=issuer.file)
    old = issuer.token(claims=OURS)
    await becomes(envoy, old, 200)
    draft = Issuer(issuer.file.with_name("draft.json"))
    draft.keys = dict(issuer.keys)
    draft.add_key("second", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    new = draft.token(claims=OURS)
    assert await answers(envoy, new) == 401
    draft.file.rename(issuer.file)
    await becomes(envoy, new, 200)
    assert await answers(envoy, old) == 200
    del draft.keys["first"]
    draft.publish()
    draft.file.rename(issuer.file)
    await becomes(envoy, old, 401)
    assert await answers(envoy, new) == 200


async def test_a_broken_file_leaves_the_known_keys_in_force(
    make_edge: MakeEdge, issuer: Issuer
) -> None:
    envoy = await make_edge(jwks_file=issuer.file)
    token = issuer.token(claims=OURS)
    await becomes(envoy, token, 200)
    await fetched_for_all(envoy)
    write(issuer.file, b"nonsense")
    before = await fetches(envoy, "jwks_fetch_failed")
    while await fetches(envoy, "jwks_fetch_failed") < before + 2:
        assert await answers(envoy, token) == 200
        await asyncio.sleep(0.05)


async def fetched_for_all(envoy: Edge) -> None:
    """Wait until all threads of the edge know the keys in the same way.

    At the start each may have fetched them for itself, when it was asked; what is fetched in between is for all.
    """
    fetched = await fetches(envoy, "rest.jwt_authn.jwks_fetch_success")

    async def again() -> bool | None:
        return await fetches(envoy, "rest.jwt_authn.jwks_fetch_success") > fetched + 1 or None

    await eventually(again, 30)


async def fetches(envoy: Edge, how: str) -> int:
    """Count how often the edge fetched the keys, and how that went."""
    admin = yaml.safe_load(envoy.data.envoy_config.read_text())["admin"]["address"]
    port = admin["socket_address"]["port_value"]
    async with httpx.AsyncClient(trust_env=False) as client:
        stats = await client.get(f"http://127.0.0.1:{port}/stats?filter={how}")
    return sum(int(line.rpartition(" ")[2]) for line in stats.text.splitlines())


@dataclass(slots=True)
class Address:
    """Where an issuer publishes its keys, over HTTPS."""

    issuer: Issuer
    url: str = ""
    up: bool = True
    asked: int = 0

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        if not self.up:
            raise web.HTTPServiceUnavailable
        return web.json_response(self.issuer.jwks())


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest_asyncio.fixture(loop_scope="module")
async def address(issuer: Issuer, authority: trustme.CA) -> AsyncIterator[Address]:
    made = Address(issuer)
    app = web.Application()
    app.router.add_get("/jwks.json", made.answer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://localhost:{runner.addresses[0][1]}/jwks.json"
    yield made
    await runner.cleanup()


async def test_keys_at_an_address_are_rotated_and_outlast_it(
    make_edge: MakeEdge, address: Address, authority: trustme.CA, tmp_path: Path
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.cert_pem.bytes())
    envoy = await make_edge(
        jwks_file=None, jwks_url=address.url, jwks_roots_file=roots, jwks_refresh_s=1.0
    )
    old = address.issuer.token(claims=OURS)
    await becomes(envoy, old, 200)
    address.issuer.add_key("second")
    new = address.issuer.token(claims=OURS)
    await becomes(envoy, new, 200)
    await fetched_for_all(envoy)
    address.up = False
    asked = address.asked
    while address.asked < asked + 2:
        assert await answers(envoy, new) == 200
        await asyncio.sleep(0.05)
    assert await answers(envoy, new) == 200
