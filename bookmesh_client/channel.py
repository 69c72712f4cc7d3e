"""How Bookmesh is reached."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import grpc

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORTS = {"http": 80, "https": 443}

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            # All that is called here is safe to repeat: what creates a purchase carries an idempotency key.
            "name": [
                {"service": "bookmesh.customer.v1.PurchaseService"},
                {"service": "bookmesh.customer.v1.QuoteService"},
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None, server_name: str
) -> grpc.aio.Channel:
    """Open a channel to an address; the caller closes it.

    Raises:
        ValueError: if the address is none.

    """
    scheme, _, rest = address.rpartition("://")
    url = urlsplit(f"//{rest}")
    if scheme not in {"", "http", "https"} or not url.hostname or url.path not in {"", "/"}:
        raise ValueError(
            f"{address!r} is no address: it needs host:port, http://host:port or https://host[:port]"
        )
    if not scheme:
        scheme = "http" if url.hostname in _LOOPBACK and credentials is None else "https"
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    target = f"{host}:{url.port or _PORTS[scheme]}"
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # What a connection may take to be made, TLS included; one that is refused is tried again sooner.
        ("grpc.min_reconnect_backoff_ms", 3_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.primary_user_agent", "bookmesh-client"),
    ]
    if url.hostname in _LOOPBACK:
        options.append(("grpc.enable_http_proxy", 0))
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if scheme == "http":
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(
        target, credentials or grpc.ssl_channel_credentials(), options=options
    )
