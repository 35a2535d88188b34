"""Line and area charts as SVG text, drawn whole without a script. Colours are classes `c0`…; the page gives them.

It knows nothing of runs: series of points in, markup out.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recall.viewer.text import escape

Points = Sequence[tuple[float, float]]
Unit = Literal["percent", "share", "number", "seconds"]
"""How values are written; `percent` also fixes the axis to 0..100 %, which `share` does not."""

MAX_POINTS = 500
"""A series with more points is averaged into so many bins."""
SMOOTHING = 0.85
"""The weight of the past in the smoothed line as the page opens."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line or one layer of a chart."""

    name: str
    """What the legend calls it."""
    points: Points
    """(x, y), x ascending."""
    colour: int
    """Its colour class: 0 to 7."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where data lie on the canvas."""

    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float = 40
    right: float = 10
    top: float = 8
    bottom: float = 24

    def x(self, value: float) -> float:
        """The canvas x of a data x."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """The canvas y of a data y; it grows downward."""
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def path(self, points: Points) -> str:
        """The `d` of a polyline through `points`."""
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points) if points else ""

    def area(self, upper: Points, lower: Points) -> str:
        """The `d` of the area between two lines."""
        return self.path([*upper, *reversed(lower)]) + "Z" if upper else ""


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in [low, high], about so many, at steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not span > 0:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def smooth(points: Points, weight: float) -> list[tuple[float, float]]:
    """The exponential moving average of `points`, without the bias toward zero at its start."""
    mean, total, smoothed = 0.0, 0.0, []
    for x, y in points:
        mean, total = weight * mean + (1 - weight) * y, weight * total + (1 - weight)
        smoothed.append((x, mean / total))
    return smoothed


def thin(points: Points, limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points, each the mean of an equal share of them."""
    count = min(limit, len(points))
    bins = [points[i * len(points) // count : (i + 1) * len(points) // count] for i in range(count)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins]


def number(value: float, unit: Unit = "number") -> str:
    """`value` for an axis or a read-out."""
    if unit in ("percent", "share"):
        return f"{100 * value:.3g}%"
    suffix = " s" if unit == "seconds" else ""
    if value != 0 and (abs(value) >= 10_000 or abs(value) < 0.001):
        for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{letter}{suffix}"
        return f"{value:.1e}{suffix}"
    return f"{value:.4g}{suffix}"


def line_chart(
    series: Sequence[Series], *, width: int = 400, height: int = 210, unit: Unit = "number", label: str, marks: bool
) -> str:
    """Lines on one frame: with `marks` a dot at each point, otherwise raw lines behind smoothed ones."""
    series = [Series(one.name, thin(one.points), one.colour) for one in series if one.points]
    frame = Frame(width, height, *_ranges(series, unit))
    drawn = []
    for one in series:
        if marks:
            dots = "".join(f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.6"/>' for x, y in one.points)
            dots = dots if len(one.points) <= 40 else ""
            drawn.append(f'<path class="line c{one.colour}" d="{frame.path(one.points)}"/>')
            drawn.append(f'<g class="dots c{one.colour}">{dots}</g>')
        else:
            drawn.append(f'<path class="line raw c{one.colour}" d="{frame.path(one.points)}"/>')
            drawn.append(f'<path class="line smooth c{one.colour}" d="{frame.path(smooth(one.points, SMOOTHING))}"/>')
    return _svg(frame, series, unit, label, "".join(drawn), smoothed=not marks)


def area_chart(
    series: Sequence[Series], *, width: int = 400, height: int = 210, unit: Unit = "number", label: str
) -> str:
    """Layers stacked from the first up; all series share their x values."""
    series = [Series(one.name, thin(one.points), one.colour) for one in series if one.points]
    lower = [(x, 0.0) for x, _ in series[0].points]
    drawn = []
    layers = []
    for one in series:
        upper = [(x, base + y) for (x, base), (_, y) in zip(lower, one.points, strict=True)]
        layers.append((one, upper, lower))
        lower = upper
    top = max((y for _, y in lower), default=1.0) or 1.0
    xs = [x for x, _ in lower]
    frame = Frame(width, height, _widen(min(xs), max(xs)), (0.0, top * 1.05))
    for one, upper, under in layers:
        drawn.append(f'<path class="area c{one.colour}" d="{frame.area(upper, under)}"/>')
    return _svg(frame, series, unit, label, "".join(drawn), smoothed=False)


def axes(frame: Frame, unit: Unit, x_ticks: int = 5, below: float = 16) -> str:
    """Grid lines and tick labels; those of x stand `below` the frame."""
    parts = []
    for value in ticks(*frame.y_range, about=5 if unit == "percent" else 4):
        y = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{frame.left:g}" x2="{frame.width - frame.right:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        place = f'x="{frame.left - 6:g}" y="{y + 3.5:.1f}" text-anchor="end"'
        parts.append(f'<text class="tick" {place}>{number(value, unit)}</text>')
    for value in ticks(*frame.x_range, about=x_ticks):
        x = frame.x(value)
        place = f'x="{x:.1f}" y="{frame.height - frame.bottom + below:g}" text-anchor="middle"'
        parts.append(f'<text class="tick" {place}>{number(value)}</text>')
    return "".join(parts)


def _svg(frame: Frame, series: Sequence[Series], unit: Unit, label: str, drawn: str, *, smoothed: bool) -> str:
    spec = {
        "unit": unit,
        "smoothed": smoothed,
        "frame": [frame.left, frame.width - frame.right, frame.top, frame.height - frame.bottom],
        "x": frame.x_range,
        "y": frame.y_range,
        "series": [
            {"name": one.name, "c": one.colour, "p": [[_round(x), _round(y)] for x, y in one.points]} for one in series
        ],
    }
    cursor = f'<line class="cursor" y1="{frame.top:g}" y2="{frame.height - frame.bottom:g}" x1="0" x2="0"/>'
    return (
        f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" aria-label="{escape(label)}"'
        f' data-spec="{escape(json.dumps(spec, separators=(",", ":")))}">'
        f"{axes(frame, unit)}{drawn}{cursor}</svg>"
    )


def _ranges(series: Sequence[Series], unit: Unit) -> tuple[tuple[float, float], tuple[float, float]]:
    xs = [x for one in series for x, _ in one.points] or [0.0, 1.0]
    ys = [y for one in series for _, y in one.points] or [0.0, 1.0]
    low, high = min(ys), max(ys)
    if unit == "percent" and low >= 0 and high <= 1:
        return _widen(min(xs), max(xs)), (0.0, 1.0)
    # Zero stays in sight unless the values sit far from it, where the change would be lost.
    low = 0.0 if 0 <= low <= 0.6 * high else low
    low, high = _widen(low, high)
    margin = 0.06 * (high - low)
    return _widen(min(xs), max(xs)), (low if low == 0 else low - margin, high + margin)


def _widen(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _round(value: float) -> float:
    return float(f"{value:.5g}")
