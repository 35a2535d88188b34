"""Recorded trajectories looked at again: another reward, the calls anew, two runs on the same tasks."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes import InProcessSandbox
from recall.cli import main
from recall.environment import ToolEnvironments
from recall.replay.calls import rerun
from recall.replay.recorded import recorded
from recall.replay.rescore import rescore
from recall.rewards import get
from recall.store import Run
from recall.types import CallRecord, CallStatus, Group, RewardResult, Segment, StopReason, Task, ToolSpec, Trajectory
from recall.viewer.index.find import Filter
from recall.viewer.index.index import RunIndex, Snapshot
from recall.viewer.index.pairs import pairs

pytest.importorskip("msgspec")

ENV = """
count = 0

def add(a, b):
    "Add."
    return a + b

def tick():
    "Count the calls of this episode."
    global count
    count += 1
    return count
"""
TOOLS = (
    ToolSpec("add", "Add.", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}),
    ToolSpec("tick", "Count.", {"type": "object", "properties": {}}),
)


def call(
    turn: int, name: str, result: str, arguments: Mapping[str, Any], status: CallStatus = CallStatus.OK
) -> CallRecord:
    return CallRecord(turn, name, arguments, result, status)


def played(task: str, right: bool, calls: tuple[CallRecord, ...], score: float) -> tuple[Trajectory, RewardResult]:
    answer = "4" if right else "5"
    said = f"\\boxed{{{answer}}}"
    segments = (Segment((1, 2), None, "what?"), Segment((3,), (-0.1,), said, 0))
    trajectory = Trajectory(task, segments, StopReason.DONE, answer, calls)
    return trajectory, RewardResult(score, right, {"answer": float(right)})


def a_run(path: Path, calls: tuple[CallRecord, ...], verdicts: tuple[bool, ...] = (True, False)) -> Path:
    task = Task("t1", "2 + 2?", ("4",), ENV, TOOLS, split="train", depth=1)
    both = [played("t1", right, calls, 0.5) for right in verdicts]
    run = Run.create(path, "seed = 0\n")
    run.write_groups(1, [Group(task, [one for one, _ in both], [reward for _, reward in both])])
    return path


def index_of(path: Path, cache: Path) -> Snapshot:
    return RunIndex(path, cache).refresh()


RECORDED = (
    call(0, "tick", "1", {}),
    call(0, "", "error: malformed tool call: not JSON", {}, CallStatus.MALFORMED),
    call(1, "tick", "2", {}),
    call(2, "add", "4", {"a": 2, "b": 2}),
)


async def test_calls_run_again_end_as_they_did_with_the_state_of_their_episode(tmp_path: Path) -> None:
    index = index_of(a_run(tmp_path / "run", RECORDED), tmp_path / "cache")
    sandbox = InProcessSandbox()
    result = await rerun(recorded(index, Filter(), 10), ToolEnvironments(sandbox))
    assert (result.trajectories, result.calls, result.malformed) == (2, 6, 2)
    assert (result.differences, result.unfinished) == ([], {})


async def test_a_result_that_differs_is_told_with_both(tmp_path: Path) -> None:
    wrong = (*RECORDED[:3], call(2, "add", "5", {"a": 2, "b": 2}))
    index = index_of(a_run(tmp_path / "run", wrong), tmp_path / "cache")
    result = await rerun(recorded(index, Filter(correct=True), 10), ToolEnvironments(InProcessSandbox()))
    (found,) = result.differences
    assert (found.row, found.turn, found.name) == (0, 2, "add")
    assert (found.before.result, found.after.result) == ("5", "4")


def test_another_reward_says_what_it_would_have_changed(tmp_path: Path) -> None:
    index = index_of(a_run(tmp_path / "run", ()), tmp_path / "cache")
    result = rescore(recorded(index, Filter(), 10), get("exact"))
    assert (result.count, result.before, result.after) == (2, 1.0, 1.0)
    assert [(change.before, change.after, change.verdict) for change in result.changes] == [
        (0.5, 1.0, ""),
        (0.5, 0.0, ""),
    ]
    assert result.equal() == (1, 0)


def test_a_fault_of_ours_is_not_scored(tmp_path: Path) -> None:
    index = index_of(a_run(tmp_path / "run", ()), tmp_path / "cache")
    faulty = [replace(one, trajectory=replace(one.trajectory, fault="down")) for one in recorded(index, Filter(), 10)]
    assert (rescore(faulty, get("exact")).faults, rescore(faulty, get("exact")).count) == (2, 0)


def test_two_runs_are_held_against_each_other_task_by_task(tmp_path: Path) -> None:
    first = index_of(a_run(tmp_path / "a", (), (False, False)), tmp_path / "cache")
    second = index_of(a_run(tmp_path / "b", (), (True, False)), tmp_path / "cache")
    (pair,) = pairs(first, second)
    assert (pair.task, pair.first.right, pair.second.right, pair.gap) == ("t1", 0, 1, 0.5)


def test_the_command_scores_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = a_run(tmp_path / "a", (), (False, False)), a_run(tmp_path / "b", ())
    arguments = [str(run), "--cache", str(tmp_path / "cache"), "--score", "exact", "--against", str(other), "--json"]
    assert main(["replay", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["score"]["mean_before"], told["score"]["mean_after"]) == (0.5, 0.0)
    assert (told["against"]["tasks"], told["against"]["second_better"]) == (1, 1)


def test_a_replay_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 2
    assert "--score REWARD, --rerun, or --against RUN" in capsys.readouterr().err
