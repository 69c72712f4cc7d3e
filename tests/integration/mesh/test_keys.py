"""The issuer's keys at an address: fetched, kept, fetched again, and never more often than they may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.settings import Settings
from mesh import errors
from mesh.clock import SystemClock
from mesh.tokens.identities import JwtIdentities
from mesh.tokens.keys import LOOK_AGAIN_S, AddressKeys
from tests.fakes.clock import until
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer

REFRESH_S = 60.0


class HeldClock(SystemClock):
    """Its time goes on only when a test says so."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.slept_s: list[float] = []
        self.go_on = asyncio.Semaphore(0)

    def monotonic(self) -> float:
        return self.elapsed_s

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await self.go_on.acquire()
        self.elapsed_s += delay_s


class Address:
    """Where an issuer publishes its keys."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.asked = 0
        self.says: httpx.Response | httpx.HTTPError | None = None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.says, httpx.HTTPError):
            raise self.says
        return self.says or httpx.Response(200, json=self.issuer.jwks())


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(Issuer(tmp_path / "unused.json"))


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@asynccontextmanager
async def following(address: Address, clock: HeldClock) -> AsyncIterator[JwtIdentities]:
    transport = httpx.MockTransport(address.answer)
    async with httpx.AsyncClient(transport=transport) as client, asyncio.TaskGroup() as tasks:
        keys = AddressKeys("https://issuer.test/jwks", client, clock, refresh_s=REFRESH_S)
        follow = tasks.create_task(keys.follow())
        await asked(clock, 1)
        yield JwtIdentities(keys, issuer=ISSUER, audience=AUDIENCE)
        follow.cancel()


async def asked(clock: HeldClock, times: int) -> None:
    """Wait until the keys have been fetched so often, and the next time is waited for."""
    await until(lambda: len(clock.slept_s) >= times)


async def subject(identities: JwtIdentities, token: str) -> str:
    return (await identities.caller_of(token)).subject


async def test_keys_are_fetched_and_fetched_again(address: Address, clock: HeldClock) -> None:
    old = address.issuer.token("alice")
    async with following(address, clock) as identities:
        assert await subject(identities, old) == "alice"
        del address.issuer.keys["first"]
        address.issuer.add_key("second")
        assert await subject(identities, old) == "alice"
        clock.go_on.release()
        await asked(clock, 2)
        with pytest.raises(errors.Unauthenticated):
            await identities.caller_of(old)
    assert clock.slept_s[0] == REFRESH_S


async def test_a_token_with_a_new_key_makes_us_look_at_once(
    address: Address, clock: HeldClock
) -> None:
    async with following(address, clock) as identities:
        clock.elapsed_s += LOOK_AGAIN_S
        address.issuer.add_key("second")
        assert await subject(identities, address.issuer.token("bob")) == "bob"
    assert address.asked == 2


async def test_tokens_with_keys_that_do_not_exist_make_us_ask_once_in_a_while(
    address: Address, clock: HeldClock
) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    tokens = [address.issuer.token(key=stranger, header={"kid": f"k{n}"}) for n in range(20)]
    async with following(address, clock) as identities:
        for expected in (1, 2, 2):
            answers = await asyncio.gather(
                *(identities.caller_of(token) for token in tokens), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {errors.Unauthenticated}
            assert address.asked == expected
            if expected == 1:
                clock.elapsed_s += LOOK_AGAIN_S


@pytest.mark.parametrize(
    "says",
    [
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.Response(302, headers={"location": "https://elsewhere.test"}),
        httpx.Response(200, text="nonsense"),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, content=json.dumps({"keys": ["x" * 300_000]})),
    ],
    ids=["down", "503", "elsewhere", "nonsense", "empty", "huge"],
)
async def test_an_address_that_fails_leaves_the_known_keys_in_force(
    address: Address, clock: HeldClock, says: httpx.Response | httpx.HTTPError
) -> None:
    token = address.issuer.token("alice")
    async with following(address, clock) as identities:
        address.says = says
        clock.go_on.release()
        await asked(clock, 2)
        assert await subject(identities, token) == "alice"
        address.says = None
        clock.go_on.release()
        await asked(clock, 3)
    first, after_failure, after_success = clock.slept_s
    assert after_failure < first == after_success


async def test_until_there_are_keys_nobody_is_refused_for_good(
    address: Address, clock: HeldClock
) -> None:
    address.says = httpx.ConnectError("refused")
    async with following(address, clock) as identities:
        assert not identities.loaded()
        with pytest.raises(errors.Unavailable):
            await identities.caller_of(address.issuer.token())


@pytest.mark.parametrize(
    "sources", [{}, {"jwks_file": "keys.json", "jwks_url": "https://issuer.test"}]
)
def test_a_gateway_is_told_of_one_source_of_keys(sources: dict[str, str]) -> None:
    told = {
        "orchestrator_target": "o",
        "aggregator_target": "a",
        "jwt_issuer": "i",
        "jwt_audience": "a",
        **sources,
    }
    with pytest.raises(ValueError, match="either BOOKMESH_JWKS_FILE or BOOKMESH_JWKS_URL"):
        Settings.model_validate(told)
