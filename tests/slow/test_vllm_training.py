"""The local trainer samples on vLLM: a real run learns, the two stay in step, and a lost sync is seen."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from worn import worn

from fakes import Silent
from recall.cli import main
from recall.config import dump
from recall.environment import Limits
from recall.errors import ConfigError, PolicyError
from recall.evaluation.local import PolicySettings
from recall.policy.vllm import VllmSettings
from recall.store import Run, read_groups
from recall.trainers.following import probes_of
from recall.trainers.local import LocalTrainer
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings
from recall.types import Group

pytestmark = pytest.mark.filterwarnings("default")

NATS = 1e-3
STEPS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(worn(tmp_path_factory.mktemp("model") / "worn"))


def recipe(model: str, *, steps: int = STEPS, **policy: Any) -> TrainRecipe:
    return TrainRecipe(
        steps=steps,
        tensorboard=False,
        policy=PolicySettings(model=model, device="cpu", engine="vllm", **policy),
        tasks=TaskSource(stages=(("1",),), revisit=0),
        rollout=RolloutSettings(
            groups=8,
            limits=Limits(max_turns=4, max_tokens=400, max_turn_tokens=48, max_calls=4, max_result_chars=256),
        ),
        learner=LearnerSettings(
            learning_rate=5e-4,
            warmup_steps=0,
            final_rate=1.0,
            minibatches=1,
            entropy_coefficient=0.0,
            importance_cap=2.0,
        ),
        validation=ValidationSettings(every=0, kinds=("1",), final_tasks=40),
    )


class Drifts(LocalTrainer):
    """A trainer whose weights move after they were handed over, as they would if a sync were lost."""

    async def _step(self, step: int) -> dict[str, float]:
        metrics = await super()._step(step)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight *= 1.05
        groups: list[Group] = [s.group for s in read_groups(self.run.trajectory_files("train")[-1].path)]
        await self._following.start(probes_of(groups))
        return metrics


@pytest.mark.timeout(900)
def test_a_run_learns_and_after_every_update_the_engine_has_the_trainers_weights(model: str, tmp_path: Path) -> None:
    asked = recipe(model)
    run = Run.create(tmp_path / "run", dump(asked))
    summary = asyncio.run(LocalTrainer(asked, run, Silent()).train()).summary
    rows = [row for row in run.read_metrics() if "reward/mean" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert max(row["engine/drift_max"] for row in rows) < NATS
    assert max(row["policy/logprob_gap_max"] for row in rows if row["groups/used"]) < NATS
    assert {row["engine/drifted"] for row in rows} == {0.0}
    rewards = [row["reward/mean"] for row in rows]
    assert sum(rewards[-6:]) / 6 > sum(rewards[:2]) / 2 + 0.1
    assert summary["after"]["1"] > summary["before"]["1"] + 0.15
    files = run.trajectory_files("train")
    for number, file in enumerate(files):
        for stored in read_groups(file.path):
            for trajectory in stored.group.trajectories:
                versions = {segment.policy_version for segment in trajectory.segments if segment.sampled}
                assert versions == {number}, "every turn of a step is sampled by the weights of that step"


@pytest.mark.timeout(600)
def test_an_engine_whose_weights_are_not_the_trainers_ends_the_run(model: str, tmp_path: Path) -> None:
    asked = recipe(model, steps=2)
    trainer = Drifts(asked, Run.create(tmp_path / "run", dump(asked)), Silent())
    with pytest.raises(PolicyError, match="its weights are not the trainer's"):
        asyncio.run(trainer.train())


@pytest.mark.timeout(600)
def test_the_command_trains_an_adapter_and_goes_on_where_it_stopped(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, path = tmp_path / "recipe.toml", tmp_path / "run"
    asked = recipe(model, steps=2, lora_rank=4).model_copy(update={"checkpoint_every": 1})
    file.write_text(dump(asked))
    assert main(["train", str(file), "--run", str(path), "--doctor", "false"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["steps"] == 2
    (path / "summary.json").unlink()
    Run.open(path).truncate_after(1)
    assert main(["train", "--resume", str(path)]) == 0
    rows = [row for row in Run.open(path).read_metrics() if "reward/mean" in row]
    assert [row["step"] for row in rows] == [1, 2]
    assert max(row["engine/drift_max"] for row in rows) < NATS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"deterministic": True}, "deterministic"),
        ({"rollout": RolloutSettings(top_p=0.9, temperature=0.8)}, r"rollout\.top_p"),
        (
            {"policy": PolicySettings(engine="vllm", device="cpu", vllm=VllmSettings(sleep=True))},
            r"policy\.vllm\.sleep",
        ),
        (
            {"policy": PolicySettings(engine="vllm", device="cpu", vllm=VllmSettings(max_context=64))},
            r"policy\.vllm\.max_context",
        ),
    ],
)
def test_what_vllm_cannot_do_is_refused_before_anything_starts(
    model: str, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    asked = recipe(model).model_copy(update=changes)
    with pytest.raises(ConfigError, match=named):
        LocalTrainer(asked, Run.create(tmp_path / "run", dump(asked)), Silent())
