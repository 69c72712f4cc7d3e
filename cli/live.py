"""A purchase, or a comparison of prices, as it happens on a terminal."""

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
_LEAST_CHANCE = 0.005
_FINAL_STYLES = {
    "purchased": "green",
    "price_not_met": "yellow",
    "not_available": "yellow",
    "failed": "red",
    "cancelled": "red",
}


@dataclass(slots=True)
class QuoteBoard:
    """What sellers have said so far, and how it looks: the best prices, and how many said what.

    Attributes:
        max_price: what is above it is yellow; everything is fine when None.

    """

    max_price: float | None = None
    _quotes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _misses: dict[str, str] = field(default_factory=dict)

    def apply(self, batch: dict[str, Any]) -> None:
        """Take in a batch of quotes and misses, as its JSON."""
        self._quotes |= {quote["seller_id"]: quote for quote in batch.get("quotes", ())}
        self._misses |= {miss["seller_id"]: miss["reason"] for miss in batch.get("misses", ())}

    def __rich__(self) -> RenderableType:
        """Show the best prices as bars."""
        table = Table.grid(padding=(0, 1))
        best = sorted(self._quotes.values(), key=lambda quote: float(quote["total"]))
        dearest = max((float(quote["total"]) for quote in best), default=1.0)
        for quote in best[:_SHOWN_QUOTES]:
            total = float(quote["total"])
            fine = self.max_price is None or total <= self.max_price
            style = "green" if fine else "yellow"
            table.add_row(
                Text(quote["seller_id"]),
                Text(f"{total:8.2f}", style=style),
                Text("━" * max(1, round(_BAR_WIDTH * total / dearest)), style=style),
                Text(_when(quote), style="dim", justify="right"),
            )
        return table

    def tally(self) -> Text:
        """Count the prices, and the sellers without one by reason."""
        reasons: dict[str, int] = {}
        for reason in self._misses.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        parts = [f"{len(self._quotes)} prices"]
        parts += [
            f"{number} {reason.replace('_', ' ')}" for reason, number in sorted(reasons.items())
        ]
        return Text(", ".join(parts), style="dim")


@dataclass(slots=True)
class QuotesView:
    """A comparison of prices under way.

    Attributes:
        title: what is compared.
        board: what sellers have said.

    """

    title: str
    board: QuoteBoard = field(default_factory=QuoteBoard)

    def __rich__(self) -> RenderableType:
        """Show the best prices."""
        return Panel(
            Group(self.board, self.board.tally()), title=Text(self.title), title_align="left"
        )


@dataclass(slots=True)
class PurchaseView:
    """Everything that a watch has told so far, and how it looks.

    Attributes:
        title: what is bought.
        max_price: the most that the customer pays; None when that is not known.
        result: the final purchase request, once it is there.
        collection: how the gathering of quotes went, once it is over.

    """

    title: str
    max_price: float | None = None
    result: dict[str, Any] | None = None
    collection: dict[str, Any] | None = None
    _began: datetime | None = None
    _steps: list[tuple[float, Text]] = field(default_factory=list)
    _board: QuoteBoard = field(init=False)

    def __post_init__(self) -> None:
        self._board = QuoteBoard(self.max_price)

    def apply(self, event: dict[str, Any]) -> Text | None:
        """Take in one event of a watch, as its JSON; give the line that it adds to the steps, if it does."""
        at = datetime.fromisoformat(event["event_time"])
        self._began = self._began or at
        if step := event.get("step"):
            return self._add(at, _step_line(step))
        if quotes := event.get("quotes"):
            self._board.apply(quotes)
        elif collection := event.get("collection"):
            self.collection = collection
            if coverage := collection.get("coverage"):
                return self._add(at, Text(coverage_words(coverage)))
        elif result := event.get("result"):
            self.result = result
            style = _FINAL_STYLES.get(result["status"], "")
            return self._add(at, Text(result["status"].replace("_", " "), style=f"bold {style}"))
        return None

    def __rich__(self) -> RenderableType:
        """Show the steps beside the best quotes."""
        return Panel(
            Group(Columns([self._steps_table(), self._board], padding=(0, 4)), self._board.tally()),
            title=Text(self.title),
            title_align="left",
        )

    def _add(self, at: datetime, line: Text) -> Text:
        elapsed_s = (at - (self._began or at)).total_seconds()
        self._steps.append((elapsed_s, line))
        return Text.assemble((f"{elapsed_s:6.2f} s  ", "dim"), line)

    def _steps_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for elapsed_s, line in self._steps:
            table.add_row(Text(f"{elapsed_s:5.2f} s", style="dim"), line)
        return table


def _when(quote: dict[str, Any]) -> str:
    if age_ms := quote.get("age_ms"):
        return f"{age_ms / 1000:.0f} s ago"
    return f"{quote.get('latency_ms', 0)} ms"


def coverage_words(coverage: dict[str, Any]) -> str:
    """Say what may have been missed by asking some sellers of many."""
    chance = _chance(coverage.get("chance_cheaper", 0.0))
    saving = coverage.get("expected_saving")
    told = f"asked {coverage.get('asked', 0):,} of {coverage['of']:,}; "
    if saving is None:
        return f"{told}the chance that one of the others has it is {chance}"
    return f"{told}the chance of a cheaper one is {chance}, by {saving:.2f} on average"


def _chance(chance: float) -> str:
    if chance < _LEAST_CHANCE:
        return "below 1%"
    return "above 99%" if chance > 1.0 - _LEAST_CHANCE else f"{chance:.0%}"


def _step_line(step: dict[str, Any]) -> Text:
    words = [step["name"].replace("_", " ")]
    if seller := step.get("seller_id"):
        words.append(seller)
    if (total := step.get("total")) is not None:
        words.append(f"{total:.2f}")
    if reason := step.get("reason"):
        words.append(f"({reason.replace('_', ' ')})")
    return Text(" ".join(words))
