"""Channels between services of the mesh."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from mesh.grpc import tls

if TYPE_CHECKING:
    from collections.abc import Collection

    from mesh.grpc.tls import Certificates, Material

# Without this grpc does not know `requestHashHeader` (gRFC A76). It looks when the first channel is made.
os.environ.setdefault("GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY", "true")  # noqa: TID251  set, not read


def open_channel(
    target: str,
    service: str,
    *,
    certificates: Certificates | None = None,
    retried: Collection[str] = (),
    routed_by: str | None = None,
) -> grpc.aio.Channel:
    """Open a channel to all replicas of a service; the caller closes it.

    Calls go to the replicas that their own health service calls SERVING for ``service`` (full name): round them, or
    those with the same value of the metadata ``routed_by`` to the same one (grpc's ring hash). UNAVAILABLE
    is retried on another replica, up to three tries, for the methods in ``retried`` alone: those that are safe to
    repeat. Retries of a channel as a whole are throttled to a tenth of its calls (gRFC A6).

    Args:
        target: a gRPC target, ``dns:///orchestrator:9000`` or ``ipv4:127.0.0.1:7001,127.0.0.1:7002``.
        service: the full name of the gRPC service; ``tls.server_name`` says who has to answer it.
        certificates: what to show and whom to believe; plain text without them.
        retried: names of methods of that service.
        routed_by: name of a metadata key.

    """
    method_config: list[dict[str, Any]] = []
    if retried:
        method_config.append(
            {
                "name": [{"service": service, "method": method} for method in retried],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        )
    service_config = {
        "loadBalancingConfig": [
            {"ring_hash_experimental": {"requestHashHeader": routed_by}}
            if routed_by
            else {"round_robin": {}}
        ],
        "healthCheckConfig": {"serviceName": service},
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        "methodConfig": method_config,
    }
    options = [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.keepalive_time_ms", 20_000),
        # One that is late may only be busy, and with its connection all calls and streams over it would be lost.
        ("grpc.keepalive_timeout_ms", 15_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # What a connection may take to be made, TLS included; one that is refused is tried again sooner.
        ("grpc.min_reconnect_backoff_ms", 3_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.primary_user_agent", "bookmesh"),
    ]
    if certificates is None:
        return grpc.aio.insecure_channel(
            target, options=options, interceptors=aio_client_interceptors()
        )

    def connect(material: Material) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            target,
            tls.channel_credentials(material),
            options=[*options, *tls.named(tls.server_name(service))],
            interceptors=aio_client_interceptors(),
        )

    return tls.RenewedChannel(certificates, connect)
