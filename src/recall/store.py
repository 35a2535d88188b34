"""The run directory: configuration, metrics, trajectories and checkpoints, readable after a kill at any moment.

Whole files are written under a temporary name and renamed; `metrics.jsonl` is appended to a line at a time, and a torn
last line is ignored by readers and dropped by writers. Not here: what a checkpoint holds (the trainer's) and how a run
is shown (`cli/show.py`, `viewer/`). The format of trajectories is described in docs/trajectories.md.
"""

import dataclasses
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any

from recall.errors import ConfigError
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

FORMAT = "recall-trajectories"
VERSION = 1

FRAME_BYTES = 4 << 20
"""A file of trajectories is compressed in frames of about so many bytes, so that a line is read without the others."""
_EVERY_LINE = ("id", "question", "ground_truth", "split", "depth", "kind")
"""What each trajectory says of its task; the rest stands in the first line of the group only."""
_LEARNED = ("entropies", "learner_logprobs")
"""What a learner says of the tokens of a segment, where one looked at it."""
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the disk answers when the user has to act: full, over quota, too large, not permitted, read-only."""


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group as it was written."""

    group: Group
    """The task, its trajectories and their rewards."""
    advantages: tuple[float, ...] | None
    """[G] the credit of each trajectory; None where none was computed."""
    step: int
    """The update that the group was played for."""
    split: str
    """`train`, or the name of the evaluation split."""


@dataclass(frozen=True, slots=True)
class TrajectoryFile:
    """One file of trajectories."""

    step: int
    """The update that its groups were played for."""
    split: str
    """`train`, or the name of the evaluation split."""
    path: Path
    """Where it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory."""

    path: Path
    """`runs/NAME`."""

    @classmethod
    def create(cls, path: Path, config_text: str, *, exist_ok: bool = False) -> "Run":
        """Make the directory, with `config_text` as its `config.toml`.

        Args:
            path: where; parents are made.
            config_text: the resolved configuration, as `config.dump` writes it.
            exist_ok: write into a directory that exists instead of refusing it.

        Raises:
            ConfigError: the directory exists, or the disk refuses it.
        """
        with _disk(path):
            if path.exists() and not exist_ok:
                raise ConfigError(f"{path}: the run exists; go on from it with --resume {path}, or choose another name")
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / "config.toml", lambda file: file.write(config_text.encode()))
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in a directory that `create` made.

        Raises:
            ConfigError: there is none.
        """
        if not (path / "config.toml").is_file():
            raise ConfigError(f"{path}: not a run directory: it has no config.toml")
        return cls(path)

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Write one line of metrics; it is whole on disk, or not there, when this returns or raises.

        Args:
            row: JSON values by name; `step`, an integer, is required.

        Raises:
            ConfigError: the disk refuses it.
            ValueError: there is no `step`.
        """
        if not isinstance(row.get("step"), int):
            raise ValueError("a row of metrics needs an integer `step`")
        line = json.dumps(dict(row)).encode() + b"\n"
        with _disk(self.metrics_path), open(self.metrics_path, "ab+", buffering=0) as file:
            whole = _end_of_last_line(file)
            file.truncate(whole)
            try:
                written = file.write(line)
                while written < len(line):
                    written += file.write(line[written:])
            except OSError:
                file.truncate(whole)
                raise

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole row, in the order written; a torn last line is left out.

        Raises:
            ConfigError: a line that is not the last is not a JSON object.
        """
        if not self.metrics_path.exists():
            return []
        *lines, _torn = self.metrics_path.read_bytes().split(b"\n")
        return [_json_line(self.metrics_path, number, line) for number, line in enumerate(lines, 1)]

    def truncate_after(self, step: int) -> None:
        """Forget everything after `step`, so that going on from its checkpoint repeats the run.

        Drops rows of metrics, trajectories and checkpoints of later steps, a torn last line, and what a killed writer
        left under temporary names.
        """
        kept = b"".join(json.dumps(row).encode() + b"\n" for row in self.read_metrics() if row["step"] <= step)
        with _disk(self.path):
            write_atomic(self.metrics_path, lambda file: file.write(kept))
            for file in self.trajectory_files():
                if file.step > step:
                    file.path.unlink()
            for checkpoint in self.checkpoints():
                if checkpoint_step(checkpoint) > step:
                    shutil.rmtree(checkpoint)
            for folder in (self.path, self.path / "trajectories", self.path / "checkpoints"):
                for left in folder.glob(".*.tmp-*"):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def write_groups(
        self,
        step: int,
        groups: Sequence[Group],
        *,
        split: str = "train",
        advantages: Sequence[Sequence[float]] | None = None,
    ) -> Path:
        """Write the trajectories of one step.

        Args:
            step: the update that they were played for.
            groups: each with at least one trajectory.
            split: `train`, or the name of the evaluation split.
            advantages: [groups][G] the credit of each trajectory.

        Returns:
            The file: `trajectories/step-000012.jsonl.zst`, with `-SPLIT` after the number for other splits.

        Raises:
            ConfigError: the disk refuses it.
            ValueError: a group is empty, or the advantages do not match the groups.
        """
        name = f"step-{step:06d}" + ("" if split == "train" else f"-{split}")
        path = self.path / "trajectories" / f"{name}.jsonl.zst"
        with _disk(path):
            path.parent.mkdir(exist_ok=True)
            write_groups(path, groups, step=step, split=split, advantages=advantages)
        return path

    def trajectory_files(self, split: str | None = None) -> list[TrajectoryFile]:
        """The files of trajectories by step and split; only those of `split` where it is given."""
        found = []
        for path in (self.path / "trajectories").glob("step-*.jsonl.zst"):
            match = re.fullmatch(r"step-(\d+)(?:-(.+))?\.jsonl\.zst", path.name)
            if match and split in (None, match[2] or "train"):
                found.append(TrajectoryFile(int(match[1]), match[2] or "train", path))
        return sorted(found, key=lambda file: (file.step, file.split))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file into the run.

        Raises:
            ConfigError: the disk refuses it.
        """
        path = self.path / name
        with _disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda file: file.write(json.dumps(value, indent=1).encode() + b"\n"))
        return path

    @contextmanager
    def checkpoint_dir(self, step: int) -> Iterator[Path]:
        """A directory to fill; it becomes `checkpoints/step-000010` when the block ends, and nothing if it raises.

        Raises:
            ConfigError: the disk refuses it.
        """
        final = self.path / "checkpoints" / f"step-{step:06d}"
        partial, replaced = (final.with_name(f".{final.name}.{word}.tmp-{os.getpid()}") for word in ("new", "old"))
        with _disk(final):
            try:
                partial.mkdir(parents=True)
                yield partial
                for file in partial.rglob("*"):
                    if file.is_file():
                        _sync(file)
                if final.exists():
                    os.replace(final, replaced)
                os.replace(partial, final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(replaced, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        found = (self.path / "checkpoints").glob("step-*")
        return sorted((p for p in found if re.fullmatch(r"step-\d+", p.name)), key=checkpoint_step)

    def latest_checkpoint(self) -> Path | None:
        """The checkpoint of the highest step, or None."""
        return next(reversed(self.checkpoints()), None)


def checkpoint_step(checkpoint: Path) -> int:
    """The step of `checkpoints/step-000010`."""
    return int(checkpoint.name.removeprefix("step-"))


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; on any error nothing is left."""
    partial = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_groups(
    path: Path,
    groups: Sequence[Group],
    *,
    step: int = 0,
    split: str = "train",
    advantages: Sequence[Sequence[float]] | None = None,
) -> None:
    """Write a file of trajectories; `Run.write_groups` says what the arguments are.

    Raises:
        ValueError: a group is empty, or the advantages do not match the groups.
        OSError: the disk refuses it.
    """
    credit = [None] * len(groups) if advantages is None else advantages
    count = sum(len(group.trajectories) for group in groups)
    header = {"format": FORMAT, "version": VERSION, "step": step, "split": split, "trajectories": count}
    lines = (
        line for number, (group, a) in enumerate(zip(groups, credit, strict=True)) for line in _lines(group, number, a)
    )

    def write(file: IO[bytes]) -> None:
        import zstandard

        size, group = 0, None
        with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream:
            for line in chain((header,), lines):
                if size >= FRAME_BYTES and line["group"] != group:
                    stream.flush(zstandard.FLUSH_FRAME)
                    size = 0
                data = json.dumps(line).encode() + b"\n"
                stream.write(data)
                size, group = size + len(data), line.get("group")

    write_atomic(path, write)


def read_groups(path: Path) -> Iterator[StoredGroup]:
    """Read a file of trajectories, a group at a time.

    Raises:
        ConfigError: there is no such file, it is not one of ours, it is of a newer version, or it is damaged.
    """
    lines = _read_lines(path)
    header = next(lines, {})
    if header.get("format") != FORMAT:
        raise ConfigError(f'{path}: not a trajectories file: its first line lacks "format": "{FORMAT}"')
    if header.get("version") != VERSION:
        raise ConfigError(
            f"{path}: format version {header.get('version')}, and this ReCall reads version {VERSION}; update ReCall"
        )
    found = 0
    for number, of_group in groupby(lines, key=lambda line: line.get("group")):
        together = list(of_group)
        found += len(together)
        try:
            stored = _stored(together, header["step"], header["split"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: group {number}: damaged: {type(error).__name__}: {error}") from error
        yield stored
    if found != header.get("trajectories"):
        raise ConfigError(f"{path}: cut short: {found} of {header.get('trajectories')} trajectories")


def _lines(group: Group, number: int, advantages: Sequence[float] | None) -> Iterator[dict[str, Any]]:
    if not group.trajectories:
        raise ValueError(f"the group of task {group.task.id!r} has no trajectories")
    task = {
        **_fields(group.task),
        "tools": [_fields(tool) for tool in group.task.tools],
        "answer_type": _fields(group.task.answer_type),
    }
    credit = [None] * len(group.trajectories) if advantages is None else advantages
    for index, (played, reward, advantage) in enumerate(zip(group.trajectories, group.rewards, credit, strict=True)):
        yield {
            "group": number,
            "task": task if index == 0 else {name: task[name] for name in _EVERY_LINE},
            **_fields(played),
            "segments": [_segment_fields(segment) for segment in played.segments],
            "calls": [_fields(call) for call in played.calls],
            "reward": _fields(reward),
            "advantage": advantage,
        }


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass; unlike `dataclasses.asdict` it does not copy every token."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _segment_fields(segment: Segment) -> dict[str, Any]:
    """A segment's fields, without what no learner saw of it."""
    fields = _fields(segment)
    return {name: fields[name] for name in fields if name not in _LEARNED or fields[name] is not None}


def _stored(lines: Sequence[dict[str, Any]], step: int, split: str) -> StoredGroup:
    rewards = [RewardResult(**line["reward"]) for line in lines]
    advantages = tuple(line["advantage"] for line in lines)
    group = Group(_task(lines[0]["task"]), [_trajectory(line) for line in lines], rewards)
    return StoredGroup(group, None if None in advantages else advantages, step, split)


def _task(fields: Mapping[str, Any]) -> Task:
    return Task(
        **{
            **fields,
            "ground_truth": tuple(fields["ground_truth"]),
            "tools": tuple(ToolSpec(**tool) for tool in fields["tools"]),
            "answer_type": AnswerType(**fields["answer_type"]),
            "reference": tuple(fields["reference"]),
        }
    )


def _trajectory(line: Mapping[str, Any]) -> Trajectory:
    fields = {field.name: line[field.name] for field in dataclasses.fields(Trajectory) if field.name != "changes"}
    fields["changes"] = line.get("changes")  # files written before tasks were about state have none
    fields["segments"] = tuple(_segment(segment) for segment in line["segments"])
    fields["calls"] = tuple(CallRecord(**{**call, "status": CallStatus(call["status"])}) for call in line["calls"])
    fields["stop_reason"] = StopReason(line["stop_reason"])
    return Trajectory(**fields)


def _segment(fields: Mapping[str, Any]) -> Segment:
    logprobs = fields["logprobs"]
    return Segment(
        tuple(fields["token_ids"]),
        None if logprobs is None else tuple(logprobs),
        fields["text"],
        fields["policy_version"],
        fields.get("from_text", False),  # files written before there were text-only engines do not say
        **{name: tuple(fields[name]) for name in _LEARNED if fields.get(name) is not None},
    )


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    import zstandard

    try:
        decompress = zstandard.ZstdDecompressor().stream_reader
        with open(path, "rb") as file, decompress(file, read_across_frames=True) as stream:
            for number, line in enumerate(io.BufferedReader(stream), 1):
                yield _json_line(path, number, line)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such trajectories file") from None
    except zstandard.ZstdError as error:
        raise ConfigError(f"{path}: not readable as zstd: {error}") from None


def _json_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: line {number} is not a JSON object")
    return value


def _end_of_last_line(file: IO[bytes]) -> int:
    """The size of a file without its torn last line, in bytes."""
    end = file.seek(0, io.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _sync(file: Path) -> None:
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn a refusal of the disk, which the user has to mend, into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; nothing half-written was left") from error
