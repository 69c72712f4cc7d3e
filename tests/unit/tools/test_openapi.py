"""How the OpenAPI document is put together."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from buf.validate import validate_pb2
from tools.openapi import generate
from tools.openapi.generate import Json, Problem


def overlay(*actions: Json) -> Json:
    return {"actions": list(actions)}


def test_an_overlay_merges_objects_and_goes_on_with_lists() -> None:
    document = {
        "paths": {"/a": {"get": {"tags": ["x"], "responses": {"200": {"description": "d"}}}}}
    }
    update = {"tags": ["y"], "responses": {"400": {"description": "wrong"}}}
    generate.apply(overlay({"target": "$.paths.*.get", "update": update}), document)
    assert document["paths"]["/a"]["get"] == {
        "tags": ["x", "y"],
        "responses": {"200": {"description": "d"}, "400": {"description": "wrong"}},
    }


def test_what_two_places_are_given_is_not_shared_by_them() -> None:
    document: Json = {"a": {}, "b": {}}
    first = {"target": "$.*", "update": {"responses": {}}}
    second = {"target": "$.a.responses", "update": {"200": "only here"}}
    generate.apply(overlay(first, second), document)
    assert document == {"a": {"responses": {"200": "only here"}}, "b": {"responses": {}}}


def test_an_overlay_removes_from_objects_and_lists() -> None:
    document: Json = {"a": {"b": 1, "c": 2}, "tags": [{"name": "x"}, {"name": "y"}, {"name": "x"}]}
    generate.apply(
        overlay(
            {"target": "$.a.b", "remove": True},
            {"target": "$.tags[?@.name == 'x']", "remove": True},
        ),
        document,
    )
    assert document == {"a": {"c": 2}, "tags": [{"name": "y"}]}


@pytest.mark.parametrize(
    ("target", "update"),
    [("$.paths['/gone']", {"get": {}}), ("$.title", {"more": 1}), ("$.paths", ["a list"])],
    ids=["not there", "not an object", "another kind"],
)
def test_an_overlay_that_does_not_fit_is_refused(target: str, update: object) -> None:
    document = {"title": "Bookmesh", "paths": {"/a": {}}}
    with pytest.raises(Problem, match=r"overlay\.yaml: "):
        generate.apply(overlay({"target": target, "update": update}), document)


def field(**rules: object) -> FieldDescriptorProto:
    made = FieldDescriptorProto(name="f", type=FieldDescriptorProto.TYPE_STRING)
    made.options.Extensions[validate_pb2.field].MergeFrom(validate_pb2.FieldRules(**rules))  # type: ignore[arg-type]
    return made


def test_limits_become_json_schema() -> None:
    text = field(string=validate_pb2.StringRules(min_len=1, max_len=64))
    assert generate.limits(text) == {"minLength": 1, "maxLength": 64}
    price = field(double=validate_pb2.DoubleRules(gt=0, lte=100000, finite=True))
    assert generate.limits(price) == {"exclusiveMinimum": 0, "maximum": 100000}
    assert generate.required(text)
    assert generate.required(price)
    assert not generate.required(field(string=validate_pb2.StringRules(max_len=64)))
    assert generate.limits(FieldDescriptorProto(name="free")) == {}


def test_where_empty_means_none_the_limits_hold_for_the_others() -> None:
    ignore = validate_pb2.IGNORE_IF_ZERO_VALUE
    code = field(ignore=ignore, string=validate_pb2.StringRules(pattern="^[A-Z]{3}$"))
    assert generate.limits(code) == {"pattern": "^$|^[A-Z]{3}$"}
    email = field(ignore=ignore, string=validate_pb2.StringRules(email=True))
    assert generate.limits(email) == {"anyOf": [{"format": "email"}, {"maxLength": 0}]}


def test_a_limit_that_is_not_known_is_not_passed_over() -> None:
    with pytest.raises(Problem, match=r"f: .*string\.prefix"):
        generate.limits(field(string=validate_pb2.StringRules(prefix="x")))


def test_an_answer_always_has_what_is_neither_optional_nor_a_message() -> None:
    kinds = FieldDescriptorProto
    message = DescriptorProto(
        field=[
            kinds(name="text", type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL),
            kinds(name="list", type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED),
            kinds(name="message", type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL),
            kinds(name="maybe", type=kinds.TYPE_STRING, oneof_index=0, proto3_optional=True),
        ]
    )
    assert generate.always_there(message) == ["list", "text"]


def test_reasons_stand_under_their_status() -> None:
    page = "| `LATE` | DEADLINE_EXCEEDED | 504 | too late | yes |\n| `GONE` | CANCELLED | 499 | you left | yes |\n"
    responses = generate.error_responses(page)
    assert set(responses) == {"Error504"}
    assert responses["Error504"]["description"] == "`LATE`"
    [example] = responses["Error504"]["content"]["application/json"]["examples"].values()
    assert (example["value"]["code"], example["value"]["message"]) == (4, "too late")
    assert "| `LATE` | 504 | too late | yes |" in generate.reasons_in_words(page)
