"""The payment provider that the settings name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from orchestrator.adapters.sandbox import SandboxPaymentProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import asyncpg

    from mesh.clock import Clock
    from mesh.ids import NewId
    from orchestrator.ports import PaymentProvider, ProviderEvent
    from orchestrator.settings import Settings


class SecretFileError(Exception):
    """A file with a secret that cannot be used; the message says which and why, without the secret."""


@dataclass(frozen=True, slots=True)
class Payments:
    """A payment provider.

    Attributes:
        provider: the way to it.
        verify_event: tells its events from others', by body and signature (``StripeWebhooks.verify_event``); None when
            it sends none.

    """

    provider: PaymentProvider
    verify_event: Callable[[bytes, str], ProviderEvent | None] | None = None


@asynccontextmanager
async def open_payments(
    settings: Settings, pool: asyncpg.Pool[asyncpg.Record], clock: Clock, new_id: NewId
) -> AsyncIterator[Payments]:
    """Give the provider for as long as the block runs.

    Raises:
        SecretFileError: when a secret that it needs cannot be read.

    """
    match settings.payment_provider:
        case "sandbox":
            yield Payments(SandboxPaymentProvider(pool, clock, new_id))
        case "stripe":
            from orchestrator.adapters.stripe import (  # noqa: PLC0415  its library takes 30 MB, which a sandbox does not need
                StripePaymentProvider,
            )
            from orchestrator.adapters.stripe.webhooks import (  # noqa: PLC0415  likewise
                StripeWebhooks,
            )

            key = _secret("BOOKMESH_STRIPE_API_KEY_FILE", settings.stripe_api_key_file)
            verify_event = None
            if settings.stripe_webhook_secret_file is not None:
                secret = _secret(
                    "BOOKMESH_STRIPE_WEBHOOK_SECRET_FILE", settings.stripe_webhook_secret_file
                )
                verify_event = StripeWebhooks(secret).verify_event
            async with StripePaymentProvider(
                key, clock, api_base=settings.stripe_api_base
            ) as provider:
                yield Payments(provider, verify_event)
        case _:
            assert_never(settings.payment_provider)


def _secret(variable: str, path: Path | None) -> str:
    if path is None:
        raise SecretFileError(f"{variable} must name the file with the secret")
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretFileError(
            f"{variable}: {path} cannot be read: {type(error).__name__}"
        ) from None
    if not (secret and secret.isascii() and secret.isprintable() and " " not in secret):
        raise SecretFileError(
            f"{variable}: {path} must have the secret on one line, and nothing else"
        )
    return secret
