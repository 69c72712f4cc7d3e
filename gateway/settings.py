"""What the gateway is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from mesh.money import MoneyError, decimals_of
from mesh.settings import ServiceSettings


class Settings(ServiceSettings):
    """The gateway's settings, from the environment."""

    drain_s: float = Field(default=30.0, ge=0, le=600)
    """How long calls under way may take after SIGTERM, in seconds: longer than a purchase, so that who watches one sees
    its end."""

    drain_pause_s: float = Field(default=1.5, ge=0, le=60)
    """How long to go on serving as NOT_SERVING after SIGTERM, in seconds: longer than Envoy takes to ask again."""

    orchestrator_target: str = Field(min_length=1)
    """gRPC target of all orchestrators, ``dns:///orchestrator:9000``."""

    aggregator_target: str = Field(min_length=1)
    """gRPC target of all aggregators, ``dns:///aggregator:9000``."""

    jwks_file: Path | None = None
    """The public keys with which tokens may be signed: a JSON Web Key Set. Read again when it changes."""

    jwks_url: str = Field(default="", pattern=r"^(https?://.+)?$", validate_default=True)
    """Where those keys are instead, ``https://issuer/jwks.json``. Fetched anew every ``jwks_refresh_s`` seconds, and
    when a token names a key that is not known. If it does not answer, the last keys stay in force."""

    jwks_refresh_s: float = Field(default=60.0, ge=1, le=86_400)
    """How often to fetch the keys, in seconds: how long one that the issuer has withdrawn may still be taken."""

    jwks_roots_file: Path | None = None
    """The CAs by which ``jwks_url`` is known, PEM; those of the system if not set."""

    jwt_issuer: str = Field(min_length=1)
    """The ``iss`` that a token must have."""

    jwt_audience: str = Field(min_length=1)
    """The ``aud`` that a token must have."""

    default_currency: str = "USD"
    """The currency of requests that name none, ISO 4217."""

    customer_calls: int = Field(default=50, ge=1)
    """How many calls a customer may have open at this gateway at a time."""

    customer_streams: int = Field(default=100, ge=1)
    """How many streams, watches and comparisons of prices, a customer may have open at this gateway at a time."""

    streams: int = Field(default=10_000, ge=1)
    """How many streams all customers together may have open at this gateway: what bounds its memory."""

    @field_validator("jwks_url")
    @classmethod
    def _one_source(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) == bool(info.data.get("jwks_file")):
            msg = "set either BOOKMESH_JWKS_FILE or BOOKMESH_JWKS_URL: tokens are verified with the keys there"
            raise ValueError(msg)
        return value

    @field_validator("default_currency")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            decimals_of(value)
        except MoneyError as error:
            raise ValueError(str(error)) from None
        return value
