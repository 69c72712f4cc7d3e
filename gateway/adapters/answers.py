"""What customers see of the calls behind their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from mesh import errors
from mesh.grpc.errors import translated

_RETRY_AFTER_S = 1.0

_log = structlog.get_logger(__name__)


@contextmanager
def answered(out_of_reach: str) -> Iterator[None]:
    """Let a customer see what the orchestrator answered, and nothing of how it was called.

    ``out_of_reach`` is what they are told when it did not answer.
    """
    try:
        with translated():
            yield
    except (errors.Unavailable, errors.Cancelled) as error:
        if error.retry_after_s is None:
            _log.warning("no orchestrator answers", problem=error.message)
            raise errors.Unavailable(out_of_reach, retry_after_s=_RETRY_AFTER_S) from error
        raise
    except errors.Internal as error:
        _log.exception("the orchestrator failed")
        raise errors.Internal("something of ours went wrong; it has been logged") from error
