"""Where the tasks of a run come from: a generator, a set of tasks on disk, or a file of rows.

Which tasks come next is a function of the seed and the step, of the curriculum, and of which tasks were solved by some
of a group and not by all. Nothing is played here.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recall.datasets.rows import read_tasks
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.splits import PROCEDURAL, has_splits, split_tasks
from recall.renderer import Renderer
from recall.synth.tasks import ToolTasks
from recall.trainers.curriculum import Curriculum, CurriculumSettings, Stages, Templates, pass_rate
from recall.trainers.pools import Pool, ProceduralPool, RowPool, SetPool
from recall.trainers.recipe import TrainRecipe
from recall.types import Group, Message, Task

MOST_WAITING = 24
"""So many tasks of a kind wait to be played again; what is older was met by a policy that is no more."""


MOST_TOO_LONG = 100
"""So many tasks in a row without room for a turn, and the limits are to blame."""


def _any(task: Task) -> bool:
    return True


class TaskStream(Protocol):
    """Tasks by the step."""

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """`count` tasks for a step; `extra` numbers further draws for the same step."""

    def sample(self, count: int) -> list[Task]:
        """About `count` tasks of every sort that the run may come to, to look at beforehand."""

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """Take in what came of a step's tasks; return the groups of those that were played for the first time."""

    def metrics(self) -> dict[str, float]:
        """What a step reports of it."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class SynthStream:
    """Tasks of the generator, their kinds drawn by the curriculum: fresh ones, and some that taught something.

    A task that some of its group solved and others did not is likely to teach again, and a fresh one, once the policy
    is sure of itself, is not. So a share of the tasks are such ones, the longest waiting first.
    """

    def __init__(self, recipe: TrainRecipe, curriculum: Stages) -> None:
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

    def metrics(self) -> dict[str, float]:
        """See `TaskStream`."""
        return {}

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
        self._given, self._pool = tasks, RowPool(tasks, seed=seed)

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`; further draws come from far ahead in the same order."""
        start = step * count + extra * 1_000_003 * count
        return [self._pool.task(number, {}) for number in range(start, start + count)]

    def sample(self, count: int) -> list[Task]:
        """See `TaskStream`; spread evenly over the file."""
        return list(self._given[:: max(1, len(self._given) // count)])

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """See `TaskStream`; every task of a file counts, whatever the epoch."""
        return list(groups)

    def metrics(self) -> dict[str, float]:
        """See `TaskStream`."""
        return {}

    def state(self) -> dict[str, Any]:
        """See `TaskStream`; the step alone says where in the file it is."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TaskStream`."""


class PoolStream:
    """Tasks of a pool in order, thinned out by the weights of their templates, and some that taught something.

    More are drawn than are played, and the curriculum chooses. What leaves no room for a turn is passed over: where
    tasks are made as they come, none can be looked at beforehand. As with `SynthStream`, a share of the tasks are ones
    that some of their group solved and others did not, the longest waiting first.
    """

    def __init__(
        self, pool: Pool, templates: Templates, *, seed: int, revisit: float = 0.0, fits: Callable[[Task], bool] = _any
    ) -> None:
        """Start at the first task of the pool.

        Args:
            pool: where tasks come from.
            templates: chooses among them, and says at which levels.
            seed: of all draws.
            revisit: the share of tasks that come back.
            fits: whether a task can be played at all.
        """
        self._pool, self._templates, self._seed, self._share, self._fits = pool, templates, seed, revisit, fits
        self._next = 0
        self._mixed: list[_Numbered] = []
        """Tasks to come back to."""
        self._drawn: dict[str, tuple[_Numbered, bool]] = {}
        """By id the tasks that are being played, and whether for the first time."""
        self._too_long = 0

    def at(self, step: int, count: int, *, extra: int = 0) -> list[Task]:
        """See `TaskStream`.

        Raises:
            ConfigError: many tasks in a row leave no room for a turn.
        """
        rng = random.Random(f"tasks/{self._seed}/{step}/{extra}")
        back = sum(rng.random() < self._share for _ in range(count))
        played, self._mixed = self._mixed[:back], self._mixed[back:]
        again, fresh = len(played), count - len(played)
        settings = self._templates.settings
        found = self._candidates(fresh * (1 if settings.by == "none" else settings.candidates))
        chosen = self._templates.choose([candidate.task.kind for candidate in found], fresh, rng)
        played += [found[place] for place in chosen]
        for place, numbered in enumerate(played):
            self._drawn[numbered.task.id] = numbered, place >= again
        return [numbered.task for numbered in played]

    def observe(self, groups: Sequence[Group]) -> list[Group]:
        """See `TaskStream`. Tasks that wait for longer than `MOST_WAITING` others are given up."""
        fresh = []
        for group in groups:
            numbered, first = self._drawn[group.task.id]
            if first:
                fresh.append(group)
            if 0 < (pass_rate(group) or 0) < 1:
                self._mixed.append(numbered)
                del self._mixed[:-MOST_WAITING]
        self._drawn.clear()
        return fresh

    def metrics(self) -> dict[str, float]:
        """See `TaskStream`."""
        passed_over, self._too_long = self._too_long, 0
        return {"tasks/too_long": float(passed_over)}

    def state(self) -> dict[str, Any]:
        """See `TaskStream`."""
        return {"next": self._next, "mixed": [[numbered.number, dict(numbered.levels)] for numbered in self._mixed]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `TaskStream`."""
        self._next = state["next"]
        self._mixed = [_Numbered(number, levels, self._pool.task(number, levels)) for number, levels in state["mixed"]]

    def sample(self, count: int) -> list[Task]:
        """See `TaskStream`; none, as what is too long is passed over."""
        return []

    def _candidates(self, count: int) -> "list[_Numbered]":
        """The next tasks that fit."""
        found: list[_Numbered] = []
        in_a_row = 0
        while len(found) < count:
            number = self._next
            self._next += 1
            rng = random.Random(f"levels/{self._seed}/{number // self._pool.block}")
            levels = self._templates.levels.draw(rng)
            task = self._pool.task(number, levels)
            if self._fits(task):
                found.append(_Numbered(number, levels, task))
                in_a_row = 0
                continue
            self._too_long += 1
            in_a_row += 1
            if in_a_row == MOST_TOO_LONG:
                raise ConfigError(
                    f"rollout.limits.max_tokens: too small: none of {in_a_row} tasks in a row leaves room for a turn "
                    "of rollout.limits.max_turn_tokens after its prompt"
                )
        return found


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A task and what it takes to make it again."""

    number: int
    levels: Mapping[str, int]
    task: Task


def training_tasks(recipe: TrainRecipe, fits: Callable[[Task], bool] = _any) -> tuple[TaskStream, Curriculum]:
    """The stream that the recipe names, and the curriculum that it follows.

    Args:
        recipe: of the run.
        fits: whether a task can be played under the limits; where tasks come without end, others are passed over.

    Raises:
        ConfigError: an unknown kind, split, preset or level, a file that cannot be read, or a curriculum that the
            source has no use for.
    """
    settings, source = _settled(recipe), recipe.tasks.source
    if source == "synth":
        stages = Stages(recipe.tasks.stages, settings)
        return SynthStream(recipe, stages), stages
    if settings.by == "none" and not has_splits(source):
        return RowStream(_read(Path(source)), recipe.seed), Stages(recipe.tasks.stages, settings)
    pool: Pool
    if source == PROCEDURAL:
        pool = ProceduralPool(recipe.tasks.recipe, seed=recipe.seed, split=recipe.tasks.split)
    elif has_splits(source):
        pool = SetPool(Path(source), seed=recipe.seed, split=recipe.tasks.split)
    else:
        pool = RowPool(_read(Path(source)), seed=recipe.seed)
    templates = Templates(settings, pool.tops)
    return PoolStream(pool, templates, seed=recipe.seed, revisit=recipe.tasks.revisit, fits=fits), templates


def _settled(recipe: TrainRecipe) -> CurriculumSettings:
    """The settings of the curriculum with `auto` decided.

    Raises:
        ConfigError: the source has no use for what they ask.
    """
    settings, source = recipe.curriculum, recipe.tasks.source
    by = settings.by
    if by == "auto":
        by = "stages" if source == "synth" else "templates" if has_splits(source) else "none"
    if (by == "stages") > (source == "synth") or (by == "templates") > (source != "synth"):
        accepted = "stages, none" if source == "synth" else "templates, none"
        raise ConfigError(f"curriculum.by: {by!r} does not fit tasks.source = {source!r}; accepted: auto, {accepted}")
    if settings.levels.start and by != "templates":
        raise ConfigError(f"curriculum.levels.start: levels move by templates only, and curriculum.by is {by!r}")
    return settings.model_copy(update={"by": by})


def validation_tasks(recipe: TrainRecipe, count: int) -> list[Task]:
    """The tasks to validate on, the same ones every time.

    Args:
        recipe: of the run.
        count: at most so many of each kind, or of each split where the source comes in splits.

    Raises:
        ConfigError: an unknown kind or split, or a file that is not named or cannot be read.
    """
    settings, source = recipe.validation, recipe.tasks.source
    if source == "synth":
        return [task for kind in settings.kinds for task in ToolTasks(kind, split=settings.split, seed=0).take(count)]
    if has_splits(source):
        tasks = recipe.tasks.recipe
        return [task for split in settings.splits for task in split_tasks(source, split, count, tasks)]
    check_validation_file(recipe)
    assert settings.source is not None, "check_validation_file refused it"
    return first_of_each(_read(settings.source), count)


def check_validation_file(recipe: TrainRecipe) -> None:
    """Refuse a recipe that trains on a file of tasks and has none to validate on; nothing is read.

    Raises:
        ConfigError: `validation.source` is not named, or there is no such file.
    """
    source = recipe.validation.source
    if recipe.tasks.source == "synth" or has_splits(recipe.tasks.source):
        return
    if source is None:
        raise ConfigError("validation.source: name a file of tasks to validate on, as tasks.source is a file")
    if not source.exists():
        raise ConfigError(f"validation.source: {source}: there is no such file")


def first_of_each(tasks: Sequence[Task], count: int, *, by_split: bool = False) -> list[Task]:
    """At most `count` tasks of each kind, or of each split, the first ones in order."""
    left: dict[str, int] = {}
    found = []
    for task in tasks:
        sort = task.split if by_split else task.kind
        left[sort] = left.get(sort, count) - 1
        if left[sort] >= 0:
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
    longest, name = max((prompt_tokens(task, renderer), task.id) for task in tasks)
    if longest + limits.max_turn_tokens > limits.max_tokens:
        raise ConfigError(
            f"{setting} is too small: the prompt of task {name!r} has {longest} tokens and a turn may take "
            f"{limits.max_turn_tokens} (rollout.limits.max_turn_tokens), {longest + limits.max_turn_tokens} in all"
        )


def prompt_tokens(task: Task, renderer: Renderer) -> int:
    """How many tokens the prompt of a task has."""
    return len(prompt_ids(task, renderer))


def prompt_ids(task: Task, renderer: Renderer) -> list[int]:
    """The prompt of a task."""
    return renderer.prompt([Message("user", task.question)], task.tools)


def _read(path: Path) -> list[Task]:
    tasks = read_tasks(path)
    if not tasks:
        raise ConfigError(f"{path}: no task in it")
    return tasks
