"""How the services of a local mesh are run: as anywhere, told everything by their environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from deploy.local.certificates import connect
from deploy.local.child import Program
from deploy.local.data import DataFolder
from deploy.local.options import HOST
from deploy.local.probes import grpc_serves

_DRAIN_S = 5.0
_DRAIN_PAUSE_S = 0.3
_LEAVES_WITHIN_S = 3.0


def address(port: int) -> str:
    """Give ``host:port`` on this machine."""
    return f"{HOST}:{port}"


def target(ports: Sequence[int]) -> str:
    """Give the gRPC target of all replicas of a service."""
    return "ipv4:" + ",".join(address(port) for port in ports)


def certificate_name(module: str) -> str:
    """Give the name of a service in its certificate."""
    return module.replace("_", "")


def service(
    name: str,
    module: str,
    data: DataFolder,
    *,
    port: int,
    admin_port: int,
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    first_settings: Mapping[str, str] | None = None,
) -> Program:
    """Say how to run one replica of a service.

    Args:
        name: its name in the mesh (``gateway-1``).
        module: what to run (``python -m gateway``).
        data: where its log goes, and its certificates are.
        port: where it answers.
        admin_port: where it answers the operator.
        environment: what it inherits.
        settings: what this service is told beyond what every service is, without the prefix ``BOOKMESH_``.
        first_settings: what its very first start is told besides.

    """
    own_name = certificate_name(module)
    told = {
        "LISTEN": address(port),
        "ADMIN_LISTEN": address(admin_port),
        "DRAIN_S": str(_DRAIN_S),
        "DRAIN_PAUSE_S": str(_DRAIN_PAUSE_S),
        "TLS_CERTIFICATE_FILE": str(data.certificate(own_name)),
        "TLS_KEY_FILE": str(data.certificate_key(own_name)),
        "TLS_ROOTS_FILE": str(data.authority),
        **settings,
    }
    return Program(
        name=name,
        command=(sys.executable, "-m", module),
        environment={**environment, **_prefixed(told)},
        first_environment=_prefixed(first_settings or {}),
        log=data.log(name),
        address=address(port),
        check=lambda: grpc_serves(
            address(port),
            # Channels that share connections would also share the pause after one that failed.
            lambda: connect(
                data, address(port), own_name, options=(("grpc.use_local_subchannel_pool", 1),)
            ),
        ),
        stop_within_s=float(told["DRAIN_S"]) + float(told["DRAIN_PAUSE_S"]) + _LEAVES_WITHIN_S,
    )


def _prefixed(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"BOOKMESH_{key}": value for key, value in settings.items()}
