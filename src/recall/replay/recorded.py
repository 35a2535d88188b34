"""The recorded trajectories that a filter chooses, as they were written, with their tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recall.store import read_groups
from recall.types import RewardResult, Task, Trajectory
from recall.viewer.index.find import Filter, find
from recall.viewer.index.index import Snapshot

ALL = 1000
"""The rows of one look into the index."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One trajectory of a run."""

    row: int
    """Its row in the index, by which the window shows it."""
    step: int
    group: int
    """Within its file."""
    task: Task
    trajectory: Trajectory
    reward: RewardResult


def recorded(index: Snapshot, wanted: Filter, most: int) -> Iterator[Recorded]:
    """The trajectories that match, in the order of their files, at most `most` of them.

    Raises:
        ConfigError: the filter cannot be understood, or a file is damaged.
    """
    rows: list[int] = []
    while len(rows) < most:
        part = wanted.model_copy(update={"start": len(rows), "limit": min(ALL, most - len(rows))})
        found = find(index, part).rows
        rows += found
        if len(found) < part.limit:
            break
    yield from of_rows(index, rows)


def of_rows(index: Snapshot, rows: Sequence[int]) -> Iterator[Recorded]:
    """The trajectories of some rows, in the order of their files.

    Raises:
        ConfigError: a file is damaged.
    """
    by_file: dict[int, list[int]] = {}
    for row in sorted(rows):
        by_file.setdefault(int(index.columns["file"][row]), []).append(row)
    for number, of_file in by_file.items():
        yield from _of_file(index, number, of_file)


def _of_file(index: Snapshot, number: int, rows: list[int]) -> Iterator[Recorded]:
    file = index.files[number]
    wanted = set(rows)
    row = file.first
    for place, stored in enumerate(read_groups(index.path / "trajectories" / file.name)):
        group = stored.group
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True):
            if row in wanted:
                yield Recorded(row, stored.step, place, group.task, trajectory, reward)
            row += 1
