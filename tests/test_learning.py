"""A real, short training run: nano, generated tasks, real tools in the sandbox, weights really updated."""

import asyncio
from pathlib import Path

import pytest

from fakes import Silent
from recall.config import dump
from recall.store import Run
from recall.trainers.local import LocalTrainer
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings

STEPS = 60
MARGIN = 0.5
"""How much held-out success on two calls must gain, of 1; the standard error of a difference is about 0.04."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_steps_teach_two_calls(tmp_path: Path) -> None:
    recipe = TrainRecipe(
        seed=0,
        steps=STEPS,
        tensorboard=False,
        save_trajectories=False,
        tasks=TaskSource(stages=(("1", "2"),)),
        learner=LearnerSettings(learning_rate=1e-3, warmup_steps=5, final_rate=1.0, minibatches=4),
        rollout=RolloutSettings(groups=24),
        validation=ValidationSettings(every=0, kinds=("1", "2"), final_tasks=200),
    )
    run = Run.create(tmp_path / "run", dump(recipe))
    summary = asyncio.run(LocalTrainer(recipe, run, Silent()).train()).summary
    assert summary["before"]["2"] <= 0.15
    assert summary["after"]["2"] >= summary["before"]["2"] + MARGIN
    assert summary["after"]["1"] >= 0.8
