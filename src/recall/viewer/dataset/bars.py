"""Bar charts and matrices as SVG text, drawn whole without a script; what a mark stands for is its title."""

from collections.abc import Sequence

from recall.viewer.svg import number, ticks
from recall.viewer.text import escape

_WIDTH = 400
_ROW = 18


def columns(bars: Sequence[tuple[float, float]], label: str, *, height: int = 190) -> str:
    """A histogram: each number, the lower end of a bar, with its count."""
    left, right, top, bottom = 44, 8, 8, 22
    most = max((count for _, count in bars), default=1) or 1
    step = (_WIDTH - left - right) / len(bars)

    def y(count: float) -> float:
        return height - bottom - count / most * (height - top - bottom)

    drawn = [
        f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{number(tick)}</text>'
        for tick in ticks(0, most, about=3)
    ]
    every = max(1, -(-len(bars) // 8))
    for place, (low, count) in enumerate(bars):
        x, gap = left + place * step, min(2.0, step * 0.2)
        drawn.append(
            f'<rect class="column c0" x="{x + gap / 2:.1f}" y="{y(count):.1f}" width="{step - gap:.1f}" '
            f'height="{height - bottom - y(count):.1f}" rx="1.5"><title>{number(low)}: {count:,.0f}</title></rect>'
        )
        if place % every == 0:
            middle = f'x="{x + step / 2:.1f}" y="{height - 6}" text-anchor="middle"'
            drawn.append(f'<text class="tick" {middle}>{number(low)}</text>')
    return _svg(_WIDTH, height, label, drawn)


def rows(bars: Sequence[tuple[str, float]], label: str) -> str:
    """Bars that lie: each name with its count."""
    left, right = 130, 56
    most = max((count for _, count in bars), default=1) or 1
    drawn = []
    for place, (name, count) in enumerate(bars):
        top = 4 + place * _ROW
        width = count / most * (_WIDTH - left - right)
        shown = name if len(name) <= 20 else f"{name[:19]}…"
        drawn.append(
            f'<text class="tick" x="{left - 8}" y="{top + 12}" text-anchor="end">{escape(shown)}</text>'
            f'<rect class="column c0" x="{left}" y="{top + 2}" width="{max(width, 1):.1f}" height="{_ROW - 5}" rx="2">'
            f"<title>{escape(name)}: {count:,.0f}</title></rect>"
            f'<text class="tick" x="{left + width + 6:.1f}" y="{top + 12}">{number(count)}</text>'
        )
    return _svg(_WIDTH, 8 + len(bars) * _ROW, label, drawn)


def matrix(names: Sequence[str], heads: Sequence[str], counts: Sequence[Sequence[int]], label: str) -> str:
    """Shades by row and column: each cell against the most of its column."""
    left, top, wide = 130, 26, 92
    most = [max((row[place] for row in counts), default=0) or 1 for place in range(len(heads))]
    drawn = [
        f'<text class="tick" x="{left + (place + 0.5) * wide:.1f}" y="16" text-anchor="middle">{escape(head)}</text>'
        for place, head in enumerate(heads)
    ]
    for line, (name, row) in enumerate(zip(names, counts, strict=True)):
        y = top + line * _ROW
        drawn.append(f'<text class="tick" x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for place, count in enumerate(row):
            x, strength = left + place * wide, count / most[place]
            drawn.append(
                f'<rect class="cell c0" x="{x + 1}" y="{y + 1}" width="{wide - 2}" height="{_ROW - 2}" rx="2" '
                f'style="opacity:{0.06 + 0.7 * strength:.2f}"/>'
                f'<text class="count" x="{x + wide / 2}" y="{y + 13}" text-anchor="middle">{count:,}</text>'
            )
    return _svg(left + wide * len(heads) + 4, top + _ROW * len(names) + 4, label, drawn)


def _svg(width: float, height: float, label: str, drawn: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'
