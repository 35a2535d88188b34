"""`recall eval`: measure a model on tasks it may use tools for."""

import asyncio
import json
from pathlib import Path

from pydantic import Field

from recall.config import Settings
from recall.trainers.recipe import PolicySettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings


class Eval(Settings):
    """Play tasks with a model and print the share solved, by kind, sampled and greedy.

    The last line printed is the result as JSON.
    """

    model: str = "nano"
    """A model directory, such as a checkpoint of a run, or `nano`."""
    source: str = "synth"
    """`synth`, or a file of task rows (.parquet, .jsonl)."""
    split: str = "held_out"
    """With `synth`: train, held_out, new_worlds, new_names, new_chains or new_tools."""
    kinds: tuple[str, ...] = ("1", "2", "3", "4", "5", "join")
    """With `synth`: the kinds of task."""
    tasks: int = Field(default=100, ge=1)
    """Tasks of each kind, or of the file."""
    reward: str = "outcome"
    """The reward whose `correct` counts."""
    seed: int = 0
    """Of sampling."""
    out: Path | None = None
    """A run directory to make, with the trajectories in it."""

    def main(self) -> int:
        """Measure and print."""
        from recall.config import dump
        from recall.evaluation.measure import measure
        from recall.store import Run

        run = None if self.out is None else Run.create(self.out, dump(self))
        recipe = TrainRecipe(
            seed=self.seed,
            reward=self.reward,
            policy=PolicySettings(model=self.model),
            tasks=TaskSource(source=self.source),
            rollout=RolloutSettings(),
            validation=ValidationSettings(
                split=self.split, kinds=self.kinds, source=None if self.source == "synth" else Path(self.source)
            ),
        )
        found = asyncio.run(measure(recipe, self.tasks, run))
        for mode, rates in found.items():
            print(f"{mode:8}", "  ".join(f"{kind}: {rate:.1%}" for kind, rate in rates.items()))
        print(json.dumps({"model": self.model, "split": self.split, "tasks": self.tasks, **found}))
        return 0
