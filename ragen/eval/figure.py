"""Scores with intervals as an SVG drawing, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_COLOURS = ("#1f77b4", "#d95f02", "#2a9d4a", "#9467bd", "#b8860b", "#c2185b", "#17a2b8", "#555555")
_GREY = "#8a8a8a"
_LABEL, _PLOT, _ROW, _HEAD, _MARGIN = 260, 420, 22, 30, 16


class Point(NamedTuple):
    """``value`` and its interval in per cent (``low``, ``high``: ``None`` where there is none). ``series``:
    place of the result it belongs to, for its colour; ``None`` is a published value, grey."""

    label: str
    value: float
    low: float | None
    high: float | None
    series: int | None


def draw(panels: Mapping[str, Sequence[Point]]) -> str:
    """The figure: a panel a benchmark, a line a result, all on one axis from 0 to 100 per cent."""
    width, y, parts = _LABEL + _PLOT + 90, _MARGIN, []
    for title, points in panels.items():
        y += _HEAD
        parts.append(_text(_MARGIN, y - 10, title, weight="bold"))
        top = y
        for point in points:
            parts += _line(point, y + _ROW / 2)
            y += _ROW
        parts += _grid(top, y)
    y += _MARGIN
    parts += [_text(_x(v), y, f"{v}%", anchor="middle", size=11) for v in range(0, 101, 25)]
    height = y + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}" '
        'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
    )
    return head + "".join(parts) + "</svg>\n"


def _x(value: float) -> float:
    return _LABEL + _PLOT * value / 100


def _line(point: Point, y: float) -> list[str]:
    colour = _GREY if point.series is None else _COLOURS[point.series % len(_COLOURS)]
    parts = [_text(_MARGIN, y + 4, point.label if len(point.label) <= 34 else point.label[:33] + "…")]
    if point.low is not None and point.high is not None:
        parts.append(
            f'<line x1="{_x(point.low):.1f}" x2="{_x(point.high):.1f}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="3"/>'
        )
    parts.append(f'<circle cx="{_x(point.value):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
    parts.append(_text(_LABEL + _PLOT + 14, y + 4, f"{point.value:.1f}"))
    return parts


def _grid(top: float, bottom: float) -> list[str]:
    return [
        f'<line x1="{_x(v):.1f}" x2="{_x(v):.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="#dddddd" stroke-width="1"/>'
        for v in range(0, 101, 25)
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">{escape(text)}</text>'
