"""Train a policy for some steps, and measure it before and after on tasks that training never shows.

`python examples/before_after.py [STEPS]`; 60 steps take some two minutes on two CPU cores.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from recall.config import dump
from recall.evaluation.local import LocalPlayer, PolicySettings, load
from recall.evaluation.play import success_by_kind
from recall.store import Run
from recall.synth.tasks import ToolTasks
from recall.trainers.local import LocalTrainer
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings
from recall.types import Sampling
from recall.viewer.live import LiveView

KINDS = ("1", "2")
"""Questions of one call and of two."""


async def measure(model: str, tasks: int) -> dict[str, float]:
    """The share of held-out tasks that a model solves, by kind, greedily."""
    held_out = [task for kind in KINDS for task in ToolTasks(kind, split="held_out", seed=0).take(tasks)]
    async with LocalPlayer(load(PolicySettings(model=model))) as player:
        groups = await player.play(held_out, samples=1, sampling=Sampling(temperature=0.0, max_tokens=48))
    return success_by_kind(groups)


async def main(steps: int = 60, groups: int = 24, tasks: int = 100) -> None:
    """Measure, train, measure again."""
    recipe = TrainRecipe(
        steps=steps,
        tensorboard=False,
        tasks=TaskSource(stages=(KINDS,)),
        learner=LearnerSettings(learning_rate=1e-3, warmup_steps=5, final_rate=1.0, minibatches=4),
        rollout=RolloutSettings(groups=groups),
        validation=ValidationSettings(every=0, kinds=KINDS, final_tasks=1),
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = Run.create(Path(scratch, "run"), dump(recipe))
        before = await measure("nano", tasks)
        with LiveView() as view:
            await LocalTrainer(recipe, run, view).train()
        after = await measure(str(run.latest_checkpoint()), tasks)
    print("calls  before  after")
    for kind in KINDS:
        print(f"{kind:>5}  {before[kind]:6.0%}  {after[kind]:5.0%}")


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
