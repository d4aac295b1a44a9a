"""Cost against Dice as inline SVG, coloured by the page's style sheet for light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from preceptor.evaluation.figures import number, ticks

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 50, 118, 22, 46
APART = 15
"""Pixels between the lines of two labels of points that lie on top of each other."""
SHAPES = {
    "student": '<circle cx="{x}" cy="{y}" r="5.5"/>',
    "control": '<rect x="-5" y="-5" width="10" height="10" transform="translate({x} {y})"/>',
    "teacher": '<path d="M0-6.6 6.6 0 0 6.6-6.6 0Z" transform="translate({x} {y})"/>',
}


@dataclass(frozen=True)
class Point:
    """A network: its role (a class of the style sheet), its label, cost (above 0) and score."""

    role: str
    label: str
    cost: float
    score: float


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Cost (logarithmic where it spans more than a factor of four) against score; empty for fewer than two points.

    Points of equal cost stand on one vertical line; their labels are moved apart and tied to them by thin lines.
    """
    if len(points) < 2:
        return ""
    costs = [point.cost for point in points]
    logarithmic = max(costs) > 4 * min(costs)
    turn = math.log10 if logarithmic else float
    left, right = _widened(turn(min(costs)), turn(max(costs)), 0.08)
    low, high = _widened(min(p.score for p in points), max(p.score for p in points), 0.08)

    def x_of(cost: float) -> float:
        return LEFT + (turn(cost) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    title = escape(f"{y_label} of each network against {x_label}")
    parts = [f'<svg class="chart scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    for tick in ticks(low, high):
        y = y_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in _decades(10**left, 10**right) if logarithmic else ticks(left, right):
        x = x_of(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="y-label" x="{LEFT}" y="{TOP - 8}">{escape(y_label)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    placed = [(x_of(point.cost), y_of(point.score)) for point in points]
    for point, (x, y), label in zip(points, placed, _apart(placed), strict=True):
        shape = SHAPES[point.role].format(x=f"{x:.1f}", y=f"{y:.1f}")
        tie = f'<line x1="{x + 6:.1f}" y1="{y:.1f}" x2="{x + 17:.1f}" y2="{label:.1f}"/>'
        name = f'<text x="{x + 20:.1f}" y="{label + 4:.1f}">{escape(point.label)}</text>'
        parts.append(f'<g class="{point.role}">{tie}{shape}{name}</g>')
    parts.append("</svg>")
    return "".join(parts)


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    margin = share * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within the bounds."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for tick in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= tick <= high]


def _apart(placed: Sequence[tuple[float, float]], near: float = 30) -> list[float]:
    """Heights of labels at least `APART` from each other among points that lie within `near` pixels across."""
    found = [y for _, y in placed]
    columns: list[list[int]] = []
    for index in sorted(range(len(placed)), key=lambda i: placed[i][0]):
        if columns and placed[index][0] - placed[columns[-1][0]][0] < near:
            columns[-1].append(index)
        else:
            columns.append([index])
    for column in columns:
        column.sort(key=lambda i: placed[i][1])
        total = APART * (len(column) - 1)
        centre = sum(placed[i][1] for i in column) / len(column)
        lowest = min(max(centre - total / 2, TOP), max(TOP, HEIGHT - BOTTOM - total))
        wanted = [placed[i][1] for i in column]
        spread = _spread(wanted)
        if spread[0] < TOP or spread[-1] > HEIGHT - BOTTOM:
            spread = [lowest + APART * rank for rank in range(len(column))]
        for index, y in zip(column, spread, strict=True):
            found[index] = y
    return found


def _spread(wanted: Sequence[float]) -> list[float]:
    """Ascending heights at least `APART` from each other, near those wanted: runs that touch are centred together."""
    groups: list[list[float]] = []
    for value in wanted:
        groups.append([value])
        while len(groups) > 1 and _bottom(groups[-1]) < _top(groups[-2]) + APART:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_bottom(group) + APART * rank for group in groups for rank in range(len(group))]


def _bottom(group: Sequence[float]) -> float:
    return sum(group) / len(group) - APART * (len(group) - 1) / 2


def _top(group: Sequence[float]) -> float:
    return _bottom(group) + APART * (len(group) - 1)


def cost_axis(entries: Sequence[Mapping[str, object]]) -> tuple[str, str, float] | None:
    """(key, label, divisor) of the first cost that all entries have: GFLOPs, else parameters."""
    for key, label, divisor in (("gflops", "GFLOPs of one image", 1.0), ("parameters", "parameters, millions", 1e6)):
        if all(entry.get(key) for entry in entries):
            return key, label, divisor
    return None
