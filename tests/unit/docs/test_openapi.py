"""docs/openapi.yaml says what the customers' contract says, without the generator that wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import jsonschema_rs
import pytest
import yaml
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorSet,
)

from tools.openapi import generate
from tools.openapi.generate import Binding, Json

DOCUMENT: Json = yaml.load(generate.DOCUMENT.read_text(), Loader=yaml.CSafeLoader)
FILES = FileDescriptorSet.FromString((generate.ROOT / "gen/customer.binpb").read_bytes())
CONTRACT = generate.contract_of(FILES)
BINDINGS = list(generate.bindings(CONTRACT))
TYPES = {
    FieldDescriptorProto.TYPE_BOOL: "boolean",
    FieldDescriptorProto.TYPE_DOUBLE: "number",
    FieldDescriptorProto.TYPE_INT32: "integer",
    FieldDescriptorProto.TYPE_STRING: "string",
}
SCHEMAS = set(DOCUMENT["components"]["schemas"])
MESSAGES = {
    name: message
    for message in CONTRACT.message_type
    if (name := generate.name_of(f"{generate.PACKAGE}.{message.name}"))
    in SCHEMAS
    | {
        method.output_type.rpartition(".")[2]
        for service in CONTRACT.service
        for method in service.method
    }
    and name != "HttpBody"
}
"""What answers are made of, by the names of their schemas."""

REGENERATE = "run `make openapi` (it needs Go) and commit docs/openapi.yaml"


def operation(binding: Binding) -> Json:
    found: Json = DOCUMENT["paths"][binding.path][binding.verb]
    return found


def parameters(binding: Binding) -> dict[tuple[str, str], Json]:
    return {(one["in"], one["name"]): one for one in operation(binding).get("parameters", ())}


def body(binding: Binding) -> Json:
    schema: Json = operation(binding)["requestBody"]["content"]["application/json"]["schema"]
    return schema


def assert_is_of(schema: Json, field: FieldDescriptorProto) -> None:
    """Compare the type of a field and its limits."""
    assert generate.limits(field).items() <= schema.items(), field.name
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        assert schema["type"] == "array"
        schema = schema["items"]
    if field.type_name == ".google.protobuf.Timestamp":
        assert (schema["type"], schema["format"]) == ("string", "date-time")
    elif field.type_name:
        name = generate.name_of(field.type_name.removeprefix("."))
        assert schema["$ref"] == f"#/components/schemas/{name}"
    elif "anyOf" not in schema:
        assert schema["type"] == TYPES[field.type], field.name


def test_every_binding_has_its_operation_and_every_operation_its_binding() -> None:
    bound = {(binding.verb, binding.path): binding.method.name for binding in BINDINGS}
    written = {
        (verb, path): one["operationId"]
        for path, item in DOCUMENT["paths"].items()
        for verb, one in item.items()
    }
    assert written == bound, REGENERATE


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: binding.method.name)
def test_the_parameters_and_the_body_are_the_fields_of_the_request(binding: Binding) -> None:
    found = parameters(binding)
    in_path = {name for place, name in found if place == "path"}
    in_query = {name for place, name in found if place == "query"}
    assert in_path == set(binding.in_path), REGENERATE
    assert in_query == set(binding.in_query), REGENERATE
    for (place, name), parameter in found.items():
        if place == "header":
            continue
        field = binding.of_request[name]
        assert_is_of(parameter["schema"], field)
        assert parameter.get("required", False) == generate.required(field)
    if not binding.in_body:
        assert "properties" not in (body(binding) if "requestBody" in operation(binding) else {})
        return
    schema = body(binding)
    assert set(schema["properties"]) == set(binding.in_body), REGENERATE
    for name in binding.in_body:
        assert_is_of(schema["properties"][name], binding.of_request[name])
    needed = {name for name in binding.in_body if generate.required(binding.of_request[name])}
    assert set(schema.get("required", ())) == needed
    assert operation(binding)["requestBody"]["required"] == bool(needed)


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda binding: binding.method.name)
def test_a_good_answer_is_the_message_of_the_rpc(binding: Binding) -> None:
    answers = operation(binding)["responses"]
    [(status, answer)] = [
        (status, answer) for status, answer in answers.items() if status in {"200", "202"}
    ]
    [(media_type, content)] = answer["content"].items()
    output = binding.method.output_type.removeprefix(".")
    if output == "google.api.HttpBody":
        assert media_type == "text/event-stream"
        assert "204" in answers
    else:
        streamed = binding.method.server_streaming
        assert media_type == ("application/x-ndjson" if streamed else "application/json")
        reference = f"#/components/schemas/{generate.name_of(output)}"
        assert content["schema"] == {"$ref": reference}, REGENERATE
    assert (status == "202") == (binding.method.name in {"CreatePurchaseRequest", "AcceptOffer"})


@pytest.mark.parametrize("name", MESSAGES)
def test_an_answer_has_the_fields_of_its_message(name: str) -> None:
    message, schema = MESSAGES[name], DOCUMENT["components"]["schemas"][name]
    assert set(schema.get("properties", ())) == {field.name for field in message.field}, REGENERATE
    assert schema.get("required", []) == generate.always_there(message)
    for field in message.field:
        assert_is_of(schema["properties"][field.name], field)


def test_every_word_is_there_but_the_one_that_is_never_used() -> None:
    for message in CONTRACT.message_type:
        for enum in message.enum_type:
            name = generate.name_of(f"{generate.PACKAGE}.{message.name}.{enum.name}")
            words = [value.name for value in enum.value if value.name != "unspecified"]
            assert DOCUMENT["components"]["schemas"][name]["enum"] == words, REGENERATE


def test_comments_are_as_in_the_proto() -> None:
    """Those excepted that a document of REST has no place for."""
    source = generate.contract_of(generate.described())
    written = "\n".join(_texts(DOCUMENT))
    requests = {method.input_type for service in source.service for method in service.method}
    compared = 0
    for place in source.source_code_info.location:
        kind, *path = place.path or (0,)
        if kind not in {MESSAGES_OF_FILE, SERVICES_OF_FILE} or not place.leading_comments:
            continue
        if kind == MESSAGES_OF_FILE:
            message = source.message_type[path[0]]
            if len(path) == 1 and f".{generate.PACKAGE}.{message.name}" in requests:
                continue
            match path[1:]:
                case [8, _] | [4, _] | [4, _, 2, 0]:  # a oneof, an enum, what is never used
                    continue
                case _:
                    pass
        assert _words(place.leading_comments) in written, f"{place.leading_comments}: {REGENERATE}"
        compared += 1
    assert compared > 100


MESSAGES_OF_FILE, SERVICES_OF_FILE = 4, 6
"""Numbers of fields in descriptor.proto, of which the paths to comments are made."""


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text))


def _texts(node: object) -> Iterator[str]:
    """Give all descriptions, each as its words; the first sentence of an operation is its summary."""
    if isinstance(node, dict):
        told = [node.get("summary", ""), node.get("description", "")]
        yield _words(" ".join(text for text in told if isinstance(text, str)))
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _texts(child)


def test_errors_are_those_that_are_documented() -> None:
    page = generate.ERRORS.read_text()
    answers = DOCUMENT["components"]["responses"]
    documented = generate.error_responses(page)
    assert {"Error402", "Error405", "Error413", "Error429"} <= documented.keys()
    assert answers.keys() == documented.keys()
    for name, answer in documented.items():
        assert answer.items() <= answers[name].items(), f"{name}: {REGENERATE}"
    reason = DOCUMENT["components"]["schemas"]["ErrorInfo"]["properties"]["reason"]
    assert reason["description"] == generate.reasons_in_words(page), REGENERATE


def test_every_reference_leads_somewhere() -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        elif isinstance(node, list):
            for item in node:
                yield from references(item)

    for reference in set(references(DOCUMENT)):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in DOCUMENT["components"][kind], reference


def test_examples_are_good() -> None:
    examined = 0
    for binding in BINDINGS:
        one = operation(binding)
        contents = [one.get("requestBody", {}), *one["responses"].values()]
        for content in (
            content for each in contents for content in each.get("content", {}).values()
        ):
            for example in content.get("examples", {}).values():
                _validate(content["schema"], example["value"])
                examined += 1
        for parameter in one.get("parameters", ()):
            if "example" in parameter:
                _validate(parameter["schema"], parameter["example"])
                examined += 1
    for name in ("Error", "ServerSentEvent"):
        for example in DOCUMENT["components"]["schemas"][name]["examples"]:
            _validate({"$ref": f"#/components/schemas/{name}"}, example)
    for answer in DOCUMENT["components"]["responses"].values():
        for example in answer["content"]["application/json"]["examples"].values():
            _validate({"$ref": "#/components/schemas/Error"}, example["value"])
            examined += 1
    assert examined > 50


def _validate(schema: Json, value: object) -> None:
    """Raise jsonschema_rs.ValidationError unless the value is as the schema says."""
    whole = schema | {"components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)
