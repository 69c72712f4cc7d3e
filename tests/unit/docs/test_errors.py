"""docs/errors.md lists every reason that can be raised, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from customers import form
from gateway import convert
from mesh import errors

ROOT = Path(__file__).parents[3]
SERVICES = ("aggregator", "customers", "gateway", "mesh", "orchestrator", "sellers")
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MeshError)
}
BY_EDGE = re.compile(r"\{code: (\d+),.*?reason: ([A-Z_]+)")
ROW = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", re.MULTILINE)
CODES = {
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}


def raised() -> Iterator[tuple[str, str]]:
    """Give reason and status of each error that the services make."""
    for service in SERVICES:
        for file in (ROOT / service).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else ""
                name = function.id if isinstance(function, ast.Name) else name
                for keyword in node.keywords:
                    value = keyword.value
                    if (
                        name in KINDS
                        and keyword.arg == "reason"
                        and isinstance(value, ast.Constant)
                        and isinstance(value.value, str)
                    ):
                        yield value.value, KINDS[name].status
    for kind in KINDS.values():
        yield kind.default_reason, kind.status
    for number in convert.CARD_FAULTS:
        yield form.failure_word(number).upper(), "FAILED_PRECONDITION"


def by_the_edge() -> Iterator[tuple[str, str]]:
    for code, reason in BY_EDGE.findall((ROOT / "deploy/envoy/envoy.yaml").read_text()):
        yield reason, CODES[int(code)]


def test_every_reason_is_documented_and_none_that_is_not_there() -> None:
    documented = set(ROW.findall((ROOT / "docs/errors.md").read_text()))
    made = {*raised(), *by_the_edge()}
    assert ("CANNOT_CANCEL", "FAILED_PRECONDITION") in made
    assert ("BODY_TOO_LARGE", "INVALID_ARGUMENT") in made
    assert sorted(made - documented) == []
    assert sorted(documented - made) == []
