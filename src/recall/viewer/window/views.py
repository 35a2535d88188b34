"""What a page asks about runs, answered as JSON values; the same answers go over HTTP and into an exported file.

An index is brought up to date in the background when somebody looks at its run, so a page never waits for a whole one.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recall.errors import ConfigError
from recall.store import write_atomic
from recall.viewer.index.fetch import group_rows, trajectories
from recall.viewer.index.find import Filter, alive, brief, facets, find, last_of_tasks, task_number
from recall.viewer.index.index import RunIndex, Snapshot
from recall.viewer.index.pairs import pairs
from recall.viewer.window import evaluations
from recall.viewer.window.folder import NOTE, Entry, Folder, read_note
from recall.viewer.window.health import health
from recall.viewer.window.metrics import config_of, files_notes, metrics_of, state_of
from recall.viewer.window.trajectory import shown, text_of

WAIT_S = 0.6
"""How long an answer waits for an index before it is given without what is not in it yet, in seconds."""
MAX_GROUP = 64
"""Trajectories of a group, or of a task over steps, that are sent at once."""


@dataclass
class _Kept:
    """The index of one run, and the work on it."""

    index: RunIndex
    work: "Future[Snapshot] | None" = None
    stamp: tuple[int, int] = (0, 0)
    read: int = 0
    total: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Views:
    """The answers. Methods may be called from any thread; they raise ConfigError for what the asker got wrong."""

    def __init__(self, folder: Folder, cache: Path | None = None, *, wait_s: float | None = WAIT_S) -> None:
        """Answer about `folder`; with `wait_s` None, indexes are waited for however long they take."""
        self.folder = folder
        self._cache, self._wait_s = cache, wait_s
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(1, "index")

    def close(self) -> None:
        """Wait for the index that is being written, and end."""
        self._workers.shutdown(cancel_futures=True)

    def runs(self) -> dict[str, Any]:
        """Everything that there is to look at."""
        return {
            "root": self.folder.root.name,
            "runs": [self._summary(entry) for entry in self.folder.entries("run")],
            "evaluations": [
                evaluations.summary(entry) for entry in self.folder.entries() if entry.kind in ("qa", "bfcl")
            ],
            "sets": [evaluations.set_summary(entry) for entry in self.folder.entries("set")],
        }

    def run(self, name: str) -> dict[str, Any]:
        """One run, or what an evaluation kept: its settings, its state, and what is odd about its files."""
        entry = self.folder.entry(name, "run", "qa", "bfcl")
        index = self.index(name)
        config, text, problem = config_of(entry.path)
        files = [file for file in index.files if file.alive]
        notes = [problem] if problem and entry.kind == "run" else []
        notes += files_notes(entry.path)
        notes += [f"{file.name} {file.problem}" for file in files if file.problem]
        return {
            **self._summary(entry),
            "holder": entry.kind,
            "config": config,
            "config_text": text,
            "notes": notes,
            "trajectories": int(np.count_nonzero(alive(index))),
            "steps": sorted({file.step for file in files}),
            "splits": list(index.splits),
            "kinds": list(index.kinds),
            "tools": list(index.tools[:200]),
            "parts": list(index.parts),
            "indexing": self._indexing(name),
            "checkpoints": sorted(path.name for path in (entry.path / "checkpoints").glob("step-*")),
            "report": (entry.path / "report.html").is_file(),
        }

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of a run: steps, and a column of values for each, None where a row lacks it."""
        return metrics_of(self.folder.entry(name, "run").path)

    def listing(self, name: str, wanted: Filter) -> dict[str, Any]:
        """The trajectories that match."""
        index = self.index(name)
        found = find(index, wanted)
        return {
            "total": found.total,
            "of": int(np.count_nonzero(alive(index))),
            "start": wanted.start,
            "rows": brief(index, found.rows),
            "facets": facets(index, found.mask),
            "cut": found.cut,
            "indexing": self._indexing(name),
        }

    def trajectory(self, name: str, row: int) -> dict[str, Any]:
        """One trajectory, with the others of its group beside it."""
        index = self._with_row(name, row)
        group = group_rows(index, row)
        task = int(index.columns["task"][row])
        same = np.flatnonzero((index.columns["task"] == task) & alive(index))
        return {
            **brief(index, [row])[0],
            "holder": self.folder.entry(name).kind,
            "line": shown(_read(index, [row])[0], index.path),
            "group_rows": brief(index, group[:MAX_GROUP]),
            "same_task": len(same),
            "file": index.file(row).name,
            "reward_name": _reward_name(index.path),
        }

    def text(self, name: str, row: int, part: str) -> str:
        """The whole text of a part of a trajectory, such as `segment-3` or `result-0`."""
        return text_of(_read(self._with_row(name, row), [row])[0], part)

    def raw(self, name: str, row: int) -> dict[str, Any]:
        """A trajectory as it stands in its file, with its task."""
        return _read(self._with_row(name, row), [row])[0]

    def group(self, name: str, row: int) -> dict[str, Any]:
        """The trajectories of a group, as they are read side by side."""
        index = self._with_row(name, row)
        rows = group_rows(index, row)[:MAX_GROUP]
        lines = [shown(line, index.path, tokens=False) for line in _read(index, rows)]
        both = zip(brief(index, rows), lines, strict=True)
        return {"holder": self.folder.entry(name).kind, "rows": [{**short, "line": line} for short, line in both]}

    def task(self, name: str, task: str, per_step: int = 2) -> dict[str, Any]:
        """One task over the steps of training: of each time that it was played, the first few trajectories."""
        index = self.index(name)
        number = task_number(index, task)
        rows = np.flatnonzero((index.columns["task"] == number) & alive(index))
        if number < 0 or not len(rows):
            raise ConfigError(f"task: {task!r}: no trajectory is of this task")
        times: dict[tuple[int, int, int], list[int]] = {}
        for row in rows.tolist():
            key = tuple(int(index.columns[column][row]) for column in ("step", "file", "group"))
            times.setdefault((key[0], key[1], key[2]), []).append(row)
        played = []
        for _, of_time in sorted(times.items())[:MAX_GROUP]:
            some = of_time[:per_step]
            scores = index.columns["score"][of_time]
            played.append(
                {
                    "step": int(index.columns["step"][of_time[0]]),
                    "split": index.splits[int(index.columns["split"][of_time[0]])],
                    "count": len(of_time),
                    "right": int(np.count_nonzero(index.columns["correct"][of_time])),
                    "mean": float(np.nanmean(scores)) if len(scores) else None,
                    "rows": [
                        {**short, "line": shown(line, index.path, tokens=False)}
                        for short, line in zip(brief(index, some), _read(index, some), strict=True)
                    ],
                }
            )
        return {"holder": self.folder.entry(name).kind, "task": task, "times": played}

    def health(self, name: str) -> dict[str, Any]:
        """What is wrong with a run, in words."""
        entry = self.folder.entry(name, "run")
        return {"findings": health(metrics_of(entry.path), self.index(name), files_notes(entry.path))}

    def pair(self, name: str, other: str, split: str = "") -> dict[str, Any]:
        """The tasks that two runs both played, and which of the two did better on each, at their last steps."""
        found = pairs(self.index(name), self.index(other), split)
        return {
            "common": len(found),
            "better": sum(pair.gap > 0 for pair in found),
            "worse": sum(pair.gap < 0 for pair in found),
            "rows": [{**asdict(pair), "gap": pair.gap} for pair in found[:300]],
        }

    def evaluation(self, name: str) -> dict[str, Any]:
        """One evaluation, entry by entry, each with the row of the latest trajectory behind it where one was kept."""
        entry = self.folder.entry(name, "qa", "bfcl")
        told = evaluations.entries(entry)
        kept = last_of_tasks(self.index(name), [row["id"] for row in told["rows"]]) if told["trajectories"] else {}
        return {**told, "rows": [{**row, "trajectory": kept.get(row["id"])} for row in told["rows"]]}

    def dataset(self, name: str) -> dict[str, Any]:
        """The report on a set."""
        return evaluations.dataset(self.folder.entry(name, "set"))

    def pulse(self, name: str) -> dict[str, Any]:
        """Whether there is anything new: a text that changes when there is."""
        entry = self.folder.entry(name, "run")
        index = self.index(name)
        metrics = entry.path / "metrics.jsonl"
        written = metrics.stat().st_mtime_ns if metrics.exists() else 0
        return {
            "version": f"{written:x}-{index.rows}-{sum(file.alive for file in index.files)}",
            "state": state_of(entry.path),
            "indexing": self._indexing(name),
        }

    def annotate(self, name: str, tags: Sequence[str], note: str) -> dict[str, Any]:
        """Keep tags and a note with a run."""
        import json

        path = self.folder.entry(name, "run").path / NOTE
        kept = {"tags": list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))[:50], "note": note}
        try:
            write_atomic(path, lambda file: file.write(json.dumps(kept, indent=1).encode()))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
        return kept

    def index(self, name: str) -> Snapshot:
        """The index of a run as it is now; it is brought up to date in the background where the run has changed."""
        entry = self.folder.entry(name)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None:
                kept = self._kept[name] = _Kept(RunIndex(entry.path, self._cache))
                kept.index.snapshot()
        with kept.lock:
            stamp = _stamp(entry.path)
            if (kept.work is None or kept.work.done()) and stamp != kept.stamp:
                kept.stamp, kept.read, kept.total = stamp, 0, 0
                kept.work = self._workers.submit(self._refresh, kept)
            work = kept.work
        if work is not None:
            try:
                work.result(self._wait_s)
            except NotYet:
                return kept.index.snapshot()
        return kept.index.snapshot()

    def _refresh(self, kept: _Kept) -> Snapshot:
        def progress(_rows: int, read: int, total: int) -> None:
            kept.read, kept.total = read, total

        return kept.index.refresh(progress)

    def _indexing(self, name: str) -> dict[str, int] | None:
        kept = self._kept.get(name)
        if kept is None or kept.work is None or kept.work.done():
            return None
        return {"read": kept.read, "total": kept.total}

    def _with_row(self, name: str, row: int) -> Snapshot:
        index = self.index(name)
        if not 0 <= row < index.rows or not index.file(row).alive:
            raise ConfigError(f"row: {row}: there is no such trajectory; the run may have gone on from before it")
        return index

    def _summary(self, entry: Entry) -> dict[str, Any]:
        metrics = metrics_of(entry.path)
        config, _, _ = config_of(entry.path)
        last: dict[str, float] = {}
        for column, values in metrics["columns"].items():
            known = [value for value in values if value is not None]
            if known and column in _HEADLINES:
                last[column] = known[-1]
        return {
            "name": entry.name,
            "state": state_of(entry.path),
            "step": metrics["steps"][-1] if metrics["steps"] else None,
            "of": config.get("steps"),
            "model": config.get("policy.model"),
            "seed": config.get("seed"),
            "algorithm": config.get("learner.algorithm"),
            "last": last,
            "spark": [value for value in metrics["columns"].get("reward/mean", ()) if value is not None][-200:],
            "minutes": metrics["minutes"],
            **read_note(entry.path),
        }


_HEADLINES = ("reward/mean", "success/mean", "rollout/calls_mean", "policy/entropy")


def _read(index: Snapshot, rows: Sequence[int]) -> list[dict[str, Any]]:
    try:
        return trajectories(index, rows)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the trajectory cannot be read: {error}") from error


def _reward_name(run: Path) -> str:
    config, _, _ = config_of(run)
    name = config.get("reward")
    return name if isinstance(name, str) else ""


def _stamp(run: Path) -> tuple[int, int]:
    """Changes when a file of trajectories comes or goes."""
    try:
        stat = (run / "trajectories").stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_nlink)
