"""Where the tasks of a run come from: the generator, or a file of rows. Which come next is a function of seed and step."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from recall.datasets.rows import read_tasks
from recall.errors import ConfigError
from recall.synth.tasks import ToolTasks
from recall.trainers.curriculum import Curriculum
from recall.trainers.recipe import TrainRecipe
from recall.types import Task


class TaskStream(Protocol):
    """Tasks by the step."""

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """`count` tasks for a step; `extra` numbers further draws for the same step."""


class SynthStream:
    """Fresh tasks of the generator, their kinds drawn by the curriculum."""

    def __init__(self, recipe: TrainRecipe, curriculum: Curriculum) -> None:
        self._curriculum, self._seed = curriculum, recipe.seed
        kinds = dict.fromkeys(kind for stage in recipe.tasks.stages for kind in stage)
        self._tasks = {kind: ToolTasks(kind, split=recipe.tasks.split, seed=recipe.seed) for kind in kinds}

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`."""
        rng = random.Random(f"tasks/{self._seed}/{step}/{extra}")
        return [self._tasks[kind][rng.randrange(2**40)] for kind in self._curriculum.draw(count, rng)]


class RowStream:
    """The tasks of a file, epoch after epoch, each in an order of its own."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._given, self._seed = tasks, seed

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`; further draws come from far ahead in the same order."""
        start = step * count + extra * 1_000_003 * count
        return [self._numbered(start + offset) for offset in range(count)]

    def _numbered(self, number: int) -> Task:
        epoch, place = divmod(number, len(self._given))
        order = list(range(len(self._given)))
        random.Random(f"rows/{self._seed}/{epoch}").shuffle(order)
        return self._given[order[place]]


def training_tasks(recipe: TrainRecipe, curriculum: Curriculum) -> TaskStream:
    """The stream that the recipe names.

    Raises:
        ConfigError: an unknown kind or split, or a file that cannot be read.
    """
    if recipe.tasks.source == "synth":
        return SynthStream(recipe, curriculum)
    return RowStream(_read(Path(recipe.tasks.source)), recipe.seed)


def validation_tasks(recipe: TrainRecipe, count: int) -> list[Task]:
    """The tasks to validate on, `count` of each kind, the same ones every time."""
    if recipe.tasks.source == "synth":
        settings = recipe.validation
        return [
            task for kind in settings.kinds for task in ToolTasks(kind, split=settings.split, seed=0).take(count)
        ]
    if recipe.validation.source is None:
        raise ConfigError("validation.source: name a file of tasks to validate on, as tasks.source is a file")
    return _read(recipe.validation.source)[:count]


def _read(path: Path) -> list[Task]:
    tasks = read_tasks(path)
    if not tasks:
        raise ConfigError(f"{path}: no task in it")
    return tasks
