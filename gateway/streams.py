"""What streams over REST need beyond their messages: server-sent events, heartbeats, and errors within the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog
from google.api import httpbody_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from gateway.callers import metadata
from mesh import errors
from mesh.errors import MeshError
from mesh.grpc.errors import status_of

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from mesh.grpc.interceptor import Context

HEARTBEAT_S: Final = 15.0
"""After so long without an event a comment is sent, so that nobody on the way takes the connection for dead."""

END: Final = "end"
"""Name and id of the event after the last one."""

LAST_EVENT_ID: Final = "last-event-id"
"""The metadata, over REST the header, with the id of the last event that the caller has seen."""

_BY_REST = "x-envoy-original-method"
"""Metadata that the edge adds to what came as REST."""

_CONTENT_TYPE = "text/event-stream"
_RETRY = "retry: 2000\n\n"
_HEARTBEAT = ":\n\n"
_NO_CONTENT = (("x-http-status", "204"),)

_Item = TypeVar("_Item")
_Message_co = TypeVar("_Message_co", bound=Message, covariant=True)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Event(Generic[_Message_co]):
    """An event as it is sent: its name, its id in its stream, and the message that is its data."""

    name: str
    event_id: str
    data: _Message_co

    @cached_property
    def text(self) -> str:
        """The event in the form of the HTML standard; written once, for however many it is."""
        # As the edge prints messages.
        shown = MessageToDict(
            self.data, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return f"event: {self.name}\nid: {self.event_id}\ndata: {_json(shown)}\n\n"


async def server_sent(
    events: AsyncGenerator[Sequence[Event[Message]], None],
    context: Context,
    *,
    seen: Callable[[str], bool],
) -> AsyncIterator[httpbody_pb2.HttpBody]:
    """Give events in the form of the HTML standard (9.2, server-sent events), those left out that were seen before.

    Events that come together are sent together; where none come, a comment is sent, which is the heartbeat. What has no
    name only a newer orchestrator knows, and is left out too.

    After the last one comes ``end``. Where nothing is left but that, nothing is sent, and REST answers with 204, which
    keeps browsers from connecting again for ever. What goes wrong before the first event is raised; afterwards it is an
    event ``error``, without an id, so that who connects again resumes behind the last event.
    """
    begun = False
    try:
        async for together in events:
            fresh = [event.text for event in together if event.name and not seen(event.event_id)]
            if fresh or not together:
                text = "".join(fresh) or _HEARTBEAT
                yield _body(text if begun else _RETRY + text)
                begun = True
    except Exception as error:
        if not begun:
            raise
        status = MessageToDict(broken_off(error, {}), preserving_proto_field_name=True)
        yield _body(f"event: error\ndata: {_json(status)}\n\n")
        return
    finally:
        await events.aclose()
    if begun:
        yield _body(f"event: {END}\nid: {END}\ndata: {{}}\n\n")
    else:
        await nothing_more(context)


async def nothing_more(context: Context) -> None:
    """Have REST answer with 204, without a body: who listens to server-sent events does not connect again."""
    await context.send_initial_metadata(_NO_CONTENT)


async def in_band(
    messages: AsyncIterator[_Item],
    context: Context,
    error_of: Callable[[Status], _Item],
    where: Callable[[_Item], dict[str, str]],
) -> AsyncIterator[_Item]:
    """Give messages; where REST has begun to answer, an error is one more of them, because only 200 can be its status.

    Args:
        messages: what is streamed.
        context: of the call.
        error_of: makes the message of an error.
        where: says how far the stream came, by its last message, for ``ErrorInfo.metadata``.

    """
    last: _Item | None = None
    by_rest = bool(metadata(context, _BY_REST))
    try:
        async for message in messages:
            yield message
            last = message
    except Exception as error:
        if last is None or not by_rest:
            raise
        yield error_of(broken_off(error, where(last)))


def broken_off(error: Exception, where: dict[str, str]) -> Status:
    """Give the status of an error that ends a stream, as ``ServiceInterceptor`` gives that of a call."""
    if isinstance(error, TimeoutError):
        error = errors.DeadlineExceeded("the call was not done in the time it had")
    if not isinstance(error, MeshError):
        _log.error("stream failed", exc_info=error)
        error = errors.Internal("something of ours went wrong; it has been logged")
    error.metadata.update(where)
    return status_of(error)


def last_event_id(context: Context) -> str:
    """Give the id of the last event that the caller has seen; empty for none."""
    values = metadata(context, LAST_EVENT_ID)
    return values[-1] if values else ""


def not_behind(last_id: str) -> Callable[[str], bool]:
    """Give what tells whether an event of a watch comes before the one with this id or is it.

    Ids of watches are ``step`` or ``step-milliseconds-number``, whole numbers in the order in which events are told.
    """
    last = _place(last_id)
    return lambda event_id: _place(event_id) <= last


def _place(event_id: str) -> tuple[float, ...]:
    if event_id == END:
        return (inf,)
    numbers = event_id.split("-")
    if not all(number.isascii() and number.isdigit() for number in numbers):
        return ()
    return tuple(map(float, numbers))


async def with_heartbeat(
    items: AsyncIterator[_Item], every_s: float
) -> AsyncGenerator[Sequence[_Item], None]:
    """Give the items as they come, one at a time, and none whenever there was none for so long."""
    following: asyncio.Task[_Item | None] | None = None

    async def after_this() -> _Item | None:
        return await anext(items, None)

    try:
        while True:
            following = following or asyncio.create_task(after_this())
            done, _ = await asyncio.wait({following}, timeout=every_s)
            if not done:
                yield ()
                continue
            item = following.result()
            if item is None:
                return
            following = None
            yield (item,)
    finally:
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait({following})


def _json(shown: dict[str, Any]) -> str:
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _body(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=_CONTENT_TYPE, data=text.encode())
