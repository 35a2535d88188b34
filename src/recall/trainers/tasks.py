"""Where the tasks of a run come from: the generator, or a file of rows.

Which tasks come next is a function of the seed and the step, of the curriculum, and of which tasks were solved by some
of a group and not by all. Nothing is played here.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from recall.datasets.rows import read_tasks
from recall.environment import Limits
from recall.errors import ConfigError
from recall.renderer import Renderer
from recall.synth.tasks import ToolTasks
from recall.trainers.curriculum import Curriculum
from recall.trainers.recipe import TrainRecipe
from recall.types import Group, Message, Task

MOST_WAITING = 24
"""So many tasks of a kind wait to be played again; what is older was met by a policy that is no more."""


class TaskStream(Protocol):
    """Tasks by the step."""

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """`count` tasks for a step; `extra` numbers further draws for the same step."""

    def sample(self, count: int) -> list[Task]:
        """About `count` tasks of every sort that the run may come to, to look at beforehand."""

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """Take in what came of a step's tasks; return the groups of those that were played for the first time."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class SynthStream:
    """Tasks of the generator, their kinds drawn by the curriculum: fresh ones, and some that taught something.

    A task that some of its group solved and others did not is likely to teach again, and a fresh one, once the policy
    is sure of itself, is not. So a share of the tasks are such ones, the longest waiting first.
    """

    def __init__(self, recipe: TrainRecipe, curriculum: Curriculum) -> None:
        self._curriculum, self._seed, self._share = curriculum, recipe.seed, recipe.tasks.revisit
        kinds = dict.fromkeys(kind for stage in recipe.tasks.stages for kind in stage)
        self._tasks = {kind: ToolTasks(kind, split=recipe.tasks.split, seed=recipe.seed) for kind in kinds}
        self._mixed: dict[str, list[int]] = {kind: [] for kind in kinds}
        """The numbers of tasks to come back to."""
        self._drawn: dict[str, tuple[str, int, bool]] = {}
        """By id the tasks that are being played: kind, number, whether for the first time."""

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`."""
        rng = random.Random(f"tasks/{self._seed}/{step}/{extra}")
        tasks = []
        for kind in self._curriculum.draw(count, rng):
            number, again = rng.randrange(2**40), rng.random() < self._share and bool(self._mixed[kind])
            if again:
                number = self._mixed[kind].pop(0)
            tasks.append(self._tasks[kind][number])
            self._drawn[tasks[-1].id] = kind, number, not again
        return tasks

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """See `TaskStream`. Tasks that wait for longer than `MOST_WAITING` others are given up."""
        fresh = []
        for group in groups:
            kind, number, first = self._drawn.pop(group.task.id)
            if first:
                fresh.append(group)
            pairs = zip(group.trajectories, group.rewards, strict=True)
            if len({reward.correct for trajectory, reward in pairs if trajectory.fault is None}) > 1:
                self._mixed[kind].append(number)
                del self._mixed[kind][:-MOST_WAITING]
        return fresh

    def state(self) -> dict[str, Any]:
        """See `TaskStream`."""
        return {"mixed": {kind: list(numbers) for kind, numbers in self._mixed.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TaskStream`."""
        self._mixed = {kind: list(numbers) for kind, numbers in state["mixed"].items()}

    def sample(self, count: int) -> list[Task]:
        """See `TaskStream`."""
        each = -(-count // len(self._tasks))
        return [task for tasks in self._tasks.values() for task in tasks.take(each)]


class RowStream:
    """The tasks of a file, epoch after epoch, each in an order of its own."""

    def __init__(self, tasks: Sequence[Task], seed: int) -> None:
        self._given, self._seed = tasks, seed

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`; further draws come from far ahead in the same order."""
        start = step * count + extra * 1_000_003 * count
        orders: dict[int, list[int]] = {}
        found = []
        for number in range(start, start + count):
            epoch, place = divmod(number, len(self._given))
            if epoch not in orders:
                orders[epoch] = list(range(len(self._given)))
                random.Random(f"rows/{self._seed}/{epoch}").shuffle(orders[epoch])
            found.append(self._given[orders[epoch][place]])
        return found

    def sample(self, count: int) -> list[Task]:
        """See `TaskStream`; spread evenly over the file."""
        return list(self._given[:: max(1, len(self._given) // count)])

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """See `TaskStream`; every task of a file counts, whatever the epoch."""
        return list(groups)

    def state(self) -> dict[str, Any]:
        """See `TaskStream`; the step alone says where in the file it is."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TaskStream`."""


def training_tasks(recipe: TrainRecipe, curriculum: Curriculum) -> TaskStream:
    """The stream that the recipe names.

    Raises:
        ConfigError: an unknown kind or split, or a file that cannot be read.
    """
    if recipe.tasks.source == "synth":
        return SynthStream(recipe, curriculum)
    return RowStream(_read(Path(recipe.tasks.source)), recipe.seed)


def validation_tasks(recipe: TrainRecipe, count: int) -> list[Task]:
    """The tasks to validate on, at most `count` of each kind, the same ones every time.

    Raises:
        ConfigError: an unknown kind or split, or a file that is not named or cannot be read.
    """
    if recipe.tasks.source == "synth":
        settings = recipe.validation
        return [task for kind in settings.kinds for task in ToolTasks(kind, split=settings.split, seed=0).take(count)]
    if recipe.validation.source is None:
        raise ConfigError("validation.source: name a file of tasks to validate on, as tasks.source is a file")
    left: dict[str, int] = {}
    found = []
    for task in _read(recipe.validation.source):
        left[task.kind] = left.get(task.kind, count) - 1
        if left[task.kind] >= 0:
            found.append(task)
    return found


def check_room(tasks: Sequence[Task], renderer: Renderer, limits: Limits, context: int) -> None:
    """Refuse limits under which the prompt of one of the tasks leaves no room for a turn.

    Args:
        tasks: those to look at.
        renderer: of the policy's model.
        limits: of an episode.
        context: the most tokens that the model can read.

    Raises:
        ConfigError: one line with the numbers and the setting.
    """
    setting = f"rollout.limits.max_tokens: {limits.max_tokens}"
    if limits.max_tokens > context:
        raise ConfigError(f"{setting} is more than the model's context of {context} tokens")
    longest, name = max((len(renderer.prompt([Message("user", task.question)], task.tools)), task.id) for task in tasks)
    if longest + limits.max_turn_tokens > limits.max_tokens:
        raise ConfigError(
            f"{setting} is too small: the prompt of task {name!r} has {longest} tokens and a turn may take "
            f"{limits.max_turn_tokens} (rollout.limits.max_turn_tokens), {longest + limits.max_turn_tokens} in all"
        )


def _read(path: Path) -> list[Task]:
    tasks = read_tasks(path)
    if not tasks:
        raise ConfigError(f"{path}: no task in it")
    return tasks
