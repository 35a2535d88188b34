"""A run on verl from its start to the exported model: killed on the way, and gone on with on another cluster.

One story in two scenes, because each start of verl takes minutes; every test reads what a scene left.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cpu_cluster import environment, flags, own_ray, running_ray, short_directory, tidy_shared_memory

import retriever_server
import sandbox_server
from recall.config import load
from recall.datasets.rows import write_tasks
from recall.evaluation.local import load as load_policy
from recall.retriever.build import BuildSettings, build
from recall.store import Run, read_groups
from recall.synth.tasks import ToolTasks
from recall.tools.search import SearchForm, search_source, search_tool
from recall.trainers.learner import Learner
from recall.trainers.recipe import TrainRecipe
from recall.trainers.tasks import training_tasks
from recall.trainers.verl.rows import row_of
from recall.types import Group, Task
from retriever_corpora import write_corpus

pytestmark = pytest.mark.timeout(900)
STEPS = 3


@dataclass
class Story:
    """What happened."""

    run: Run
    batches: Path
    killed_at: int = 0
    """The step after which it was killed."""
    left_over: list[str] = field(default_factory=list)
    """Command lines of processes of verl that outlived the killing."""
    second: int = -1
    """The exit status of the second start."""
    said: str = ""
    """What the second start printed."""
    died: str = ""
    """The address of the sandbox that was killed."""

    def groups(self, step: int) -> list[Group]:
        files = [file for file in self.run.trajectory_files("train") if file.step == step]
        return [stored.group for file in files for stored in read_groups(file.path)]

    def batch(self, step: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = torch.load(self.batches / f"batch-{step}.pt")
        return rows

    def metrics(self) -> dict[int, dict[str, Any]]:
        return {row["step"]: row for row in self.run.read_metrics()}


def slowed(task: Task) -> Task:
    """The task with tools that take two seconds, so that their server can die meanwhile."""
    env = re.sub(r"^(def .*:)$", r"\1\n    import time; time.sleep(2)", task.env, flags=re.MULTILINE)
    return replace(task, env=env)


def made_tasks(directory: Path) -> tuple[Path, Path]:
    """Twelve tasks, an epoch of three steps: tools of their own, and the search over an index with the answers."""
    lookups = [slowed(task) for kind in ("1", "2", "3") for task in ToolTasks(kind, split="train", seed=0).take(3)]
    form = SearchForm("query_cousin", "cousin of a person", "key", bare=True)  # as nano knows its tools
    cousins = (("Gokeza", "Bito"), ("Zito", "Vino"), ("Feso", "Lofa"))
    search = [
        Task(
            id=f"search{number}",
            question=f"Tell me {name}'s cousin.",
            ground_truth=(cousin,),
            env=search_source(form=form),
            tools=(search_tool(form=form),),
            kind="search",
        )
        for number, (name, cousin) in enumerate(cousins)
    ]
    write_tasks(directory / "tasks.jsonl", [*lookups, *search])
    corpus = write_corpus(directory / "corpus.jsonl", cousins)
    build(BuildSettings(corpus=corpus, index=directory / "index", kind="bm25"))
    return directory / "tasks.jsonl", directory / "index"


def train(arguments: list[str], log: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "recall.cli", "train", *arguments],
            env={**os.environ, **env},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path, seconds: float = 500) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"status {process.poll()}:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)


def ended(server: sandbox_server.Server) -> None:
    server.process.kill()
    server.process.wait()
    if server.process.stdout is not None:
        server.process.stdout.close()


def steps_done(run: Run) -> int:
    return max((int(row["step"]) for row in run.read_metrics()), default=-1)


def is_running_calls(server: sandbox_server.Server) -> bool:
    text = server.ask("GET", "/metrics").body.decode()
    return any(
        float(line.split()[-1]) > 0 for line in text.splitlines() if line.startswith("recall_sandbox_calls_running")
    )


def verl_processes(run: Path) -> list[str]:
    """The command lines of drivers of verl that train into a run directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "verl.trainer.main_ppo" in words and str(run) in words:
                found.append(words)
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("verl")
    tasks, index = made_tasks(directory)
    told = Story(Run(directory / "run"), directory / "batches")
    told.batches.mkdir()
    log = directory / "train.log"
    with ExitStack() as stack:
        stack.enter_context(tidy_shared_memory())
        ray, other = (stack.enter_context(short_directory()) for _ in range(2))
        sandboxes = [sandbox_server.start() for _ in range(2)]
        searching = retriever_server.start(str(index))
        for server in (*sandboxes, searching):
            stack.callback(ended, server)
        urls = json.dumps([server.url for server in sandboxes])
        where = [
            f"--sandbox.urls={urls}",
            f"--sandbox.search={searching.url}",
            f"--run={told.run.path}",
            "--doctor=false",
        ]
        # A Ray of its own: one of two sandboxes dies while step 2 is played, and everything is killed after that step.
        first = train([*flags(tasks, told.batches, ray=own_ray(ray), steps=STEPS), *where], log, {})
        wait_for(lambda: steps_done(told.run) >= 1 and is_running_calls(sandboxes[0]), first, log)
        ended(sandboxes[0])
        told.died = sandboxes[0].url
        wait_for(lambda: steps_done(told.run) >= 2, first, log)
        first.kill()
        first.wait()
        told.killed_at = steps_done(told.run)
        deadline = time.monotonic() + 90
        while (left := verl_processes(told.run.path)) and time.monotonic() < deadline:
            time.sleep(1)
        told.left_over = left
        stack.callback(ended, sandbox_server.start(port=sandboxes[0].address[1]))
        # Another Ray, which is there already: it goes on from the last checkpoint.
        with running_ray(other, gpus=2, env=environment(told.batches)) as (address, secret):
            again = train([f"--resume={told.run.path}", f"--ray-address={address}"], log, secret)
            told.second = again.wait(600)
        told.said = log.read_text(errors="replace")
        yield told


def test_a_run_that_was_killed_ends_with_its_processes_and_goes_on_elsewhere(story: Story) -> None:
    assert story.left_over == []
    assert story.second == 0, story.said[-3000:]
    assert [row["step"] for row in story.run.read_metrics()] == list(range(STEPS + 1))
    summary = json.loads((story.run.path / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["trajectories"] == STEPS * 16
    assert set(summary["before"]) == set(summary["after"]) == {"1", "2", "3", "search"}


def test_what_is_trained_on_is_our_own_trajectory_id_by_id(story: Story) -> None:
    for step in range(1, STEPS + 1):
        rows = [
            row_of(trajectory, reward)
            for group in story.groups(step)
            for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
        ]
        ours = sorted(
            (row.prompt_ids, row.response_ids, row.response_mask, row.response_logprobs, row.score)
            for row in rows
            if row is not None
        )
        theirs = sorted(
            (row["prompts"], row["responses"], row["response_mask"], row["rollout_log_probs"], sum(row["rm_scores"]))
            for row in story.batch(step)
        )
        assert len(ours) == len(theirs) > 0
        for mine, trained in zip(ours, theirs, strict=True):
            assert mine[:3] == trained[:3]
            assert mine[3] == pytest.approx(trained[3], abs=1e-6)
            assert mine[4] == pytest.approx(trained[4], abs=1e-6)
        assert all(row["loss_mask"] == row["response_mask"] for row in story.batch(step))
        assert any(0 in row["response_mask"] for row in story.batch(step))


def test_the_engine_and_the_trainer_agree_after_every_copy_of_the_weights(story: Story) -> None:
    gaps = [story.metrics()[step]["policy/probability_gap_max"] for step in range(1, STEPS + 1)]
    assert max(gaps) < 1e-3
    assert story.metrics()[1]["policy/grad_norm"] > 0  # so the weights of step 2 are new ones


def test_a_sandbox_that_dies_takes_its_episodes_out_of_the_batch_and_the_step_goes_on(story: Story) -> None:
    trajectories = [trajectory for group in story.groups(2) for trajectory in group.trajectories]
    faults = [trajectory.fault for trajectory in trajectories if trajectory.fault is not None]
    assert faults
    assert all(story.died in fault for fault in faults)
    assert len(story.batch(2)) == len(trajectories) - len(faults) > 0
    assert story.metrics()[2]["rollout/faults"] == pytest.approx(len(faults) / len(trajectories))
    assert story.metrics()[1]["rollout/faults"] == story.metrics()[3]["rollout/faults"] == 0


def test_searches_are_answered_by_the_retriever(story: Story) -> None:
    calls = [
        call
        for step in range(1, STEPS + 1)
        for group in story.groups(step)
        if group.task.kind == "search"
        for trajectory in group.trajectories
        for call in trajectory.calls
    ]
    answers = ("Bito", "Vino", "Lofa")
    assert any(call.status == "ok" and any(answer in str(call.result) for answer in answers) for call in calls)


def test_the_first_update_is_that_of_the_local_trainer(story: Story) -> None:
    """Up to one scale: verl averages over all groups, the local trainer over those with something to teach."""
    recipe = load(TrainRecipe, story.run.config_path)
    loaded = load_policy(recipe.policy)
    learner = Learner(loaded.model, recipe.learner, temperature=1.0, dtype=loaded.dtype, reference=None)
    groups = story.groups(1)
    stream, _ = training_tasks(recipe)
    assert {group.task.id for group in groups} == {task.id for task in stream.at(0, recipe.rollout.groups)}
    here = learner.update(groups, step=0, total_steps=STEPS, seed=recipe.seed)
    used = sum(len({reward.score for reward in group.rewards}) > 1 for group in groups)
    assert used > 0
    share, there = used / len(groups), story.metrics()[1]
    assert there["policy/grad_norm"] == pytest.approx(share * here["policy/grad_norm"], rel=1e-2)
    assert there["policy/loss"] == pytest.approx(share * here["policy/loss"], abs=1e-5)
    rewards = [reward.score for group in groups for reward in group.rewards]
    assert there["reward/mean"] == pytest.approx(sum(rewards) / len(rewards))


def test_the_exported_model_answers(story: Story, tmp_path: Path) -> None:
    exported = subprocess.run(
        [sys.executable, "-m", "recall.cli", "export", str(story.run.path), f"--to={tmp_path / 'model'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert exported.returncode == 0, exported.stderr
    played = subprocess.run(
        [sys.executable, "-m", "recall.cli", "run", "--kind=1", "--json", f"--policy.model={tmp_path / 'model'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["answer"]
