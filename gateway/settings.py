"""What the gateway is told."""

from __future__ import annotations

from pydantic import Field, field_validator

from mesh.money import MoneyError, decimals_of
from mesh.settings import TokenSettings


class Settings(TokenSettings):
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

    default_currency: str = "USD"
    """The currency of requests that name none, ISO 4217."""

    customer_calls: int = Field(default=50, ge=1)
    """How many calls a customer may have open at this gateway at a time."""

    customer_streams: int = Field(default=100, ge=1)
    """How many streams, watches and comparisons of prices, a customer may have open at this gateway at a time."""

    streams: int = Field(default=10_000, ge=1)
    """How many streams all customers together may have open at this gateway: what bounds its memory."""

    @field_validator("default_currency")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            decimals_of(value)
        except MoneyError as error:
            raise ValueError(str(error)) from None
        return value
