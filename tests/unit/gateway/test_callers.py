"""For whom a call is made, by its token's scope and by the customer whom it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

from gateway.callers import customer_of
from mesh import errors
from mesh.grpc.interceptor import Context
from mesh.tokens.identities import Caller


@dataclass(frozen=True)
class Tokens:
    """Takes every token for one of the subject ``who``, with the scopes that it consists of."""

    async def caller_of(self, token: str) -> Caller:
        return Caller("who", frozenset(token.split("+")))


@dataclass(frozen=True)
class Call:
    metadata: tuple[tuple[str, str], ...]

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata


async def customer(*metadata: tuple[str, str]) -> str:
    return await customer_of(Tokens(), cast("Context", Call(metadata)))


def bearer(scopes: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {scopes}")


async def test_a_customer_calls_for_itself() -> None:
    assert await customer(bearer("customer")) == "who"
    assert await customer(bearer("customer+internal")) == "who"


async def test_a_service_calls_for_the_customer_whom_it_names() -> None:
    for scopes in ("internal", "customer+internal"):
        assert await customer(bearer(scopes), ("on-behalf-of", "bob")) == "bob"


@pytest.mark.parametrize(
    ("scopes", "named", "reason"),
    [
        ("customer", ["bob"], "ON_BEHALF_OF_NOT_ALLOWED"),
        ("customer", ["who"], "ON_BEHALF_OF_NOT_ALLOWED"),
        ("customer", [""], "ON_BEHALF_OF_NOT_ALLOWED"),
        ("operator", ["bob"], "SCOPE_MISSING"),
        ("internal", [], "ON_BEHALF_OF_MISSING"),
        ("operator", [], "SCOPE_MISSING"),
        ("", [], "SCOPE_MISSING"),
        ("customers", [], "SCOPE_MISSING"),
    ],
)
async def test_a_token_is_good_only_for_what_it_was_issued_for(
    scopes: str, named: list[str], reason: str
) -> None:
    with pytest.raises(errors.PermissionDenied) as caught:
        await customer(bearer(scopes), *(("on-behalf-of", name) for name in named))
    assert caught.value.reason == reason


@pytest.mark.parametrize("named", [[""], ["bob", "carol"], ["bob", "bob"], ["b" * 256], ["b\tb"]])
async def test_a_service_names_one_customer(named: list[str]) -> None:
    with pytest.raises(errors.InvalidArgument):
        await customer(bearer("internal"), *(("on-behalf-of", name) for name in named))


@pytest.mark.parametrize(
    ("authorizations", "reason"),
    [
        ([], "TOKEN_MISSING"),
        (["Basic YTpi"], "TOKEN_INVALID"),
        (["customer"], "TOKEN_INVALID"),
        (["Bearer customer", "Bearer customer"], "TOKEN_INVALID"),
    ],
)
async def test_a_call_carries_one_bearer_token(authorizations: list[str], reason: str) -> None:
    with pytest.raises(errors.Unauthenticated) as caught:
        await customer(*(("authorization", value) for value in authorizations))
    assert caught.value.reason == reason
