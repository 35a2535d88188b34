"""Gathers the groups that verl's processes wrote into the trajectories of a run, a file a step."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from recall.store import Run, StoredGroup, read_groups
from recall.trainers.verl.stage import INCOMING, LOST
from recall.types import Group


def collect(run: Run, step: int, *, save: bool) -> list[Group]:
    """Move every group that was played up to a step into the run's files of that step.

    Args:
        run: whose directory the processes write into.
        step: the update that was just done. In the asynchronous modes groups of earlier steps come late, and are taken
            into the step that they are found at.
        save: write them; otherwise they are only read.

    Returns:
        The training groups.
    """
    files = [path for path in _files(run.path) if int(path.name[:6]) <= step]
    stored = [group for path in files for group in read_groups(path)]
    by_split: dict[str, list[Group]] = {}
    for found in sorted(stored, key=lambda found: found.group.task.id):
        by_split.setdefault(found.split, []).append(found.group)
    if save:
        for split, groups in by_split.items():
            run.write_groups(step, groups, split=split)
    for path in files:
        path.unlink()
    return by_split.get("train", [])


def lost_groups(run: Run) -> list[StoredGroup]:
    """The groups waiting to be gathered of which every episode failed through a fault of ours."""
    return [group for path in _files(run.path) if f"{LOST}." in path.name for group in read_groups(path)]


def forget(run: Run) -> None:
    """Drop what waits: it was played by a start that was ended."""
    shutil.rmtree(run.path / INCOMING, ignore_errors=True)


def _files(run: Path) -> Sequence[Path]:
    return sorted((run / INCOMING).glob("[0-9]*.jsonl.zst"))
