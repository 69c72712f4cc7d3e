"""docs/operators.md has every decision and every flag."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from cli import operator
from orchestrator.domain.flags import Invariant
from orchestrator.domain.observations import Decision

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operators.md").read_text()
WHERE_FLAGS_ARE_RAISED = (
    *sorted((ROOT / "orchestrator/domain/saga").glob("*.py")),
    ROOT / "orchestrator/app/worker.py",
)


def test_every_decision_is_explained_as_it_is_typed() -> None:
    words = {decision.value.replace("_", "-") for decision in Decision}
    assert words == set(re.findall(r"^\| `([a-z-]+)`", PAGE, re.MULTILINE))
    assert words == set(operator.resolve.params[1].type.choices)  # type: ignore[attr-defined]  # it is a choice


def test_every_flag_that_is_raised_is_in_the_table() -> None:
    """By its invariant and some of the words in which it says what was seen."""
    table = [line for line in PAGE.splitlines() if re.match(r"\| I\d", line)]
    raised = [flag for name in WHERE_FLAGS_ARE_RAISED for flag in _flags(name)]
    assert len(raised) == len(table)
    for invariant, words in raised:
        of_it = [line for line in table if line.startswith(f"| {invariant} |")]
        seen = [re.split(r" … ?| \(|, and", said)[0] for line in of_it for said in _seen(line)]
        assert any(said.strip(" …*") in words for said in seen), (invariant, words)


def _seen(line: str) -> list[str]:
    return re.findall(r"\*([^*]+)\*", line.split("|")[2])


def _flags(path: Path) -> list[tuple[str, str]]:
    """Give the invariant, and the fixed words of what was seen, of each flag that a file makes."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "Flag"
        ):
            invariant, detail = node.args[:2]
            assert isinstance(invariant, ast.Attribute)
            constants = (n.value for n in ast.walk(detail) if isinstance(n, ast.Constant))
            found.append((Invariant[invariant.attr].value, " ".join(map(str, constants))))
    return found
