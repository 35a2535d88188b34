"""`recall eval`: measure a model on tasks it may use tools for."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from recall.config import Settings
from recall.environment import Limits
from recall.evaluation.local import NANO_LIMITS, PolicySettings, SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recall.store import Run
    from recall.types import Task


class Eval(Settings):
    """Play tasks with a model and print the share solved, by split and kind, sampled and greedy.

    The last line printed is the result as JSON.
    """

    source: str = "synth"
    """`synth` or `procedural` (the generators), the directory of a set, or a file of task rows (.parquet, .jsonl)."""
    recipe: str = "default"
    """With `procedural`, what tasks are made of, one of default, nano, published and hard, or a TOML file."""
    split: str = "held_out"
    """Of `synth` one of train, held_out, new_worlds, new_names, new_chains and new_tools, of `procedural` or a set one
    or several (with commas between) of train, validation, new_worlds, new_templates, new_skins, deeper, more_tools."""
    kinds: tuple[str, ...] = ("1", "2", "3", "4", "5", "join")
    """With `synth`, the kinds of task."""
    tasks: int = Field(default=100, ge=1)
    """Tasks of each kind, of each split, or of the file."""
    reward: str = "outcome"
    """The reward whose `correct` counts."""
    seed: int = 0
    """Of sampling."""
    out: Path | None = None
    """A run directory to make, with the trajectories in it."""
    policy: PolicySettings = PolicySettings()
    limits: Limits = NANO_LIMITS
    sandbox: SandboxSettings = SandboxSettings()

    def main(self) -> int:
        """Measure and print."""
        from recall.config import dump
        from recall.store import Run

        tasks = self._tasks()
        run = None if self.out is None else Run.create(self.out, dump(self))
        found = asyncio.run(self._measure(tasks, run))
        for mode, splits in found.items():
            for split, rates in splits.items():
                shown = "  ".join(f"{kind}: {rate:.1%}" for kind, rate in rates.items())
                print(f"{mode:8}", f"{split}: {shown}" if split else shown)
        result = {mode: splits.get("", splits) for mode, splits in found.items()}
        print(json.dumps({"model": self.policy.model, "source": self.source, "split": self.split, **result}))
        return 0

    async def _measure(
        self, tasks: "Mapping[str, Sequence[Task]]", run: "Run | None"
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Success by mode, sampled at temperature 1 and greedy, by split and by kind."""
        from recall.evaluation.local import LocalPlayer, load
        from recall.evaluation.play import success, success_by_kind
        from recall.types import Sampling

        found: dict[str, dict[str, dict[str, float]]] = {}
        local = LocalPlayer(load(self.policy), reward=self.reward, limits=self.limits, sandbox=self.sandbox)
        async with local as player:
            for mode, temperature in (("sampled", 1.0), ("greedy", 0.0)):
                sampling = Sampling(temperature=temperature, max_tokens=self.limits.max_turn_tokens)
                found[mode] = {}
                for split, of_split in tasks.items():
                    groups = await player.play(of_split, samples=1, sampling=sampling, label=mode, seed=self.seed)
                    every = {"all": success(groups)} if split else {}
                    found[mode][split] = every | success_by_kind(groups)
                    if run is not None:
                        run.write_groups(0, groups, split=f"{split}-{mode}" if split else mode)
        return found

    def _tasks(self) -> "dict[str, list[Task]]":
        """The tasks by split; under an empty name those of a source that is measured as a whole."""
        from recall.datasets.rows import read_tasks
        from recall.evaluation.splits import has_splits, split_tasks
        from recall.synth.tasks import ToolTasks

        if has_splits(self.source):
            splits = [split.strip() for split in self.split.split(",")]
            return {split: split_tasks(self.source, split, self.tasks, self.recipe) for split in splits}
        if self.source != "synth":
            return {"": read_tasks(Path(self.source))[: self.tasks]}
        made = (ToolTasks(kind, split=self.split, seed=0).take(self.tasks) for kind in self.kinds)
        return {"": [task for tasks in made for task in tasks]}
