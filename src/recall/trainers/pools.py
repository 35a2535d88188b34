"""Where a stream of training tasks takes them from by number: the procedural generator, a set on disk, rows in memory.

A number stands for the same task in every run of the same seed. What is taken and when is the stream's business.
"""

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from recall.datasets.rows import read_tasks
from recall.datasets.sets import read_manifest, verify_shard
from recall.errors import ConfigError
from recall.types import Task

if TYPE_CHECKING:
    from recall.synth.procedural.tasks import ProceduralTasks


class Pool(Protocol):
    """Tasks by number."""

    block: int
    """Numbers in a row that are best made with the same levels."""
    tops: Mapping[str, int]
    """The highest level of every attribute of difficulty that can be asked for."""

    def task(self, number: int, levels: Mapping[str, int]) -> Task:
        """The task of a number from 0 on, with some attributes of difficulty at a level."""


class ProceduralPool:
    """Tasks of the generator; the levels stand in a task's `extra["synth"]["levels"]`."""

    def __init__(self, recipe: str, *, seed: int, split: str) -> None:
        """Name the tasks.

        Raises:
            ConfigError: there is no such recipe or split.
        """
        from recall.synth.procedural.recipe import LEVELS, recipe_of  # reads all domains, which other sources spare

        self.tops: Mapping[str, int] = {name: len(levels) - 1 for name, levels in LEVELS.items()}
        self._recipe, self._seed, self._split = recipe_of(recipe), seed, split
        self.block = self._recipe.tasks_per_world
        self._at = lru_cache(maxsize=16)(self._tasks)
        self._at(())

    def _tasks(self, levels: tuple[tuple[str, int], ...]) -> "ProceduralTasks":
        from recall.synth.procedural.tasks import ProceduralTasks

        return ProceduralTasks(self._recipe.at(dict(levels)), seed=self._seed, split=self._split)

    def task(self, number: int, levels: Mapping[str, int]) -> Task:
        """See `Pool`."""
        task = self._at(tuple(sorted(levels.items())))[number]
        if not levels:
            return task
        return replace(task, extra={**task.extra, "synth": {**task.extra.get("synth", {}), "levels": dict(levels)}})


class SetPool:
    """The rows of a split of a set, epoch after epoch, with one or two of its files in memory.

    Each epoch has the files in an order of its own, and the rows of each.
    """

    block = 1
    tops: Mapping[str, int] = {}

    def __init__(self, directory: Path, *, seed: int, split: str) -> None:
        """Read the manifest.

        Raises:
            ConfigError: there is no such set or split, or it holds no task.
        """
        manifest = read_manifest(directory)
        if split not in manifest.splits:
            raise ConfigError(f"{directory}: no split {split!r}; accepted: {', '.join(manifest.splits)}")
        self._directory, self._seed = directory, seed
        self._shards = [shard for shard in manifest.shards if shard.split == split]
        self._rows = sum(shard.rows for shard in self._shards)
        if not self._rows:
            raise ConfigError(f"{directory}: split {split!r} holds no task yet")
        self._order = lru_cache(maxsize=2)(self._ordered)
        self._read = lru_cache(maxsize=2)(self._shuffled)

    def task(self, number: int, levels: Mapping[str, int]) -> Task:
        """See `Pool`."""
        epoch, place = divmod(number, self._rows)
        order, ends = self._order(epoch)
        turn = bisect_right(ends, place)
        tasks = self._read(epoch, order[turn])
        return tasks[place - (ends[turn - 1] if turn else 0)]

    def _ordered(self, epoch: int) -> tuple[list[int], list[int]]:
        """The files in the order of an epoch, and how many rows there are up to the end of each."""
        order = list(range(len(self._shards)))
        random.Random(f"shards/{self._seed}/{epoch}").shuffle(order)
        return order, list(accumulate(self._shards[place].rows for place in order))

    def _shuffled(self, epoch: int, place: int) -> list[Task]:
        shard = self._shards[place]
        verify_shard(self._directory, shard)
        tasks = read_tasks(self._directory / shard.file, parse_env=False)
        random.Random(f"shard/{self._seed}/{epoch}/{place}").shuffle(tasks)
        return tasks


class RowPool:
    """Rows in memory, epoch after epoch, each in an order of its own."""

    block = 1
    tops: Mapping[str, int] = {}

    def __init__(self, tasks: Sequence[Task], *, seed: int) -> None:
        self._given, self._seed = tasks, seed
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def task(self, number: int, levels: Mapping[str, int]) -> Task:
        """See `Pool`."""
        epoch, place = divmod(number, len(self._given))
        return self._given[self._order(epoch)[place]]

    def _shuffled(self, epoch: int) -> list[int]:
        order = list(range(len(self._given)))
        random.Random(f"rows/{self._seed}/{epoch}").shuffle(order)
        return order
