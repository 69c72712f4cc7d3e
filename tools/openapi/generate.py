"""Writes ``docs/openapi.yaml``, the customers' REST API as OpenAPI 3.1; with ``--check`` only compares.

grpc-gateway's protoc-gen-openapiv3, which is built with Go, makes paths, parameters and schemas of the protos and their
comments. What it cannot know is put in here: the limits of fields (protovalidate's annotations), which fields an answer
always has, the media types of streams, the errors (docs/errors.md), and last what ``overlay.yaml`` says.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import jsonpath
import yaml
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc import StatusCode

from buf.validate import validate_pb2

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "openapi.yaml"
OVERLAY = ROOT / "tools" / "openapi" / "overlay.yaml"
ERRORS = ROOT / "docs" / "errors.md"
GENERATOR = "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3@v2.33.0"
CONTRACT = "bookmesh/customer/v1/customer.proto"
PACKAGE = "bookmesh.customer.v1"

Json = dict[str, Any]

_HEADER = "# Written by `make openapi`: change protos/ or tools/openapi/overlay.yaml instead.\n"
_HTTP_BODY = ".google.api.HttpBody"
_UNSPECIFIED = "unspecified"
_REASON = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (\d+) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_LINE_END = re.compile(r"(?<!\n)\n *(?!\n|- |\||$)")
"""One within a paragraph or an item of a list."""

_OF_DOCUMENT = ("openapi", "info", "servers", "tags", "security", "paths", "components")
_OF_OPERATION = (
    *("tags", "summary", "description", "operationId", "security"),
    *("parameters", "requestBody", "responses"),
)
_NOT_ANSWERED = {499}
"""Statuses that nobody is left to read."""


class Problem(Exception):
    """Why the document cannot be made, and what to do."""


def go() -> str | None:
    """Give the path of the command ``go``, where there is one."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def described() -> FileDescriptorSet:
    """Read the contract and what it imports, with comments.

    Raises:
        Problem: if buf refuses the protos; it has said why on stderr.

    """
    buf = Path(sys.executable).parent / "buf"
    command = [
        str(buf),
        "build",
        "--path",
        f"protos/{CONTRACT}",
        "--as-file-descriptor-set",
        "-o",
        "-",
    ]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        raise Problem("buf does not build the protos: see above")
    return FileDescriptorSet.FromString(process.stdout)


def generated(files: FileDescriptorSet, go: str) -> Json:
    """Give what the generator makes of the contract, with the names of fields as Envoy spells them: as in the proto.

    Raises:
        Problem: if the generator could not be built or refuses.

    """
    request = CodeGeneratorRequest(
        file_to_generate=[CONTRACT],
        parameter=f"disable_default_errors=true,M{CONTRACT}=bookmesh/customer",
        proto_file=files.file,
    )
    for file in request.proto_file:
        for message in file.message_type:
            for field in message.field:
                field.json_name = field.name
    command = [go, "run", GENERATOR]
    process = subprocess.run(
        command, input=request.SerializeToString(), stdout=subprocess.PIPE, check=False
    )
    if process.returncode:
        raise Problem(f"`go run {GENERATOR}` ended with status {process.returncode}: see above")
    response = CodeGeneratorResponse.FromString(process.stdout)
    if response.error or len(response.file) != 1:
        raise Problem(f"{GENERATOR} gave {len(response.file)} files: {response.error}")
    document: Json = json.loads(response.file[0].content)
    return document


def finished(document: Json, files: FileDescriptorSet, errors: str, overlay: Json) -> Json:
    """Put in what the generator does not know, and give the document.

    Args:
        document: what the generator made; it is changed.
        files: the contract, with comments.
        errors: docs/errors.md.
        overlay: the changes that come last.

    Raises:
        Problem: if a limit has no form in JSON Schema here, or a change of the overlay meets nothing.

    """
    contract = contract_of(files)
    components = document["components"]
    components["schemas"].pop(_HTTP_BODY[1:])
    for message in contract.message_type:
        _finish_message(components["schemas"], contract, message)
    for tag in document["tags"]:
        tag["name"] = _tag(tag["name"])
    for binding in bindings(contract):
        _finish_operation(document["paths"][binding.path][binding.verb], binding)
    _rename(document)
    components = document["components"]
    components["responses"] = error_responses(errors)
    components["schemas"]["ErrorInfo"] = {
        "properties": {"reason": {"description": reasons_in_words(errors)}}
    }
    apply(overlay, document)
    for path in document["paths"].values():
        for verb, operation in path.items():
            operation["responses"] = dict(sorted(operation["responses"].items()))
            path[verb] = _ordered(operation, _OF_OPERATION)
    _reflow(document)
    return _ordered(document, _OF_DOCUMENT)


def contract_of(files: FileDescriptorSet) -> FileDescriptorProto:
    """Give the file of the customers' contract."""
    [contract] = [file for file in files.file if file.name == CONTRACT]
    return contract


class Binding:
    """An RPC and where REST has it.

    Attributes:
        method: the RPC.
        verb: the HTTP method, in lower case.
        path: with the names of its parameters in braces.
        in_path: those names.
        in_query: the fields that are parameters of the query.
        in_body: the fields that are in the body.

    """

    def __init__(
        self, method: MethodDescriptorProto, messages: Mapping[str, DescriptorProto]
    ) -> None:
        # Its stub does not say what it extends.
        rule: HttpRule = method.options.Extensions[annotations_pb2.http]  # type: ignore[index]
        self.method = method
        self.verb = str(rule.WhichOneof("pattern"))
        self.path: str = getattr(rule, self.verb)
        self.in_path = re.findall(r"{(\w+)}", self.path)
        self.of_request = {
            field.name: field
            for field in (
                messages[method.input_type].field if method.input_type in messages else ()
            )
        }
        rest = [name for name in self.of_request if name not in self.in_path]
        self.in_query = [] if rule.body else rest
        self.in_body = rest if rule.body else []


def bindings(contract: FileDescriptorProto) -> Iterator[Binding]:
    """Give what REST has of the contract, in its order."""
    messages = {f".{PACKAGE}.{message.name}": message for message in contract.message_type}
    for service in contract.service:
        for method in service.method:
            yield Binding(method, messages)


def limits(field: FieldDescriptorProto) -> Json:
    """Give the limits of a field as JSON Schema.

    Raises:
        Problem: if one of its rules is not known here.

    """
    rules = field.options.Extensions[validate_pb2.field]
    empty_too = rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE
    kind = rules.WhichOneof("type")
    if kind is None:
        return {}
    schema: Json = {}
    for rule, value in getattr(rules, kind).ListFields():
        made = _LIMITS.get((kind, rule.name))
        if made is None:
            raise Problem(f"{field.name}: tools/openapi has no JSON Schema for {kind}.{rule.name}")
        schema |= made(value)
    if empty_too and "pattern" in schema:
        schema["pattern"] = f"^$|{schema['pattern']}"
    if empty_too and "format" in schema:
        schema = {"anyOf": [schema, {"maxLength": 0}]}
    return schema


def required(field: FieldDescriptorProto) -> bool:
    """Say whether a request without this field is refused: what its type has by default is no good value."""
    limit = limits(field)
    return bool(limit.get("minLength", 0) > 0 or limit.get("exclusiveMinimum", -1) >= 0)


_LIMITS: dict[tuple[str, str], Callable[[Any], Json]] = {
    ("string", "min_len"): lambda value: {"minLength": value},
    ("string", "max_len"): lambda value: {"maxLength": value},
    ("string", "pattern"): lambda value: {"pattern": value},
    ("string", "email"): lambda _: {"format": "email"},
    ("double", "gt"): lambda value: {"exclusiveMinimum": _number(value)},
    ("double", "lte"): lambda value: {"maximum": _number(value)},
    ("double", "finite"): lambda _: {},  # JSON has no other numbers
    ("int32", "gte"): lambda value: {"minimum": value},
    ("int32", "lte"): lambda value: {"maximum": value},
    ("repeated", "max_items"): lambda value: {"maxItems": value},
    ("repeated", "unique"): lambda value: {"uniqueItems": value},
    (
        "repeated",
        "items",
    ): lambda _: {},  # words; the schema of the enum has none but those that may be sent
}


def always_there(message: DescriptorProto) -> list[str]:
    """Name the fields that Envoy prints even when they have their default: all but messages and what is optional."""
    return sorted(
        field.name
        for field in message.field
        if not field.HasField("oneof_index")
        and (
            field.label == FieldDescriptorProto.LABEL_REPEATED
            or field.type != FieldDescriptorProto.TYPE_MESSAGE
        )
    )


def name_of(schema: str) -> str:
    """Give the name of a schema here, for the full name of a message or enum.

    >>> name_of("bookmesh.customer.v1.PurchaseStatus.Word")
    'PurchaseStatus'
    """
    if schema == "google.rpc.Status":
        return "Error"
    return schema.removeprefix(f"{PACKAGE}.").removesuffix(".Word").replace(".", "")


class Reason(NamedTuple):
    """A reason that docs/errors.md has, as REST gives it."""

    word: str
    code: str
    status: int
    meaning: str
    again: str


def reasons(errors: str) -> list[Reason]:
    """Give the reasons that docs/errors.md has."""
    found = [
        Reason(word, code, int(status), meaning, again)
        for word, code, status, meaning, again in _REASON.findall(errors)
    ]
    return [reason for reason in found if reason.status not in _NOT_ANSWERED]


def reasons_in_words(errors: str) -> str:
    """Give what docs/errors.md has of each reason over REST, as a table."""
    rows = [
        f"| `{reason.word}` | {reason.status} | {reason.meaning} | {reason.again} |"
        for reason in reasons(errors)
    ]
    head = ["| reason | status | what it means | try again |", "|---|---|---|---|"]
    words = "For programs. New words may come: treat one that you do not know by its status."
    return "\n".join([words, "", *head, *rows])


def error_responses(errors: str) -> Json:
    """Give the answer for each HTTP status that docs/errors.md has, by its name in the document."""
    by_status: dict[int, list[Reason]] = {}
    for reason in reasons(errors):
        by_status.setdefault(reason.status, []).append(reason)
    return {
        f"Error{status}": {
            "description": ", ".join(f"`{reason.word}`" for reason in by_status[status]),
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Error"},
                    "examples": {one.word: {"value": _example(one)} for one in by_status[status]},
                }
            },
        }
        for status in sorted(by_status)
    }


def _example(reason: Reason) -> Json:
    number: int = StatusCode[reason.code].value[0]
    prefix = "type.googleapis.com/google.rpc"
    info = {"@type": f"{prefix}.ErrorInfo", "reason": reason.word, "domain": "bookmesh"}
    retry = {"@type": f"{prefix}.RetryInfo", "retry_delay": "1s"}
    details = [info, retry] if reason.again == "yes" else [info]
    return {"code": number, "message": reason.meaning, "details": details}


def apply(overlay: Json, document: Json) -> None:
    """Change a document as an OpenAPI Overlay (1.0) says.

    Raises:
        Problem: if the target of a change is not in the document.

    """
    for action in overlay["actions"]:
        targets = list(jsonpath.finditer(action["target"], document))
        if not targets:
            raise Problem(f"overlay.yaml: nothing in the document is {action['target']}")
        for target in reversed(targets):
            if action.get("remove"):
                del target.parent.obj[target.parts[-1]]  # type: ignore[union-attr]  # none is the root
            else:
                _merge(target.obj, action["update"])


def written(document: Json) -> str:
    """Give a document as YAML."""
    return _HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


def _merge(target: object, update: object) -> None:
    if isinstance(target, list) and isinstance(update, list):
        target.extend(deepcopy(update))
    elif isinstance(target, dict) and isinstance(update, dict):
        for key, value in update.items():
            if isinstance(target.get(key), (dict, list)):
                _merge(target[key], value)
            else:
                target[key] = deepcopy(value)
    else:
        raise Problem(f"overlay.yaml: {update!r} does not fit into {target!r}")


def _finish_message(schemas: Json, contract: FileDescriptorProto, message: DescriptorProto) -> None:
    name = f"{PACKAGE}.{message.name}"
    if name in schemas and (always := always_there(message)):
        schemas[name]["required"] = always
    for number, enum in enumerate(message.enum_type):
        schema = schemas[f"{name}.{enum.name}"]
        schema["enum"].remove(_UNSPECIFIED)
        at = (4, list(contract.message_type).index(message), 4, number)
        if len(message.field) == 0:
            schema["description"] = _comment(contract, at[:2])
        words = [
            f"- `{value.name}`: {' '.join(_comment(contract, (*at, 2, index)).split())}"
            for index, value in enumerate(enum.value)
            if value.name != _UNSPECIFIED
        ]
        schema["description"] = "\n".join([schema["description"], "", *words])


def _tag(service: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", service.removesuffix("Service"))


def _comment(contract: FileDescriptorProto, path: tuple[int, ...]) -> str:
    [text] = [
        place.leading_comments
        for place in contract.source_code_info.location
        if tuple(place.path) == path
    ]
    return text.strip()


def _finish_operation(operation: Json, binding: Binding) -> None:
    operation["operationId"] = binding.method.name
    operation["tags"] = [_tag(service) for service in operation["tags"]]
    told = f"{operation['summary']}\n\n{operation.pop('description', '')}".strip()
    # Lists show the first sentence alone.
    first, *rest = re.split(r"(?<=\.)\s+", told, maxsplit=1)
    operation["summary"] = first.removesuffix(".").replace("`", "")
    if rest:
        operation["description"] = rest[0]
    for parameter in operation.get("parameters", ()):
        field = binding.of_request[parameter["name"]]
        parameter["schema"] |= limits(field)
        if required(field):
            parameter["required"] = True
    if "requestBody" in operation:
        _finish_body(operation["requestBody"], binding)
    answer = operation["responses"]["200"]
    if binding.method.output_type == _HTTP_BODY:
        answer["description"] = "Server-sent events; the schema is that of one."
        schema = {"$ref": "#/components/schemas/ServerSentEvent"}
        answer["content"] = {"text/event-stream": {"schema": schema}}
    elif binding.method.server_streaming:
        answer["description"] = "Newline-delimited JSON; the schema is that of a line."
        message = binding.method.output_type.removeprefix(".")
        schema = {"$ref": f"#/components/schemas/{message}"}
        answer["content"] = {"application/x-ndjson": {"schema": schema}}


def _finish_body(body: Json, binding: Binding) -> None:
    schema: Json = {"type": "object"}
    if binding.method.input_type != _HTTP_BODY:
        schema = body["content"]["application/json"]["schema"]
        for name in binding.in_body:
            schema["properties"][name] |= limits(binding.of_request[name])
        if needed := [name for name in binding.in_body if required(binding.of_request[name])]:
            schema["required"] = needed
    body["content"] = {"application/json": {"schema": schema}}
    body["required"] = "required" in schema


def _rename(document: Json) -> None:
    """Give schemas their names here."""
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name_of(name): schemas[name] for name in schemas}
    prefix = "#/components/schemas/"
    for node in _objects(document):
        if "$ref" in node:
            node["$ref"] = prefix + name_of(node["$ref"].removeprefix(prefix))


def _reflow(document: Json) -> None:
    """Make each paragraph of prose a line: pages show every other end of a line too."""
    for node in _objects(document):
        for key in ("description", "summary"):
            if isinstance(node.get(key), str):
                node[key] = _LINE_END.sub(" ", node[key])


def _objects(node: object) -> Iterator[Json]:
    """Give every object within, the outer ones first."""
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _objects(child)


def _ordered(node: Json, order: tuple[str, ...]) -> Json:
    if unknown := set(node) - set(order):
        raise Problem(f"tools/openapi knows no place for {sorted(unknown)}")
    return {key: node[key] for key in order if key in node}


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as such, and nothing as a reference to something else."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  the superclass has it
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with docs/, write nothing")
    check = parser.parse_args().check
    command = go()
    if command is None:
        what = f"Go is not installed, and {GENERATOR.partition('@')[0]} is built with it"
        print(f"openapi: skipped, {what}" if check else f"openapi: {what}: see go.dev/doc/install")
        return 0 if check else 1
    try:
        files = described()
        overlay = yaml.safe_load(OVERLAY.read_text())
        document = finished(generated(files, command), files, ERRORS.read_text(), overlay)
    except Problem as problem:
        print(f"openapi: {problem}", file=sys.stderr)
        return 1
    text = written(document)
    if not check:
        DOCUMENT.write_text(text)
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text() == text:
        return 0
    print("docs/openapi.yaml is not what protos/ gives: run `make openapi` and commit it")
    return 1


if __name__ == "__main__":
    sys.exit(main())
