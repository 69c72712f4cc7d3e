"""What the orchestrator is told by its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from mesh.settings import SellerCallerSettings


class Settings(SellerCallerSettings):
    """Settings of an orchestrator."""

    database_url: SecretStr
    """PostgreSQL, ``postgresql://...``: a direct connection, because workers hold session locks."""

    aggregator_target: str
    """gRPC target of the aggregators."""

    token_keyring_file: Path
    """Keys for payment tokens at rest: JSON ``{"keys": [{"id": ..., "key": <base64 of 32 bytes>}]}``. The first
    encrypts, all decrypt. There is no default: without it the service does not start."""

    payment_provider: Literal["sandbox", "stripe"] = "sandbox"
    """Who moves the money: ``sandbox``, whose cards are not real, or ``stripe``."""

    stripe_api_key_file: Path | None = None
    """With ``stripe``: the file with the secret or restricted API key."""

    stripe_webhook_secret_file: Path | None = None
    """With ``stripe``: the file with the signing secret of the webhook endpoint; without it no events are taken."""

    stripe_api_base: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """With ``stripe``: where its API is, when it is not Stripe's own but a simulator (``python -m psp_sim``)."""

    worker_concurrency: int = Field(default=200, ge=1, le=10_000)
    """Purchases that this process works on at once."""

    lease_s: float = Field(default=15.0, ge=6, le=300)
    """How long a claim on a purchase holds without renewal, in seconds."""

    poll_s: float = Field(default=0.5, gt=0, le=5)
    """The longest that due work waits when no wake-up arrives, in seconds."""

    database_connections: int = Field(default=20, ge=2, le=200)
    """Connections to PostgreSQL, at most, besides the worker's own."""
