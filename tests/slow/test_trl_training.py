"""TRL's `GRPOTrainer` learns from what our loop plays: a real run with real tools, and what exactly it trains on."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer
from worn import worn

from fakes import Silent
from recall.config import dump
from recall.environment import Limits
from recall.evaluation.local import PolicySettings, load
from recall.store import Run, read_groups
from recall.trainers.curriculum import CurriculumSettings
from recall.trainers.learner import Learner, credits
from recall.trainers.recipe import LearnerSettings, RolloutSettings, TaskSource, TrainRecipe, ValidationSettings
from recall.trainers.trl.settings import TrlSettings
from recall.trainers.trl.trainer import TrlTrainer
from recall.types import Group

pytestmark = pytest.mark.filterwarnings("default")

GROUPS, SIZE = 8, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(worn(tmp_path_factory.mktemp("model") / "worn"))


def recipe(model: str, *, steps: int = 1, lora_rank: int = 0, checkpoint_every: int = 0, **learner: Any) -> TrainRecipe:
    learn = {"learning_rate": 5e-4, "warmup_steps": 0, "final_rate": 1.0, "minibatches": 1, "entropy_coefficient": 0.0}
    return TrainRecipe(
        engine="trl",
        steps=steps,
        tensorboard=False,
        checkpoint_every=checkpoint_every,
        policy=PolicySettings(model=model, device="cpu", lora_rank=lora_rank),
        tasks=TaskSource(stages=(("1",),), revisit=0),
        curriculum=CurriculumSettings(by="none"),
        rollout=RolloutSettings(
            groups=GROUPS,
            group_size=SIZE,
            limits=Limits(max_turns=4, max_tokens=400, max_turn_tokens=48, max_calls=4, max_result_chars=256),
        ),
        learner=LearnerSettings(**(learn | learner)),
        validation=ValidationSettings(every=0, kinds=("1",), final_tasks=40),
        trl=TrlSettings(gradient_checkpointing=False),
    )


def trained(recipe: TrainRecipe, path: Path) -> tuple[TrlTrainer, Mapping[str, Any]]:
    trainer = TrlTrainer(recipe, Run.create(path, dump(recipe)), Silent())
    return trainer, trainer.train().summary


def rows(path: Path, name: str) -> list[float]:
    found = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in found if name in row]


@pytest.mark.timeout(900)
def test_reward_rises_on_tasks_of_one_call_and_the_run_is_one_like_any_other(model: str, tmp_path: Path) -> None:
    steps = 12
    _, summary = trained(recipe(model, steps=steps), tmp_path / "run")
    rewards = rows(tmp_path / "run", "reward/mean")
    assert len(rewards) == steps
    assert sum(rewards[-6:]) / 6 > sum(rewards[:2]) / 2 + 0.1
    assert summary["after"]["1"] > summary["before"]["1"] + 0.15
    assert summary["trajectories"] == steps * GROUPS * SIZE
    assert max(rows(tmp_path / "run", "rollout/faults")) == 0
    run = Run.open(tmp_path / "run")
    stored = [group for file in run.trajectory_files("train") for group in read_groups(file.path)]
    assert len(stored) == steps * GROUPS
    assert {len(group.group.trajectories) for group in stored} == {SIZE}
    assert any(call.status == "ok" for group in stored for t in group.group.trajectories for call in t.calls)
    (checkpoint,) = run.checkpoints()
    again = load(PolicySettings(model=str(checkpoint), device="cpu")).model
    start = load(PolicySettings(model=model, device="cpu")).model
    assert any(not torch.equal(a, b) for a, b in zip(again.parameters(), start.parameters(), strict=True))


class Batch:
    """Keeps what TRL trains on."""

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []

    def listen(self, patch: pytest.MonkeyPatch) -> "Batch":
        original = GRPOTrainer._generate_and_score_completions

        def kept(trainer: Any, inputs: Any) -> Any:
            output = original(trainer, inputs)
            self.batches.append(copy.deepcopy({k: v for k, v in output.items() if isinstance(v, torch.Tensor)}))
            return output

        patch.setattr(GRPOTrainer, "_generate_and_score_completions", kept)
        return self


def test_trl_trains_on_our_trajectories_id_by_id(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch().listen(monkeypatch)
    trainer, _ = trained(recipe(model, algorithm="dr_grpo"), tmp_path / "run")
    (found,) = batch.batches
    assert trainer.rollout.last is not None
    groups = trainer.rollout.last.groups
    assert [len(group.trajectories) for group in groups] == [SIZE] * GROUPS
    flat = [trajectory for group in groups for trajectory in group.trajectories]
    assert len({trajectory.seed for trajectory in flat}) == len(flat)
    credit = [value for group in groups for value in credits(group, trainer.recipe.learner.chosen())]
    for row, trajectory in enumerate(flat):
        prompt = found["prompt_ids"][row][found["prompt_mask"][row].bool()].tolist()
        completion = found["completion_ids"][row][found["completion_mask"][row].bool()].tolist()
        assert prompt + completion == trajectory.token_ids[: len(prompt) + len(completion)]
        assert not any(trajectory.mask[len(prompt) + len(completion) :])
        assert (
            found["tool_mask"][row][: len(completion)].bool().tolist()
            == trajectory.mask[len(prompt) :][: len(completion)]
        )
        # TRL divides by 1e-4 more than nothing here, and compares rewards in float32.
        assert found["advantages"][row].item() == pytest.approx(credit[row], abs=1e-5)


def share_used(groups: list[Group], *, tokens: bool) -> float:
    """The share of trajectories, or of sampled tokens, in groups that differ; ours are averages over these alone."""
    sizes = [(sum(sum(t.mask) if tokens else 1 for t in g.trajectories), g) for g in groups]
    used = sum(size for size, g in sizes if len({r.score for r in g.rewards}) > 1)
    return used / sum(size for size, _ in sizes)


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_the_first_gradient_is_the_local_learners(model: str, tmp_path: Path, algorithm: str) -> None:
    asked = recipe(model, algorithm=algorithm)
    trainer, _ = trained(asked, tmp_path / "run")
    assert trainer.rollout.last is not None
    groups = trainer.rollout.last.groups
    fresh = load(PolicySettings(model=model, device="cpu")).model
    ours = Learner(fresh, asked.learner).update(groups, step=0, total_steps=1, seed=0)
    factor = share_used(groups, tokens=algorithm in ("dapo", "cispo"))
    if algorithm != "dr_grpo":
        factor *= ((SIZE - 1) / SIZE) ** 0.5  # TRL's standard deviation is that of a sample
    (theirs,) = rows(tmp_path / "run", "policy/grad_norm")
    assert theirs == pytest.approx(ours["policy/grad_norm"] * factor, rel=0.02)
    start = load(PolicySettings(model=model, device="cpu")).model
    changes = [
        torch.cat([(a - b).flatten() for a, b in zip(moved.parameters(), start.parameters(), strict=True)])
        for moved in (trainer.model, fresh)
    ]
    assert torch.cosine_similarity(*changes, dim=0) > 0.99


def test_an_adapter_is_trained_and_nothing_else(model: str, tmp_path: Path) -> None:
    trained(recipe(model, lora_rank=4), tmp_path / "run")
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints()
    assert json.loads((checkpoint / "adapter_config.json").read_text())["r"] == 4
    assert not (checkpoint / "model.safetensors").exists()


class Stops(Silent):
    """Asks for a stop after a step."""

    def __init__(self, after: int) -> None:
        self.after, self.notes, self.trainer = after, list[str](), None

    def step(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == self.after:
            self.trainer.request_stop()

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_stopped_run_goes_on_from_its_last_step(model: str, tmp_path: Path) -> None:
    asked = recipe(model, steps=4, checkpoint_every=2)
    observer = Stops(2)
    observer.trainer = TrlTrainer(asked, Run.create(tmp_path / "run", dump(asked)), observer)
    outcome = observer.trainer.train()
    assert not outcome.finished
    assert "stopped at step 2" in observer.notes[0]
    outcome = TrlTrainer(asked, Run.open(tmp_path / "run"), Silent(), resume=True).train()
    assert outcome.finished
    found = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in found if "reward/mean" in row] == [1, 2, 3, 4]
    assert outcome.summary["before"]["1"] == found[0]["val/held_out/sampled/1"]
