"""Fills in ``envoy.yaml``."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from deploy.envoy import replies
from deploy.envoy.settings import EdgeSettings
from mesh.grpc import tls

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_SWAGGER_UI = _ROOT / "third_party" / "swagger-ui"
_PAGE_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    # Swagger UI sets styles of elements, and has icons in its stylesheet.
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_OTLP_PORT = 4317
_CERTIFICATE, _ROOTS, _CUSTOMERS = "certificate", "roots", "customers"
_A_YEAR_S = 31_536_000
_JWKS_FILE_S = 1
_PREFLIGHT_S = 600
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_SOCKETS = "type.googleapis.com/envoy.extensions.transport_sockets"
_PLAIN: dict[str, object] = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {"@type": f"{_SOCKETS}.raw_buffer.v3.RawBuffer"},
}


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
        "token_missing": replies.JWT_IS_MISSING,
        "token_expired": replies.JWT_IS_EXPIRED,
        "scope_missing": replies.SCOPE_IS_MISSING,
        "cross_origin": _cross_origin(settings),
        "preflight": _preflight(settings),
        "grpc_replies": replies.over_grpc(),
        "jwks": _jwks(settings),
        "jwks_address": _address(_host_port(settings.edge_jwks_listen)),
        "jwks_body": _jwks_body(settings),
        "jwks_cluster": _jwks_cluster(settings),
        "gateway_transport": _gateway_transport(settings),
        # Browsers and other programs choose their HTTP over REST; gRPC has one.
        "rest_transport": _customer_transport(settings, "h2", "http/1.1"),
        "grpc_transport": _customer_transport(settings, "h2"),
        "response_headers": _response_headers(settings),
        "page_html": str(_HERE / "page" / "index.html"),
        "page_script": str(_HERE / "page" / "page.js"),
        "page_policy": "; ".join(_PAGE_POLICY),
        "swagger_ui_script": str(_SWAGGER_UI / "swagger-ui-bundle.js"),
        "swagger_ui_style": str(_SWAGGER_UI / "swagger-ui.css"),
        "openapi_file": str(_ROOT / "docs" / "openapi.yaml"),
        "jwt_issuer": settings.jwt_issuer,
        "jwt_audience": settings.jwt_audience,
    }
    template = Template((_HERE / "envoy.yaml").read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def render_secrets(settings: EdgeSettings) -> dict[str, str]:
    """Give the files of ``edge_secrets_dir``: name and content, YAML. They say where the certificates are."""
    secrets: dict[str, dict[str, object]] = {}
    if settings.tls_certificate_file and settings.tls_key_file and settings.tls_roots_file:
        roots = settings.tls_roots_file.absolute()
        secrets[_CERTIFICATE] = _shown(settings.tls_certificate_file, settings.tls_key_file)
        secrets[_ROOTS] = {
            "validation_context": {
                "trusted_ca": {"filename": str(roots)},
                "watched_directory": {"path": str(roots.parent)},
            }
        }
    if settings.edge_certificate_file and settings.edge_key_file:
        secrets[_CUSTOMERS] = _shown(settings.edge_certificate_file, settings.edge_key_file)
    return {
        f"{name}.yaml": json.dumps(
            {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **secret}]}
        )
        for name, secret in secrets.items()
    }


def _shown(certificate: Path, key: Path) -> dict[str, object]:
    return {
        "tls_certificate": {
            "certificate_chain": {"filename": str(certificate.absolute())},
            "private_key": {"filename": str(key.absolute())},
            "watched_directory": {"path": str(certificate.absolute().parent)},
        }
    }


def _secret(folder: Path, name: str) -> dict[str, object]:
    source = {"path_config_source": {"path": str(folder.absolute() / f"{name}.yaml")}}
    return {"name": name, "sds_config": {**source, "resource_api_version": "V3"}}


def _customer_transport(settings: EdgeSettings, *alpn: str) -> dict[str, object]:
    if settings.edge_certificate_file is None or settings.edge_secrets_dir is None:
        return _PLAIN
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": alpn,
                # What customers' programs can; of 1.2 Envoy takes only forward secret, authenticated ciphers.
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificate_sds_secret_configs": [
                    _secret(settings.edge_secrets_dir, _CUSTOMERS)
                ],
            },
        },
    }


def _response_headers(settings: EdgeSettings) -> list[dict[str, object]]:
    """Say what browsers are told with every answer, where nothing else is said."""
    headers = {
        # Purchases are nobody else's: no cache keeps them.
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    if settings.edge_certificate_file is not None:
        headers["strict-transport-security"] = f"max-age={_A_YEAR_S}"
    return [
        {"append": {"header": {"key": key, "value": value}, "append_action": "ADD_IF_ABSENT"}}
        for key, value in headers.items()
    ]


def _preflight(settings: EdgeSettings) -> dict[str, object]:
    """Choose a browser's question whether a page of these origins may call."""
    if not settings.edge_origins:
        return {"path": "nothing"}
    origins = "|".join(re.escape(origin) for origin in settings.edge_origins.split(","))
    return {
        "prefix": "/",
        "headers": [
            {"name": ":method", "string_match": {"exact": "OPTIONS"}},
            {"name": "access-control-request-method", "present_match": True},
            {"name": "origin", "string_match": {"safe_regex": {"regex": origins}}},
        ],
    }


def _cross_origin(settings: EdgeSettings) -> dict[str, object]:
    """Give what the filter cors is told: for nobody's pages, nothing."""
    if not settings.edge_origins:
        return {}
    policy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [
            {"exact": origin} for origin in settings.edge_origins.split(",")
        ],
        "allow_methods": "GET, POST, PUT, DELETE",
        "allow_headers": "authorization, content-type, idempotency-key, last-event-id, traceparent",
        "expose_headers": "allow, location, retry-after",
        "max_age": str(_PREFLIGHT_S),
    }
    return {"envoy.filters.http.cors": policy}


def _gateway_transport(settings: EdgeSettings) -> dict[str, object]:
    if settings.tls_certificate_file is None or settings.edge_secrets_dir is None:
        return _PLAIN
    folder = settings.edge_secrets_dir
    gateway = "gateway" + tls.DOMAIN
    name = {"san_type": "DNS", "matcher": {"exact": gateway}}
    return _tls(
        gateway,
        alpn="h2",
        # The gateways take nothing less.
        tls_params={
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        tls_certificate_sds_secret_configs=[_secret(folder, _CERTIFICATE)],
        combined_validation_context={
            "default_validation_context": {"match_typed_subject_alt_names": [name]},
            "validation_context_sds_secret_config": _secret(folder, _ROOTS),
        },
    )


def _jwks(settings: EdgeSettings) -> dict[str, object]:
    """Say where the keys for tokens are fetched. Those in a file: from the listener ``jwks``, which has the file.

    Envoy reads a file that is named in the filter only once.
    """
    return {
        "http_uri": {
            "uri": settings.jwks_url or "http://jwks/",
            "cluster": "jwks",
            "timeout": "5s",
        },
        "cache_duration": f"{settings.jwks_refresh_s if settings.jwks_url else _JWKS_FILE_S}s",
        # The keys that are known stay in force until they could be fetched again. At the start there are none: that
        # listener does not listen yet.
        "async_fetch": {"failed_refetch_duration": "5s" if settings.jwks_url else "1s"},
    }


def _jwks_body(settings: EdgeSettings) -> dict[str, object]:
    if settings.jwks_file is None:
        return {"inline_string": "{}"}
    file = settings.jwks_file.absolute()
    return {"filename": str(file), "watched_directory": {"path": str(file.parent)}}


def _jwks_cluster(settings: EdgeSettings) -> dict[str, object]:
    common: dict[str, object] = {"name": "jwks", "connect_timeout": "2s"}
    if settings.jwks_file is not None:
        load: dict[str, object] = {"type": "STATIC", "transport_socket": _PLAIN}
        endpoint = _endpoint(_host_port(settings.edge_jwks_listen))
    else:
        url = urlsplit(settings.jwks_url)
        host, secure = url.hostname or "", url.scheme == "https"
        roots = {"trusted_ca": {"filename": str(settings.jwks_roots_file.absolute())}}
        name = {"san_type": "IP_ADDRESS" if _is_ip(host) else "DNS", "matcher": {"exact": host}}
        context = {**roots, "match_typed_subject_alt_names": [name]}
        socket = _tls(host, alpn="http/1.1", validation_context=context) if secure else _PLAIN
        load = {
            # One host with several addresses, tried one after the other: not several hosts in turn.
            "type": "LOGICAL_DNS",
            "dns_lookup_family": "ALL",
            "transport_socket": socket,
        }
        endpoint = _endpoint((host, url.port or (443 if secure else 80)))
    assignment = {"cluster_name": "jwks", "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {**common, **load, "load_assignment": assignment}


def _tls(name: str, *, alpn: str, **context: object) -> dict[str, object]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.UpstreamTlsContext",
            **({} if _is_ip(name) else {"sni": name}),
            "common_tls_context": {"alpn_protocols": [alpn], **context},
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.strip().rpartition(":")
    return host.strip("[]"), int(port)


def _address(host_port: tuple[str, int]) -> dict[str, object]:
    host, port = host_port
    return {"address": host, "port_value": port}


def _endpoint(host_port: tuple[str, int]) -> dict[str, object]:
    return {"endpoint": {"address": {"socket_address": _address(host_port)}}}
