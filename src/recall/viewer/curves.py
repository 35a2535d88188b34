"""Draws the picture of a README: held-out success by number of calls over training, several seeds as a band.

One SVG that carries its own background for light and for dark, because a page's theme and a reader's need not agree.
It draws what `metrics.jsonl` says and computes no statistics beyond least, median and most.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from recall.errors import ConfigError
from recall.store import Run, write_atomic
from recall.viewer.figures import calls
from recall.viewer.record import read_metrics, sort_kinds, validation_success
from recall.viewer.svg import Frame, axes
from recall.viewer.text import escape

Axis = Literal["step", "minutes"]

_STYLE = """
.bg{fill:#fff;stroke:#d8dbe0}.ink{fill:#1f2328}.soft,.tick{fill:#59636e}.grid{stroke:#e4e6ea}
text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}.tick{font-size:13px}
.c0{--c:#2f6fde}.c1{--c:#0d9488}.c2{--c:#c2620a}.c3{--c:#8b46d6}.c4{--c:#d03a73}.c5{--c:#6b8e12}
.line{fill:none;stroke:var(--c);stroke-width:2.5;stroke-linejoin:round;stroke-linecap:round}
.band{fill:var(--c);opacity:.16}.name{fill:var(--c);font-size:14px;font-weight:600}
@media(prefers-color-scheme:dark){.bg{fill:#0d1117;stroke:#30363d}.ink{fill:#f0f6fc}.soft,.tick{fill:#9198a1}
.grid{stroke:#262c34}.c0{--c:#6fa3ff}.c1{--c:#35c9b8}.c2{--c:#f0a04b}.c3{--c:#bd8cff}.c4{--c:#ff7fae}.c5{--c:#a9cf4c}
.band{opacity:.22}}
"""
_COLOURS = 6


def write_curves(
    runs: Sequence[Path],
    out: Path,
    *,
    mode: str = "sampled",
    axis: Axis = "step",
    title: str = "Success on held-out tasks, by number of tool calls",
) -> Path:
    """Draw held-out success of `runs`, one training each of the same task, and return `out`.

    Args:
        runs: run directories; each kind becomes one line, the median over runs, in a band from the least to the most.
        out: where the SVG goes.
        mode: `sampled` or `greedy`, or `SPLIT/MODE` where the runs were validated on several splits.
        axis: training steps, or minutes of training (the sum of `time/step_s`).
        title: what stands above.

    Raises:
        ConfigError: there is no run, one has no validation of this mode, or `out` does not end in `.svg`.
    """
    if out.suffix != ".svg":
        raise ConfigError(f"{out}: a picture of curves is an .svg")
    if not runs:
        raise ConfigError("no run to draw: name at least one run directory")
    seeds = [_read(run, mode, axis) for run in runs]
    kinds = sort_kinds({kind for curves in seeds for kind in curves})
    bands = {kind: _band([curves[kind] for curves in seeds if kind in curves]) for kind in kinds}
    picture = _draw(bands, title, _caption(len(runs), mode), axis)
    write_atomic(out, lambda file: file.write(picture.encode()))
    return out


Curve = list[tuple[float, float]]
Band = list[tuple[float, float, float, float]]
"""(x, least, median, most)."""


def _read(path: Path, mode: str, axis: Axis) -> dict[str, Curve]:
    rows = read_metrics(Run(path))
    minutes = accumulate(row.get("time/step_s", 0.0) / 60 for row in rows)
    place = dict(zip((row["step"] for row in rows), minutes, strict=True)) if axis == "minutes" else {}
    curves: dict[str, Curve] = {}
    validations = validation_success(rows)
    for row, rates in validations:
        for kind, value in rates.get(mode, {}).items():
            curves.setdefault(kind, []).append((place.get(row["step"], row["step"]), value))
    if not curves:
        known = sorted({name for _, rates in validations for name in rates})
        raise ConfigError(f"{path}: no validation {mode!r} in metrics.jsonl; it has {', '.join(known) or 'none'}")
    return curves


def _band(curves: Sequence[Curve]) -> Band:
    """Least, median and most at every x of any curve, as far as all reach; curves are straight between points."""
    start, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    xs = sorted({x for curve in curves for x, _ in curve if start <= x <= end})
    values = [[_at(curve, x) for curve in curves] for x in xs]
    return [(x, min(ys), median(ys), max(ys)) for x, ys in zip(xs, values, strict=True)]


def _at(curve: Curve, x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= x < x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return curve[-1][1]


def _caption(seeds: int, mode: str) -> str:
    words = mode.replace("/", ", ")
    return f"{words}, one seed" if seeds == 1 else f"{words}; line: median of {seeds} seeds, band: least to most"


def _draw(bands: Mapping[str, Band], title: str, caption: str, axis: Axis) -> str:
    width, height = 880, 430
    end = max((band[-1][0] for band in bands.values() if band), default=1.0) or 1.0
    frame = Frame(width, height, (0.0, end), (0.0, 1.0), left=64, right=104, top=78, bottom=58)
    drawn = []
    for number, band in enumerate(bands.values()):
        colour = number % _COLOURS
        area = frame.area([(x, most) for x, _, _, most in band], [(x, least) for x, least, _, _ in band])
        line = frame.path([(x, middle) for x, _, middle, _ in band])
        drawn.append(f'<path class="band c{colour}" d="{area}"/><path class="line c{colour}" d="{line}"/>')
    for number, (kind, y) in enumerate(_label_places(bands, frame)):
        x = frame.width - frame.right + 10
        drawn.append(f'<text class="name c{number % _COLOURS}" x="{x:g}" y="{y + 5:.1f}">{escape(calls(kind))}</text>')
    below = "training step" if axis == "step" else "minutes of training"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect class="bg" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10"/>'
        f'<text class="ink" x="24" y="34" font-size="18" font-weight="600">{escape(title)}</text>'
        f'<text class="soft" x="24" y="56" font-size="13">{escape(caption)}</text>'
        f"{axes(frame, 'percent', x_ticks=8, below=20)}{''.join(drawn)}"
        f'<text class="soft" x="{(frame.left + width - frame.right) / 2:g}" y="{height - 16}" font-size="13"'
        f' text-anchor="middle">{below}</text></svg>\n'
    )


def _label_places(bands: Mapping[str, Band], frame: Frame) -> list[tuple[str, float]]:
    """Each kind with the canvas y of its name: at the end of its line, moved apart where names would touch."""
    ends = {kind: frame.y(band[-1][2]) for kind, band in bands.items() if band}
    spacing, last, places = 19.0, float("-inf"), {}
    for kind in sorted(ends, key=lambda kind: ends[kind]):
        last = places[kind] = max(ends[kind], last + spacing)
    return [(kind, places[kind]) for kind in bands if kind in places]
