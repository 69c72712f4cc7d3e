"""Settings: read from the environment once, at the start, into a frozen object."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
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

    tls_certificate_file: Path | None = None
    """The certificate by which this service is known inside the mesh, PEM, with those between it and the CA. It, its
    key and the roots are read again when they change; without all three, all is in plain text inside the mesh."""

    tls_key_file: Path | None = None
    """The private key to it, PEM, without a password."""

    tls_roots_file: Path | None = Field(default=None, validate_default=True)
    """The certificate of the mesh's CA, PEM; of the old and the new one while it is replaced."""

    @field_validator("tls_roots_file")
    @classmethod
    def _all_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        others = [info.data.get(name) for name in ("tls_certificate_file", "tls_key_file")]
        if len({file is None for file in (value, *others)}) > 1:
            msg = "set all or none of BOOKMESH_TLS_CERTIFICATE_FILE, BOOKMESH_TLS_KEY_FILE, BOOKMESH_TLS_ROOTS_FILE"
            raise ValueError(msg)
        return value


class TokenSettings(ServiceSettings):
    """What every service that verifies tokens is told, besides."""

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

    @field_validator("jwks_url")
    @classmethod
    def _one_source(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) == bool(info.data.get("jwks_file")):
            msg = "set either BOOKMESH_JWKS_FILE or BOOKMESH_JWKS_URL: tokens are verified with the keys there"
            raise ValueError(msg)
        return value


class SellerCallerSettings(ServiceSettings):
    """What every service that calls sellers is told, besides."""

    valkey_url: str
    """Valkey or Redis: ``redis://host:port``, ``rediss://`` with TLS, or ``unix://path``."""

    seller_credentials_file: Path
    """Secrets that sellers know us by: JSON ``{reference: secret}``; read again when it changes."""

    processes: int = Field(default=1, ge=1, le=1000)
    """How many processes of the mesh call sellers, aggregators and orchestrators together. The fifth of each seller's
    limit that needs no Valkey is split over so many."""

    process_index: int = Field(default=0, ge=0, le=999)
    """Which of them this is, from 0. No two that run may share one."""

    quiet_start: bool = False
    """Whether it is certain that no process with this index has called a seller in the last ``warm_up_s``. If not, this
    one leaves its share of the limits alone for so long."""

    warm_up_s: float = Field(default=65.0, ge=65, le=600)
    """For how long nothing is granted by what does not know the time before, in seconds: a minute and the longest
    call. All processes must agree on this."""

    send_within_s: float = Field(default=0.25, ge=0.01, le=0.5)
    """A call that was granted and is not sent in this time is not made, in seconds."""

    valkey_timeout_s: float = Field(default=0.25, ge=0.01, le=5)
    """How long admission waits for Valkey until it goes on with the share that needs none, in seconds."""

    local_share: float = Field(default=0.2, ge=0, le=1)
    """How much of each seller's limit needs no Valkey. All processes must agree on this and on what follows."""

    reserve_share: float = Field(default=0.2, ge=0, lt=1)
    """How much of the rest is for purchases alone, not for quotes."""

    calls_at_once: int = Field(default=16, ge=1, le=1000)
    """Most calls that one seller has under way."""

    breaker_failure_share: float = Field(default=0.5, gt=0, le=1)
    """Which share of failures in the last minute opens a seller's breaker, so that it is not called for a time."""

    breaker_calls: int = Field(default=10, ge=1, le=10_000)
    """The fewest calls in the last minute that open a breaker."""

    breaker_open_s: float = Field(default=30.0, ge=1, le=3600)
    """How long a breaker stays open until one call tries whether the seller works again, in seconds."""

    alarm_share: float = Field(default=0.3, gt=0, le=1)
    """Which share of sellers with open breakers is logged as an error."""

    seller_idle_s: float = Field(default=300.0, ge=1, le=86_400)
    """After how long without a call the connection to a seller is closed, in seconds."""

    seller_connects_per_s: int = Field(default=256, ge=1, le=100_000)
    """Most connections to sellers that are opened in any second."""

    seller_connections: int = Field(default=1000, ge=1, le=1_000_000)
    """Most connections to sellers that are kept open, besides those that have a call under way."""

    @field_validator("valkey_url")
    @classmethod
    def _valkey_at(cls, value: str) -> str:
        # A port that is none raises ValueError as well.
        with suppress(ValueError):
            url = urlsplit(value)
            where = url.path if url.scheme == "unix" else url.hostname
            if url.scheme in {"redis", "rediss", "unix"} and where and url.port != 0:
                return value
        msg = "must be redis://host:port, rediss://host:port or unix://path"
        raise ValueError(msg)

    @field_validator("process_index")
    @classmethod
    def _one_of_them(cls, value: int, info: ValidationInfo) -> int:
        processes = info.data.get("processes")
        if processes is not None and value >= processes:
            msg = f"must be below BOOKMESH_PROCESSES, which is {processes}"
            raise ValueError(msg)
        return value


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
