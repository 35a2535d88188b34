"""The local trainer, end to end on a tiny random model: it repeats, it resumes, and it refuses what will not do."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fakes import Silent  # noqa: E402
from recall.cli import main  # noqa: E402
from recall.config import load  # noqa: E402
from recall.datasets.rows import write_tasks  # noqa: E402
from recall.environment import Limits, ToolEnvironments  # noqa: E402
from recall.errors import ConfigError, RolloutError, SandboxError  # noqa: E402
from recall.evaluation.local import PolicySettings  # noqa: E402
from recall.sandbox.base import DEFAULT_OPTIONS, Session, SessionOptions  # noqa: E402
from recall.store import Run, read_groups  # noqa: E402
from recall.synth.tasks import ToolTasks  # noqa: E402
from recall.trainers.local import LocalTrainer, Outcome, open_run  # noqa: E402
from recall.trainers.metrics import tools_share  # noqa: E402
from recall.trainers.recipe import (  # noqa: E402
    LearnerSettings,
    RolloutSettings,
    TaskSource,
    TrainRecipe,
    ValidationSettings,
)
from recall.trainers.tasks import RowStream, validation_tasks  # noqa: E402
from recall.trainers.tracking import EVENT_FILES  # noqa: E402
from recall.types import RewardResult, Task, Trajectory  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft reads it


class KilledError(Exception):
    """Stands for the end of the process."""


class Ends(Silent):
    """Ends the process after a step, as a kill would."""

    def __init__(self, after: int, *, by_signal: bool = False) -> None:
        self.after, self.by_signal = after, by_signal

    def step(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == self.after:
            if self.by_signal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KilledError


def recipe(model: Path, **changes: Any) -> TrainRecipe:
    made = TrainRecipe(
        steps=4,
        checkpoint_every=2,
        tensorboard=False,
        policy=PolicySettings(model=str(model), device="cpu"),
        tasks=TaskSource(stages=(("1", "2"),)),
        rollout=RolloutSettings(groups=2, group_size=3, limits=Limits(max_turns=2, max_tokens=320, max_turn_tokens=6)),
        learner=LearnerSettings(warmup_steps=0, minibatches=2),
        validation=ValidationSettings(kinds=("1",), tasks=2, final_tasks=2, every=3),
    )
    return made.model_copy(update=changes)


def evenness(task: Task, trajectory: Trajectory) -> RewardResult:
    """The share of even tokens: something that a random model varies in and can learn."""
    tokens = [token for token, own in zip(trajectory.token_ids, trajectory.mask, strict=True) if own]
    even = sum(token % 2 == 0 for token in tokens) / len(tokens)
    return RewardResult(even, correct=even > 0.5)


def trainer(recipe: TrainRecipe, path: Path, watch: Silent | None = None, *, resume: bool = False) -> LocalTrainer:
    made = LocalTrainer(recipe, open_run(path, recipe, resume=resume), watch or Silent(), resume=resume)
    made.player = replace(made.player, reward=evenness)
    return made


async def train(recipe: TrainRecipe, path: Path, watch: Silent | None = None, *, resume: bool = False) -> Outcome:
    return await trainer(recipe, path, watch, resume=resume).train()


def measured(path: Path) -> list[dict[str, Any]]:
    """The metrics without what depends on the clock or the machine."""
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith(("time/", "memory/", "rollout/tokens_per_s"))
        }
        for row in Run.open(path).read_metrics()
    ]


def weights(path: Path, name: str = "model.safetensors") -> bytes:
    checkpoint = Run.open(path).latest_checkpoint()
    assert checkpoint is not None
    return (checkpoint / name).read_bytes()


def sampled(path: Path) -> list[Any]:
    """Everything that was sampled, with its credit."""
    return [
        (file.path.name, stored.advantages, [trajectory.segments for trajectory in stored.group.trajectories])
        for file in Run.open(path).trajectory_files()
        for stored in read_groups(file.path)
    ]


def assert_same_run(one: Path, other: Path) -> None:
    assert measured(one) == measured(other)
    assert sampled(one) == sampled(other)
    assert weights(one) == weights(other)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    outcome = asyncio.run(train(recipe(tiny_model), path))
    assert outcome.finished
    return path


def test_a_run_leaves_what_it_measured_sampled_and_learned(whole: Path, tiny_model: Path) -> None:
    rows = measured(whole)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 4]
    assert all(row["groups/used"] >= 1 for row in rows[1:5])
    assert "val/held_out/sampled/1" in rows[3]
    assert [file.path.name for file in Run.open(whole).trajectory_files("train")] == [
        f"step-00000{step}.jsonl.zst" for step in (1, 2, 3, 4)
    ]
    assert [path.name for path in Run.open(whole).checkpoints()] == ["step-000002", "step-000004"]
    assert weights(whole) != (tiny_model / "model.safetensors").read_bytes()
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["steps"], summary["trajectories"]) == (4, 24)
    assert load(TrainRecipe, whole / "config.toml") == recipe(tiny_model)


def test_the_engine_samples_from_the_weights_that_were_learned(whole: Path) -> None:
    assert all(row["policy/logprob_gap_max"] < 1e-3 for row in measured(whole)[1:5])


async def test_a_run_repeats_bit_for_bit(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    await train(recipe(tiny_model), tmp_path / "again")
    assert_same_run(whole, tmp_path / "again")


async def test_another_seed_is_another_run(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    await train(recipe(tiny_model, seed=1, steps=1), tmp_path / "other")
    assert sampled(tmp_path / "other")[-1] != sampled(whole)[-1]


KILLED = """
import asyncio, sys
from pathlib import Path
from test_local_trainer import Ends, recipe, train
model, run = map(Path, sys.argv[1:])
asyncio.run(train(recipe(model), run, Ends(3, by_signal=True)))
"""


def test_a_killed_and_resumed_run_equals_one_in_one_go(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    arguments = [sys.executable, "-c", KILLED, str(tiny_model), str(path)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["step"] for row in measured(path)] == [0, 1, 2, 3]
    assert [checkpoint.name for checkpoint in Run.open(path).checkpoints()] == ["step-000002"]
    asyncio.run(train(recipe(tiny_model), path, resume=True))
    assert_same_run(whole, path)


async def test_a_run_killed_before_its_first_checkpoint_starts_over(
    whole: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        await train(recipe(tiny_model), tmp_path / "killed", Ends(1))
    assert Run.open(tmp_path / "killed").checkpoints() == []
    await train(recipe(tiny_model), tmp_path / "killed", resume=True)
    assert_same_run(whole, tmp_path / "killed")


class StopsAfter(Silent):
    """Asks for a stop in the middle of a run."""

    def __init__(self) -> None:
        self.trainer: LocalTrainer | None = None
        self.notes: list[str] = []

    def step(self, metrics: Mapping[str, float]) -> None:
        if metrics["step"] == 1 and self.trainer is not None:
            self.trainer.request_stop()

    def note(self, text: str) -> None:
        self.notes.append(text)


async def test_a_requested_stop_writes_a_checkpoint_to_go_on_from(
    whole: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path, watch = tmp_path / "stopped", StopsAfter()
    watch.trainer = trainer(recipe(tiny_model), path, watch)
    outcome = await watch.trainer.train()
    assert not outcome.finished
    assert [checkpoint.name for checkpoint in Run.open(path).checkpoints()] == ["step-000001"]
    assert watch.notes == [f"stopped at step 1; go on with --resume {path}"]
    assert not (path / "summary.json").exists()
    assert (await train(recipe(tiny_model), path, resume=True)).finished
    assert_same_run(whole, path)


async def test_the_divergence_is_from_the_weights_at_the_start_even_after_a_resume(
    tiny_model: Path, tmp_path: Path
) -> None:
    held = recipe(tiny_model, learner=LearnerSettings(warmup_steps=0, kl_coefficient=0.1), steps=2, checkpoint_every=1)
    await train(held, tmp_path / "whole")
    with pytest.raises(KilledError):
        await train(held, tmp_path / "killed", Ends(2))
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "step-000002", ignore_errors=True)
    await train(held, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


async def test_only_the_adapter_changes_and_a_resume_goes_on_from_it(tiny_model: Path, tmp_path: Path) -> None:
    policy = PolicySettings(model=str(tiny_model), device="cpu", lora_rank=2)
    low_rank = recipe(tiny_model, policy=policy, steps=2, checkpoint_every=1)
    made = trainer(low_rank, tmp_path / "whole")
    before = {name: parameter.detach().clone() for name, parameter in made.model.named_parameters()}
    await made.train()
    changed = {name for name, parameter in made.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    with pytest.raises(KilledError):
        await train(low_rank, tmp_path / "killed", Ends(2))
    await train(low_rank, tmp_path / "killed", resume=True)
    assert measured(tmp_path / "whole") == measured(tmp_path / "killed")
    adapter = "adapter_model.safetensors"
    assert weights(tmp_path / "whole", adapter) == weights(tmp_path / "killed", adapter)


async def test_an_adapter_over_bfloat16_weights_can_be_sampled_and_trained(tiny_model: Path, tmp_path: Path) -> None:
    policy = PolicySettings(model=str(tiny_model), device="cpu", lora_rank=2, dtype="bfloat16")
    made = trainer(recipe(tiny_model, policy=policy, steps=1, checkpoint_every=0), tmp_path / "run")
    trained = {parameter.dtype for parameter in made.model.parameters() if parameter.requires_grad}
    assert trained == {torch.float32}
    assert (await made.train()).finished


async def test_rows_of_a_file_are_trained_on(tiny_model: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "train.jsonl", ToolTasks("1", split="train", seed=5).take(3))
    write_tasks(tmp_path / "val.parquet", ToolTasks("2", split="held_out", seed=5).take(5))
    from_file = recipe(
        tiny_model,
        steps=2,
        tasks=TaskSource(source=str(tmp_path / "train.jsonl")),
        validation=ValidationSettings(source=tmp_path / "val.parquet", final_tasks=4),
    )
    assert (await train(from_file, tmp_path / "run")).finished
    run = Run.open(tmp_path / "run")
    played = [stored.group.task.id for file in run.trajectory_files("train") for stored in read_groups(file.path)]
    assert sorted(played)[0] == "train-5-1-0"
    assert set(played) <= {f"train-5-1-{number}" for number in range(3)}
    assert len(set(played[:3])) == 3
    (first, _) = run.trajectory_files("held_out")
    assert len(list(read_groups(first.path))) == 4


async def test_shuffled_rewards_are_the_same_scores_dealt_anew(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    await train(recipe(tiny_model, shuffle_rewards=True, steps=1), tmp_path / "shuffled")
    groups, shuffled = (
        [stored.group for stored in read_groups(Run.open(path).trajectory_files("train")[0].path)]
        for path in (whole, tmp_path / "shuffled")
    )
    # What the learner saw of them is another matter: it learned from other scores.
    first, second = (
        [[s.logprobs for t in g.trajectories for s in t.segments] for g in of] for of in (groups, shuffled)
    )
    assert first == second
    scores, dealt = ([reward.score for group in of for reward in group.rewards] for of in (groups, shuffled))
    assert sorted(scores) == sorted(dealt)
    assert scores != dealt
    assert [r.correct for group in groups for r in group.rewards] == [
        r.correct for group in shuffled for r in group.rewards
    ]


def never(task: Task, trajectory: Trajectory) -> RewardResult:
    return RewardResult(0.0, correct=False)


async def test_groups_without_variance_are_replaced_and_counted_all_the_same(tiny_model: Path, tmp_path: Path) -> None:
    made = trainer(
        recipe(tiny_model, steps=1, rollout=recipe(tiny_model).rollout.model_copy(update={"resample": 2})),
        tmp_path / "run",
    )
    made.player = replace(made.player, reward=never)
    await made.train()
    (file,) = made.run.trajectory_files("train")
    assert len(list(read_groups(file.path))) == 2 * 3
    assert made.progress.trajectories == 2 * 3 * 3
    assert weights(tmp_path / "run") == (tiny_model / "model.safetensors").read_bytes()


class NoSandbox:
    async def open(self, source: str, options: SessionOptions = DEFAULT_OPTIONS) -> Session:
        raise SandboxError("no process could be had")

    async def close(self) -> None: ...


async def test_a_run_whose_every_episode_fails_ends_with_the_reason(tiny_model: Path, tmp_path: Path) -> None:
    made = trainer(recipe(tiny_model), tmp_path / "run")
    made.player = replace(made.player, environment=ToolEnvironments(NoSandbox(), recipe(tiny_model).rollout.limits))
    with pytest.raises(RolloutError, match="all of 2 episodes failed, the first one by SandboxError: no process"):
        await made.train()


# TensorBoard -------------------------------------------------------------------------------------------------------


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a run directory."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(path)).Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_metrics_once_even_after_a_resume(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    path, shown = tmp_path / "run", recipe(tiny_model, tensorboard=True)
    with pytest.raises(KilledError):
        asyncio.run(train(shown, path, Ends(3)))
    assert [step for step, _ in scalars(path)["reward/mean"]] == [1, 2, 3]
    asyncio.run(train(shown, path, resume=True))
    assert len(list(path.glob(EVENT_FILES))) == 1
    found = scalars(path)
    for name in {name for row in Run.open(path).read_metrics() for name in row} - {"step"}:
        expected = [(row["step"], row[name]) for row in Run.open(path).read_metrics() if name in row]
        assert [step for step, _ in found[name]] == [step for step, _ in expected]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in expected], rel=1e-6)


def test_tensorboard_can_be_left_out(whole: Path) -> None:
    assert list(whole.glob(EVENT_FILES)) == []


def test_the_share_of_tools_is_what_the_engine_was_not_at_work() -> None:
    assert tools_share(10.0, 8.0, 12.0, 2) == pytest.approx(0.2)
    assert tools_share(10.0, 8.0, 9.0, 1) == 0.0
    assert tools_share(10.0, 8.0, 0.0, 4) == pytest.approx(0.8)


def test_every_step_says_which_share_of_it_may_have_waited_for_tools(whole: Path) -> None:
    shares = [row["time/tools_share"] for row in Run.open(whole).read_metrics()[1:5]]
    assert all(0 <= share < 1 for share in shares)


# Streams -----------------------------------------------------------------------------------------------------------


def test_rows_come_once_an_epoch_in_an_order_of_its_own() -> None:
    given = ToolTasks("1", split="train", seed=0).take(6)
    stream = RowStream(given, seed=0)
    drawn = [task.id for step in range(9) for task in stream.at(step, 4)]
    epochs = [drawn[start : start + 6] for start in range(0, 36, 6)]
    assert all(sorted(epoch) == sorted(task.id for task in given) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert stream.at(3, 4) == RowStream(given, seed=0).at(3, 4)
    assert stream.at(3, 4) != RowStream(given, seed=1).at(3, 4)
    assert stream.at(3, 4, extra=1) != stream.at(3, 4)


def test_validation_takes_so_many_rows_of_each_kind(tiny_model: Path, tmp_path: Path) -> None:
    tasks = [task for kind in ("1", "2") for task in ToolTasks(kind, split="held_out", seed=0).take(5)]
    write_tasks(tmp_path / "val.jsonl", tasks)
    asked = recipe(
        tiny_model,
        tasks=TaskSource(source="train.jsonl"),
        validation=ValidationSettings(source=tmp_path / "val.jsonl"),
    )
    assert [task.kind for task in validation_tasks(asked, 2)] == ["1", "1", "2", "2"]


# Refused -----------------------------------------------------------------------------------------------------------


def refused(recipe: TrainRecipe, path: Path, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        LocalTrainer(recipe, open_run(path, recipe, resume=False), Silent())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reward": "outcom"}, r"unknown reward 'outcom', did you mean 'outcome'"),
        ({"learner": LearnerSettings(algorithm="ppo")}, r"learner\.algorithm 'ppo': accepted are grpo"),
        ({"tasks": TaskSource(stages=(("1",), ("two",)))}, r"task kind 'two': accepted are"),
        ({"tasks": TaskSource(split="test")}, r"split 'test': accepted are train"),
        ({"validation": ValidationSettings(kinds=("0",))}, r"task kind '0': accepted are"),
        ({"validation": ValidationSettings(split="dev")}, r"split 'dev': accepted are train"),
        ({"tasks": TaskSource(source="none.jsonl")}, r"none\.jsonl: cannot be read"),
        ({"rollout": RolloutSettings(limits=Limits(max_tokens=40, max_turn_tokens=6))},
         r"rollout\.limits\.max_tokens: 40 is too small: the prompt of task '.*' has \d+ tokens and a turn may take 6"),
        ({"rollout": RolloutSettings(limits=Limits(max_tokens=4096))},
         r"rollout\.limits\.max_tokens: 4096 is more than the model's context of 2048"),
    ],
)  # fmt: skip
def test_a_recipe_that_will_not_do_is_refused_before_anything_starts(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    refused(recipe(tiny_model, **changes), tmp_path / "run", match)


@pytest.mark.parametrize(("kind", "table"), [("stages", "tasks"), ("kinds", "validation")])
def test_a_mix_of_nothing_is_refused(kind: str, table: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(f"[{table}]\n{kind} = []\n")
    with pytest.raises(ConfigError, match=f"{table}.{kind}"):
        load(TrainRecipe, tmp_path / "recipe.toml")


def test_a_file_of_tasks_needs_one_to_validate_on(tiny_model: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "train.jsonl", ToolTasks("1", split="train", seed=5).take(2))
    from_file = recipe(tiny_model, tasks=TaskSource(source=str(tmp_path / "train.jsonl")))
    refused(from_file, tmp_path / "run", r"validation\.source: name a file")


def test_models_that_will_not_do_are_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    def with_model(name: str) -> TrainRecipe:
        return recipe(tiny_model, policy=PolicySettings(model=str(tmp_path / name), device="cpu"))

    refused(with_model("none"), tmp_path / "run1", r"policy\.model: .*: no such directory; accepted are")
    (tmp_path / "empty").mkdir()
    refused(with_model("empty"), tmp_path / "run2", r"no config\.json in it")
    shutil.copytree(tiny_model, tmp_path / "mute")
    (tmp_path / "mute" / "chat_template.jinja").unlink()
    refused(with_model("mute"), tmp_path / "run3", "the tokenizer has no chat template")
    shutil.copytree(tiny_model, tmp_path / "torn")
    whole = (tiny_model / "model.safetensors").read_bytes()
    (tmp_path / "torn" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(with_model("torn"), tmp_path / "run4", "the model cannot be read")
    shutil.copytree(tiny_model, tmp_path / "deeper")
    config = json.loads((tiny_model / "config.json").read_text()) | {"num_hidden_layers": 3, "layer_types": None}
    (tmp_path / "deeper" / "config.json").write_text(json.dumps(config))
    refused(with_model("deeper"), tmp_path / "run5", r"weights are missing, model\.layers\.2")


def test_runs_are_neither_overwritten_nor_resumed_from_nothing(whole: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the run exists; go on from it with --resume"):
        open_run(whole, recipe(tiny_model), resume=False)
    with pytest.raises(ConfigError, match="not a run directory"):
        open_run(tmp_path / "none", recipe(tiny_model), resume=True)
    with pytest.raises(ConfigError, match="the run is finished; there is nothing to resume"):
        LocalTrainer(recipe(tiny_model), open_run(whole, recipe(tiny_model), resume=True), Silent(), resume=True)


# The command -------------------------------------------------------------------------------------------------------

SMALL = (
    "--policy.device=cpu", '--tasks.stages=[["1"]]', "--rollout.groups=1", "--rollout.group_size=2",
    "--rollout.limits.max_turn_tokens=4", '--validation.kinds=["1"]', "--validation.final_tasks=1",
    "--validation.tasks=1", "--tensorboard=false", "--doctor=false",  # random weights never call a tool
)  # fmt: skip


def test_the_command_trains_reports_and_prints_the_summary_last(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--steps=1", f"--policy.model={tiny_model}", f"--run={run}"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary == json.loads((run / "summary.json").read_text())
    assert (run / "report.html").is_file()
    assert main(["train", "--resume", str(run)]) == 2
    assert "finished" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--steps=9"]) == 2
    assert "leave out steps" in capsys.readouterr().err


def test_the_command_leaves_no_directory_of_a_recipe_that_will_not_do(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *SMALL, f"--policy.model={tiny_model}", f"--run={tmp_path / 'run'}"]
    assert main([*arguments, "--reward=none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_interrupted_command_writes_a_checkpoint_and_says_how_to_go_on(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    arguments = [*SMALL, "--steps=100000", f"--policy.model={tiny_model}", f"--run={path}"]
    with subprocess.Popen(
        [sys.executable, "-m", "recall.cli", "train", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while process.poll() is None and not (path.exists() and len(Run(path).read_metrics()) > 2):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"go on with --resume {path}" in said
    assert "Traceback" not in said
    step = Run(path).read_metrics()[-1]["step"]
    assert [checkpoint.name for checkpoint in Run(path).checkpoints()][-1:] == [f"step-{step:06d}"]
