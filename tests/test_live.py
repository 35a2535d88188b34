"""The live view: sane terminals, plain logs, narrow windows."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from recall.viewer.live import LiveView, duration, side_by_side, sparkline
from synthetic_run import make_run

ESCAPE = "\x1b"


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    path = make_run(tmp_path_factory.mktemp("runs") / "nano", steps=48, files=1)
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def play(view: LiveView, clock: Clock, rows: list[dict[str, float]], step_s: float = 2.0) -> None:
    view.start(48, "recall train nano")
    view.baseline(rows[0])
    for row in rows[1:]:
        clock.now += step_s
        view.step(row)


def terminal(width: int, *, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_plain_lines_hold_no_escape_code_and_are_not_wrapped(rows: list[dict[str, float]]) -> None:
    clock, console = Clock(), Console(file=io.StringIO(), width=40)
    view = LiveView(console, clock=clock)
    play(view, clock, rows)
    view.note(f"note {ESCAPE}[31m")
    view.stop()
    text = written(console)
    assert ESCAPE not in text
    assert "step 48/48  reward" in text
    assert all(line.split()[0] in ("recall", "before", "step", "held-out", "note") for line in text.splitlines())


def test_plain_steps_are_printed_every_few_seconds_and_at_both_ends(rows: list[dict[str, float]]) -> None:
    clock, console = Clock(), Console(file=io.StringIO())
    play(LiveView(console, clock=clock, plain_every_s=10), clock, rows)
    steps = [int(step) for step in re.findall(r"^step (\d+)/48", written(console), re.MULTILINE)]
    assert steps == [1, *range(6, 48, 5), 48]


@pytest.mark.parametrize("name", ["NO_COLOR", "CI"])
@pytest.mark.usefixtures("colourful")
def test_environment_asks_for_plain_lines(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    console = terminal(80)
    with LiveView(console) as view:
        view.start(3, "header")
        view.step({"step": 1, "reward/mean": 0.5})
    assert ESCAPE not in written(console)


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_frame_fits_the_window(rows: list[dict[str, float]], width: int) -> None:
    clock, console = Clock(), terminal(width)
    with LiveView(console, plain=False, clock=clock) as view:
        play(view, clock, rows)
    lines = re.sub(rf"{ESCAPE}\[[0-9;?]*[A-Za-z]", "", written(console)).replace("\r", "\n").splitlines()
    assert any("join" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_the_table_says_before_now_and_change() -> None:
    console = terminal(80)
    with LiveView(console, plain=False, clock=Clock()) as view:
        view.start(10)
        view.baseline({"1": 0.25, "join": 0.5})
        view.step({"step": 5, "val/held_out/sampled/1": 0.75})
    text = re.sub(rf"{ESCAPE}\[[0-9;?]*[A-Za-z]", "", written(console))
    assert re.search(r"1 +25% +75% +\+50", text)
    assert re.search(r"join +50% +50% +\+0", text)


def test_time_left_follows_the_pace_of_the_last_steps() -> None:
    clock, console = Clock(), Console(file=io.StringIO())
    view = LiveView(console, plain=True, plain_every_s=0, clock=clock)
    view.start(100, done=40)
    for step in range(41, 81):
        clock.now += 100 if step < 50 else 3
        view.step({"step": step})
    assert written(console).splitlines()[-1] == "step 80/100  left 1m00s"


SCRIPT = """
import time
from recall.viewer.live import LiveView
view = LiveView()
view.start(10, "header")
view.step({"step": 1, "reward/mean": 0.5})
print("READY", flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.usefixtures("colourful")
def test_the_cursor_comes_back_after_an_interrupt_that_nobody_catches() -> None:
    ours, theirs = pty.openpty()
    source = str(Path(__file__).parents[1] / "src")
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env={**os.environ, "PYTHONPATH": source}
    )
    os.close(theirs)
    text = b""
    try:
        while b"READY" not in text:
            text += os.read(ours, 4096)
        child.send_signal(signal.SIGINT)
        while chunk := _read(ours):
            text += chunk
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert b"\x1b[?25l" in text
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says EIO when the other side of a terminal is closed
        return b""


def test_a_model_cannot_write_to_the_terminal() -> None:
    for width in (40, 100):
        console = Console(file=io.StringIO(), width=width)
        console.print(side_by_side(f"{ESCAPE}]0;title\x07[bold]x", "after", width))
        assert ESCAPE not in written(console)
        assert "[bold]x" in written(console)


def test_sparkline_shows_the_range_from_zero_to_one() -> None:
    assert sparkline([0.0, 0.5, 1.0], 8) == "▁▅█"
    assert sparkline([0.0] * 50 + [1.0] * 50, 4) == "▁▁██"
    assert sparkline([], 4) == ""
    assert sparkline([-1.0, 0.5, 2.0], 3, ascii_only=True) == "_=#"
    assert len(sparkline([0.3] * 17, 5)) == 5


def test_durations_are_short() -> None:
    assert [duration(s) for s in (0.4, 42, 185, 7620, -3)] == ["0s", "42s", "3m05s", "2h07m", "0s"]
