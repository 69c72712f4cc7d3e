"""Fills in ``envoy.yaml``."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from deploy.envoy.settings import EdgeSettings
from mesh import errors
from mesh.errors import MeshError
from mesh.grpc.errors import status_of

_HERE = Path(__file__).parent
_OTLP_PORT = 4317
_RATE_LIMITED = errors.ResourceExhausted(
    "too many requests at once: send fewer a second", reason="RATE_LIMITED", retry_after_s=1.0
)
"""What both listeners say when a rate is exceeded; tokens for the next second are there a second later."""


def render(settings: EdgeSettings) -> str:
    """Give the whole Envoy configuration, as YAML."""
    gateways = [_endpoint(_host_port(address)) for address in settings.edge_gateways.split(",")]
    collector = urlsplit(settings.otlp_endpoint)
    collectors = (
        [_endpoint((collector.hostname, collector.port or _OTLP_PORT))]
        if collector.hostname
        else []
    )
    values: dict[str, object] = {
        "admin_address": _address(_host_port(settings.edge_admin_listen)),
        "http_address": _address(_host_port(settings.edge_http_listen)),
        "grpc_address": _address(_host_port(settings.edge_grpc_listen)),
        "gateway_endpoints": gateways,
        "otlp_endpoints": collectors,
        "trace_percent": settings.trace_percent,
        "descriptor_file": str(settings.edge_descriptor_file.absolute()),
        "lua_file": str(_HERE / "rest.lua"),
        "customer_rate": settings.edge_customer_rate,
        "customer_burst": settings.edge_customer_burst,
        "address_rate": settings.edge_address_rate,
        "address_burst": settings.edge_address_burst,
        "connections": settings.edge_connections,
        "streams": settings.edge_streams,
        "memory_bytes": settings.edge_memory_mb * 2**20,
        "rate_limited_message": _RATE_LIMITED.message,
        "rate_limited_details": _details(_RATE_LIMITED),
        "jwks_file": str(settings.jwks_file.absolute()),
        "jwt_issuer": settings.jwt_issuer,
        "jwt_audience": settings.jwt_audience,
    }
    template = Template((_HERE / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def _details(error: MeshError) -> str:
    """Give the ``google.rpc.Status`` of an error as gRPC has it in metadata."""
    return base64.b64encode(status_of(error).SerializeToString()).decode()


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.strip().rpartition(":")
    return host.strip("[]"), int(port)


def _address(host_port: tuple[str, int]) -> dict[str, object]:
    host, port = host_port
    return {"address": host, "port_value": port}


def _endpoint(host_port: tuple[str, int]) -> dict[str, object]:
    return {"endpoint": {"address": {"socket_address": _address(host_port)}}}
