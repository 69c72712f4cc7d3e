"""The provider that the settings name."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from pydantic import ValidationError

from mesh import postgres
from mesh.ids import uuid7_factory
from orchestrator.adapters.payments import SecretFileError, open_payments
from orchestrator.adapters.sandbox import SandboxPaymentProvider
from orchestrator.ports import Authorized
from orchestrator.settings import Settings
from tests.fakes.psp import API_KEY, WEBHOOK_SECRET, running_psp_sim
from tests.integration.stripe.conftest import CLOCK, MAX_PRICE


def settings(**changes: Any) -> Settings:  # noqa: ANN401  of many types
    required: dict[str, Any] = {
        "database_url": "postgresql://nowhere",
        "valkey_url": "redis://nowhere",
        "aggregator_target": "dns:///nowhere",
        "token_keyring_file": "keyring.json",
        "seller_credentials_file": "credentials.json",
        "jwks_file": "jwks.json",
        "jwt_issuer": "https://issuer.test",
        "jwt_audience": "bookmesh",
    }
    return Settings(**(required | changes))


@pytest.fixture
async def pool() -> asyncpg.Pool[asyncpg.Record]:
    """Give a pool that nobody uses."""
    return await postgres.open_pool("postgresql://nowhere", max_size=1, application_name="tests")


NEW_ID = uuid7_factory(CLOCK, Random(7))


async def test_is_the_sandbox_unless_said_otherwise(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    async with open_payments(settings(), pool, CLOCK, NEW_ID) as payments:
        assert isinstance(payments.provider, SandboxPaymentProvider)
        assert payments.verify_event is None


async def test_is_stripe_with_its_secrets_from_files(
    pool: asyncpg.Pool[asyncpg.Record], tmp_path: Path
) -> None:
    key, secret = tmp_path / "key", tmp_path / "secret"
    key.write_text(f"{API_KEY}\n")
    secret.write_text(f"{WEBHOOK_SECRET}\n")
    with running_psp_sim(tmp_path / "psp") as sim:
        told = settings(
            payment_provider="stripe",
            stripe_api_key_file=key,
            stripe_webhook_secret_file=secret,
            stripe_api_base=sim.url,
        )
        async with open_payments(told, pool, CLOCK, NEW_ID) as payments:
            assert payments.verify_event is not None
            assert not payments.provider.reusable_tokens
            outcome = await payments.provider.authorize(
                "k", "pm_card_visa", MAX_PRICE, "r", CLOCK.now()
            )
            assert isinstance(outcome, Authorized)


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", b"sk_a\nsk_b", b"\xff\xfe"])
async def test_says_which_secret_cannot_be_used(
    pool: asyncpg.Pool[asyncpg.Record], tmp_path: Path, content: bytes | None
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    told = settings(payment_provider="stripe", stripe_api_key_file=key)
    with pytest.raises(SecretFileError, match="BOOKMESH_STRIPE_API_KEY_FILE") as caught:
        async with open_payments(told, pool, CLOCK, NEW_ID):
            pass
    assert "sk_a" not in str(caught.value)


async def test_needs_a_key_for_stripe(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    with pytest.raises(SecretFileError, match="BOOKMESH_STRIPE_API_KEY_FILE must name"):
        async with open_payments(settings(payment_provider="stripe"), pool, CLOCK, NEW_ID):
            pass


@pytest.mark.parametrize(
    "changes", [{"payment_provider": "paypal"}, {"stripe_api_base": "api.stripe.com"}], ids=str
)
def test_takes_no_other_settings(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)
