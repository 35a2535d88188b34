import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

from recall import cli
from recall.cli import COMMANDS, Command, main, settings_from
from recall.config import Positional, Settings, keys
from recall.datasets.rows import read_tasks, write_tasks
from recall.errors import ConfigError, SandboxError
from recall.store import Run
from recall.types import CallRecord, CallStatus, Group, RewardResult, Segment, StopReason, Task, ToolSpec, Trajectory

GOOD = "<|im_start|>assistant\n<think> . </think> \\boxed{4}<|im_end|>"
TASK = Task(
    "t1", "2 + 2?", ("4",), env="def add(a, b):\n    return a + b", tools=(ToolSpec("add", "Add numbers.", {}),)
)


def a_run(tmp_path: Path) -> Path:
    run = Run.create(tmp_path / "run", "")
    run.append_metrics({"step": 1, "reward/mean": 0.25})
    run.append_metrics({"step": 2, "reward/mean": 0.75})
    segments = (
        Segment((1,), None, "PROMPT"),
        Segment((2, 3), (-0.5, -0.5), "I add.\x1b[31m", 0),
        Segment((4,), None, "RESULT"),
        Segment((5,), (-0.1,), "So 4.", 0),
    )
    call = CallRecord(0, "add", {"a": 2, "b": 2}, "4", CallStatus.OK, 0.01)
    trajectory = Trajectory("t1", segments, StopReason.DONE, "4", (call,))
    other = Trajectory("t1", segments[:2], StopReason.MAX_TOKENS)
    group = Group(TASK, (trajectory, other), (RewardResult(0.9, True, {"f1": 0.9}), RewardResult(0.0, False)))
    run.write_groups(2, [group], advantages=[[0.45, -0.45]])
    return run.path


def transcripts(tmp_path: Path, *rows: object) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def complained(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.startswith("recall: ")
    assert text.count("\n") == 1
    return text


class Fail(Settings):
    """Fail as told."""

    how: Positional[str]
    """The kind of failure."""

    def main(self) -> None:
        raise {
            "user": ConfigError("two\nlines"),
            "ours": SandboxError("no process"),
            "stop": KeyboardInterrupt(),
            "extra": ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow"),
            "pipe": BrokenPipeError(),
            "bug": ZeroDivisionError("a bug"),
            "missing": ModuleNotFoundError("No module named 'x'", name="x"),
        }[self.how]


class Learn(Settings):
    """Learn."""

    takes_recipe: ClassVar[bool] = True
    rate: float = 0.1
    """The rate, per step. More is said here."""

    def main(self) -> int:
        print(self.rate)
        return 3


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commands of this file beside the real ones."""
    mine = {"fail": Command(__name__, "Fail", "Fail"), "nano learn": Command(__name__, "Learn", "Learn")}
    monkeypatch.setattr(cli, "COMMANDS", MappingProxyType({**COMMANDS, **mine}))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = said(capsys)
    assert text.startswith(f"usage: recall {name} ")
    model = cli._model(COMMANDS[name])
    for key in keys(model):
        _, _, after = text.partition(f"  {key.name.upper()}" if key.positional else f"  --{key.name}\n")
        assert not after.lstrip("] .\n").startswith("Takes"), f"{key.name} has no docstring"
    assert callable(getattr(model, "main", None))


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    text = said(capsys)
    assert all(f"  {name} " in text for name in COMMANDS)


def test_a_family_lists_its_own_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    text = said(capsys)
    assert "data inspect" in text
    assert "score" not in text


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert said(capsys).startswith("recall 0.")


@pytest.mark.parametrize("arguments", [["scor"], ["data", "inspec", "x"], ["--verbose"]])
def test_an_unknown_command_is_refused_with_the_nearest(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "the nearest is recall " in complained(capsys)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("user", 2, "two lines"),
        ("ours", 1, "no process"),
        ("stop", 130, "interrupted"),
        ("extra", 2, "pip install 'recall[data]'"),
    ],
)
def test_a_foreseen_failure_is_one_line_and_a_status(
    how: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fail", how]) == status
    assert words in complained(capsys)


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(("how", "error"), [("bug", ZeroDivisionError), ("missing", ModuleNotFoundError)])
def test_a_bug_keeps_its_traceback(how: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        main(["fail", how])


@pytest.mark.usefixtures("commands")
def test_a_nested_command_takes_a_recipe_and_flags_over_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("rate = 0.2")
    assert main(["nano", "learn"]) == 3
    assert main(["nano", "learn", str(recipe)]) == 3
    assert main(["nano", "learn", "--rate", "0.3", str(recipe)]) == 3
    assert said(capsys).split() == ["0.1", "0.2", "0.3"]
    assert main(["nano", "learn", str(recipe), "more"]) == 2
    assert "unexpected argument 'more'" in complained(capsys)


@pytest.mark.usefixtures("commands")
def test_help_of_a_command_shows_the_first_sentence_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["nano", "learn", "--help"])
    assert "  --rate\n      The rate, per step. Takes a number; default 0.1.\n" in said(capsys)


def test_positional_arguments_are_filled_in_order_and_counted() -> None:
    class Copy(Settings):
        to: Positional[Path]
        sources: Positional[tuple[str, ...]] = ()

    assert settings_from("copy", Copy, ["a", "b c", "--", "--d"]) == Copy(to=Path("a"), sources=("b c", "--d"))
    assert settings_from("copy", Copy, ["--to=a"]) == Copy(to=Path("a"))
    with pytest.raises(ConfigError, match="TO is missing; it takes a path"):
        settings_from("copy", Copy, [])


def test_recorded_scores_that_are_met_give_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = transcripts(tmp_path, {"id": "a", "transcript": GOOD, "ground_truth": ["4"], "score": 1.0, "error": None})
    assert main(["score", file, "--reward", "recall", "--json"]) == 0
    case, summary = map(json.loads, said(capsys).splitlines())
    assert case == {"id": "a", "score": 1.0, "error": None, "recorded": 1.0, "equal": True}
    assert summary == {"cases": 1, "mean": 1.0, "equal": 1, "different": 0}


def test_a_recorded_score_that_differs_gives_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = transcripts(tmp_path, {"transcript": GOOD, "ground_truth": "4", "score": 0.5})
    assert main(["score", file]) == 1
    assert "DIFFERENT, recorded 0.5000" in said(capsys)


def test_rows_without_recorded_scores_are_only_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", transcripts(tmp_path, {"transcript": GOOD, "ground_truth": "5"}), "--json"]) == 0
    assert json.loads(said(capsys).splitlines()[-1]) == {"cases": 1, "mean": 0.1}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([], "row 1: not a JSON object"),
        ({"ground_truth": "4"}, "row 1: transcript: None is not accepted; it takes text"),
        ({"transcript": GOOD, "ground_truth": [4]}, "row 1: ground_truth: [4] is not accepted"),
        ({"transcript": GOOD, "ground_truth": "4", "score": "1"}, "row 1: score: '1' is not accepted"),
    ],
)
def test_a_bad_row_is_refused_by_file_row_and_field(
    tmp_path: Path, row: object, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = transcripts(tmp_path, row)
    assert main(["score", file]) == 2
    assert f"{file}: {words}" in complained(capsys)


def test_a_reward_that_reads_no_transcripts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", transcripts(tmp_path), "--reward", "exact"]) == 2
    assert "--reward" in complained(capsys)


def test_the_trajectories_of_a_run_are_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = a_run(tmp_path) / "trajectories" / "step-000002.jsonl.zst"
    assert main(["score", str(file), "--reward", "exact", "--json"]) == 1
    summary = json.loads(said(capsys).splitlines()[-1])
    assert (summary["cases"], summary["equal"], summary["different"]) == (2, 1, 1)


def test_a_run_is_summarised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(a_run(tmp_path))]) == 0
    text = said(capsys)
    assert "2 rows, steps 1 to 2" in text
    assert "train: 1, steps 2 to 2" in text
    assert ["reward/mean", "0.25", "0.75", "0.25", "0.75"] in [line.split() for line in text.splitlines()]


def test_a_trajectory_is_shown_without_what_could_drive_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["show", str(a_run(tmp_path)), "--step", "2", "--limit", "1"]
    assert main([*asked, "--cache", str(tmp_path / "cache")]) == 0
    text = said(capsys)
    assert "reward 0.900 correct  advantage +0.450" in text
    assert "policy, mean logprob -0.500, 2 tokens\nI add.␛[31m" in text
    assert "turn 0 add → ok, 0.010 s: 4" in text
    assert "PROMPT" not in text
    assert "the first 1" in text


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "cache")
    assert main(["show", str(a_run(tmp_path)), "--step", "1", "--cache", cache]) == 2
    assert "no trajectory matches; of 2 there are train: 1, steps 2 to 2" in complained(capsys)


def test_trajectories_are_filtered_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["show", str(a_run(tmp_path)), "--lines", "--cache", str(tmp_path / "cache")]
    assert main([*asked, "--reward", "0.5.."]) == 0
    text = said(capsys)
    assert "correct  true 1  false 0" in text
    assert len([line for line in text.splitlines() if "✓" in line or "✗" in line]) == 1
    assert main([*asked, "--sort", "reward"]) == 0
    rewards = [line.split()[3] for line in said(capsys).splitlines() if "✓" in line or "✗" in line]
    assert rewards == sorted(rewards)
    assert len(rewards) == 2
    assert main([*asked, "--reward", "high"]) == 2
    assert "reward: 'high' is not accepted" in complained(capsys)


def test_tasks_are_inspected_and_bad_rows_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tasks.jsonl"
    write_tasks(file, [TASK])
    assert main(["data", "inspect", str(file)]) == 0
    text = said(capsys)
    assert "1 tasks, 0 bad rows" in text
    assert "add(): Add numbers." in text
    file.write_text(file.read_text() + "{}\n")
    assert main(["data", "inspect", str(file)]) == 1
    assert "bad: " in capsys.readouterr().err


def test_tasks_are_converted_without_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (tmp_path / name for name in ("a.jsonl", "b.parquet", "c.jsonl"))
    write_tasks(first, [TASK])
    assert main(["data", "convert", str(first), str(second)]) == 0
    assert main(["data", "convert", str(second), str(third)]) == 0
    assert read_tasks(third) == [TASK]
    capsys.readouterr()
    assert main(["data", "convert", str(first), str(third)]) == 2
    assert "exists" in complained(capsys)


def start(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    row = {"transcript": GOOD, "ground_truth": "4"}
    file = transcripts(tmp_path, *[row] * 20_000)
    with start(f"import sys; from recall.cli import main; sys.exit(main(['score', {file!r}]))") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141


def test_an_interrupted_command_says_so_in_one_line(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    # Where the tests themselves run in the background, interrupts are ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with start(f"import sys; from recall.cli import main; sys.exit(main(['score', {str(fifo)!r}]))") as process:
        with open(fifo, "w") as rows:
            rows.write(json.dumps({"transcript": GOOD, "ground_truth": "4"}) + "\n")
            rows.flush()
            time.sleep(1.0)  # past its imports, which may swallow an interrupt
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        assert process.stderr
        assert process.stderr.read() == "recall: interrupted\n"
    signal.signal(signal.SIGINT, before)
