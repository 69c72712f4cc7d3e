"""The picture of a chaos run."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.chaos.drawing import Dot, Row, timeline

SVG = "{http://www.w3.org/2000/svg}"


def test_each_purchase_is_a_dot_and_each_fault_a_stroke_in_its_row() -> None:
    dots = [Dot(1.0, 0.5, "purchased"), Dot(2.0, 500.0, "purchased"), Dot(3.0, 0.0, "failed")]
    rows = [Row("Valkey killed", [1.5, 2.5]), Row("Envoy <killed>", [])]
    picture = ET.fromstring(timeline("Purchases & faults", dots, rows))
    paths = [path.attrib["d"].count("M") for path in picture.iter(f"{SVG}path")]
    assert sorted(paths, reverse=True)[:3] == [2, 1, 0]
    strokes = [line for line in picture.iter(f"{SVG}line") if line.get("stroke-width") == "2"]
    assert len(strokes) == 2
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"Purchases & faults", "Valkey killed", "Envoy <killed>", "purchased 2"} <= {*texts}


def test_a_run_without_purchases_can_be_drawn() -> None:
    assert ET.fromstring(timeline("nothing", [], [])).tag == f"{SVG}svg"
