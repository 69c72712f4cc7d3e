"""Draws results as SVG: lines over an axis, or bars side by side. Text and shapes only, legible on any background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 24, 84, 62
_PLOT_W, _PLOT_H = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_COLOURS = ("#1663c7", "#c8621b", "#5b6770", "#2a8a57")
_TICKS = 5
_LEGEND_CHARACTER = 7.2

WHOLE_FROM = 100
"""Numbers from here on are written without decimals; below it decimals say something."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name and its points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A group of bars: its name and a value for each of the chart's series, None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A level to compare with, such as an aim."""

    name: str
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture of one measure: lines, or bars if ``bars`` is given.

    Attributes:
        file: its file's name, without the ending.
        title: what it shows.
        x: what the horizontal axis is, with its unit.
        y: likewise of the vertical one.
        lines: the lines.
        bars: groups of bars.
        names: of the bars in each group, in their order.
        mark: a level to compare with.
        log_x: whether the horizontal axis is logarithmic.
        log_y: likewise of the vertical one.
        dots: whether points are marked on lines.

    """

    file: str
    title: str
    x: str
    y: str
    lines: Sequence[Series] = ()
    bars: Sequence[Bars] = ()
    names: Sequence[str] = ("ours", "naive")
    mark: Mark | None = None
    log_x: bool = False
    log_y: bool = False
    dots: bool = False


def draw(chart: Chart, folder: Path) -> Path:
    """Write a chart as SVG into a folder; give the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{chart.file}.svg"
    file.write_text(svg(chart), encoding="utf-8")
    return file


def svg(chart: Chart) -> str:
    """Give the text of a chart."""
    body = _bars(chart) if chart.bars else _lines(chart)
    names = chart.names if chart.bars else [line.name for line in chart.lines]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">'
        ),
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 28, chart.title, size=16, weight=600),
        *_legend(names),
        *body,
        _text(_LEFT + _PLOT_W / 2, HEIGHT - 14, chart.x, anchor="middle", colour="#444444"),
        (
            f'<text transform="translate(20 {_TOP + _PLOT_H / 2}) rotate(-90)" text-anchor="middle" fill="#444444">'
            f"{escape(chart.y)}</text>"
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axis:
    """Turns values into places: from ``low`` at ``start`` to ``high`` at ``end``."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, log: bool, from_zero: bool
    ) -> None:
        self._start, self._end, self._log = start, end, log
        if log:
            self._low, self._high = _log_bounds(values)
            self.ticks = [
                mantissa * 10.0**power
                for power in range(math.floor(math.log10(self._low)), 12)
                for mantissa in (1, 2, 5)
                if self._low <= mantissa * 10.0**power <= self._high * 1.001
            ]
        else:
            self._low = 0.0 if from_zero else min(values)
            step = _step(max(values) - self._low)
            self._low = math.floor(self._low / step) * step
            self._high = math.ceil(max(values) / step - 1e-9) * step
            count = round((self._high - self._low) / step)
            self.ticks = [self._low + step * number for number in range(count + 1)]

    def at(self, value: float) -> float:
        low, high = self._low, self._high
        if self._log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self._start + (value - low) / (high - low) * (self._end - self._start)


def _log_bounds(values: Sequence[float]) -> tuple[float, float]:
    steps = [mantissa * 10.0**power for power in range(-6, 13) for mantissa in (1, 2, 5)]
    low = max(step for step in steps if step <= min(values) * 1.001)
    high = min(step for step in steps if step >= max(values) * 0.999)
    return low, high if high > low else low * 10


def _step(span: float) -> float:
    rough = max(span, 1e-9) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(mantissa * power for mantissa in (1, 2, 5, 10) if mantissa * power >= rough * 0.999)


def _lines(chart: Chart) -> list[str]:
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [y for line in chart.lines for _, y in line.points]
    across = _Axis(xs, _LEFT, _LEFT + _PLOT_W, log=chart.log_x, from_zero=True)
    up = _up(chart, ys)
    parts = _grid(up)
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(_line(x, _TOP + _PLOT_H, x, _TOP + _PLOT_H + 5, "#888888"))
        parts.append(_text(x, _TOP + _PLOT_H + 21, _number(tick), anchor="middle"))
    for line, colour in zip(chart.lines, _COLOURS, strict=False):
        places = [(across.at(x), up.at(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>'
        )
        if chart.dots:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>' for x, y in places
            ]
    return parts + _mark(chart, up)


def _bars(chart: Chart) -> list[str]:
    values = [value for group in chart.bars for value in group.values if value is not None]
    up = _up(chart, values)
    parts = _grid(up)
    bottom = _TOP + _PLOT_H
    group_w = _PLOT_W / len(chart.bars)
    bar_w = min(64.0, group_w * 0.7 / len(chart.names))
    for number, group in enumerate(chart.bars):
        centre = _LEFT + group_w * (number + 0.5)
        for place, value in enumerate(group.values):
            if value is None:
                continue
            x = centre + (place - len(group.values) / 2) * bar_w
            y = up.at(value)
            parts.append(
                f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{bar_w - 4:.1f}" height="{max(bottom - y, 1):.1f}" '
                f'fill="{_COLOURS[place]}"/>'
            )
            parts.append(_text(x + bar_w / 2, y - 6, _number(value), anchor="middle", size=12))
        parts.append(_text(centre, bottom + 21, group.name, anchor="middle"))
    return parts + _mark(chart, up)


def _up(chart: Chart, values: Sequence[float]) -> _Axis:
    levels = [*values, *([chart.mark.y] if chart.mark else [])]
    return _Axis(levels, _TOP + _PLOT_H, _TOP, log=chart.log_y, from_zero=True)


def _grid(up: _Axis) -> list[str]:
    parts = []
    for tick in up.ticks:
        y = up.at(tick)
        parts.append(_line(_LEFT, y, _LEFT + _PLOT_W, y, "#e3e3e3"))
        parts.append(_text(_LEFT - 8, y + 4.5, _number(tick), anchor="end"))
    parts.append(_line(_LEFT, _TOP + _PLOT_H, _LEFT + _PLOT_W, _TOP + _PLOT_H, "#888888"))
    return parts


def _mark(chart: Chart, up: _Axis) -> list[str]:
    if chart.mark is None:
        return []
    y = up.at(chart.mark.y)
    return [
        (
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _PLOT_W}" y2="{y:.1f}" stroke="#b00020" '
            'stroke-width="1.4" stroke-dasharray="6 4"/>'
        ),
        _text(_LEFT + _PLOT_W - 4, y - 6, chart.mark.name, anchor="end", colour="#b00020", size=12),
    ]


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    x = float(_LEFT)
    for name, colour in zip(names, _COLOURS, strict=False):
        parts.append(f'<rect x="{x:.1f}" y="44" width="14" height="14" fill="{colour}"/>')
        parts.append(_text(x + 20, 56, name))
        x += 44 + _LEGEND_CHARACTER * len(name)
    return parts


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: int = 400,
    colour: str = "#1d1d1f",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _number(value: float) -> str:
    if value >= WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:.3g}"
