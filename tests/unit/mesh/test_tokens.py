from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mesh import errors
from mesh.tokens.identities import CLOCK_SKEW_S, LONGEST_TOKEN, Caller, JwtIdentities
from mesh.tokens.keys import FileKeys
from tests.fakes.issuer import AUDIENCE, ISSUER, Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "jwks.json")


@pytest.fixture
def identities(issuer: Issuer) -> JwtIdentities:
    return JwtIdentities(FileKeys(issuer.file), issuer=ISSUER, audience=AUDIENCE)


async def refusal(identities: JwtIdentities, token: str) -> errors.Unauthenticated:
    with pytest.raises(errors.Unauthenticated) as caught:
        await identities.caller_of(token)
    return caught.value


async def test_the_customer_is_the_subject(issuer: Issuer, identities: JwtIdentities) -> None:
    assert (await identities.caller_of(issuer.token("alice"))).subject == "alice"


async def test_tokens_may_be_signed_with_rsa(issuer: Issuer, identities: JwtIdentities) -> None:
    issuer.add_key("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
    assert (await identities.caller_of(issuer.token("alice"))).subject == "alice"


async def test_a_token_may_be_for_several_audiences(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    assert (
        await identities.caller_of(issuer.token(claims={"aud": ["others", AUDIENCE]}))
    ).subject == "alice"


async def test_a_token_without_a_key_id_is_tried_with_every_key(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    issuer.add_key("second")
    token = issuer.token("alice", key=issuer.keys["first"], header={"typ": "JWT"})
    assert (await identities.caller_of(token)).subject == "alice"


async def test_an_expired_token_says_so(issuer: Issuer, identities: JwtIdentities) -> None:
    late = timedelta(seconds=-CLOCK_SKEW_S - 1)
    assert (await refusal(identities, issuer.token(expires_in=late))).reason == "TOKEN_EXPIRED"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://elsewhere.test"}, "issuer"),
        ({"aud": "elsewhere"}, "Audience"),
        ({"iss": None}, '"iss"'),
        ({"aud": None}, '"aud"'),
        ({"exp": None}, '"exp"'),
        ({"sub": None}, '"sub"'),
        ({"sub": ""}, "sub must have"),
        ({"sub": "a" * 256}, "sub must have"),
        ({"sub": "a\x00b"}, "sub must have"),
        ({"nbf": 32_503_680_000}, "not yet valid"),
    ],
)
async def test_a_token_with_a_wrong_claim_names_it(
    issuer: Issuer, identities: JwtIdentities, claims: dict[str, object], said: str
) -> None:
    error = await refusal(identities, issuer.token(claims=claims))
    assert error.reason == "TOKEN_INVALID"
    assert said in error.message


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "e30.e30.e30", "x" * 100_000])
async def test_what_is_no_token_is_refused(identities: JwtIdentities, token: str) -> None:
    assert (await refusal(identities, token)).reason == "TOKEN_INVALID"


async def test_a_token_of_a_stranger_is_refused(issuer: Issuer, identities: JwtIdentities) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    for header in ({"kid": "first"}, {"kid": "unknown"}, {"typ": "JWT"}):
        error = await refusal(identities, issuer.token(key=stranger, header=header))
        assert error.reason == "TOKEN_INVALID"


async def test_a_token_that_was_changed_is_refused(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    head, _, signature = issuer.token("alice").split(".")
    _, body, _ = issuer.token("mallory").split(".")
    assert (await refusal(identities, f"{head}.{body}.{signature}")).reason == "TOKEN_INVALID"


async def test_an_unsigned_token_is_refused(identities: JwtIdentities) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": 32_503_680_000}
    token = jwt.encode(claims, "", algorithm="none", headers={"kid": "first"})
    assert (await refusal(identities, token)).reason == "TOKEN_INVALID"


async def test_a_token_signed_with_what_is_public_as_a_secret_is_refused(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    """The classic confusion of algorithms, and the same with a secret that stands in the file."""
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    jwks = issuer.jwks()
    jwks["keys"].append({"kty": "oct", "k": secret, "kid": "secret", "alg": "HS256"})
    issuer.file.write_text(json.dumps(jwks))
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": 32_503_680_000}
    for key, key_id in ((jwks["keys"][0]["x"].encode(), "first"), (b"s" * 32, "secret")):
        token = jwt.encode(claims, key, algorithm="HS256", headers={"kid": key_id})
        assert (await refusal(identities, token)).reason == "TOKEN_INVALID"


async def test_keys_are_read_again_when_the_file_changes(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    old = issuer.token("alice")
    assert (await identities.caller_of(old)).subject == "alice"
    issuer.add_key("second")
    assert (await identities.caller_of(issuer.token("bob"))).subject == "bob"
    assert (await identities.caller_of(old)).subject == "alice"
    del issuer.keys["first"]
    issuer.publish()
    assert (await refusal(identities, old)).reason == "TOKEN_INVALID"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"keys": []}', '{"keys": [{}]}', None])
async def test_a_broken_file_leaves_the_known_keys_in_force(
    issuer: Issuer, identities: JwtIdentities, content: str | None
) -> None:
    token = issuer.token("alice")
    assert identities.loaded()
    if content is None:
        issuer.file.unlink()
    else:
        issuer.file.write_text(content)
    assert (await identities.caller_of(token)).subject == "alice"


async def test_until_there_are_keys_nobody_is_refused_for_good(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    token = issuer.token("alice")
    issuer.file.unlink()
    assert not identities.loaded()
    with pytest.raises(errors.Unavailable) as caught:
        await identities.caller_of(token)
    assert caught.value.retry_after_s is not None
    issuer.publish()
    assert identities.loaded()
    assert (await identities.caller_of(token)).subject == "alice"


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, {"customer"}),
        ("customer", {"customer"}),
        ("customer internal", {"customer", "internal"}),
        ("", set()),
        ("customers", {"customers"}),
    ],
)
async def test_a_token_says_what_it_is_for(
    issuer: Issuer, identities: JwtIdentities, scope: str | None, scopes: set[str]
) -> None:
    token = issuer.token("alice", claims={"scope": scope})
    assert await identities.caller_of(token) == Caller("alice", frozenset(scopes))


@pytest.mark.parametrize("scope", [["customer"], 7, {"customer": True}])
async def test_a_scope_that_is_no_words_is_refused(
    issuer: Issuer, identities: JwtIdentities, scope: object
) -> None:
    assert "scope" in (await refusal(identities, issuer.token(claims={"scope": scope}))).message


async def test_a_token_from_the_future_is_refused(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=CLOCK_SKEW_S)
    assert (await identities.caller_of(issuer.token(claims={"iat": soon, "nbf": soon}))).subject
    late = soon + timedelta(minutes=1)
    for claim in ("iat", "nbf"):
        error = await refusal(identities, issuer.token(claims={claim: late}))
        assert error.reason == "TOKEN_INVALID"


async def test_a_token_that_is_too_long_is_not_looked_at(
    issuer: Issuer, identities: JwtIdentities
) -> None:
    token = issuer.token(claims={"more": "x" * LONGEST_TOKEN})
    assert str(LONGEST_TOKEN) in (await refusal(identities, token)).message
