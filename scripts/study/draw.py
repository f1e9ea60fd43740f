"""Curves with a band over seeds, as one SVG file of panels."""

from __future__ import annotations

from html import escape
from statistics import fmean

COLOURS = {"mixed": "#c2571a", "nested": "#1b6ca8", "cst": "#3d8b40"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _PLOT_W, _PLOT_H = 340, 230, 48, 30, 275, 165

#: mode -> one curve a seed: [(step, value), ...]
Curves = dict[str, list[list[tuple[float, float]]]]


def smooth(curve: list[tuple[float, float]], width: int) -> list[tuple[float, float]]:
    """Trailing mean over up to ``width`` points."""
    return [(step, fmean(v for _, v in curve[max(0, i - width + 1) : i + 1])) for i, (step, _) in enumerate(curve)]


def band(seeds: list[list[tuple[float, float]]]) -> list[tuple[float, float, float, float]]:
    """(step, mean, lowest, highest) at the steps that every seed has."""
    tables = [dict(curve) for curve in seeds]
    steps = sorted(set.intersection(*(set(t) for t in tables)))
    return [(s, fmean(t[s] for t in tables), min(t[s] for t in tables), max(t[s] for t in tables)) for s in steps]


def figure(panels: dict[str, Curves], columns: int = 3) -> str:
    """An SVG document: a panel for every title, a line (mean) and a band (lowest to highest) a mode."""
    rows = -(-len(panels) // columns)
    body = [_panel(title, curves, i % columns * _WIDTH, i // columns * _HEIGHT) for i, (title, curves) in enumerate(panels.items())]
    legend = "".join(
        f'<rect x="{60 + 110 * i}" y="{rows * _HEIGHT + 6}" width="14" height="14" fill="{colour}"/>'
        f'<text x="{80 + 110 * i}" y="{rows * _HEIGHT + 18}">{name}</text>'
        for i, (name, colour) in enumerate(COLOURS.items())
    )
    size = f'width="{columns * _WIDTH}" height="{rows * _HEIGHT + 30}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(body)}{legend}</svg>\n'
    )


def _panel(title: str, curves: Curves, x0: float, y0: float) -> str:
    bands = {mode: band(seeds) for mode, seeds in curves.items() if seeds and all(seeds)}
    points = [p for b in bands.values() for p in b]
    if not points:
        return ""
    right = max(p[0] for p in points) or 1.0
    low, high = min(0.0, *(p[2] for p in points)), max(p[3] for p in points) * 1.05 or 1.0

    def at(step: float, value: float) -> str:
        return f"{x0 + _LEFT + step / right * _PLOT_W:.1f},{y0 + _TOP + (1 - (value - low) / (high - low)) * _PLOT_H:.1f}"

    parts = [f'<text x="{x0 + _LEFT}" y="{y0 + 18}" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        start, end = at(0, value).split(","), at(right, value).split(",")
        parts.append(f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#ddd"/>')
        parts.append(f'<text x="{x0 + _LEFT - 5}" y="{float(start[1]) + 4}" text-anchor="end" fill="#555">{value:.3g}</text>')
        parts.append(f'<text x="{x0 + _LEFT + share * _PLOT_W}" y="{y0 + _TOP + _PLOT_H + 15}" text-anchor="middle" fill="#555">{share * right:.0f}</text>')
    for mode, rows in bands.items():
        outline = " ".join([at(s, top) for s, _, _, top in rows] + [at(s, bottom) for s, _, bottom, _ in reversed(rows)])
        parts.append(f'<polygon points="{outline}" fill="{COLOURS[mode]}" fill-opacity="0.15"/>')
        line = " ".join(at(s, mean) for s, mean, _, _ in rows)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[mode]}" stroke-width="2"/>')
    return "".join(parts)
