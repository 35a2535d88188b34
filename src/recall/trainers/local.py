"""The local trainer: sampling and learning in one process, on the CPU or on one GPU.

One step plays groups of episodes, scores them and updates the weights that sampled them. A run directory holds all that
a killed run needs to go on and, in deterministic mode, to repeat bit for bit.
"""

import random
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

import torch

from recall.config import dump
from recall.errors import ConfigError
from recall.evaluation.local import LocalPlayer, load
from recall.evaluation.play import seed_of, success_by_kind
from recall.evaluation.splits import has_splits
from recall.policy.vllm.engine import check_sampling
from recall.store import Run, checkpoint_step
from recall.trainers.curriculum import share_in_band
from recall.trainers.following import PROBES, DriftWatch, Following, probes_of
from recall.trainers.learner import Learner, batch_credits, varies
from recall.trainers.measure import measure, refuse_only_faults
from recall.trainers.metrics import MetricsLog, rollout_metrics, tools_share
from recall.trainers.recipe import TrainRecipe
from recall.trainers.shaping import reward_of
from recall.trainers.tasks import check_room, first_of_each, prompt_ids, prompt_tokens, training_tasks, validation_tasks
from recall.types import Group, Sampling, Task

SUMMARY = "summary.json"
"""What a finished run comes to; a run that has it is finished."""


class Observer(Protocol):
    """Watches a run; `recall.viewer.live.LiveView` is one."""

    def start(self, total_steps: int, header: str = "", *, done: int = 0) -> None:
        """Training begins, after `done` steps."""

    def baseline(self, before: Mapping[str, float]) -> None:
        """Held-out success by kind before training."""

    def step(self, metrics: Mapping[str, float]) -> None:
        """One step is done."""

    def validation(self, now: Mapping[str, float]) -> None:
        """Held-out success by kind."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    summary: Mapping[str, Any]
    """What `summary.json` holds."""
    finished: bool
    """False when it was asked to stop before the last step."""


@dataclass(slots=True)
class _Progress:
    """What a checkpoint keeps beside weights and optimizer."""

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Wall time of training and validation so far."""
    trajectories: int = 0
    """Played for training."""
    before: dict[str, dict[str, float]] = field(default_factory=dict)
    """Held-out success before training: by mode, `sampled` or `greedy`, then by kind."""
    best: float = -1.0
    """The best mean validation success."""
    worse: int = 0
    """Validations in a row that were no better."""


class LocalTrainer:
    """Trains one policy by one recipe."""

    def __init__(self, recipe: TrainRecipe, run: Run, observer: Observer, *, resume: bool = False) -> None:
        """Load everything that can fail for the user's reasons before anything long starts.

        Raises:
            ConfigError: model, tokenizer, tasks or settings will not do, or there is nothing to resume.
        """
        self.recipe, self.run, self.observer = recipe, run, observer
        if resume and (run.path / SUMMARY).exists():
            raise ConfigError(f"{run.path}: the run is finished; there is nothing to resume")
        checkpoint = run.latest_checkpoint() if resume else None
        self.log = MetricsLog(run, tensorboard=recipe.tensorboard, recipe=recipe)
        torch.manual_seed(recipe.seed)  # a new adapter starts from random weights
        if recipe.policy.engine == "vllm":
            check_sampling(recipe.rollout.temperature, recipe.rollout.top_p)
            recipe.policy.vllm.check_room(recipe.rollout.limits.max_tokens)
        loaded = load(recipe.policy, checkpoint)
        self.model, self.tokenizer, self.renderer = loaded.model, loaded.tokenizer, loaded.renderer
        self._local = LocalPlayer(
            loaded,
            reward=reward_of(recipe),
            limits=recipe.rollout.limits,
            sandbox=recipe.sandbox,
            max_batch=recipe.policy.max_batch,
            deterministic=recipe.deterministic,
            before_top_p=recipe.rollout.top_p < 1,
        )
        self.player, self.policy = self._local.player, self._local.policy
        temperature = recipe.rollout.temperature
        # On a resume the model is no longer what the run started from.
        start = load(recipe.policy).model if recipe.learner.kl else None
        self.learner = Learner(self.model, recipe.learner, temperature=temperature, dtype=loaded.dtype, reference=start)
        float32 = loaded.dtype == torch.float32
        watch = DriftWatch(recipe.policy.vllm.accepted_drift(float32=float32), float32=float32)
        self._following = Following(self.policy, self.learner, watch)
        self.tasks, self.curriculum = training_tasks(recipe, self._fits)
        settings, by_split = recipe.validation, has_splits(recipe.tasks.source)
        self.splits = settings.splits if by_split else (settings.split,)
        tasks = validation_tasks(recipe, max(settings.tasks, settings.final_tasks))
        self.validation = first_of_each(tasks, settings.tasks, by_split=by_split)
        self.final = first_of_each(tasks, settings.final_tasks, by_split=by_split)
        check_room(
            [*self.validation, *self.final, *self.tasks.sample(64)],
            self.renderer,
            recipe.rollout.limits,
            self.model.config.get_text_config().max_position_embeddings,
        )
        self.sampling = Sampling(
            temperature=temperature,
            top_p=recipe.rollout.top_p,
            max_tokens=recipe.rollout.limits.max_turn_tokens,
        )
        self.progress = _Progress()
        if checkpoint is not None:
            self._restore(checkpoint)
        if resume:
            self.run.truncate_after(self.progress.step if checkpoint is not None else -1)
        self._stopping = False

    def _fits(self, task: Task) -> bool:
        """Whether the task's prompt leaves room for a turn."""
        limits = self.recipe.rollout.limits
        return prompt_tokens(task, self.renderer) + limits.max_turn_tokens <= limits.max_tokens

    def request_stop(self) -> None:
        """Finish the step under way, write a checkpoint, and end."""
        self._stopping = True

    async def train(self) -> Outcome:
        """Run the recipe to its end, or to a requested stop.

        Raises:
            RolloutError: every episode of a step failed for reasons of ours.
        """
        try:
            async with self._local:
                prompts = [prompt_ids(task, self.renderer) for task in self.final[:PROBES]]
                await self._following.start(prompts)
                return await self._train()
        finally:
            self.log.close()

    async def _train(self) -> Outcome:
        progress, recipe = self.progress, self.recipe
        began = time.monotonic() - progress.seconds
        if not progress.before:
            progress.before, _ = await self._measure(0, self.final, save=True)
        self.observer.baseline(progress.before["sampled"])
        self.observer.start(recipe.steps, self._header(), done=progress.step)
        while progress.step < recipe.steps and not self._stopping:
            metrics = await self._step(progress.step)
            progress.step += 1
            every = recipe.validation.every
            if every and progress.step % every == 0 and progress.step < recipe.steps:
                metrics |= await self._validate()
            progress.seconds = time.monotonic() - began
            metrics["time/minutes"] = progress.seconds / 60
            self.log.append(progress.step, metrics)
            self.observer.step(metrics | {"step": float(progress.step)})
            if recipe.checkpoint_every and progress.step % recipe.checkpoint_every == 0:
                self._save()
            if recipe.validation.patience and progress.worse >= recipe.validation.patience:
                self.observer.note(f"stopped early: {progress.worse} validations in a row were no better")
                break
        finished = not self._stopping
        if not self.run.checkpoints() or checkpoint_step(self.run.checkpoints()[-1]) != progress.step:
            self._save()
        if not finished:
            self.observer.note(f"stopped at step {progress.step}; go on with --resume {self.run.path}")
            return Outcome({}, finished=False)
        after, _ = await self._measure(progress.step, self.final, save=True)
        progress.seconds = time.monotonic() - began
        self.observer.validation(after["sampled"])
        summary = {
            "before": progress.before["sampled"],
            "after": after["sampled"],
            "before_greedy": progress.before["greedy"],
            "after_greedy": after["greedy"],
            "minutes": round(progress.seconds / 60, 2),
            "steps": progress.step,
            "seed": recipe.seed,
            "trajectories": progress.trajectories,
        }
        self.run.write_json(SUMMARY, summary)
        return Outcome(summary, finished=True)

    async def _step(self, step: int) -> dict[str, float]:
        recipe, started = self.recipe, time.perf_counter()
        groups, spare = await self._play(step, self.tasks.at(step, recipe.rollout.groups), 0), list[Group]()
        for extra in range(1, recipe.rollout.resample + 1):
            taught = [varies(group) for group in groups]
            if all(taught):
                break
            mixed = list(compress(groups, taught))
            spare += [group for group, some in zip(groups, taught, strict=True) if not some]
            fresh = self.tasks.at(step, len(groups) - len(mixed), extra=extra)
            groups = mixed + await self._play(step, fresh, extra)
        played = time.perf_counter()
        engine = self.policy.stats()
        if recipe.shuffle_rewards:
            groups = _shuffled(groups, random.Random(f"shuffle/{recipe.seed}/{step}"))
        await self._following.rest()
        learned = self.learner.update(groups, step=step, total_steps=recipe.steps, seed=recipe.seed)
        learned |= await self._following.follow(step + 1, probes_of(groups))
        updated = time.perf_counter()
        # Groups that taught nothing tell of success all the same; without them every pass rate would lean to a half.
        groups += spare
        # What comes back is what is half solved, so only tasks met for the first time say how good the policy is.
        met = self.tasks.observe(groups)
        solved = success_by_kind(met)
        self.curriculum.observe(met)
        self.progress.trajectories += sum(len(group.trajectories) for group in groups)
        if recipe.save_trajectories:
            advantages = batch_credits(groups, self.learner.algorithm)
            self.run.write_groups(step + 1, self.learner.seen.on(groups), advantages=advantages)
        ended = time.perf_counter()
        return {
            **rollout_metrics(groups),
            **{f"success/by/{kind}": rate for kind, rate in solved.items()},
            "groups/in_band": share_in_band(met, recipe.curriculum),
            **self.curriculum.metrics(),
            **self.tasks.metrics(),
            **learned,
            "rollout/tokens_per_s": engine.sampled_tokens / (played - started),
            "rollout/mean_batch": engine.mean_batch,
            "time/step_s": ended - started,
            "time/rollout_s": played - started,
            "time/update_s": updated - played,
            "time/tools_share": tools_share(ended - started, played - started, engine.busy_s, self.policy.shards),
            "memory/rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }

    async def _play(self, step: int, tasks: Sequence[Task], extra: int) -> list[Group]:
        groups = await self.player.play(
            tasks,
            samples=self.recipe.rollout.group_size,
            sampling=self.sampling,
            label=f"{step}/{extra}/",
            seed=seed_of(self.recipe.seed, 1, step, extra),
        )
        refuse_only_faults(groups)
        return groups

    async def _validate(self) -> dict[str, float]:
        """Measure held-out success on the way, and keep count of how often it was no better."""
        found, metrics = await self._measure(self.progress.step, self.validation, save=False, modes=("sampled",))
        mean = sum(found["sampled"].values()) / len(found["sampled"])
        if mean > self.progress.best:
            self.progress.best, self.progress.worse = mean, 0
        else:
            self.progress.worse += 1
        return metrics

    async def _measure(
        self, step: int, tasks: Sequence[Task], *, save: bool, modes: Sequence[str] = ("sampled", "greedy")
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Success by mode and kind, or by mode and split where there are several, and the metrics with all of it."""
        found, metrics = await measure(
            self.player,
            tasks,
            self.sampling,
            self.splits,
            step=step,
            seed=self.recipe.seed,
            run=self.run if save and self.recipe.save_trajectories else None,
            modes=modes,
        )
        self.policy.stats()
        if save:
            self.log.append(step, metrics)
        return found, metrics

    def _header(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        rollout = self.recipe.rollout
        return (
            f"{self.recipe.policy.model}, {size:.1f}M parameters, {self.recipe.learner.algorithm}, "
            f"{rollout.groups} x {rollout.group_size} trajectories a step, seed {self.recipe.seed}"
        )

    def _save(self) -> None:
        """Write a checkpoint: weights in Hugging Face's format, and what else going on needs."""
        with self.run.checkpoint_dir(self.progress.step) as folder:
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            state = {
                "optimizer": self.learner.optimizer.state_dict(),
                "curriculum": self.curriculum.state(),
                "tasks": self.tasks.state(),
                "progress": {name: getattr(self.progress, name) for name in _Progress.__slots__},
                "torch_rng": torch.get_rng_state(),
            }
            torch.save(state, folder / "trainer.pt")
        for old in self.run.checkpoints()[: -self.recipe.keep_checkpoints]:
            shutil.rmtree(old)

    def _restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(
            checkpoint / "trainer.pt", map_location=next(self.model.parameters()).device, weights_only=True
        )
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.curriculum.restore(state["curriculum"])
        self.tasks.restore(state["tasks"])
        self.progress = _Progress(**state["progress"])
        torch.set_rng_state(state["torch_rng"].cpu())
        self.policy.version = self.progress.step


def open_run(path: Path, recipe: TrainRecipe, *, resume: bool) -> Run:
    """A new run directory for a recipe, or with `resume` the one that is there.

    Raises:
        ConfigError: it exists, or with `resume` does not.
    """
    if not resume:
        return Run.create(path, dump(recipe))
    return Run.open(path)


def _shuffled(groups: Sequence[Group], rng: random.Random) -> list[Group]:
    """The same trajectories with the scores of the batch dealt out anew; what was correct stays known.

    A fault of ours keeps its score, which nobody learns from.
    """
    scores = [
        reward.score
        for group in groups
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
        if trajectory.fault is None
    ]
    rng.shuffle(scores)
    dealt = iter(scores)
    return [
        replace(
            group,
            rewards=[
                replace(reward, score=next(dealt)) if trajectory.fault is None else reward
                for trajectory, reward in zip(group.trajectories, group.rewards, strict=True)
            ],
        )
        for group in groups
    ]
