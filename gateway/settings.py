"""What the gateway is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from mesh.money import MoneyError, decimals_of
from mesh.settings import ServiceSettings


class Settings(ServiceSettings):
    """The gateway's settings, from the environment."""

    orchestrator_target: str = Field(min_length=1)
    """gRPC target of all orchestrators, ``dns:///orchestrator:9000``."""

    jwks_file: Path
    """The public keys with which customers' tokens may be signed: a JSON Web Key Set. Read again when it changes."""

    jwt_issuer: str = Field(min_length=1)
    """The ``iss`` that a token must have."""

    jwt_audience: str = Field(min_length=1)
    """The ``aud`` that a token must have."""

    default_currency: str = "USD"
    """The currency of requests that name none, ISO 4217."""

    @field_validator("default_currency")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            decimals_of(value)
        except MoneyError as error:
            raise ValueError(str(error)) from None
        return value
