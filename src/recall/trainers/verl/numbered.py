"""The tasks of a run by number, so that verl's data loader can take them in order, and go on anywhere.

They are those of the local trainer without a curriculum, in the same order.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from recall.datasets.row import row_from_task, task_from_row
from recall.errors import ConfigError
from recall.evaluation.splits import PROCEDURAL, has_splits
from recall.renderer import Renderer
from recall.trainers.pools import Pool, ProceduralPool, SetPool
from recall.trainers.recipe import TrainRecipe
from recall.trainers.tasks import MOST_TOO_LONG, prompt_tokens, training_tasks, validation_tasks
from recall.types import Task

Part = Literal["train", "validation"]

AGENT = "recall"
"""The name that verl knows our agent loop by."""
_FAR = 1_000_003
"""Numbers between a task and the one that is played in its place."""


class NumberedTasks:
    """The training tasks of a recipe: as many as its steps ask for, and more where steps may replace some."""

    def __init__(self, recipe: TrainRecipe, renderer: Renderer) -> None:
        """Read what is needed to make them.

        Raises:
            ConfigError: the recipe names tasks that are not there.
        """
        rollout, source = recipe.rollout, recipe.tasks.source
        # Asynchronous modes and dynamic sampling draw more tasks than a step trains on.
        spare = 1 + rollout.resample + (3 if recipe.verl.mode != "sync" else 0)
        self._count = recipe.steps * rollout.groups * spare
        longest = recipe.verl.prompt_tokens or rollout.limits.max_tokens - rollout.limits.max_turn_tokens
        self._longest = min(longest, rollout.limits.max_tokens - rollout.limits.max_turn_tokens)
        self._renderer = renderer
        self._make = self._from_pool(recipe) if has_splits(source) else self._from_stream(recipe)

    def __len__(self) -> int:
        return self._count

    def task(self, number: int) -> Task:
        """The task of a number; where its prompt is too long, one from far ahead.

        Raises:
            ConfigError: many in a row are too long.
        """
        for ahead in range(MOST_TOO_LONG):
            task = self._make(number + ahead * _FAR)
            if prompt_tokens(task, self._renderer) <= self._longest:
                return task
        raise ConfigError(
            f"rollout.limits.max_tokens: too small: none of {MOST_TOO_LONG} tasks has a prompt of at most "
            f"{self._longest} tokens"
        )

    @staticmethod
    def _from_pool(recipe: TrainRecipe) -> Callable[[int], Task]:
        tasks = recipe.tasks
        pool: Pool
        if tasks.source == PROCEDURAL:
            pool = ProceduralPool(tasks.recipe, seed=recipe.seed, split=tasks.split)
        else:
            pool = SetPool(Path(tasks.source), seed=recipe.seed, split=tasks.split)
        return lambda number: pool.task(number, {})

    @staticmethod
    def _from_stream(recipe: TrainRecipe) -> Callable[[int], Task]:
        stream, _ = training_tasks(recipe)
        count = recipe.rollout.groups

        @lru_cache(maxsize=4)
        def step(number: int) -> list[Task]:
            return stream.at(number, count)

        return lambda number: step(number // count)[number % count]


def tasks_of(recipe: TrainRecipe, part: Part, renderer: Renderer) -> tuple[int, Callable[[int], Task]]:
    """How many tasks a part of a run has, and the task of each number from 0 on.

    Raises:
        ConfigError: the recipe names tasks that are not there.
    """
    if part == "train":
        numbered = NumberedTasks(recipe, renderer)
        return len(numbered), numbered.task
    tasks = validation_tasks(recipe, recipe.validation.tasks)
    return len(tasks), tasks.__getitem__


def row_for(task: Task, number: int, part: Part, recipe: TrainRecipe) -> dict[str, Any]:
    """What verl's data loader hands to the agent loop, by name; the task itself is one column of JSON text.

    Columns of structs would be merged, and every tool would have the parameters of all others. verl reports validation
    by `data_source`, so that names the split and the kind.
    """
    split = "train"
    if part == "validation":
        split = task.split if has_splits(recipe.tasks.source) else recipe.validation.split
    return {
        "raw_prompt": [{"role": "user", "content": task.question}],
        "data_source": f"{split}/{task.kind or task.depth}",
        "agent_name": AGENT,
        "index": number,
        "extra_info": {"index": number},
        "reward_model": {"style": "rule", "ground_truth": ""},
        "recall_part": part,
        "recall_split": split,
        "recall_task": json.dumps(row_from_task(task), ensure_ascii=False),
    }


def task_of(text: str) -> Task:
    """The task of a row's column `recall_task`."""
    return task_from_row(json.loads(text), "a row of verl's batch", parse_env=False)


def part_named(files: Sequence[str] | str) -> Part:
    """The part that `data.train_files` or `data.val_files` names.

    Raises:
        ConfigError: it names none.
    """
    names = [files] if isinstance(files, str) else list(files)
    if names == ["train"]:
        return "train"
    if names == ["validation"]:
        return "validation"
    raise ConfigError(f"data files {names}: accepted are train and validation, the parts of the run's own recipe")
