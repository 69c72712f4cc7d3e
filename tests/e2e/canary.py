"""Looks for secrets wherever a mesh writes: logs, telemetry, command lines, rows, Valkey, files on its disk."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from deploy.local.data import DataFolder
from deploy.local.mesh import LocalMesh
from tests.e2e.collector import Collector

TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


class Canary:
    """Secrets by name, each in the spellings in which it might be written down."""

    def __init__(self) -> None:
        self._spellings: dict[str, set[bytes]] = {}

    def add(self, name: str, *secrets: str | bytes) -> None:
        """Look for these too: as they are, in base64 and in hexadecimal."""
        for secret in secrets:
            plain = secret.encode() if isinstance(secret, str) else secret
            spellings = {plain, plain.hex().encode()}
            # The last letters depend on what follows.
            spellings.add(base64.b64encode(plain[: len(plain) // 3 * 3]))
            assert min(map(len, spellings)) >= 8, f"{name} is too short to look for"
            self._spellings.setdefault(name, set()).update(spellings)

    def add_those_of(self, data: DataFolder) -> None:
        """Look for all that a mesh has in its files of secrets."""
        credentials: dict[str, str] = json.loads(data.seller_credentials.read_text())
        self.add("sellers' credentials", *credentials.values())
        keys = json.loads(data.token_keyring.read_text())["keys"]
        self.add("keys of the keyring", *(base64.b64decode(key["key"]) for key in keys))
        for file in (data.issuer_key, *data.certificates.glob("*-key.pem")):
            lines = file.read_text().splitlines()[1:-1]
            self.add(f"private key {file.name}", *(line for line in lines if len(line) >= 8))

    def seen_in(self, text: bytes) -> set[str]:
        """Give the names of the secrets that are in a text."""
        return {
            name
            for name, spellings in self._spellings.items()
            if any(spelling in text for spelling in spellings)
        }


async def written(mesh: LocalMesh, collector: Collector | None = None) -> list[tuple[str, bytes]]:
    """Give all that was written, and where: the kind of place, and which one."""
    return [*_said(mesh, collector), *[kept async for kept in _kept(mesh)]]


def _said(mesh: LocalMesh, collector: Collector | None) -> Iterator[tuple[str, bytes]]:
    """Give what programs wrote, and what was said when they were started."""
    for file in mesh.data.log("any").parent.iterdir():
        yield f"log {file.name}", file.read_bytes()
    for name, pid in mesh.pids().items():
        yield f"command {name}", Path(f"/proc/{pid}/cmdline").read_bytes()
    if collector is not None:
        for message in collector.received:
            yield "telemetry", message
    # The write-ahead log has all that was ever in a row, however short.
    for folder in ("pg_wal", "base"):
        for _, content in _files(mesh.data.postgres, f"**/{folder}/**/*"):
            yield f"file {folder}", content
    for file, content in _files(mesh.data.sellers, "**/*"):
        if file != mesh.data.seller_credentials:
            yield f"seller {file.name}", content


def _files(folder: Path, pattern: str) -> Iterator[tuple[Path, bytes]]:
    for file in folder.glob(pattern):
        # Some are removed meanwhile.
        with suppress(FileNotFoundError):
            if file.is_file():
                yield file, file.read_bytes()


async def _kept(mesh: LocalMesh) -> AsyncIterator[tuple[str, bytes]]:
    """Give all rows of all tables, and all of Valkey."""
    connection = await asyncpg.connect(mesh.dsn)
    try:
        for (table,) in await connection.fetch(TABLES):
            rows = await connection.fetch(f"SELECT t::text FROM {table} t")
            yield f"rows {table}", "\n".join(row[0] for row in rows).encode()
    finally:
        await connection.close()
    valkey: Any = Redis.from_url(mesh.valkey_url)
    try:
        async for key in valkey.scan_iter(count=1000):
            yield "valkey", key + b" " + repr(await _value(valkey, key)).encode()
    finally:
        await valkey.aclose()


async def _value(valkey: Any, key: bytes) -> object:  # noqa: ANN401  redis types every answer as anything
    readers: Mapping[bytes, Any] = {
        b"string": lambda: valkey.get(key),
        b"hash": lambda: valkey.hgetall(key),
        b"list": lambda: valkey.lrange(key, 0, -1),
        b"set": lambda: valkey.smembers(key),
        b"zset": lambda: valkey.zrange(key, 0, -1, withscores=True),
        b"stream": lambda: valkey.xrange(key),
        # It has expired since.
        b"none": lambda: valkey.get(key),
    }
    value: object = await readers[await valkey.type(key)]()
    return value


def signature(token: str) -> str:
    """Give the part of a token that proves it."""
    return token.rpartition(".")[2]


def secret_bytes(webhook_secret: str) -> bytes:
    """Give what a webhook's secret stands for (Standard Webhooks)."""
    return base64.b64decode(re.sub("^whsec_", "", webhook_secret))
