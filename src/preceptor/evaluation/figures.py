"""The report's figures as inline SVG and as positions for HTML, coloured by the page's style sheet for light and dark.

Text inside an SVG shrinks with it, so that what must be read on a phone (interval plots) is laid out in HTML and only
the curves are SVG, drawn narrow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 40


@dataclass(frozen=True)
class Line:
    """One curve. style: a class of the style sheet (the arm). faint: a single seed behind the mean."""

    style: str
    points: tuple[tuple[float, float], ...]
    faint: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) from at or above `low` to at or below `high`."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float, digits: int = 3) -> str:
    """A tick or value without trailing zeros."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") or "0"


def curves(lines: Sequence[Line], y_label: str, title: str) -> str:
    """Curves over epochs as an SVG string; empty where no line has two points."""
    drawn = [line for line in lines if len(line.points) > 1]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_low, x_high = min(xs), max(xs)
    margin = 0.04 * (max(ys) - min(ys)) or 0.01
    y_low, y_high = min(ys) - margin, max(ys) + margin
    if 0 <= min(ys) < 0.35 * max(ys):
        y_low = 0.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low or 1)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
    for tick in ticks(y_low, y_high):
        _, y = place(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(tick, 1)}</text>')
    parts.append(f'<text x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>')
    parts.append(f'<text class="y-label" x="{LEFT}" y="{TOP - 2}">{y_label}</text>')
    for line in sorted(drawn, key=lambda item: not item.faint):
        way = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)
        parts.append(f'<polyline class="line {line.style}{" faint" if line.faint else ""}" points="{way}"/>')
    parts.append("</svg>")
    return "".join(parts)


def mean_line(style: str, lines: Sequence[Line]) -> Line:
    """The mean over seeds at the epochs that all of them reached; a seed that stopped early ends it."""
    tables = [dict(line.points) for line in lines]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    points = tuple((x, sum(table[x] for table in tables) / len(tables)) for x in shared)
    return Line(style, points)


def thinned(points: Sequence[tuple[float, float]], most: int = 240) -> tuple[tuple[float, float], ...]:
    """At most about `most` points, the last one kept."""
    step = max(1, math.ceil(len(points) / most))
    return (*points[::step], *(points[-1:] if (len(points) - 1) % step else ()))


def differences(values: Sequence[float]) -> str:
    """Bars of per-case differences from the largest to the smallest, stretched to the width of the page."""
    ordered = sorted(values, reverse=True)
    high, low = max([0.0, *ordered]), min([0.0, *ordered])
    unit = 196 / (high - low or 1.0)
    zero = 2 + unit * high
    width = 1000 / max(len(ordered), 1)
    parts = [
        '<svg class="bars" viewBox="0 0 1000 200" preserveAspectRatio="none" role="img" '
        'aria-label="Difference in Dice of every case, from the largest gain to the largest loss">'
    ]
    for index, value in enumerate(ordered):
        tall = max(unit * abs(value), 0.6)
        top = zero - tall if value >= 0 else zero
        style = "up" if value > 0 else "down"
        gap = min(0.18 * width, 3)
        parts.append(
            f'<rect class="{style}" x="{index * width + gap / 2:.2f}" y="{top:.2f}" '
            f'width="{max(width - gap, 0.2):.2f}" height="{tall:.2f}"/>'
        )
    parts.append(f'<line class="zero" x1="0" x2="1000" y1="{zero:.2f}" y2="{zero:.2f}"/></svg>')
    return "".join(parts)


def forest(rows: Sequence[Mapping[str, Any]], zero: bool = False) -> dict[str, Any]:
    """Positions in percent for an interval plot: rows with mean, low, high (None or NaN: a point only).

    zero: zero is always on the axis, and marked. Returns rows with `at` = {mean, low, high}, ticks, and the zero.
    """
    values = [v for row in rows for v in (row["mean"], row["low"], row["high"]) if _known(v)]
    values += [0.0] if zero else []
    if not values:
        return {"rows": [], "ticks": [], "zero": None}
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def percent(value: Any) -> str | None:
        return f"{100 * (value - low) / (high - low):.2f}" if _known(value) else None

    placed = [{**row, "at": {key: percent(row[key]) for key in ("mean", "low", "high")}} for row in rows]
    marks = [{"at": percent(tick), "value": tick} for tick in ticks(low, high, 4)]
    return {"rows": placed, "ticks": marks, "zero": percent(0.0) if zero else None}


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
