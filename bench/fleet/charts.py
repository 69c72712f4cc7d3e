"""What is drawn of replays."""

from __future__ import annotations

from collections.abc import Mapping

from bench.drawing import Chart, Mark, Series
from bench.fleet.scores import Summary


def regret_chart(summaries: Mapping[str, Summary]) -> Chart:
    """Draw the regret over the day, a line for each policy."""
    return Chart(
        file="selection-regret",
        title="Price paid above the lowest of all 10,000 sellers, from knowing nothing",
        x="hour of the simulated day",
        y="mean regret, %",
        lines=[Series(name, result.regret_by_hour) for name, result in summaries.items()],
        mark=Mark("1 %", 1.0),
    )


def reliability_chart(summaries: Mapping[str, Summary]) -> Chart:
    """Draw the reliability diagram: what was said beside what came true, a line for each policy."""
    lines = [
        Series(name, [(group.said * 100, group.true * 100) for group in result.bins])
        for name, result in summaries.items()
    ]
    highest = max(x for line in lines for x, _ in line.points)
    return Chart(
        file="selection-reliability",
        title="“A cheaper seller was not asked”: how often that is said, and true",
        x="stated chance, %",
        y="came true, %",
        lines=[*lines, Series("exactly as stated", [(0.0, 0.0), (highest, highest)])],
        dots=True,
    )
