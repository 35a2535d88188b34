"""Starts verl, watches it, and keeps the run directory as the local trainer does.

verl runs as a process of its own, by the command that `command.py` writes. This side reads what it logs, and ends it
when it hangs, when a process of it left word to stop, or when it is asked to.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from recall.config import dump
from recall.errors import ConfigError, RolloutError
from recall.evaluation.play import success_by_kind
from recall.store import Run, read_groups, write_atomic
from recall.trainers.metrics import MetricsLog
from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.child import die_with_parent
from recall.trainers.verl.collect import collect, forget, lost_groups
from recall.trainers.verl.command import CHECKPOINTS, LOOPS, Command, command, loops_text
from recall.trainers.verl.honours import check, check_installed
from recall.trainers.verl.model import model_path, renderer_of
from recall.trainers.verl.numbered import tasks_of
from recall.trainers.verl.progress import Logged, LogReader
from recall.trainers.verl.services import Services, check_addresses
from recall.trainers.verl.stage import STOP

SUMMARY = "summary.json"
"""What a finished run comes to; a run that has it is finished."""
_POLL_S = 0.5
_GRACE_S = 30.0
"""Seconds in which verl has to end after it was asked to."""
_LOG_LINES = 12


class Observer(Protocol):
    """Watches a run; `recall.viewer.live.LiveView` is one."""

    def start(self, total_steps: int, header: str = "", *, done: int = 0) -> None:
        """Training begins, after `done` steps."""

    def baseline(self, before: Mapping[str, float]) -> None:
        """Held-out success by kind before training."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """One step is done."""

    def note(self, text: str) -> None:
        """Something worth a line."""


def planned(recipe: TrainRecipe, path: Path) -> Command:
    """The command that would train into a run directory; nothing is written.

    Raises:
        ConfigError: verl cannot do what the recipe says.
    """
    check(recipe)
    return command(
        recipe, path.resolve(), model_path(recipe), python=sys.executable, ray_address=recipe.cluster.ray_address
    )


class VerlTrainer:
    """Trains by a recipe on verl."""

    def __init__(self, recipe: TrainRecipe, run: Run, observer: Observer, *, resume: bool = False) -> None:
        """Find everything that can fail for the user's reasons before anything long starts.

        Raises:
            ConfigError: verl is not there or cannot do what the recipe says, the model or the tasks are not there, or
                there is nothing to resume.
        """
        check(recipe)
        check_installed()
        check_addresses(recipe)
        self.recipe, self.observer = recipe, observer
        self.run = Run(run.path.resolve())
        if resume and (run.path / SUMMARY).exists():
            raise ConfigError(f"{run.path}: the run is finished; there is nothing to resume")
        self._model = model_path(recipe)
        renderer = renderer_of(recipe)
        for part in ("train", "validation"):
            count, task = tasks_of(recipe, part, renderer)
            if count:
                task(0)
        self._done = latest_step(self.run) if resume else 0
        if resume:
            self.run.truncate_after(self._done if self._done else -1)
        forget(self.run)
        self.log = MetricsLog(self.run, tensorboard=recipe.tensorboard, recipe=recipe)
        self._attempt = 1 + len(list(self.run.path.glob("verl-*.log")))
        self._before: dict[str, float] = {}
        self._after: dict[str, float] = {}
        self._trajectories, self._earlier = 0, 0.0
        if self._done:
            self._remember(self.run.read_metrics())
        self._asked = 0

    @property
    def log_path(self) -> Path:
        """What verl prints in this start."""
        return self.run.path / f"verl-{self._attempt}.log"

    def request_stop(self) -> None:
        """End verl; it goes on from its last checkpoint."""
        self._asked += 1

    def train(self) -> dict[str, Any] | None:
        """Run verl to its end; the summary, or None when it was asked to stop.

        Raises:
            ConfigError: what a process of verl met is the user's to mend.
            RolloutError: verl failed, or hung.
        """
        recipe, began = self.recipe, time.monotonic()
        (self.run.path / STOP).unlink(missing_ok=True)
        text = loops_text(self.run.path).encode()
        write_atomic(self.run.path / LOOPS, lambda file: file.write(text))
        metrics = self.run.path / f"verl_metrics-{self._attempt}.jsonl"
        self.observer.start(recipe.steps, self._header(), done=self._done)
        self.observer.note(f"verl is starting, which takes minutes; it writes to {self.log_path}")
        address, reader = recipe.cluster.ray_address, LogReader(metrics)
        with ExitStack() as stack:
            if recipe.cluster.sandboxes or recipe.cluster.retrievers:
                address = stack.enter_context(Services(recipe, self.run.path)).address
            what = command(
                recipe,
                self.run.path,
                self._model,
                python=sys.executable,
                ray_address=address,
                metrics=metrics,
                resumed=self._done > 0,
            )
            log = stack.enter_context(open(self.log_path, "wb"))
            status = self._watch(stack.enter_context(_Child(what, log)), reader, began)
        self.log.close()
        if status is None:
            self.observer.note(f"stopped; go on with --resume {self.run.path}")
            return None
        self._explain(status)
        summary = {
            "before": _by_kind(self._before),
            "after": _by_kind(self._after),
            "minutes": round(self._earlier + (time.monotonic() - began) / 60, 2),
            "steps": recipe.steps,
            "seed": recipe.seed,
            "trajectories": self._trajectories,
        }
        self.run.write_json(SUMMARY, summary)
        return summary

    def _remember(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what the summary tells of the starts before this one."""
        for row in rows:
            if row["step"] == 0:
                self._before = {name: value for name, value in row.items() if name.startswith("val/")}
            self._earlier = row.get("time/minutes", self._earlier)
        files = [file for file in self.run.trajectory_files("train") if file.step <= self._done]
        self._trajectories = sum(len(stored.group.trajectories) for file in files for stored in read_groups(file.path))

    def _watch(self, child: "_Child", reader: LogReader, began: float) -> int | None:
        """Follow verl to its end; its exit status, or None when it was asked to stop."""
        heard = time.monotonic()
        while True:
            status = child.status()
            for logged in reader.new():
                heard = time.monotonic()
                self._took(logged, self._earlier + (heard - began) / 60)
            if status is not None:
                return status
            if self._asked:
                child.end()
                return None
            if (self.run.path / STOP).exists() or self._only_lost():
                child.end()
                return 1
            limit = self.recipe.verl.timeout_s
            if limit is not None and time.monotonic() - heard > limit:
                child.end()
                raise RolloutError(
                    f"verl finished no step for {limit:g} s (verl.timeout_s) and was ended; see {self.log_path}, and "
                    f"go on with --resume {self.run.path}"
                )
            time.sleep(_POLL_S)

    def _took(self, logged: Logged, minutes: float) -> None:
        """Write what verl logged of a step, and gather its trajectories."""
        groups = collect(self.run, logged.step, save=self.recipe.save_trajectories)
        metrics = dict(logged.metrics) | {"time/minutes": minutes}
        metrics |= {f"success/by/{kind}": rate for kind, rate in success_by_kind(groups).items()}
        self._trajectories += sum(len(group.trajectories) for group in groups)
        self.log.append(logged.step, metrics)
        validation = {name: value for name, value in metrics.items() if name.startswith("val/")}
        if validation:
            self._after = validation
        if logged.trained:
            self.observer.step(metrics | {"step": float(logged.step)})
        elif validation:
            self._before = validation
            self.observer.baseline(validation)

    def _only_lost(self) -> bool:
        """Whether two batches of groups in a row were lost, which in the asynchronous modes would never end."""
        return len(lost_groups(self.run)) >= 2 * self.recipe.rollout.groups

    def _explain(self, status: int) -> None:
        """Raise what ended verl, if it did not end well."""
        word = self.run.path / STOP
        if word.exists():
            said = json.loads(word.read_text())
            if said["user"]:
                raise ConfigError(said["message"])
            raise RuntimeError(f"an episode failed by a bug:\n{said['message']}")
        lost = lost_groups(self.run)
        if status and lost:
            faults = [trajectory.fault for group in lost for trajectory in group.group.trajectories]
            raise RolloutError(f"all of {len(faults)} episodes failed, the first one by {faults[0]}")
        if status:
            lines = self.log_path.read_text(errors="replace").splitlines()
            told = [line for line in lines if "Error" in line and "UserWarning" not in line][-_LOG_LINES:]
            raise RolloutError(f"verl ended with status {status}; see {self.log_path}. {told[-1] if told else ''}")
        done = latest_step(self.run)
        if done < self.recipe.steps:
            raise RolloutError(f"verl ended at step {done} of {self.recipe.steps}; see {self.log_path}")

    def _header(self) -> str:
        recipe, gpus = self.recipe, f"{self.recipe.cluster.nodes} x {self.recipe.cluster.gpus_per_node} GPUs"
        return (
            f"{recipe.policy.model} on verl, {gpus}, {recipe.learner.algorithm}, "
            f"{recipe.rollout.groups} x {recipe.rollout.group_size} trajectories a step, seed {recipe.seed}"
        )


def latest_step(run: Run) -> int:
    """The update that verl's last whole checkpoint is of; 0 without one."""
    word = run.path / CHECKPOINTS / "latest_checkpointed_iteration.txt"
    return int(word.read_text()) if word.exists() else 0


def open_run(path: Path, recipe: TrainRecipe, *, resume: bool) -> Run:
    """A new run directory for a recipe, or with `resume` the one that is there.

    Raises:
        ConfigError: it exists, or with `resume` does not.
    """
    return Run.open(path) if resume else Run.create(path, dump(recipe))


def _by_kind(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name.split("/", 3)[3]: value for name, value in metrics.items()}


class _Child:
    """verl's driver as a process with a group of its own, which does not outlive us."""

    def __init__(self, what: Command, log: Any) -> None:
        self._process = subprocess.Popen(
            what.arguments,
            env={**os.environ, **what.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """Ask it to end, and after a while make it."""
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            os.killpg(self._process.pid, sign)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                continue
