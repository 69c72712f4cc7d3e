"""Draws a chaos run as SVG: how long each purchase took, by when it was asked for, above the faults at their times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 860
_LEFT, _RIGHT, _TOP = 150, 24, 84
_PLOT_W, _PLOT_H = _WIDTH - _LEFT - _RIGHT, 260
_ROW_H = 20
_FAULTS_TOP = _TOP + _PLOT_H + 22
_FROM_S, _TO_S = 0.01, 100.0
_PROMISED_S = 20.0
_TICKS = 8
_COLOURS = {
    "purchased": "#1663c7",
    "price_not_met": "#c8621b",
    "not_available": "#2a8a57",
    "failed": "#5b6770",
    "cancelled": "#8a2a7d",
}
_GRID, _INK, _FAULT = "#e3e3e3", "#1d1d1f", "#b00020"


@dataclass(frozen=True, slots=True)
class Dot:
    """A purchase: when it was accepted, in seconds from the beginning; how long it took; how it ended."""

    at_s: float
    took_s: float
    status: str


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of fault and when it was made, in seconds from the beginning."""

    name: str
    at_s: Sequence[float]


def timeline(title: str, dots: Sequence[Dot], rows: Sequence[Row]) -> str:
    """Give the text of the picture."""
    ends_s = max([*(dot.at_s for dot in dots), *(at for row in rows for at in row.at_s), 1.0])
    bottom = _FAULTS_TOP + _ROW_H * len(rows)
    height = bottom + 52

    def across(at_s: float) -> float:
        return _LEFT + at_s / ends_s * _PLOT_W

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="24" y="30" font-size="16" font-weight="600" fill="{_INK}">{escape(title)}</text>',
        *_legend(dots),
    ]
    for tick in (0.01, 0.1, 1.0, 10.0, 100.0):
        y = _up(tick)
        parts += [
            _line(_LEFT, y, _LEFT + _PLOT_W, y, _GRID),
            _text(_LEFT - 8, y + 4.5, f"{tick:g} s", anchor="end"),
        ]
    parts += [
        _line(_LEFT, _up(_PROMISED_S), _LEFT + _PLOT_W, _up(_PROMISED_S), _FAULT, dash="6 4"),
        _text(_LEFT + _PLOT_W, _up(_PROMISED_S) - 6, f"{_PROMISED_S:g} s", anchor="end"),
    ]
    for status, colour in _COLOURS.items():
        # A line of no length with round ends is a dot, and takes a fraction of a circle's text.
        path = "".join(
            f"M{across(dot.at_s):.1f} {_up(dot.took_s):.1f}h0"
            for dot in dots
            if dot.status == status
        )
        parts.append(
            f'<path d="{path}" stroke="{colour}" stroke-width="4.8" stroke-linecap="round" stroke-opacity="0.75"/>'
        )
    for number, row in enumerate(rows):
        y = _FAULTS_TOP + _ROW_H * number
        parts.append(_text(_LEFT - 8, y + 14, row.name, anchor="end"))
        parts.append(_line(_LEFT, y + 10, _LEFT + _PLOT_W, y + 10, _GRID))
        parts += [_line(across(at), y + 3, across(at), y + 17, _FAULT, width=2) for at in row.at_s]
    step = _step(ends_s)
    for number in range(int(ends_s / step) + 1):
        x = across(step * number)
        parts.append(_line(x, bottom + 2, x, bottom + 7, _INK))
        parts.append(_text(x, bottom + 22, f"{step * number:g}", anchor="middle"))
    middle = _LEFT + _PLOT_W / 2
    parts.append(_text(middle, bottom + 42, "seconds since the first purchase", anchor="middle"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _up(took_s: float) -> float:
    low, high = math.log(_FROM_S), math.log(_TO_S)
    value = math.log(min(max(took_s, _FROM_S), _TO_S))
    return _TOP + _PLOT_H - (value - low) / (high - low) * _PLOT_H


def _step(span: float) -> float:
    return next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 3600) if step * _TICKS >= span)


def _legend(dots: Sequence[Dot]) -> list[str]:
    parts = [_text(24, 58, "from accepted to final:", colour="#444444")]
    x = 180.0
    for status, colour in _COLOURS.items():
        number = sum(dot.status == status for dot in dots)
        if number:
            name = f"{status.replace('_', ' ')} {number}"
            parts.append(f'<circle cx="{x:.0f}" cy="54" r="5" fill="{colour}"/>')
            parts.append(_text(x + 10, 58, name))
            x += 34 + 7.2 * len(name)
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dash: str = "none"
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-dasharray="{dash}"/>'
    )
