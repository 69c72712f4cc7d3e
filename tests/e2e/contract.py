"""Every RPC of the customers' contract, as the edge knows it: called over gRPC, and by its route over REST."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.api import annotations_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from bookmesh.customer.v1 import customer_pb2
from deploy.envoy.settings import EdgeSettings
from deploy.local.mesh import LocalMesh

Json = dict[str, Any]
Metadata = tuple[tuple[str, str], ...]
Asked = Json | Message
"""A request: its fields, or all of it."""

DOORS = ("rest", "grpc", "gateway")
TIMEOUT_S = 30.0
_CHANGING = {"date", "x-envoy-upstream-service-time"}
_HTTP = annotations_pb2.DESCRIPTOR.extensions_by_name["http"].full_name


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC and its route.

    Attributes:
        name: without its service.
        method: full name, ``/service/name``.
        takes: what it is asked with.
        gives: what it answers with, once or as a stream.
        verb: of the route.
        path: of the route, with fields in braces.

    """

    name: str
    method: str
    takes: Descriptor
    gives: Descriptor
    streams: bool
    verb: str
    path: str

    @property
    def ids(self) -> frozenset[str]:
        """The fields that name something of a customer's; a book is nobody's."""
        return frozenset(
            field.name
            for field in self.takes.fields
            if field.name != "book_id" and field.name.endswith(("_id", "page_token"))
        )

    async def over_grpc(
        self, channel: grpc.aio.Channel, asked: Asked, metadata: Metadata
    ) -> Answer:
        """Call it with these fields; give all that a caller gets to see."""
        request = self._request(asked)
        gives = message_factory.GetMessageClass(self.gives)
        make: Any = channel.unary_stream if self.streams else channel.unary_unary
        call = make(
            self.method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=gives.FromString,
        )(request, metadata=metadata, timeout=TIMEOUT_S)
        try:
            answers = [answer async for answer in call] if self.streams else [await call]
        except grpc.aio.AioRpcError:
            answers = []
        seen = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
        code: grpc.StatusCode = await call.code()
        shown = [_shown(answer) for answer in answers]
        return Answer(code.name, _compared(seen), shown, await call.details() or "")

    async def over_rest(self, client: httpx.AsyncClient, asked: Asked) -> Answer:
        """Call its route with these fields; give all that a caller gets to see."""
        request = self._request(asked)
        fields: Json = MessageToDict(request, preserving_proto_field_name=True)
        path = self.path
        for name in list(fields):
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", fields.pop(name))
        sent: dict[str, Any] = (
            {"params": fields} if self.verb in {"GET", "DELETE"} else {"json": fields}
        )
        if isinstance(request, httpbody_pb2.HttpBody):
            sent = {"content": request.data, "headers": {"content-type": request.content_type}}
        response = await client.request(self.verb, path, **sent)
        body = (
            [json.loads(line) for line in response.text.splitlines()] if _is_json(response) else []
        )
        return Answer(
            str(response.status_code),
            _compared(response.headers.multi_items()),
            body,
            response.text,
        )

    def _request(self, asked: Asked) -> Message:
        if isinstance(asked, Message):
            return asked
        return ParseDict(asked, message_factory.GetMessageClass(self.takes)())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller gets to see, but for what is never the same, such as the date.

    Attributes:
        code: of gRPC a name, of REST the number.
        headers: initial and trailing metadata, or headers.
        messages: what came, as JSON.
        text: of gRPC the details of the status, of REST the body.

    """

    code: str
    headers: tuple[tuple[str, str], ...]
    messages: list[Json]
    text: str


def rpcs() -> list[Rpc]:
    """Give every RPC of ``bookmesh.customer.v1``, once for each of its routes."""
    file = Path(EdgeSettings.model_fields["edge_descriptor_file"].default)
    described = descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes())
    return [
        rpc
        for proto in described.file
        if proto.package == customer_pb2.DESCRIPTOR.package
        for service in proto.service
        for method in service.method
        for rpc in _rpcs(f"{proto.package}.{service.name}", method)
    ]


async def called(
    mesh: LocalMesh, door: str, rpc: Rpc, asked: Asked, metadata: Metadata = ()
) -> Answer:
    """Call an RPC at a door: ``rest`` and ``grpc`` at the edge, ``gateway`` straight at one."""
    if door == "rest":
        async with httpx.AsyncClient(
            base_url=mesh.rest_url, headers=list(metadata), timeout=TIMEOUT_S, trust_env=False
        ) as client:
            return await rpc.over_rest(client, asked)
    async with channel_at(mesh, door) as channel:
        return await rpc.over_grpc(channel, asked, metadata)


def channel_at(mesh: LocalMesh, door: str) -> grpc.aio.Channel:
    """Open a channel to one of the doors that speak gRPC; the caller closes it."""
    if door == "grpc":
        return grpc.aio.insecure_channel(mesh.grpc_address)
    return mesh.connect(mesh.replicas["gateway-1"], "gateway", by="internal")


def bearer(mesh: LocalMesh, name: str) -> Metadata:
    """Give what a customer's calls carry."""
    return (("authorization", f"Bearer {mesh.token(name)}"),)


def _rpcs(service: str, method: descriptor_pb2.MethodDescriptorProto) -> list[Rpc]:
    rule: Json = MessageToDict(method.options)[f"[{_HTTP}]"]
    described = descriptor_pool.Default().FindMethodByName(f"{service}.{method.name}")
    return [
        Rpc(
            name=method.name,
            method=f"/{service}/{method.name}",
            takes=described.input_type,
            gives=described.output_type,
            streams=method.server_streaming,
            verb=verb.upper(),
            path=path,
        )
        for binding in [rule, *rule.get("additionalBindings", [])]
        for verb, path in binding.items()
        if verb in {"get", "put", "post", "delete", "patch"}
    ]


def _compared(headers: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401  gRPC's and httpx's kinds of pairs
    return tuple(sorted((name, str(value)) for name, value in headers if name not in _CHANGING))


def _shown(message: Message) -> Json:
    shown: Json = MessageToDict(message, preserving_proto_field_name=True)
    return shown


def _is_json(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.startswith(("application/json", "application/x-ndjson"))
