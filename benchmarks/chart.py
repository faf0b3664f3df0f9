"""Curves over one common axis as an SVG, by hand: a benchmark needs no plotting library for four panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, COLUMNS = 560, 330, 56, 34, 44, 2
COLOURS = ("#d6231f", "#1f6fb4", "#74add1", "#2b8c47", "#8fcf7f", "#7b52a8", "#b79fd0", "#8a8a8a")


@dataclass(frozen=True, slots=True)
class Curve:
    """One value at each point of the axis; it ends where the values become infinite."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    curves: Sequence[Curve]


def svg(panels: Sequence[Panel], axis: Sequence[float], label: str) -> str:
    """Panels two in a row, values on a logarithmic scale, the first curve in bold."""
    rows = ceil(len(panels) / COLUMNS)
    size = f'width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}"'
    places = [(number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT) for number in range(len(panels))]
    drawn = [
        f'<g transform="translate({left},{top})">{"".join(_panel(one, axis, label))}</g>'
        for (left, top), one in zip(places, panels, strict=True)
    ]
    style = 'font-family="sans-serif" font-size="11"'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{ground}\n' + "\n".join(drawn) + "\n</svg>\n"


def _panel(panel: Panel, axis: Sequence[float], label: str) -> Iterator[str]:
    finite = [value for curve in panel.curves for value in curve.values if value < inf]
    low, high = floor(log10(min(finite))), ceil(log10(max(finite)))
    right, bottom = WIDTH - 110, HEIGHT - BOTTOM

    def x(value: float) -> float:
        return LEFT + (right - LEFT) * (value - axis[0]) / (axis[-1] - axis[0])

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (log10(value) - low) / (high - low)

    yield f'<text x="{LEFT}" y="20" font-weight="bold">{panel.title}</text>'
    for power in range(low, high + 1):
        level = y(10**power)
        yield f'<path d="M{LEFT} {level:.1f}H{right}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{10**power:g}</text>'
    for value in axis:
        yield f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{bottom + 32}" text-anchor="middle">{label}</text>'
    for number, curve in enumerate(panel.curves):
        colour, width = COLOURS[number % len(COLOURS)], 2.5 if number == 0 else 1.2
        points = " ".join(
            f"{x(at):.1f},{y(value):.1f}" for at, value in zip(axis, curve.values, strict=True) if value < inf
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        level = TOP + 12 + 15 * number
        yield f'<path d="M{right + 8} {level - 4}h16" stroke="{colour}" stroke-width="{width}"/>'
        yield f'<text x="{right + 28}" y="{level}">{curve.name}</text>'
