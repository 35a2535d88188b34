"""Train a policy for some steps, and compare it before and after on tasks that training never shows.

`python examples/before_after.py [STEPS]`; 60 steps take a few minutes on two CPU cores. The trainer
measures at both ends by itself; `recall eval` measures any model on its own.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from recall.config import dump
from recall.store import Run
from recall.trainers.local import LocalTrainer
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings
from recall.viewer.live import LiveView

KINDS = ("1", "2")
"""Questions of one call and of two."""


def main(steps: int = 60, groups: int = 24, tasks: int = 100) -> None:
    """Measure, train, measure again."""
    recipe = TrainRecipe(
        steps=steps,
        tensorboard=False,
        tasks=TaskSource(stages=(KINDS,)),
        learner=LearnerSettings(learning_rate=1e-3, warmup_steps=5, final_rate=1.0, minibatches=4),
        rollout=RolloutSettings(groups=groups),
        validation=ValidationSettings(every=0, kinds=KINDS, final_tasks=tasks),
    )
    with tempfile.TemporaryDirectory() as scratch, LiveView() as view:
        run = Run.create(Path(scratch, "run"), dump(recipe))
        found = asyncio.run(LocalTrainer(recipe, run, view).train()).summary
    print("calls  before  after  (greedy: before  after)")
    for kind in KINDS:
        rates = [found[when][kind] for when in ("before", "after", "before_greedy", "after_greedy")]
        print(f"{kind:>5}  {rates[0]:6.0%}  {rates[1]:5.0%}  {rates[2]:15.0%}  {rates[3]:5.0%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
