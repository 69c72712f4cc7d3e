"""Settings: read from the environment once, at the start, into a frozen object."""

from __future__ import annotations

import sys
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What every service is told. Each field is the environment variable ``BOOKMESH_`` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="BOOKMESH_", frozen=True, extra="ignore")

    listen: str = Field(default="127.0.0.1:0", pattern=r"^.+:\d+$")
    """Address on which the service answers, ``host:port``; port 0 lets the system choose."""

    admin_listen: str = Field(default="127.0.0.1:0", pattern=r"^.+:\d+$")
    """Address of health, reflection and channelz, ``host:port``. Not for the outside."""

    drain_s: float = Field(default=10.0, ge=0, le=600)
    """How long calls under way may take after SIGTERM, in seconds."""

    drain_pause_s: float = Field(default=0.5, ge=0, le=60)
    """How long to go on serving as NOT_SERVING after SIGTERM, until callers have noticed, in seconds."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """The least level that is logged."""


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(kind: type[SettingsT]) -> SettingsT:
    """Read the settings from the environment.

    Raises:
        SystemExit: with status 2, after one line for each variable that is missing or wrong.

    """
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        for problem in error.errors(include_url=False, include_input=False):
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"{name}: {problem['msg']}", file=sys.stderr)  # noqa: T201  logging is not set up yet
        raise SystemExit(2) from None
