"""`recall run`: ask one question of a model with tools, and show what happens."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.errors import ConfigError
from recall.evaluation.local import NANO_LIMITS, PolicySettings, SandboxSettings

if TYPE_CHECKING:
    from recall.types import Task, Trajectory


class Run(Settings):
    """Play one task with a model and print the transcript: a generated task, or one of a file."""

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
    policy: PolicySettings = PolicySettings()
    limits: Limits = NANO_LIMITS
    sandbox: SandboxSettings = SandboxSettings()

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

    def _task(self) -> "Task":
        from recall.datasets.rows import read_tasks
        from recall.synth.tasks import ToolTasks

        if self.source is None:
            return ToolTasks(self.kind, split=self.split, seed=0)[self.task]
        tasks = read_tasks(self.source)
        if self.task >= len(tasks):
            raise ConfigError(f"--task {self.task}: {self.source} has tasks 0 to {len(tasks) - 1}")
        return tasks[self.task]

    async def _ask(self, task: "Task") -> "Trajectory":
        from recall.evaluation.local import LocalPlayer, load
        from recall.inference import ask
        from recall.types import Sampling

        sampling = Sampling(temperature=self.temperature, max_tokens=self.limits.max_turn_tokens, seed=self.seed)
        local = LocalPlayer(load(self.policy), limits=self.limits, sandbox=self.sandbox)
        async with local as player:
            return await ask(
                task,
                player.policy,
                player.renderer,
                sandbox=local.sandbox,
                options=local.options,
                sampling=sampling,
                limits=self.limits,
            )
