"""``mesh.errors`` to and from gRPC statuses with ``google.rpc`` details."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from mesh import errors
from mesh.errors import FieldViolation, MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

DOMAIN = "bookmesh"
"""``ErrorInfo.domain`` of every error of ours."""

_DETAILS_KEY = "grpc-status-details-bin"
_LONGEST_DETAILS = 64 * 1024

_KINDS: dict[grpc.StatusCode, type[MeshError]] = {
    grpc.StatusCode[kind.status]: kind
    for kind in (
        errors.InvalidArgument,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Unimplemented,
        errors.Cancelled,
    )
}


def status_of(error: MeshError) -> status_pb2.Status:
    """Give the ``google.rpc.Status`` of an error: code, message, ErrorInfo; BadRequest, RetryInfo where they apply."""
    code: tuple[int, str] = grpc.StatusCode[error.status].value
    status = status_pb2.Status(code=code[0], message=error.message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.fields
                ]
            )
        )
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: MeshError) -> NoReturn:
    """End a call with an error.

    ``abort`` with the details as trailing metadata, because ``abort_with_status`` loses metadata that was set before.
    """
    status = status_of(error)
    await context.abort(
        grpc.StatusCode[error.status],
        error.message,
        trailing_metadata=((_DETAILS_KEY, status.SerializeToString()),),
    )


def from_rpc(error: grpc.aio.AioRpcError) -> MeshError:
    """Give the error that a peer answered. Details that are malformed or too long are ignored."""
    kind = _KINDS.get(error.code(), errors.Internal)
    reason: str | None = None
    metadata: dict[str, str] = {}
    fields: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    for detail in _details(error):
        # A peer may pack anything: what cannot be read is left out.
        with suppress(DecodeError):
            if _is(detail, error_details_pb2.ErrorInfo):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, metadata = info.reason, dict(info.metadata)
            elif _is(detail, error_details_pb2.BadRequest):
                bad = error_details_pb2.BadRequest.FromString(detail.value)
                fields = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
            elif _is(detail, error_details_pb2.RetryInfo):
                retry = error_details_pb2.RetryInfo.FromString(detail.value)
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return kind(
        error.details() or "",
        reason=reason,
        metadata=metadata,
        fields=fields,
        retry_after_s=retry_after_s,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the gRPC errors of calls made inside into ``mesh.errors``."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error


def _is(detail: any_pb2.Any, kind: type[Message]) -> bool:
    return detail.TypeName() == kind.DESCRIPTOR.full_name


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes) and len(value) <= _LONGEST_DETAILS:
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []
