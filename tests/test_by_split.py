"""Training and evaluation on sources that come in splits, end to end on a tiny random model."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fakes import Silent  # noqa: E402
from recall.cli import main  # noqa: E402
from recall.datasets.rows import write_tasks  # noqa: E402
from recall.datasets.sets import Manifest, Shard, checksum  # noqa: E402
from recall.environment import Limits  # noqa: E402
from recall.evaluation.local import PolicySettings  # noqa: E402
from recall.store import Run, read_groups  # noqa: E402
from recall.synth.tasks import ToolTasks  # noqa: E402
from recall.trainers.curriculum import CurriculumSettings  # noqa: E402
from recall.trainers.local import LocalTrainer, Outcome, open_run  # noqa: E402
from recall.trainers.recipe import (  # noqa: E402
    LearnerSettings,
    RolloutSettings,
    TaskSource,
    TrainRecipe,
    ValidationSettings,
)
from recall.types import RewardResult, Task, Trajectory  # noqa: E402

LIMITS = Limits(max_turns=2, max_tokens=400, max_turn_tokens=6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of tasks of one and two calls in three splits."""
    path = tmp_path_factory.mktemp("sets") / "set"
    shards = []
    for split, count in (("train", 12), ("validation", 4), ("new_worlds", 4)):
        tasks = [
            replace(task, split=split, data_source="recall_procedural", id=f"{split}-{task.id}")
            for kind in ("1", "2")
            for task in ToolTasks(kind, split="train", seed=len(split)).take(count // 2)
        ]
        file = f"{split}-00000.parquet"
        write_tasks(path / file, tasks)
        shards.append(Shard(file, split, count, checksum(path / file), 0, count, count))
    Manifest("procedural", {}, 0, "1", {shard.split: shard.rows for shard in shards}, 100, tuple(shards)).write(path)
    return path


def recipe(model: Path, source: str, **changes: Any) -> TrainRecipe:
    made = TrainRecipe(
        steps=4,
        checkpoint_every=2,
        tensorboard=False,
        policy=PolicySettings(model=str(model), device="cpu"),
        tasks=TaskSource(source=source, recipe="nano"),
        rollout=RolloutSettings(groups=2, group_size=3, limits=LIMITS),
        learner=LearnerSettings(warmup_steps=0, minibatches=1),
        validation=ValidationSettings(splits=("validation", "new_worlds"), tasks=2, final_tasks=4, every=3),
    )
    return made.model_copy(update=changes)


def evenness(task: Task, trajectory: Trajectory) -> RewardResult:
    """The share of even tokens: something that a random model varies in and can learn."""
    tokens = [token for token, own in zip(trajectory.token_ids, trajectory.mask, strict=True) if own]
    even = sum(token % 2 == 0 for token in tokens) / len(tokens)
    return RewardResult(even, correct=even > 0.5)


class KilledError(Exception):
    """Stands for the end of the process."""


class Ends(Silent):
    """Ends the process after a step, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def step(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == self.after:
            raise KilledError


def train(recipe: TrainRecipe, path: Path, watch: Silent | None = None, *, resume: bool = False) -> Outcome:
    trainer = LocalTrainer(recipe, open_run(path, recipe, resume=resume), watch or Silent(), resume=resume)
    trainer.player = replace(trainer.player, reward=evenness)
    return asyncio.run(trainer.train())


def measured(path: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the clock or the machine."""
    timed = ("time/", "memory/", "rollout/tokens_per_s")
    return [
        {name: value for name, value in row.items() if not name.startswith(timed)}
        for row in Run.open(path).read_metrics()
    ]


def asked(path: Path) -> list[list[str]]:
    """The ids of the tasks of each step."""
    files = Run.open(path).trajectory_files("train")
    return [[stored.group.task.id for stored in read_groups(file.path)] for file in files]


@pytest.fixture(scope="module")
def whole(tiny_model: Path, directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the set in one go."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert train(recipe(tiny_model, str(directory)), path).finished
    return path


def test_success_is_measured_by_split_and_kind(whole: Path) -> None:
    rows = measured(whole)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 4]
    for row, modes in ((rows[0], ("sampled", "greedy")), (rows[3], ("sampled",)), (rows[5], ("sampled", "greedy"))):
        kinds = ("1",) if modes == ("sampled",) else ("1", "2")
        names = {f"val/{s}/{m}/{k}" for s in ("validation", "new_worlds") for m in modes for k in kinds}
        assert {name for name in row if name.startswith("val/")} == names
    summary = json.loads((whole / "summary.json").read_text())
    assert set(summary["before"]) == set(summary["after_greedy"]) == {"validation", "new_worlds"}
    files = [file.path.name for file in Run.open(whole).trajectory_files() if file.step == 0]
    assert files == ["step-000000-new_worlds.jsonl.zst", "step-000000-validation.jsonl.zst"]


def test_a_step_reports_the_templates_that_it_met_and_the_band(whole: Path) -> None:
    for row, ids in zip(measured(whole)[1:5], asked(whole), strict=True):
        assert 0 <= row["groups/in_band"] <= 1
        assert row["tasks/too_long"] == 0
        assert row["curriculum/templates"] in (1, 2)
        assert {name for name in row if name.startswith("curriculum/pass/")} <= {
            "curriculum/pass/1",
            "curriculum/pass/2",
        }
        assert all(name.startswith("train-") for name in ids)


def test_a_resumed_run_draws_and_learns_what_the_whole_one_does(
    whole: Path, tiny_model: Path, directory: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_model, str(directory))
    with pytest.raises(KilledError):
        train(made, tmp_path / "run", Ends(3))
    assert train(made, tmp_path / "run", resume=True).finished
    assert measured(tmp_path / "run") == measured(whole)
    assert asked(tmp_path / "run") == asked(whole)


def test_the_curriculum_can_be_switched_off(tiny_model: Path, directory: Path, tmp_path: Path) -> None:
    made = recipe(tiny_model, str(directory), curriculum=CurriculumSettings(by="none"), steps=2)
    assert train(made, tmp_path / "run").finished
    assert "groups/in_band" in measured(tmp_path / "run")[1]


def test_a_run_on_procedural_tasks(tiny_model: Path, tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"max_tokens": 1400})
    made = recipe(tiny_model, "procedural", steps=1, rollout=RolloutSettings(groups=2, group_size=2, limits=limits))
    assert train(made, tmp_path / "run").finished
    assert all(name.startswith("train-0-") for name in asked(tmp_path / "run")[0])


def test_eval_measures_several_splits_at_once(
    tiny_model: Path, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--split=validation,new_worlds", "--tasks=3", "--limits.max_turn_tokens=6", f"--out={tmp_path / 'run'}"]
    assert main(["eval", f"--source={directory}", f"--policy.model={tiny_model}", *flags]) == 0
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert set(result["sampled"]) == set(result["greedy"]) == {"validation", "new_worlds"}
    assert set(result["sampled"]["validation"]) == {"all", "1", "2"}
    assert printed[0].startswith("sampled  validation: all: ")
    assert len(Run.open(tmp_path / "run").trajectory_files("new_worlds-greedy")) == 1


def test_a_split_that_is_not_there_is_one_line(
    tiny_model: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", f"--source={directory}", f"--policy.model={tiny_model}"]) == 2
    assert "no split 'held_out'; accepted: train, validation, new_worlds" in capsys.readouterr().err
