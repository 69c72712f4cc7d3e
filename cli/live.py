"""A purchase as it happens, on a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_SHOWN_QUOTES = 10
_BAR_WIDTH = 24
_FINAL_STYLES = {
    "purchased": "green",
    "price_not_met": "yellow",
    "not_available": "yellow",
    "failed": "red",
    "cancelled": "red",
}


@dataclass(slots=True)
class PurchaseView:
    """Everything that a watch has told so far, and how it looks.

    Attributes:
        title: what is bought.
        max_price: the most that the customer pays.
        result: the final purchase request, once it is there.
        collection: how the gathering of quotes went, once it is over.

    """

    title: str
    max_price: float
    result: dict[str, Any] | None = None
    collection: dict[str, Any] | None = None
    _began: datetime | None = None
    _steps: list[tuple[float, Text]] = field(default_factory=list)
    _quotes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _misses: dict[str, str] = field(default_factory=dict)

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event of a watch, as its JSON."""
        at = datetime.fromisoformat(event["event_time"])
        self._began = self._began or at
        elapsed_s = (at - self._began).total_seconds()
        if step := event.get("step"):
            self._steps.append((elapsed_s, _step_line(step)))
        elif quotes := event.get("quotes"):
            self._quotes |= {quote["seller_id"]: quote for quote in quotes.get("quotes", ())}
            self._misses |= {miss["seller_id"]: miss["reason"] for miss in quotes.get("misses", ())}
        elif collection := event.get("collection"):
            self.collection = collection
        elif result := event.get("result"):
            self.result = result
            style = _FINAL_STYLES.get(result["status"], "")
            self._steps.append((elapsed_s, Text(result["status"], style=f"bold {style}")))

    def __rich__(self) -> RenderableType:
        """Show the steps beside the best quotes."""
        return Panel(
            Group(
                Columns([self._steps_table(), self._quotes_table()], padding=(0, 4)), self._tally()
            ),
            title=self.title,
            title_align="left",
        )

    def _steps_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for elapsed_s, line in self._steps:
            table.add_row(Text(f"{elapsed_s:5.2f} s", style="dim"), line)
        return table

    def _quotes_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        best = sorted(self._quotes.values(), key=lambda quote: float(quote["total"]))
        dearest = max((float(quote["total"]) for quote in best), default=1.0)
        for quote in best[:_SHOWN_QUOTES]:
            total = float(quote["total"])
            style = "green" if total <= self.max_price else "yellow"
            table.add_row(
                Text(quote["seller_id"]),
                Text(f"{total:8.2f}", style=style),
                Text("━" * max(1, round(_BAR_WIDTH * total / dearest)), style=style),
                Text(f"{quote.get('latency_ms', 0)} ms", style="dim", justify="right"),
            )
        return table

    def _tally(self) -> Text:
        reasons: dict[str, int] = {}
        for reason in self._misses.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        parts = [f"{len(self._quotes)} prices"]
        parts += [
            f"{number} {reason.replace('_', ' ')}" for reason, number in sorted(reasons.items())
        ]
        return Text(", ".join(parts), style="dim")


def _step_line(step: dict[str, Any]) -> Text:
    words = [step["name"].replace("_", " ")]
    if seller := step.get("seller_id"):
        words.append(seller)
    if (total := step.get("total")) is not None:
        words.append(f"{total:.2f}")
    if reason := step.get("reason"):
        words.append(f"({reason.replace('_', ' ')})")
    return Text(" ".join(words))
