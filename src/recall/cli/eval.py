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
    from recall.store import Run
    from recall.types import Task


class Eval(Settings):
    """Play tasks with a model and print the share solved, by kind, sampled and greedy.

    The last line printed is the result as JSON.
    """

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
    policy: PolicySettings = PolicySettings()
    limits: Limits = NANO_LIMITS
    sandbox: SandboxSettings = SandboxSettings()

    def main(self) -> int:
        """Measure and print."""
        from recall.config import dump
        from recall.store import Run

        run = None if self.out is None else Run.create(self.out, dump(self))
        found = asyncio.run(self._measure(run))
        for mode, rates in found.items():
            print(f"{mode:8}", "  ".join(f"{kind}: {rate:.1%}" for kind, rate in rates.items()))
        print(json.dumps({"model": self.policy.model, "source": self.source, "split": self.split, **found}))
        return 0

    async def _measure(self, run: "Run | None") -> dict[str, dict[str, float]]:
        """Success by mode, sampled at temperature 1 and greedy, and by kind."""
        from recall.evaluation.local import LocalPlayer, load
        from recall.evaluation.play import success_by_kind
        from recall.types import Sampling

        tasks, found = self._tasks(), dict[str, dict[str, float]]()
        local = LocalPlayer(load(self.policy), reward=self.reward, limits=self.limits, sandbox=self.sandbox)
        async with local as player:
            for mode, temperature in (("sampled", 1.0), ("greedy", 0.0)):
                sampling = Sampling(temperature=temperature, max_tokens=self.limits.max_turn_tokens)
                groups = await player.play(tasks, samples=1, sampling=sampling, label=mode, seed=self.seed)
                found[mode] = success_by_kind(groups)
                if run is not None:
                    run.write_groups(0, groups, split=mode)
        return found

    def _tasks(self) -> "list[Task]":
        from recall.datasets.rows import read_tasks
        from recall.synth.tasks import ToolTasks

        if self.source == "synth":
            return [task for kind in self.kinds for task in ToolTasks(kind, split=self.split, seed=0).take(self.tasks)]
        return read_tasks(Path(self.source))[: self.tasks]
