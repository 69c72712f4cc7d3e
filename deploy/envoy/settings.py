"""What the edge is told, by the environment or by whoever starts it."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_HERE = Path(__file__).parent


class EdgeSettings(BaseSettings):
    """Each field is the environment variable ``BOOKMESH_`` + its name in capitals, save where another one is named."""

    model_config = SettingsConfigDict(
        env_prefix="BOOKMESH_", frozen=True, extra="ignore", populate_by_name=True
    )

    edge_http_listen: str = Field(default="0.0.0.0:8080", pattern=r"^.+:\d+$")
    """Address of the REST API, ``host:port``."""

    edge_grpc_listen: str = Field(default="0.0.0.0:9090", pattern=r"^.+:\d+$")
    """Address of the gRPC API, ``host:port``."""

    edge_admin_listen: str = Field(default="127.0.0.1:9901", pattern=r"^.+:\d+$")
    """Address of Envoy's admin interface, ``host:port``. It can stop Envoy: never for the outside."""

    edge_jwks_listen: str = Field(default="127.0.0.1:9902", pattern=r"^.+:\d+$")
    """Address at which Envoy gives itself the keys in ``jwks_file``, ``host:port``. Not for the outside."""

    edge_gateways: str = Field(default="gateway:9000", pattern=r"^[^,]+:\d+(,[^,]+:\d+)*$")
    """The gateways, ``host:port``, separated by commas. Of a name, all addresses are used."""

    edge_descriptor_file: Path = _HERE.parents[1] / "gen" / "customer.binpb"
    """Descriptor set of bookmesh.customer.v1; ``make gen`` writes it."""

    edge_origins: str = Field(default="", pattern=r"^(https?://[^/,\s]+(,https?://[^/,\s]+)*)?$")
    """Whose pages may call the REST API from a browser, ``https://shop.example``, separated by commas (CORS). A page
    needs a token of its customer all the same."""

    edge_customer_rate: int = Field(default=100, ge=1, le=1_000_000)
    """How many requests a second a customer may send, in the long run."""

    edge_customer_burst: int = Field(default=300, ge=1, le=1_000_000)
    """How many requests a customer may send at once, after a pause."""

    edge_address_rate: int = Field(default=1000, ge=1, le=1_000_000)
    """How many requests a second may come from an address, good tokens or not, in the long run."""

    edge_address_burst: int = Field(default=3000, ge=1, le=1_000_000)
    """How many may come from it at once, after a pause."""

    edge_connections: int = Field(default=12_000, ge=1)
    """How many connections may be open; each takes a file descriptor (``ulimit -n``). More than streams, each of which
    may have a connection of its own: else those who watch leave no connection to others."""

    edge_streams: int = Field(default=10_000, ge=1)
    """How many streams, such as watches, may be open at a time."""

    edge_memory_mb: int = Field(default=1024, ge=64)
    """How much memory Envoy may use, in MiB. Above 85 % it resets the largest streams, above 95 % it
    refuses requests."""

    jwks_file: Path | None = None
    """The public keys with which tokens may be signed: a JSON Web Key Set. Read again when another is moved there."""

    jwks_url: str = Field(default="", pattern=r"^(https?://.+)?$", validate_default=True)
    """Where those keys are instead, ``https://issuer/jwks.json``."""

    jwks_refresh_s: float = Field(default=60.0, ge=1, le=86_400)
    """How long keys from there are used before they are fetched again, in seconds: so long before an issuer signs with
    a new key it has to publish it."""

    jwks_roots_file: Path = Path(ssl.get_default_verify_paths().openssl_cafile)
    """The CAs by which ``jwks_url`` is known, PEM; those of the system, where OpenSSL has them, if not set."""

    jwt_issuer: str = Field(min_length=1)
    """The ``iss`` that a token must have."""

    jwt_audience: str = Field(min_length=1)
    """The ``aud`` that a token must have."""

    otlp_endpoint: str = Field(
        default="",
        validation_alias=AliasChoices(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"
        ),
    )
    """OpenTelemetry's own ``OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT``, gRPC, ``http://host:port``; no spans without it."""

    trace_sampler: str = Field(
        default="parentbased_always_on",
        validation_alias=AliasChoices("OTEL_TRACES_SAMPLER", "trace_sampler"),
    )
    """OpenTelemetry's own ``OTEL_TRACES_SAMPLER``. Traces begin here, so this is where it decides."""

    trace_sampler_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        validation_alias=AliasChoices("OTEL_TRACES_SAMPLER_ARG", "trace_sampler_ratio"),
    )
    """OpenTelemetry's own ``OTEL_TRACES_SAMPLER_ARG``: the share of traces to keep, where the sampler has one."""

    tls_certificate_file: Path | None = None
    """The certificate by which gateways know the edge (``envoy.bookmesh.internal``), PEM; plain text without it."""

    tls_key_file: Path | None = None
    """The private key to it."""

    tls_roots_file: Path | None = None
    """The certificate of the mesh's CA."""

    edge_certificate_file: Path | None = None
    """The certificate that customers are shown, and what leads from it to a CA that they believe, PEM. Without it the
    REST and the gRPC API are plain text: for a local mesh, and behind something that ends TLS."""

    edge_key_file: Path | None = Field(default=None, validate_default=True)
    """The private key to it."""

    edge_secrets_dir: Path | None = Field(default=None, validate_default=True)
    """Where Envoy finds what ``python -m deploy.envoy secrets`` writes there: files that name these certificates and
    keys. By way of them, Envoy reads those again when others are moved to their places."""

    @field_validator("jwks_url")
    @classmethod
    def _one_source(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) == bool(info.data.get("jwks_file")):
            msg = "set either BOOKMESH_JWKS_FILE or BOOKMESH_JWKS_URL: tokens are verified with the keys there"
            raise ValueError(msg)
        return value

    @field_validator("edge_key_file")
    @classmethod
    def _both_or_neither(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("edge_certificate_file") is None):
            msg = "set both or neither of BOOKMESH_EDGE_CERTIFICATE_FILE and BOOKMESH_EDGE_KEY_FILE"
            raise ValueError(msg)
        return value

    @field_validator("edge_secrets_dir")
    @classmethod
    def _all_or_none(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        names = ("tls_certificate_file", "tls_key_file", "tls_roots_file")
        inside = {info.data.get(name) is None for name in names}
        if len(inside) > 1:
            msg = "set all or none of BOOKMESH_TLS_{CERTIFICATE,KEY,ROOTS}_FILE"
            raise ValueError(msg)
        needed = inside == {False} or info.data.get("edge_certificate_file") is not None
        if needed != (value is not None):
            msg = "set it where BOOKMESH_TLS_* or BOOKMESH_EDGE_CERTIFICATE_FILE are set, and only there"
            raise ValueError(msg)
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _plaintext(cls, value: str) -> str:
        if value and not value.startswith("http://"):
            msg = f"{value!r} must be http://host:port: Envoy sends spans to a collector nearby, without TLS"
            raise ValueError(msg)
        return value

    @property
    def trace_percent(self) -> float:
        """The share of new traces to record, in percent."""
        if not self.otlp_endpoint or self.trace_sampler.endswith("always_off"):
            return 0.0
        return 100.0 * (self.trace_sampler_ratio if self.trace_sampler.endswith("ratio") else 1.0)
