"""An episode in a terminal while it is played: the turn as it is written, the calls as they run, the answer.

What is over is printed and stays; what is going on is drawn below it and drawn again. Where there is no terminal, the
transcript in the end is the view.
"""

import json
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from recall.inference.events import CallDone, EpisodeDone, EpisodeStarted, Event, TurnDone, TurnText
from recall.types import CallRecord, CallStatus, MalformedCall, StopReason, ToolCall, Trajectory
from recall.viewer.text import visible

_SHOWN_CHARS = 1200
_ARGUMENT_CHARS = 200
_REFRESHES_PER_S = 8


class LiveEpisode:
    """Shows one episode. A context manager whose value is told of each event."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the terminal; `clock` gives seconds."""
        self._console, self._clock = console, clock
        self._writing = ""
        self._running: dict[int, tuple[str, float]] = {}
        """By place in the turn, the calls that run: as text, and since when."""
        self._note = "starting"
        self._live = Live(
            console=console, get_renderable=self._frame, refresh_per_second=_REFRESHES_PER_S, transient=True
        )

    def __enter__(self) -> "LiveEpisode":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def observe(self, event: Event) -> None:
        """Take an event."""
        match event:
            case EpisodeStarted(messages, tools):
                for message in messages:
                    self._print(_panel(message.role, message.content, "cyan" if message.role == "user" else "dim"))
                names = ", ".join(tool.name for tool in tools)
                self._print(Text(visible(f"tools: {names or 'none'}"), style="dim"))
                self._note = "reading"
            case TurnText(_, text):
                self._writing += text
            case TurnDone(_, said):
                self._writing, self._note = "", "thinking"
                if said.thinking:
                    self._print(Padding(Text(_short(said.thinking), style="dim italic"), (0, 2)))
                if said.content and said.calls:
                    self._print(Padding(Text(_short(said.content)), (0, 2)))
                now = self._clock()
                self._running = {place: (_call(call), now) for place, call in enumerate(said.calls)}
            case CallDone(index, record):
                self._running.pop(index, None)
                self._print(_called(record))
            case EpisodeDone(trajectory):
                self._writing, self._note = "", ""
                self._end(trajectory)

    def _print(self, what: RenderableType) -> None:
        self._console.print(what)

    def _frame(self) -> RenderableType:
        if self._running:
            now = self._clock()
            rows = [
                Spinner("dots", Text(f"{text}  {now - since:.1f} s", style="yellow", overflow="ellipsis", no_wrap=True))
                for text, since in self._running.values()
            ]
            return Group(*rows)
        if self._writing:
            # The last lines only: a frame higher than the window cannot be drawn over.
            lines = visible(self._writing).splitlines()[-max(3, self._console.height // 2) :]
            return Panel(Text("\n".join(lines)), title="writing", title_align="left", border_style="blue")
        return Spinner("dots", Text(self._note, style="dim")) if self._note else Text()

    def _end(self, trajectory: Trajectory) -> None:
        last = next((s.text for s in reversed(trajectory.segments) if s.sampled), "")
        if trajectory.fault is not None:
            self._print(_panel("fault", trajectory.fault, "red"))
        elif trajectory.answer is None:
            self._print(_panel("last turn, no answer", _short(last), "yellow"))
        else:
            self._print(_panel("answer", trajectory.answer, "green"))
        self._print(Text(summary(trajectory), style="dim"))


def summary(trajectory: Trajectory) -> str:
    """One line: how it ended, what it took."""
    sampled = sum(trajectory.mask)
    tools_s = sum(record.duration_s for record in trajectory.calls)
    count = (
        "text only, tokens unknown" if trajectory.from_text else f"{sampled} of {len(trajectory.mask)} tokens sampled"
    )
    ended = "" if trajectory.stop_reason is StopReason.DONE else f"stopped: {trajectory.stop_reason.value}, "
    return (
        f"{ended}{trajectory.turns} turns, {len(trajectory.calls)} calls ({tools_s:.2f} s in tools), "
        f"{count}, {trajectory.duration_s:.2f} s"
    )


def _panel(title: str, text: str, style: str) -> Panel:
    return Panel(Text(visible(_short(text))), title=title, title_align="left", border_style=style)


def _called(record: CallRecord) -> RenderableType:
    good = record.status is CallStatus.OK
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    head = Text("✓" if good else "✗", style="green" if good else "red")
    call = ToolCall(record.name, record.arguments) if record.name else MalformedCall("", record.result)
    title = Text(f"{_call(call)}  ", style="bold")
    title.append(f"{'' if good else record.status.value + ', '}{record.duration_s * 1000:.0f} ms", style="dim")
    table.add_row(head, title)
    table.add_row("", Text(visible(_short(record.result)), style="" if good else "red"))
    return table


def _call(call: ToolCall | MalformedCall) -> str:
    if isinstance(call, MalformedCall):
        return "a malformed call"
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    shown = arguments if len(arguments) <= _ARGUMENT_CHARS else f"{arguments[:_ARGUMENT_CHARS]}…"
    return visible(f"{call.name}({shown})")


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text) - _SHOWN_CHARS} characters more)"
