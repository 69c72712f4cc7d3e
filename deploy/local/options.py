"""What a local mesh is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
"""Everything of a local mesh listens here only: it knows no passwords between its parts."""


def inherited_environment() -> dict[str, str]:
    """Give this process's environment, without what would steer PostgreSQL's programs and clients elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """How to run a local mesh.

    Attributes:
        data: folder of all that the mesh keeps; a mesh started again on it goes on from there.
        http_port: port of the REST API; 0 for any free one.
        grpc_port: port of the gRPC API; 0 for any free one.
        sellers: how many simulated sellers there are.
        scenario: how they behave (seller_sim/scenarios); the demo's when None.
        tls: whether customers have to speak TLS, which shows them a certificate of the mesh's own CA.
        replicas: how many of each of gateway, orchestrator and aggregator.
        environment: what the services inherit; their addresses and files are added to it.

    """

    data: Path = Path(".local")
    http_port: int = 8080
    grpc_port: int = 9090
    sellers: int = 50
    scenario: Path | None = None
    tls: bool = False
    replicas: int = 2
    environment: Mapping[str, str] = field(default_factory=inherited_environment)
