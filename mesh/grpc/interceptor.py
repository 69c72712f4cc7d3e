"""What happens around every RPC that a service of the mesh answers."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from opentelemetry import metrics

from mesh import errors, telemetry
from mesh.errors import FieldViolation, MeshError
from mesh.grpc import deadline, tls
from mesh.grpc.errors import abort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping

    from google.protobuf.message import Message
    from protovalidate import FieldPathPb, Validator

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
"""What a call knows of itself, whatever its messages."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
# What the handlers of grpc.aio really are; the stubs have the types of the threaded server.
_Unary: TypeAlias = "Callable[[Message, Context], Awaitable[Message]]"
_Streaming: TypeAlias = "Callable[[Message, Context], AsyncIterator[Message]]"

_RawUnary: TypeAlias = "Callable[[bytes, Context], Awaitable[Message]]"
_RawStreaming: TypeAlias = "Callable[[bytes, Context], AsyncIterator[Message]]"
_Read: TypeAlias = "Callable[[bytes], Message]"

LEAST_WORK_S = 0.02
"""A call with less time than this left is refused: its answer could not arrive."""

_log = structlog.get_logger(__name__)
_duration_s = metrics.get_meter(__name__).create_histogram(
    "rpc.server.call.duration",
    unit="s",
    description="How long calls took that this service answered",
    explicit_bucket_boundaries_advisory=telemetry.SECONDS,
)


class ServiceInterceptor(grpc.aio.ServerInterceptor):
    """Gives every call a deadline, validates its request and turns errors into statuses.

    - A call without a deadline gets ``default_timeout_s``; one of ``unbounded`` methods (full names,
      ``/package.Service/Method``) may go on for as long as its caller stays.
    - A request that is no message of its method, or breaks its protovalidate rules, is INVALID_ARGUMENT; the latter
      names each field.
    - With ``callers``, a call is refused unless it comes over TLS 1.3 with a certificate of a name that may call its
      method: by the entry of the method (full name), or that of its service. What has no entry is for nobody.
    - A ``MeshError`` becomes its status with details; any other exception becomes INTERNAL with a fixed message, and
      is logged here with its traceback.

    ``only`` limits all this to services whose full name starts with it; others (health) pass untouched.
    """

    def __init__(
        self,
        validator: Validator,
        *,
        default_timeout_s: float,
        unbounded: Collection[str],
        only: str,
        callers: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Keep the rules."""
        self._validator = validator
        self._default_timeout_s = default_timeout_s
        self._unbounded = unbounded
        self._only = only
        self._callers = callers
        self._open_ended: set[asyncio.Timeout] = set()
        self._ending = False

    def end_unbounded(self) -> None:
        """End the calls of unbounded methods, now and from now on, with UNAVAILABLE: their callers open them anew."""
        self._ending = True
        for timeout in self._open_ended:
            timeout.reschedule(asyncio.get_running_loop().time())

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails],
            Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None],
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(f"/{self._only}"):
            return handler
        if handler.request_streaming:
            msg = f"{method} streams requests, which the mesh has no rules for"
            raise NotImplementedError(msg)
        # Requests are read here, not by grpc, which would answer one that is no protobuf with its own exception.
        read = cast("_Read", handler.request_deserializer)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, cast("_Streaming", handler.unary_stream), read),
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, cast("_Unary", handler.unary_unary), read),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, behaviour: _Unary, read: _Read) -> _RawUnary:
        async def call(raw: bytes, context: Context) -> Message:
            with _measured(method, context):
                try:
                    self._admit(method, context)
                    async with asyncio.timeout_at(self._ends_at(method, context)):
                        request = self._valid(raw, read)
                        return await behaviour(request, context)
                except Exception as error:  # noqa: BLE001  the last resort of every call
                    await _fail(method, context, error)

        return call

    def _streaming(self, method: str, behaviour: _Streaming, read: _Read) -> _RawStreaming:
        async def call(raw: bytes, context: Context) -> AsyncIterator[Message]:
            with _measured(method, context):
                try:
                    self._admit(method, context)
                    ends_at = self._ends_at(method, context)
                    request = self._valid(raw, read)
                    responses = behaviour(request, context)
                    # No timeout may span a yield: it would strike whoever is iterating.
                    while (response := await self._next(method, responses, ends_at)) is not None:
                        yield response
                except Exception as error:  # noqa: BLE001  the last resort of every call
                    await _fail(method, context, error)

        return call

    async def _next(
        self, method: str, responses: AsyncIterator[Message], ends_at: float | None
    ) -> Message | None:
        """Give the next response of a stream, None after the last, within the deadline of its call."""
        if method not in self._unbounded:
            async with asyncio.timeout_at(ends_at):
                return await anext(responses, None)
        if self._ending:
            raise _draining()
        try:
            async with asyncio.timeout_at(ends_at) as bound:
                self._open_ended.add(bound)
                try:
                    return await anext(responses, None)
                finally:
                    self._open_ended.discard(bound)
        except TimeoutError:
            if not self._ending:
                raise
            raise _draining() from None

    def _admit(self, method: str, context: Context) -> None:
        """Refuse a call whose other end may not make it."""
        if self._callers is None:
            return
        connection = context.auth_context()
        if tls.TLS_VERSION not in connection.get("ssl_tls_version", ()):
            raise errors.Unauthenticated(
                "connect with TLS 1.3 and a certificate of the mesh", reason="TLS_VERSION"
            )
        names = tls.callers(connection)
        service = method[1:].rpartition("/")[0]
        allowed = self._callers.get(method, self._callers.get(service, ()))
        if names.isdisjoint(allowed):
            who = ", ".join(sorted(names)) or "a certificate without a name of the mesh"
            _log.warning("call refused", method=method, caller=who, peer=context.peer())
            raise errors.PermissionDenied(
                f"{method[1:]} is not for {who}: use the certificate of one that may call it",
                reason="CALLER_NOT_ALLOWED",
            )

    def _ends_at(self, method: str, context: Context) -> float | None:
        """Give the end of a call by the loop's clock, and set it as the deadline of all that is done for it."""
        # The stubs leave out the None of a call without a deadline.
        remaining_s = cast("float | None", context.time_remaining())
        if remaining_s is None:
            if method in self._unbounded:
                return None
            remaining_s = self._default_timeout_s
        if remaining_s < LEAST_WORK_S:
            msg = "the call arrived with no time left"
            raise errors.DeadlineExceeded(msg)
        deadline.enter(remaining_s)
        return asyncio.get_running_loop().time() + remaining_s

    def _valid(self, raw: bytes, read: _Read) -> Message:
        try:
            request = read(raw)
        except DecodeError:
            msg = "the request is not a message of this method"
            raise errors.InvalidArgument(msg) from None
        violations = self._validator.collect_violations(request)
        if not violations:
            return request
        fields = tuple(
            FieldViolation(_path(violation.proto.field), violation.proto.message)
            for violation in violations
        )
        raise errors.InvalidArgument(describe(fields), fields=fields)


def describe(fields: tuple[FieldViolation, ...]) -> str:
    """Give the sentence for fields that were wrong: ``max_price: must be greater than 0; book_id: ...``."""
    return "; ".join(
        f"{violation.field}: {violation.description}" if violation.field else violation.description
        for violation in fields
    )


@contextmanager
def _measured(method: str, context: Context) -> Iterator[None]:
    """Record how long a call takes and how it ends, as OpenTelemetry's conventions for RPCs name it."""
    began_s = time.perf_counter()
    status = grpc.StatusCode.OK
    try:
        yield
    except grpc.aio.AbortError:
        status = context.code()
        raise
    except (asyncio.CancelledError, GeneratorExit):
        status = grpc.StatusCode.CANCELLED
        raise
    finally:
        _duration_s.record(
            time.perf_counter() - began_s,
            {"rpc.method": method.removeprefix("/"), "rpc.response.status_code": status.name},
        )


def _draining() -> errors.Unavailable:
    return errors.Unavailable("this server is stopping; ask another", reason="DRAINING")


async def _fail(method: str, context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, TimeoutError):
        error = errors.DeadlineExceeded("the call was not done in the time it had")
    if not isinstance(error, MeshError):
        _log.error("rpc failed", method=method, exc_info=error)
        error = errors.Internal("something of ours went wrong; it has been logged")
    await abort(context, error)


def _path(field: FieldPathPb | None) -> str:
    parts = []
    for element in field.elements if field is not None else ():
        subscript = element.subscript
        parts.append(
            f"{element.field_name}[{subscript.value}]"
            if subscript is not None
            else element.field_name
        )
    return ".".join(parts)
