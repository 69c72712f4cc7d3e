"""Faults of a call, as the services raise them.

    MeshError                    status
      InvalidArgument            INVALID_ARGUMENT, with the fields that were wrong
      Unauthenticated            UNAUTHENTICATED
      PermissionDenied           PERMISSION_DENIED
      NotFound                   NOT_FOUND
      AlreadyExists              ALREADY_EXISTS
      FailedPrecondition         FAILED_PRECONDITION
      Aborted                    ABORTED
      ResourceExhausted          RESOURCE_EXHAUSTED
      Unavailable                UNAVAILABLE: nothing is known of the effect, unless the caller was told otherwise
      DeadlineExceeded           DEADLINE_EXCEEDED: likewise
      Unimplemented              UNIMPLEMENTED
      Cancelled                  CANCELLED
      Internal                   INTERNAL and whatever else a peer may answer

What is expected to happen in the business (sold out, declined, too dear) is a value, never one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that was wrong: its path as in the proto (``requests[3].book_id``) and why."""

    field: str
    description: str


class MeshError(Exception):
    """A call that failed. Its message and reason are shown to the caller; nothing else is.

    Attributes:
        reason: a word in capitals for programs (``google.rpc.ErrorInfo.reason``).
        message: a sentence for people: what was wrong, where, what to do.
        metadata: further facts for programs (``ErrorInfo.metadata``).
        fields: the fields that were wrong.
        retry_after_s: after how many seconds it makes sense to try again; None when nobody can say.

    """

    status: ClassVar[str] = "INTERNAL"
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
        fields: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Keep what the caller will be told."""
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = metadata or {}
        self.fields = fields
        self.retry_after_s = retry_after_s


class InvalidArgument(MeshError):
    """The request is wrong whatever the state of the system."""

    status = "INVALID_ARGUMENT"
    default_reason = "INVALID_ARGUMENT"


class Unauthenticated(MeshError):
    """The caller did not prove who it is."""

    status = "UNAUTHENTICATED"
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """The caller may not do this."""

    status = "PERMISSION_DENIED"
    default_reason = "PERMISSION_DENIED"


class NotFound(MeshError):
    """There is no such thing, or it is not the caller's."""

    status = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class AlreadyExists(MeshError):
    """The key is taken by something else."""

    status = "ALREADY_EXISTS"
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(MeshError):
    """Not possible in the present state."""

    status = "FAILED_PRECONDITION"
    default_reason = "FAILED_PRECONDITION"


class Aborted(MeshError):
    """Somebody else was at it; try again."""

    status = "ABORTED"
    default_reason = "ABORTED"


class ResourceExhausted(MeshError):
    """Too many, too large, too often."""

    status = "RESOURCE_EXHAUSTED"
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(MeshError):
    """Cannot be done now; try again."""

    status = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(MeshError):
    """Not done in the time there was."""

    status = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"


class Unimplemented(MeshError):
    """The peer does not have this."""

    status = "UNIMPLEMENTED"
    default_reason = "UNIMPLEMENTED"


class Cancelled(MeshError):
    """The call was given up."""

    status = "CANCELLED"
    default_reason = "CANCELLED"


class Internal(MeshError):
    """A fault of ours."""
