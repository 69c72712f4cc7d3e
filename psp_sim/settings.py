"""Settings of the simulated payment provider."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the simulator is told. Each field is the environment variable ``BOOKMESH_`` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="BOOKMESH_", frozen=True, extra="ignore")

    listen: str = Field(default="127.0.0.1:0", pattern=r"^.+:\d+$")
    """Address of the API, ``host:port``; port 0 lets the system choose. The one chosen is printed."""

    data_dir: Path
    """Folder of the ledger; made if there is none. One process each."""

    psp_api_key: SecretStr = SecretStr("sk_test_simulated")
    """The bearer key that callers have to show."""

    psp_webhook_url: str | None = None
    """Where events are sent; nowhere unless set."""

    psp_webhook_secret: SecretStr = SecretStr("whsec_simulated")
    """What events are signed with."""

    psp_webhook_copies: int = Field(default=1, ge=1, le=10)
    """How often each event is delivered: Stripe's may arrive more than once."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """The least level that is logged."""
