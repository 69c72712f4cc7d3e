"""The folder in which a local mesh keeps everything, and the lock that gives it to one mesh at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.problem import MeshProblem

CUSTOMERS = "customers"
"""Whom the certificate of this name is shown to; it is there while the mesh speaks TLS with them."""


class DataFolder:
    """Where things are in a data folder. Making one touches nothing; ``prepare`` makes the folders.

    Attributes:
        root: the folder, as it was given; the paths below it are absolute.

    """

    def __init__(self, root: Path) -> None:
        self.root = root
        base = root.absolute()
        self.base = base
        self.postgres = base / "postgres"
        self.valkey = base / "valkey"
        self.sellers = base / "sellers"
        self.seller_credentials = self.sellers / "credentials.json"
        self.keys = base / "keys"
        self.issuer_key = self.keys / "issuer.pem"
        self.jwks = self.keys / "jwks.json"
        self.token_keyring = self.keys / "payment-token-keyring.json"
        self.certificates = base / "certificates"
        self.authority = self.certificates / "ca.pem"
        self.authority_key = self.certificates / "ca-key.pem"
        self.envoy_config = base / "envoy" / "envoy.yaml"
        self.envoy_secrets = base / "envoy"
        self.ports = base / "ports.json"
        self.last_run = base / "last-run"
        self._logs = base / "logs"

    def certificate(self, name: str) -> Path:
        """Give the certificate of a part of the mesh."""
        return self.certificates / f"{name}.pem"

    def certificate_key(self, name: str) -> Path:
        """Give the key to it."""
        return self.certificates / f"{name}-key.pem"

    def log(self, name: str) -> Path:
        """Give the log file of a child."""
        return self._logs / f"{name}.log"

    def turn_logs(self) -> None:
        """Begin new log files; the last ones stay as ``….log.1``."""
        for log in self._logs.glob("*.log"):
            log.replace(log.with_name(f"{log.name}.1"))

    def prepare(self) -> None:
        """Make the folders that are missing."""
        for folder in (
            self.base,
            self.valkey,
            self.sellers,
            self.envoy_config.parent,
            self._logs,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        for secret in (self.keys, self.certificates):
            secret.mkdir(mode=0o700, exist_ok=True)

    def owner(self) -> int:
        """Give the process whose mesh runs on this folder.

        Raises:
            MeshProblem: if none does.

        """
        with contextlib.suppress(FileNotFoundError), (self.base / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
        msg = (
            f"no mesh runs on {self.root}: start one with `make up`, or name its folder with --data"
        )
        raise MeshProblem(msg)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. The lock ends with the process, however that ends.

        Raises:
            MeshProblem: if another mesh runs on it.

        """
        with (self.base / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                msg = (
                    f"another mesh (process {owner}) runs on {self.root}: stop it, or start this one on another "
                    "folder and other ports, for example make up DATA=.local2 HTTP_PORT=8081 GRPC_PORT=9091"
                )
                raise MeshProblem(msg) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
