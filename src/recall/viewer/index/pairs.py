"""Two runs over the tasks that both played: which of the two did better on each, at the last step that played it."""

from dataclasses import dataclass

import numpy as np

from recall.errors import ConfigError
from recall.viewer.index.find import alive
from recall.viewer.index.index import Snapshot


@dataclass(frozen=True, slots=True)
class Played:
    """What the trajectories of one task at one step come to."""

    row: int
    """The first of them."""
    step: int
    count: int
    right: int

    @property
    def rate(self) -> float:
        """The share that solved it."""
        return self.right / self.count


@dataclass(frozen=True, slots=True)
class Pair:
    """One task of both runs."""

    task: str
    first: Played
    second: Played

    @property
    def gap(self) -> float:
        """How much better the second run did, from -1 to 1."""
        return self.second.rate - self.first.rate


def pairs(first: Snapshot, second: Snapshot, split: str = "") -> list[Pair]:
    """Every task that both played, the largest gap first.

    Raises:
        ConfigError: a run has no such split.
    """
    of_first, of_second = by_task(first, split), by_task(second, split)
    found = [Pair(task, played, of_second[task]) for task, played in of_first.items() if task in of_second]
    return sorted(found, key=lambda pair: (-abs(pair.gap), pair.task))


def by_task(index: Snapshot, split: str) -> dict[str, Played]:
    """Of each task, what its trajectories of the last step that played it come to."""
    mask = alive(index)
    if split:
        if split not in index.splits:
            raise ConfigError(f"split: {split!r} is not accepted; here are {', '.join(index.splits)}")
        mask &= index.columns["split"] == index.splits.index(split)
    rows = np.flatnonzero(mask)
    if not len(rows):
        return {}
    task, step = index.columns["task"][rows].astype(np.int64), index.columns["step"][rows]
    last = np.full(int(task.max()) + 1, np.iinfo(np.int32).min, np.int64)
    np.maximum.at(last, task, step)
    chosen = step == last[task]
    rows, task = rows[chosen], task[chosen]
    count = np.bincount(task)
    right = np.bincount(task, weights=index.columns["correct"][rows])
    with index.database() as database:
        names = dict(database.execute("select id, name from task"))
    numbers, firsts = np.unique(task, return_index=True)
    return {
        names[int(number)]: Played(int(rows[at]), int(last[number]), int(count[number]), int(right[number]))
        for number, at in zip(numbers, firsts, strict=True)
    }
