"""`recall run`: ask one question of a model with tools, and show what happens."""

import asyncio
import json
from pathlib import Path

from pydantic import Field

from recall.config import Settings
from recall.errors import ConfigError


class Run(Settings):
    """Play one task with a model and print the transcript: a generated task, or one of a file."""

    model: str = "nano"
    """A model directory, such as a checkpoint of a run, or `nano`."""
    source: Path | None = None
    """A file of task rows; without it a task is generated."""
    task: int = Field(default=0, ge=0)
    """Its number in the file, or of the generator."""
    kind: str = "3"
    """With a generated task: its kind."""
    split: str = "held_out"
    """With a generated task: its split."""
    question: str | None = None
    """Ask this instead of the task's own question, with the task's tools."""
    temperature: float = Field(default=0.0, ge=0)
    """Of sampling; 0 is greedy."""
    seed: int = 0
    """Of sampling."""
    as_json: bool = Field(default=False, alias="json")
    """Print the trajectory as JSON instead."""

    def main(self) -> int:
        """Ask and print."""
        import dataclasses

        from recall.inference import transcript

        task = self._task()
        if self.question is not None:
            task = dataclasses.replace(task, question=self.question, ground_truth=())
        trajectory = asyncio.run(self._ask(task))
        if self.as_json:
            print(json.dumps(dataclasses.asdict(trajectory)))
        else:
            print(transcript(trajectory, task), end="")
        return 0

    def _task(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        from recall.datasets.rows import read_tasks
        from recall.synth.tasks import ToolTasks

        if self.source is None:
            return ToolTasks(self.kind, split=self.split, seed=0)[self.task]
        tasks = read_tasks(self.source)
        if self.task >= len(tasks):
            raise ConfigError(f"--task {self.task}: {self.source} has tasks 0 to {len(tasks) - 1}")
        return tasks[self.task]

    async def _ask(self, task):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        from recall.evaluation.measure import Bench
        from recall.inference import ask
        from recall.trainers.recipe import PolicySettings, TrainRecipe
        from recall.types import Sampling

        recipe = TrainRecipe(policy=PolicySettings(model=self.model))
        async with Bench(recipe) as bench:
            limits = recipe.rollout.limits
            sampling = Sampling(temperature=self.temperature, max_tokens=limits.max_turn_tokens, seed=self.seed)
            return await ask(
                task, bench.policy, bench.renderer, sandbox=bench.sandbox, sampling=sampling, limits=limits
            )
