"""What the orchestrator is told by its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from mesh.settings import SellerCallerSettings, TokenSettings


class Settings(SellerCallerSettings, TokenSettings):
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

    quote_policy: Literal["best_price", "balanced", "fast"] = "balanced"
    """How much waiting a lower price is worth once there is an affordable one: ``balanced``, 0.2 % of the price for
    each second; ``fast``, 5 %; ``best_price``, any: every seller is waited for as long as there is time."""

    worker_concurrency: int = Field(default=200, ge=1, le=10_000)
    """Purchases that this process works on at once."""

    lease_s: float = Field(default=15.0, ge=6, le=300)
    """How long a claim on a purchase holds without renewal, in seconds."""

    poll_s: float = Field(default=0.5, gt=0, le=5)
    """The longest that due work waits when no wake-up arrives, in seconds."""

    database_connections: int = Field(default=20, ge=2, le=200)
    """Connections to PostgreSQL, at most, besides the worker's own."""

    reconcile_every_s: float = Field(default=900.0, ge=0, le=86_400)
    """How often the fleet compares its books with the provider's and the sellers' by itself, in seconds; 0 for never:
    then only when somebody asks for it."""

    webhook_concurrency: int = Field(default=64, ge=1, le=1000)
    """Webhooks and e-mails under way at once to receivers that answer, at most; a quarter of that comes on top for
    those that do not."""

    webhook_loopback: bool = False
    """Whether webhooks may go to addresses of this machine, and there over http: for a mesh on one machine alone."""

    webhook_ca_file: Path | None = None
    """Certificate authorities (PEM) that receivers of webhooks may have besides the usual ones."""

    delivery_days: int = Field(default=30, ge=4, le=3650)
    """How long the log of webhooks and e-mails is kept, in days."""

    smtp_host: str = ""
    """The mail server that takes e-mail to customers; none is sent without one."""

    smtp_port: int = Field(default=587, ge=1, le=65535)
    """Its port."""

    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection to it is encrypted: after STARTTLS, which it must have, from the first byte, or not at all."""

    smtp_user: str = ""
    """Whom to log in as; no login without one."""

    smtp_password: SecretStr | None = Field(default=None, validate_default=True)
    """With ``smtp_user``."""

    smtp_from: str = Field(default="", pattern=r"^([^@\s]+@[^@\s]+)?$", validate_default=True)
    """The address that e-mail is from. Required with ``smtp_host``."""

    @field_validator("smtp_from")
    @classmethod
    def _has_sender(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("smtp_host") and not value:
            raise ValueError("must be set with BOOKMESH_SMTP_HOST")
        return value

    @field_validator("smtp_password")
    @classmethod
    def _is_kept_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("smtp_user") and value is None:
            raise ValueError("must be set with BOOKMESH_SMTP_USER")
        if value is not None and info.data.get("smtp_security") == "none":
            raise ValueError(
                "is not sent in the clear: set BOOKMESH_SMTP_SECURITY to starttls or tls"
            )
        return value
