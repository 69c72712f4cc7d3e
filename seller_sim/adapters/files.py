"""Small JSON files of the data folder, replaced as a whole."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CREDENTIALS_FILE = "credentials.json"
ADDRESSES_FILE = "addresses.json"
_SECRET_BYTES = 24


class DataFolderError(Exception):
    """The data folder cannot be used; the message says which file and why."""


def make_folder(folder: Path) -> None:
    """Make the data folder if there is none.

    Raises:
        DataFolderError: if that is not possible.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataFolderError(f"{folder}: {error.strerror}") from None


def credentials(folder: Path, references: Iterable[str]) -> dict[str, str]:
    """Give the secrets for some references, making and keeping those that are missing.

    The file has ``{reference: secret}`` and is for its owner's eyes alone. Secrets that are not asked for stay.

    Raises:
        DataFolderError: if the file cannot be read or written.

    """
    path = folder / CREDENTIALS_FILE
    kept = {name: str(secret) for name, secret in read_json(path).items()}
    wanted = list(references)
    missing = [name for name in wanted if name not in kept]
    if missing:
        kept.update({name: secrets.token_urlsafe(_SECRET_BYTES) for name in missing})
        write_json(path, kept)
    return {name: kept[name] for name in wanted}


def read_json(path: Path) -> dict[str, object]:
    """Give the object in a file; an empty one when there is no file.

    Raises:
        DataFolderError: if it is not an object in JSON, or cannot be read.

    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataFolderError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise DataFolderError(f"{path}: must be a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace a file at once: a reader finds the old content or the new, and only its owner may read it.

    Raises:
        DataFolderError: if it cannot be written.

    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise DataFolderError(f"{path}: {error}") from None
