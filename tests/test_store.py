import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.errors import ConfigError
from recall.store import FRAME_BYTES, Run, StoredGroup, read_groups, write_groups
from recall.types import (
    AnswerType,
    CallRecord,
    CallStatus,
    Group,
    RewardResult,
    Segment,
    StopReason,
    Task,
    ToolSpec,
    Trajectory,
)


def a_group(task_id: str = "t", score: float = 1.0) -> Group:
    trajectory = Trajectory(task_id, (Segment((1, 2)), Segment((3,), (-0.1,), "x", 0)), StopReason.DONE, answer="4")
    return Group(Task(task_id, "2 + 2?", ("4",)), (trajectory,), (RewardResult(score, True),))


def a_run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", "name = 'run'\n")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows past `size` bytes: a full disk that needs no disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(run: Run) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(st.text(), json_values, max_size=3)
texts = st.text(st.characters())  # lone surrogates included: a byte-level tokenizer may decode to them
numbers = st.floats(allow_nan=False)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    token_ids = tuple(draw(st.lists(st.integers(0, 2**20), max_size=4)))
    if not draw(st.booleans()):
        return Segment(token_ids, None, draw(texts))
    logprobs = tuple(draw(numbers) for _ in token_ids)
    seen = [tuple(draw(numbers) for _ in token_ids) if draw(st.booleans()) else None for _ in range(2)]
    return Segment(token_ids, logprobs, draw(texts), draw(st.none() | st.integers(0)), draw(st.booleans()), *seen)


calls = st.builds(CallRecord, st.integers(0), texts, objects, texts, st.sampled_from(CallStatus), numbers)
trajectories = st.builds(
    Trajectory,
    texts,
    st.lists(segments(), max_size=4).map(tuple),
    st.sampled_from(StopReason),
    st.none() | texts,
    st.lists(calls, max_size=2).map(tuple),
    st.none() | texts,
    numbers,
    st.none() | st.integers(),
    st.none() | objects,
)
tasks = st.builds(
    Task,
    texts,
    texts,
    st.lists(texts, max_size=2).map(tuple),
    texts,
    st.lists(st.builds(ToolSpec, texts, texts, objects), max_size=2).map(tuple),
    st.builds(AnswerType, st.sampled_from(["text", "number"]), numbers),
    texts,
    texts,
    texts,
    st.integers(0),
    st.none() | st.integers(0),
    texts,
    st.lists(objects, max_size=2).map(tuple),
    st.none() | objects,
    texts,
    objects,
)
rewards = st.builds(RewardResult, numbers, st.booleans(), st.dictionaries(st.text(), numbers, max_size=2))


@st.composite
def stored_groups(draw: st.DrawFn) -> StoredGroup:
    size = draw(st.integers(1, 3))
    played = [draw(trajectories) for _ in range(size)]
    judged = [draw(rewards) for _ in range(size)]
    advantages = tuple(draw(numbers) for _ in range(size))
    return StoredGroup(Group(draw(tasks), played, judged), advantages, 12, "held_out")


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(stored_groups(), max_size=3))
def test_groups_written_and_read_back_are_equal(
    groups: list[StoredGroup], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("groups") / "groups.jsonl.zst"
    advantages = [stored.advantages or () for stored in groups]
    write_groups(path, [stored.group for stored in groups], step=12, split="held_out", advantages=advantages)
    assert list(read_groups(path)) == groups


def test_a_large_file_is_of_several_frames_that_are_cut_between_groups(tmp_path: Path) -> None:
    long = "x" * (FRAME_BYTES // 2)
    played = Trajectory("t", (Segment((1,), None, long), Segment((2,), (-0.5,), long)), StopReason.DONE)
    groups = [Group(Task(f"t{n}", "?", ()), [played] * 2, [RewardResult(0.0, False)] * 2) for n in range(3)]
    path = a_run(tmp_path).write_groups(1, groups)
    assert [stored.group for stored in read_groups(path)] == groups
    rest, frames = path.read_bytes(), []
    while rest:
        decoder = zstandard.ZstdDecompressor().decompressobj()
        lines = decoder.decompress(rest).splitlines()
        frames.append([json.loads(line).get("group") for line in lines])
        rest = decoder.unused_data
    assert frames == [[None, 0, 0], [1, 1], [2, 2]]


def test_what_no_learner_saw_takes_no_room(tmp_path: Path) -> None:
    _, line = lines_of(a_run(tmp_path).write_groups(1, [a_group()]))
    assert not {"entropies", "learner_logprobs"} & set(line["segments"][1])


def test_groups_without_advantages_are_read_back_without(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    path = run.write_groups(12, [a_group()])
    assert path == run.path / "trajectories" / "step-000012.jsonl.zst"
    (stored,) = read_groups(path)
    assert (stored.advantages, stored.step, stored.split) == (None, 12, "train")


def test_the_tools_of_a_group_are_written_once_and_its_question_with_every_trajectory(tmp_path: Path) -> None:
    one = a_group()
    path = a_run(tmp_path).write_groups(1, [Group(one.task, [*one.trajectories] * 2, [*one.rewards] * 2)])
    _, first, second = lines_of(path)
    assert "tools" in first["task"]
    assert second["task"] == {
        "id": "t", "question": "2 + 2?", "ground_truth": ["4"], "split": "", "depth": 0, "kind": "",
    }  # fmt: skip


def test_an_empty_group_and_unequal_advantages_are_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    with pytest.raises(ValueError, match="no trajectories"):
        run.write_groups(1, [Group(Task("t", "", ()), [], [])])
    with pytest.raises(ValueError, match="zip"):
        run.write_groups(1, [a_group()], advantages=[[1.0, 2.0]])
    assert run.trajectory_files() == []


def lines_of(path: Path) -> list[dict[str, Any]]:
    data = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    return [json.loads(line) for line in data.splitlines()]


def rewrite(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_bytes(zstandard.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        list(read_groups(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_trajectories_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    path = a_run(tmp_path).write_groups(1, [a_group("a"), a_group("b")])
    whole, lines = path.read_bytes(), lines_of(path)
    assert refusal(path.with_name("no.jsonl.zst")).endswith("no such trajectories file")
    path.write_bytes(b"{}\n")
    assert "not readable as zstd" in refusal(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(path)
    rewrite(path, [{**lines[0], "version": 2}])
    assert "format version 2" in refusal(path)
    rewrite(path, [{"a": 1}])
    assert "not a trajectories file" in refusal(path)
    rewrite(path, lines[:2])
    assert "cut short: 1 of 2" in refusal(path)
    del lines[2]["segments"]
    rewrite(path, lines)
    assert refusal(path).endswith("group 1: damaged: KeyError: 'segments'")


def test_a_file_of_before_tasks_were_about_state_is_read(tmp_path: Path) -> None:
    path = a_run(tmp_path).write_groups(1, [a_group()])
    header, line = lines_of(path)
    del line["changes"], line["task"]["changes"], line["task"]["reward"]
    rewrite(path, [header, line])
    (stored,) = read_groups(path)
    assert (stored.group.task, stored.group.trajectories) == (a_group().task, [*a_group().trajectories])


def test_a_run_that_exists_is_refused_unless_asked_for(tmp_path: Path) -> None:
    a_run(tmp_path)
    with pytest.raises(ConfigError, match=r"the run exists; go on from it with --resume .*run, or choose another"):
        a_run(tmp_path)
    run = Run.create(tmp_path / "run", "name = 'other'\n", exist_ok=True)
    assert run.config_path.read_text() == "name = 'other'\n"


def test_a_directory_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        Run.open(tmp_path)
    assert Run.open(a_run(tmp_path).path).path == tmp_path / "run"


def test_metrics_are_read_back_as_written(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    rows: list[dict[str, Any]] = [{"step": 1, "loss": 0.1 + 0.2, "note": "ü"}, {"step": 2, "loss": -1e-300}]
    for row in rows:
        run.append_metrics(row)
    assert run.read_metrics() == rows


def test_a_row_of_metrics_needs_a_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step"):
        a_run(tmp_path).append_metrics({"loss": 1.0})


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"x" * 70_000])
def test_a_torn_last_line_is_ignored_by_readers_and_dropped_by_writers(tmp_path: Path, torn: bytes) -> None:
    run = a_run(tmp_path)
    run.append_metrics({"step": 1})
    with open(run.metrics_path, "ab") as file:
        file.write(torn)
    assert run.read_metrics() == [{"step": 1}]
    run.append_metrics({"step": 2})
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


def test_a_broken_line_in_the_middle_is_refused_by_its_number(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.metrics_path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ConfigError, match="line 2 is not a JSON object"):
        run.read_metrics()


def test_truncation_leaves_the_run_as_it_was_at_the_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path)

    def play(steps: range) -> None:
        for step in steps:
            run.append_metrics({"step": step, "loss": 1 / step})
            run.write_groups(step, [a_group(score=1 / step)])
            with run.checkpoint_dir(step) as folder:
                (folder / "weights").write_text(str(step))

    play(range(1, 3))
    before = {name: (run.path / name).read_bytes() for name in files_of(run)}
    play(range(3, 5))
    with open(run.metrics_path, "ab") as file:
        file.write(b'{"step"')
    (run.path / "trajectories" / ".step-000005.jsonl.zst.tmp-1").write_text("half")
    (run.path / "checkpoints" / ".step-000005.new.tmp-1").mkdir()
    run.truncate_after(2)
    assert {name: (run.path / name).read_bytes() for name in files_of(run)} == before
    assert run.latest_checkpoint() == run.path / "checkpoints" / "step-000002"
    assert not list((run.path / "checkpoints").glob(".*"))


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.latest_checkpoint() is None

    def crash_half_way() -> None:
        with run.checkpoint_dir(1) as folder:
            (folder / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash_half_way()
    assert run.latest_checkpoint() is None
    assert files_of(run) == {"config.toml"}
    for text in ("one", "two"):
        with run.checkpoint_dir(999_999) as folder:
            (folder / "weights").write_text(text)
    with run.checkpoint_dir(1_000_000) as folder:
        (folder / "deeper").mkdir()
    assert [path.name for path in run.checkpoints()] == ["step-999999", "step-1000000"]
    assert (run.checkpoints()[0] / "weights").read_text() == "two"


def test_trajectory_files_are_listed_by_step_and_split(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    for step, split in [(10, "train"), (9, "train"), (9, "held_out")]:
        run.write_groups(step, [a_group()], split=split)
    assert [(file.step, file.split) for file in run.trajectory_files()] == [
        (9, "held_out"),
        (9, "train"),
        (10, "train"),
    ]
    assert [file.step for file in run.trajectory_files("held_out")] == [9]


def test_a_json_file_is_written_whole(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert json.loads(run.write_json("eval/summary.json", {"a": [1.5]}).read_text()) == {"a": [1.5]}


def test_a_full_disk_gives_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.append_metrics({"step": 1})
    big = a_group(os.urandom(50_000).hex())
    kept = files_of(run)
    with largest_file(10_000):
        with pytest.raises(ConfigError, match="cannot be written: File too large"):
            run.append_metrics({"step": 2, "note": "x" * 20_000})
        with pytest.raises(ConfigError, match="cannot be written: File too large"):
            run.write_groups(1, [big])
        with pytest.raises(ConfigError, match="cannot be written: File too large"):
            run.write_json("x.json", "x" * 20_000)
        with pytest.raises(ConfigError, match="cannot be written: File too large"), run.checkpoint_dir(1) as folder:
            (folder / "weights").write_bytes(bytes(20_000))
    assert files_of(run) == kept
    assert run.read_metrics() == [{"step": 1}]


def test_no_space_left_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No space left on device"), a_run(tmp_path).checkpoint_dir(1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
