"""The secrets that we show to sellers, from a file that operators may change at any time."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import structlog

from mesh.clock import Clock

CHECK_INTERVAL_S = 1.0
"""How often the file is looked at, at most."""

Metadata = grpc.aio.Metadata
"""As grpc has it in the end: each call would make one of anything else."""

_log = structlog.get_logger(__name__)


class Credentials:
    """Gives the metadata that proves to a seller who we are.

    The file is JSON, ``{reference: secret}``. It is read again when it has changed, looked at no more than once a
    second; one that cannot be read leaves what was known in force. A reference that is not in it, or whose secret
    could not be sent (not printable ASCII), is logged once for each version of the file. Secrets are never logged.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._metadata: dict[str, Metadata] = {}
        self._version: tuple[int, int, int] | None = None
        self._look_again_at = clock.monotonic()
        self._missed: set[str] = set()

    def metadata(self, reference: str) -> Metadata | None:
        """Give the metadata with the bearer token of a reference; None when there is none."""
        if self._clock.monotonic() >= self._look_again_at:
            self._look_again_at = self._clock.monotonic() + CHECK_INTERVAL_S
            self._refresh()
        metadata = self._metadata.get(reference)
        if metadata is None and reference not in self._missed:
            self._missed.add(reference)
            _log.error(
                "no usable credential for this reference: add it to the credentials file",
                reference=reference,
                file=str(self._path),
            )
        return metadata

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version == self._version:
                return
            content = json.loads(self._path.read_bytes())
            if not isinstance(content, dict):
                raise TypeError("it must be one JSON object")  # noqa: TRY301  handled as a broken file below
        except FileNotFoundError:
            self._complain("the credentials file is not there")
            return
        except (OSError, ValueError, TypeError):
            # Without the exception: its text may quote the file.
            self._complain(
                "the credentials file cannot be read: it must be one JSON object {reference: secret}"
            )
            return
        self._metadata = {
            reference: Metadata(("authorization", f"Bearer {secret}"))
            for reference, secret in content.items()
            if isinstance(secret, str) and secret and secret.isascii() and secret.isprintable()
        }
        self._version = version
        self._missed.clear()
        _log.info("credentials read", file=str(self._path), references=len(self._metadata))

    def _complain(self, problem: str) -> None:
        if problem not in self._missed:
            self._missed.add(problem)
            _log.error(problem, file=str(self._path))
