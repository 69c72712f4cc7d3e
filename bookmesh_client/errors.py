"""Why a call did not do what it was asked.

    BookmeshError
      InvalidArgument    the request is wrong: ``fields`` says where
      Unauthorized       the token is missing, expired, not good here, or not for this
      NotFound           there is no such purchase request of yours
      NotPossible        not in the present state: the offer has expired, the key is used for something else
        PaymentRefused   the card was refused; the purchase request is ``failed``
      TooMany            too often or too much: ``retry_after_s`` says when to try again
      Unavailable        Bookmesh was not reached or cannot answer now. Whether it did what it was asked is not known:
                         the same call with the same idempotency key never buys twice

How a purchase ends is none of these, but its ``status``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2


@dataclass(eq=False)
class BookmeshError(Exception):
    """A call that failed.

    Attributes:
        code: the gRPC status.
        message: a sentence for people.
        reason: a word in capitals for programs, ``OFFER_EXPIRED``; docs/errors.md lists them. The status's name where
            Bookmesh gave none.
        fields: the fields of the request that were wrong, and why.
        metadata: further facts for programs.
        retry_after_s: after how many seconds to try again; None when nobody can say.

    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.reason = self.reason or self.code.name


class InvalidArgument(BookmeshError):
    """The request is wrong, whenever it is sent."""


class Unauthorized(BookmeshError):
    """The token is missing, expired, not good here, or not for this."""


class NotFound(BookmeshError):
    """There is no such purchase request of yours."""


class NotPossible(BookmeshError):
    """Not in the present state."""


class PaymentRefused(NotPossible):
    """The card was refused before the purchase began."""

    @property
    def request_id(self) -> str:
        """The purchase request, which is ``failed``."""
        return self.metadata["request_id"]


class TooMany(BookmeshError):
    """Too often, or too much at once."""


class Unavailable(BookmeshError):
    """Bookmesh was not reached, or cannot answer now."""


_KINDS: dict[grpc.StatusCode, type[BookmeshError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: Unauthorized,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: NotPossible,
    grpc.StatusCode.ALREADY_EXISTS: NotPossible,
    grpc.StatusCode.ABORTED: NotPossible,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooMany,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise what a failed call says as one of these."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _from_rpc(error) from None


def _from_rpc(error: grpc.aio.AioRpcError) -> BookmeshError:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    with suppress(DecodeError):
        said = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        for detail in status_pb2.Status.FromString(bytes(said)).details:
            # Fills in the one that it is.
            _ = detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    kind = _KINDS.get(error.code(), BookmeshError)
    if kind is NotPossible and "request_id" in info.metadata:
        kind = PaymentRefused
    return kind(
        error.code(),
        error.details() or "",
        info.reason,
        fields={violation.field: violation.description for violation in bad.field_violations},
        metadata=dict(info.metadata),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() or None,
    )
