"""What the orchestrator is told by its environment."""

from __future__ import annotations

from pathlib import Path

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

    worker_concurrency: int = Field(default=200, ge=1, le=10_000)
    """Purchases that this process works on at once."""

    lease_s: float = Field(default=15.0, ge=6, le=300)
    """How long a claim on a purchase holds without renewal, in seconds."""

    poll_s: float = Field(default=0.5, gt=0, le=5)
    """The longest that due work waits when no wake-up arrives, in seconds."""

    database_connections: int = Field(default=20, ge=2, le=200)
    """Connections to PostgreSQL, at most, besides the worker's own."""
