"""Writes a set of made tasks: parquet shards, whole or absent, and a manifest that is right at every moment.

The bytes depend on what is made alone: not on how many processes made it, nor on how often the work was interrupted.
Rows are written as they are made, so memory is bounded by one batch of rows whatever the size of the set.
"""

import dataclasses
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from recall import __version__
from recall.datasets.rows import write_tasks
from recall.datasets.sets import MANIFEST, Manifest, Shard, checksum, read_manifest, verify_shard
from recall.errors import ConfigError
from recall.synth.made import Made, Stream
from recall.types import Task

SHARD_ROWS = 5000
"""Rows of a shard; what an interruption can lose at most."""

Progress = Callable[[str, int, int], None]
"""Told, for a split, how many rows of it there are and how many attempts were made at them."""


def write_set(
    directory: Path,
    made: Stream,
    *,
    kind: str,
    recipe: Mapping[str, Any],
    seed: int,
    splits: Mapping[str, int],
    shard_rows: int = SHARD_ROWS,
    on_progress: Progress | None = None,
) -> Manifest:
    """Make a set, or go on with one where it was left.

    Args:
        directory: where it is; made when it is not there.
        made: the attempts; only accepted ones count as rows. Where it ends early the set stays incomplete, and what was
            made of its last shard is made again when the work goes on.
        kind: what makes it, for the manifest.
        recipe: the settings that it is made with, as JSON can say them.
        seed: the seed that it is made with.
        splits: the rows wanted of each split, made in this order. A set that is there may grow, never shrink.
        shard_rows: rows of a shard.
        on_progress: told after every attempt.

    Returns:
        The manifest, as it stands in the directory.

    Raises:
        ConfigError: the directory holds something else, or a set made from something else; or a shard of it was
            changed. One line.
    """
    wanted = Manifest(kind, json.loads(json.dumps(recipe)), seed, __version__, dict(splits), shard_rows)
    directory.mkdir(parents=True, exist_ok=True)
    with _only_writer(directory):
        manifest = _resumed(directory, wanted)
        attempts = _Attempts(made, on_progress)
        try:
            for split, rows in splits.items():
                manifest = _write_split(directory, manifest, attempts, split, rows)
        finally:
            attempts.close()
    return manifest


def _write_split(directory: Path, manifest: Manifest, attempts: "_Attempts", split: str, rows: int) -> Manifest:
    """Write the shards of a split that are not there yet."""
    start = 0
    for number, first in enumerate(range(0, rows, manifest.shard_rows)):
        file = f"{split}-{number:05}.parquet"
        size = min(manifest.shard_rows, rows - first)
        known = manifest.shard(file)
        if known is not None and known.rows == size and (directory / file).exists():
            verify_shard(directory, known)
        else:
            attempts.begin(split, start, first)
            before, known = known, _write_shard(directory, file, attempts, size)
            if known is None:
                break
            if before is not None and before.rows == known.rows and before.sha256 != known.sha256:
                raise ConfigError(
                    f"{directory / file}: was made again, and is not what it was; delete it and {MANIFEST} to make the "
                    "set anew"
                )
            others = {shard.file: shard for shard in manifest.shards} | {file: known}
            order = sorted(others.values(), key=lambda shard: (list(manifest.splits).index(shard.split), shard.file))
            manifest = dataclasses.replace(manifest, shards=tuple(order))
            manifest.write(directory)
        if known.rows < size:
            break
        start = known.stop
    return manifest


def _write_shard(directory: Path, file: str, attempts: "_Attempts", size: int) -> Shard | None:
    """Write a shard of `size` rows, or of fewer where the attempts end; None where there is not even one."""
    tasks = attempts.tasks(size)
    first = next(tasks, None)
    if first is None:
        return None
    path = directory / file
    write_tasks(path, chain([first], tasks))
    with path.open("rb") as written:
        os.fsync(written.fileno())
    return attempts.shard(file, checksum(path))


class _Attempts:
    """Draws tasks from a stream, a shard at a time, and counts what was thrown away for each."""

    def __init__(self, made: Stream, on_progress: Progress | None) -> None:
        self._made, self._on_progress = made, on_progress
        self._open: Iterator[Made] | None = None
        self._at: tuple[str, int] | None = None
        self._split, self._start, self._before = "", 0, 0
        self._rows = self._tried = 0
        self._rejected: dict[str, Counter[str]] = {}

    def begin(self, split: str, start: int, before: int) -> None:
        """Start a shard with the attempt numbered `start`; `before` rows of the split are done."""
        if self._at != (split, start):
            self.close()
            self._open = iter(self._made(split, start))
        self._split, self._start, self._before, self._at = split, start, before, (split, start)
        self._rows = self._tried = 0
        self._rejected = {}

    def tasks(self, rows: int) -> Iterator[Task]:
        """The next `rows` tasks, or fewer where there are no more."""
        assert self._open is not None, "begin comes first"
        at = self._start
        while self._rows < rows and (attempt := next(self._open, None)) is not None:
            if attempt.index < at:
                raise ValueError(f"attempt {attempt.index} of split {self._split!r} comes after attempt {at}")
            at = attempt.index
            self._tried += 1
            if attempt.task is None:
                self._rejected.setdefault(attempt.gate, Counter())[attempt.reason] += 1
            else:
                if attempt.task.split != self._split:
                    raise ValueError(f"task {attempt.task.id!r} of split {attempt.task.split!r}, not {self._split!r}")
                self._rows += 1
            self._at = (self._split, attempt.index + 1)
            if self._on_progress is not None:
                self._on_progress(self._split, self._before + self._rows, self._tried)
            if attempt.task is not None:
                at += 1  # a number has one task at most
                yield attempt.task

    def shard(self, file: str, sha256: str) -> Shard:
        """What the shard that was just drawn is."""
        assert self._at is not None, "begin comes first"
        rejected = {gate: dict(sorted(reasons.items())) for gate, reasons in sorted(self._rejected.items())}
        return Shard(file, self._split, self._rows, sha256, self._start, self._at[1], self._tried, rejected)

    def close(self) -> None:
        """Let go of the stream."""
        stream, self._open, self._at = self._open, None, None
        if stream is not None and hasattr(stream, "close"):
            stream.close()


def _resumed(directory: Path, wanted: Manifest) -> Manifest:
    """The manifest of the directory with what is wanted of it now; that of a new set where the directory is empty."""
    if not (directory / MANIFEST).exists():
        others = [path.name for path in directory.iterdir() if not path.name.startswith(f".{MANIFEST}")]
        if others:
            raise ConfigError(f"{directory}: holds {min(others)!r} and no {MANIFEST}; name a new or empty directory")
        wanted.write(directory)
        return wanted
    found = read_manifest(directory)
    for name in ("kind", "recipe", "seed", "version", "shard_rows"):
        old, new = getattr(found, name), getattr(wanted, name)
        if old != new:
            key, old, new = _difference(name, old, new)
            raise ConfigError(
                f"{directory}: was made with {key} {old!r}, not {new!r}; make it with that, or name another directory"
            )
    for split, rows in found.splits.items():
        if wanted.splits.get(split, 0) < rows:
            given = wanted.splits.get(split, 0)
            raise ConfigError(
                f"{directory}: split {split!r} was made for {rows} rows, not {given}; a set cannot shrink"
            )
    if list(wanted.splits)[: len(found.splits)] != list(found.splits):
        raise ConfigError(
            f"{directory}: its splits are {', '.join(found.splits)}, in this order; name others after them"
        )
    if found.splits != wanted.splits:
        found = dataclasses.replace(found, splits=wanted.splits)
        found.write(directory)
    return found


def _difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The innermost key in which two values differ, and what stands there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                return _difference(f"{name}.{key}", old.get(key), new.get(key))
    return name, old, new


@contextmanager
def _only_writer(directory: Path) -> Iterator[None]:
    """Hold the directory against other writers, and clear away what a killed one left half written."""
    held = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{directory}: another process is writing it") from None
        if (directory / MANIFEST).exists():
            for path in [*directory.glob(".*.tmp"), *directory.glob(f".{MANIFEST}.tmp-*")]:
                path.unlink()
        yield
    finally:
        os.close(held)
