"""The public keys with which tokens may be signed: a JSON Web Key Set (RFC 7517), from a file or from an address.

Both leave the keys that are known in force while the set cannot be read, and say so in the log.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import httpx
import jwt
import structlog

from mesh.clock import Clock
from mesh.settings import TokenSettings

ALGORITHMS = ("ES256", "RS256")
"""How a token may be signed (RFC 7518)."""

LOOK_AGAIN_S = 10.0
"""How often a token with an unknown key may make us ask the address again, at most; in seconds."""

_RETRY_S = 5.0
_TIMEOUT_S = 5.0
_LARGEST = 256 * 1024

_log = structlog.get_logger(__name__)


class Keys(Protocol):
    """What is known of the issuer's keys."""

    def known(self) -> Sequence[jwt.PyJWK]:
        """Give the keys that are in force; none before they could be read for the first time."""
        ...

    async def look_again(self) -> None:
        """Bring them up to date, because a token names one that is not known; does nothing if asked too often."""
        ...


class FileKeys:
    """The keys in a file, which is read again when it has changed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys: list[jwt.PyJWK] = []
        # No file has this one; None stands for a file that is not there.
        self._version: tuple[int, int, int] | None = (0, 0, 0)

    def known(self) -> Sequence[jwt.PyJWK]:
        try:
            stat = self._file.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            version = None
        if version != self._version:
            self._version = version
            try:
                self._keys = _usable(self._file.read_bytes())
            except (OSError, ValueError) as error:
                _unreadable(str(self._file), error)
            else:
                _say_read(str(self._file), self._keys)
        return self._keys

    async def look_again(self) -> None:
        """Do nothing: ``known`` has looked already."""


class AddressKeys:
    """The keys at an address: fetched every ``refresh_s`` seconds by ``follow``, and when a token names an unknown one.

    Of those who ask to look again, all wait for the same answer, and none makes us ask within ``LOOK_AGAIN_S`` of the
    last time.
    """

    def __init__(
        self, url: str, client: httpx.AsyncClient, clock: Clock, *, refresh_s: float
    ) -> None:
        self._url = url
        self._client = client
        self._clock = clock
        self._refresh_s = refresh_s
        self._keys: list[jwt.PyJWK] = []
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None

    def known(self) -> Sequence[jwt.PyJWK]:
        return self._keys

    async def look_again(self) -> None:
        async with self._asking:
            if self._asked_at is None or self._clock.monotonic() - self._asked_at >= LOOK_AGAIN_S:
                await self._fetch()

    async def follow(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            async with self._asking:
                fresh = await self._fetch()
            await self._clock.sleep(self._refresh_s if fresh else _RETRY_S)

    async def _fetch(self) -> bool:
        self._asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                keys = _usable(await self._body())
        except (httpx.HTTPError, OSError, ValueError) as error:
            _unreadable(self._url, error)
            return False
        if [key.key_id for key in keys] != [key.key_id for key in self._keys]:
            _say_read(self._url, keys)
        self._keys = keys
        return True

    async def _body(self) -> bytes:
        body = b""
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                msg = f"the answer is {response.status_code}, not 200"
                raise ValueError(msg)
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _LARGEST:
                    msg = f"the answer is larger than {_LARGEST} bytes"
                    raise ValueError(msg)
        return body


@asynccontextmanager
async def open_keys(settings: TokenSettings, clock: Clock) -> AsyncIterator[Keys]:
    """Give the keys that the settings name, kept up to date until the block ends."""
    if settings.jwks_file is not None:
        yield FileKeys(settings.jwks_file)
        return
    roots = ssl.create_default_context(cafile=settings.jwks_roots_file)
    async with (
        httpx.AsyncClient(verify=roots, timeout=_TIMEOUT_S) as client,
        asyncio.TaskGroup() as tasks,
    ):
        keys = AddressKeys(settings.jwks_url, client, clock, refresh_s=settings.jwks_refresh_s)
        following = tasks.create_task(keys.follow())
        yield keys
        following.cancel()


def _usable(content: bytes) -> list[jwt.PyJWK]:
    try:
        known = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    except (AttributeError, TypeError, jwt.PyJWTError) as error:
        raise ValueError(str(error)) from None
    keys = [
        key
        for key in known
        if key.algorithm_name in ALGORITHMS and key.public_key_use in {None, "sig"}
    ]
    if not keys:
        msg = "there is no key in it that could be used"
        raise ValueError(msg)
    return keys


def _say_read(source: str, keys: Sequence[jwt.PyJWK]) -> None:
    _log.info("keys read", source=source, keys=[key.key_id for key in keys])


def _unreadable(source: str, error: Exception) -> None:
    _log.error(
        "the keys for tokens cannot be read: it must be a JSON Web Key Set with an ES256 or RS256 key",
        source=source,
        error=str(error) or type(error).__name__,
    )
