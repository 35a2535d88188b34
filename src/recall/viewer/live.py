"""The live view of `recall train` in a terminal: how far, how good by depth, how fast.

Where there is no terminal (or `NO_COLOR`, `CI` or `TERM=dumb` is set) it prints plain lines without escape codes. It
reads what it is given and keeps nothing on disk; `metrics.jsonl` is the record.
"""

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recall.viewer.record import sort_kinds, success_by_kind
from recall.viewer.text import visible

REFRESHES_PER_S = 2
"""How often the terminal is drawn, at most; a frame costs some milliseconds of the process that trains."""
_STACKED_BELOW = 72
_CURVE_WIDTH = 18


class LiveView:
    """Shows a training run as it goes. A context manager: leaving it, however, gives the terminal back.

    Args:
        console: where to draw; standard output by default.
        plain: lines without escape codes; None decides by the console and the environment.
        plain_every_s: the least time between two plain lines of steps, in seconds.
        clock: seconds from a monotonic clock.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        plain: bool | None = None,
        plain_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console()
        self._plain = _wants_plain(self._console) if plain is None else plain
        self._plain_every_s = plain_every_s
        self._clock = clock
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._header = ""
        self._total = 0
        self._done = 0
        self._started_at = 0.0
        self._last_line_at = float("-inf")
        self._marks: deque[tuple[int, float]] = deque(maxlen=21)
        self._before: dict[str, float] = {}
        self._curves: dict[str, dict[int, float]] = {}
        self._training: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self._rewards: list[float] = []

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, total_steps: int, header: str = "", *, done: int = 0) -> None:
        """Begin to draw. `done` is the number of steps that a resumed run has behind it."""
        with self._lock:
            self._total, self._done, self._header = total_steps, done, visible(header).strip()
            self._started_at = self._clock()
            self._marks.append((done, self._started_at))
        if self._plain:
            if self._header:
                self._line(self._header)
            return
        self._live = Live(
            console=self._console, get_renderable=self._frame, refresh_per_second=REFRESHES_PER_S, auto_refresh=True
        )
        self._live.start()
        # Live hides the cursor; an exception that nobody catches must not leave it hidden.
        atexit.register(self.stop)

    def baseline(self, before: Mapping[str, float]) -> None:
        """Take held-out success before training, by depth: `{"1": 0.4, "join": 0.1}` or by metric name."""
        values = success_by_kind(before)
        with self._lock:
            self._before.update(values)
            for kind, value in values.items():
                self._curves.setdefault(kind, {})[self._done] = value
        if self._plain and values:
            self._line(f"before  {_pairs(values)}")

    def step(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one finished step, under the names of `metrics.jsonl`."""
        with self._lock:
            self._done = max(self._done + 1, int(metrics.get("step", 0)))
            self._marks.append((self._done, self._clock()))
            self._metrics.update(metrics)
            for name, value in metrics.items():
                if name.startswith("success/by/"):
                    self._training[name.removeprefix("success/by/")] = value
            if "reward/mean" in metrics:
                self._rewards.append(metrics["reward/mean"])
        if self._plain and (self._due() or self._done in (1, self._total)):
            self._last_line_at = self._clock()
            self._line(self._step_line(metrics))
        if any(name.startswith("val/") for name in metrics):
            self.validation(metrics)

    def validation(self, now: Mapping[str, float]) -> None:
        """Take held-out success as it is now, named as in `baseline`; a second one at a step replaces the first."""
        values = success_by_kind(now)
        with self._lock:
            for kind, value in values.items():
                self._curves.setdefault(kind, {})[self._done] = value
        if self._plain and values:
            self._line(f"held-out at step {self._done}  {_pairs(values, self._before)}")

    def note(self, text: str) -> None:
        """Print a line that stays, above whatever is drawn."""
        if self._plain:
            self._line(visible(text))
        else:
            self._console.print(Text(visible(text)))

    def stop(self) -> None:
        """Draw for the last time and give the terminal back. Safe to call twice."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            atexit.unregister(self.stop)

    def _due(self) -> bool:
        return self._clock() - self._last_line_at >= self._plain_every_s

    def _line(self, text: str) -> None:
        # Not Console.print: it would wrap a line at 80 columns where there is no terminal.
        encoding = getattr(self._console.file, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=self._console.file, flush=True)

    def _step_line(self, metrics: Mapping[str, float]) -> str:
        words = [f"step {self._done}/{self._total}"]
        words += [f"{label} {show(metrics[name])}" for label, name, show in _FACTS if name in metrics]
        left = self._seconds_left()
        return "  ".join([*words, f"left {duration(left)}"] if left is not None else words)

    def _seconds_left(self) -> float | None:
        (first, since), (last, until) = self._marks[0], self._marks[-1]
        return (until - since) / (last - first) * (self._total - last) if last > first else None

    def _frame(self) -> RenderableType:
        with self._lock:
            ascii_only = self._console.options.ascii_only
            depth, facts = self._depth_table(ascii_only), self._facts_table(ascii_only)
            parts: list[RenderableType] = []
            if self._header:
                parts.append(Text(self._header, style="bold", overflow="ellipsis", no_wrap=True))
            parts += [self._progress(), Text()]
            if self._console.width < _STACKED_BELOW or not facts.row_count:
                parts += [depth, facts] if facts.row_count else [depth]
            else:
                grid = Table.grid(expand=False, padding=(0, 3))
                grid.add_row(depth, facts)
                parts.append(grid)
            return Group(*parts)

    def _progress(self) -> RenderableType:
        elapsed, left = self._clock() - self._started_at, self._seconds_left()
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        times = f"{duration(elapsed)} gone" + ("" if left is None else f", {duration(left)} left")
        grid.add_row(
            Text(f"step {self._done}/{self._total}"),
            ProgressBar(total=max(self._total, 1), completed=self._done, complete_style="cyan"),
            Text(times, style="dim"),
        )
        return grid

    def _depth_table(self, ascii_only: bool) -> Table:
        width = self._console.width
        table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
        table.add_column("calls", no_wrap=True)
        names = ["before", "now"] + ["change"] * (width >= 36) + ["train"] * (width >= 44)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        # What is left of the window, or of the half that the facts leave, goes to the curve.
        room = min(_CURVE_WIDTH, width - 8 - sum(len(name) + 2 for name in names))
        if room >= 4:
            table.add_column("held-out" if room >= 8 else "", no_wrap=True)
        for kind in sort_kinds({*self._curves, *self._training}):
            curve = list(self._curves.get(kind, {}).values())
            before, now = self._before.get(kind), curve[-1] if curve else None
            change = None if before is None or now is None else now - before
            cells = {
                "before": Text(_percent(before)),
                "now": Text(_percent(now), style="bold"),
                "change": Text(_points(change), style=_change_style(change)),
                "train": Text(_percent(self._training.get(kind)), style="dim"),
            }
            row = [Text(visible(kind), style="bold"), *(cells[name] for name in names)]
            if room >= 4:
                row.append(Text(sparkline(curve, room, ascii_only=ascii_only), style="cyan"))
            table.add_row(*row)
        return table

    def _facts_table(self, ascii_only: bool) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for label, name, show in _FACTS:
            if name in self._metrics:
                table.add_row(label, show(self._metrics[name]))
        if self._rewards:
            low, high = min(self._rewards), max(self._rewards)
            heights = [(reward - low) / ((high - low) or 1.0) for reward in self._rewards]
            table.add_row("reward curve", Text(sparkline(heights, 10, ascii_only=ascii_only), style="cyan"))
        return table


def side_by_side(before: str, after: str, width: int) -> RenderableType:
    """One task played twice, before training and after; one above the other where `width` columns are too few."""
    panels = [
        Panel(Text(visible(text)), title=title, title_align="left", border_style=style)
        for title, text, style in (("before", before, "dim"), ("after", after, "green"))
    ]
    if width < _STACKED_BELOW:
        return Group(*panels)
    grid = Table.grid(expand=False, padding=(0, 1))
    for _ in panels:
        grid.add_column(width=(width - 2) // 2)
    grid.add_row(*panels)
    return grid


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """`values`, each in 0..1, as at most `width` characters; more values are averaged into equal bins."""
    levels = "_.-:=+*#" if ascii_only else "▁▂▃▄▅▆▇█"
    count = min(width, len(values))
    bins = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    heights = (min(1.0, max(0.0, sum(part) / len(part))) for part in bins)
    return "".join(levels[min(len(levels) - 1, int(height * len(levels)))] for height in heights)


def duration(seconds: float) -> str:
    """`seconds` for people: `42s`, `3m05s`, `2h07m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _wants_plain(console: Console) -> bool:
    dumb = any(os.environ.get(name) for name in ("NO_COLOR", "CI")) or console.is_dumb_terminal
    return dumb or not console.is_terminal


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.0f}"


def _change_style(value: float | None) -> str:
    if value is None or abs(value) < 0.005:
        return "dim"
    return "green" if value > 0 else "red"


def _pairs(values: Mapping[str, float], before: Mapping[str, float] | None = None) -> str:
    words = []
    for kind, value in values.items():
        change = "" if not before or kind not in before else f" ({_points(value - before[kind])})"
        words.append(f"{visible(kind)}: {_percent(value)}{change}")
    return "  ".join(words)


_FACTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("reward", "reward/mean", lambda value: f"{value:.3f}"),
    ("success", "success/mean", lambda value: f"{value:.0%}"),
    ("calls", "rollout/calls_mean", lambda value: f"{value:.2f}"),
    ("tokens/s", "rollout/tokens_per_s", lambda value: f"{value:,.0f}"),
    ("entropy", "policy/entropy", lambda value: f"{value:.3f}"),
    ("groups used", "groups/used", lambda value: f"{value:.0f}"),
)
