"""The TRL trainer: TRL's `GRPOTrainer` learns from what our loop plays, and leaves a run directory like any other.

With several processes (`accelerate launch`) each plays its share of a step; the first one writes.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from recall.errors import ConfigError, RolloutError
from recall.evaluation.local import LocalPlayer, load
from recall.evaluation.play import Player
from recall.evaluation.splits import has_splits
from recall.policy.base import Policy
from recall.policy.openai import OpenAIPolicy
from recall.policy.stopping import StopAtText
from recall.store import Run
from recall.trainers.local import SUMMARY, Observer, Outcome
from recall.trainers.measure import measure
from recall.trainers.metrics import MetricsLog, rollout_metrics
from recall.trainers.recipe import TrainRecipe
from recall.trainers.shaping import reward_of
from recall.trainers.tasks import check_room, first_of_each, validation_tasks
from recall.trainers.trl.honours import arguments, check, check_installed, updates_per_step
from recall.trainers.trl.rollout import Rollout, Share, prompt_for, reward
from recall.trainers.trl.waves import WavePolicy, colocated
from recall.trainers.verl.numbered import tasks_of
from recall.types import Group, Sampling

CHECKPOINTS = "trl"
"""The directory of a run that TRL keeps its own checkpoints in."""
NAMES = {
    "loss": "policy/loss",
    "entropy": "policy/entropy",
    "clip_ratio/region_mean": "policy/clip_fraction",
    "kl": "policy/kl_reference",
    "grad_norm": "policy/grad_norm",
    "learning_rate": "learner/learning_rate",
    "sampling/sampling_logp_difference/max": "policy/logprob_gap_max",
    "sampling/sampling_logp_difference/mean": "policy/logprob_gap_mean",
    "frac_reward_zero_std": "groups/zero_variance_share",
}
"""What TRL logs, under the names that the local trainer uses; the rest stays under TRL's, in `trl/`."""


class TrlTrainer:
    """Trains one policy by one recipe."""

    def __init__(
        self,
        recipe: TrainRecipe,
        run: Run | None,
        observer: Observer,
        *,
        path: Path | None = None,
        resume: bool = False,
    ) -> None:
        """Load everything that can fail for the user's reasons before anything long starts.

        Args:
            recipe: what to do.
            run: the run directory; None in all processes but the first.
            observer: watches the run.
            path: of the run directory, in the processes without a run.
            resume: go on from TRL's last checkpoint in the run.

        Raises:
            ConfigError: TRL is not there or cannot do what the recipe says, the model, the tasks or a setting will not
                do, or there is nothing to resume.
        """
        check(recipe)
        check_installed()
        self.recipe, self.run, self.observer, self._resume = recipe, run, observer, resume
        self._shared = path or Path.cwd()
        if resume and run is not None and (run.path / SUMMARY).exists():
            raise ConfigError(f"{run.path}: the run is finished; there is nothing to resume")
        self.log = None if run is None else MetricsLog(run, tensorboard=recipe.tensorboard, recipe=recipe)
        torch.manual_seed(recipe.seed)  # a new adapter starts from random weights
        loaded = load(recipe.policy)
        self.model, self.tokenizer, self.renderer = loaded.model, loaded.tokenizer, loaded.renderer
        self._loaded = loaded
        self._local = LocalPlayer(
            loaded,
            reward=reward_of(recipe),
            limits=recipe.rollout.limits,
            sandbox=recipe.sandbox,
            max_batch=recipe.policy.max_batch,
            deterministic=recipe.deterministic,
        )
        by_split = has_splits(recipe.tasks.source)
        self.splits = recipe.validation.splits if by_split else (recipe.validation.split,)
        tasks = validation_tasks(recipe, max(recipe.validation.tasks, recipe.validation.final_tasks))
        self.validation = first_of_each(tasks, recipe.validation.tasks, by_split=by_split)
        self.final = first_of_each(tasks, recipe.validation.final_tasks, by_split=by_split)
        check_room(
            [*self.validation, *self.final],
            self.renderer,
            recipe.rollout.limits,
            self.model.config.get_text_config().max_position_embeddings,
        )
        self._count, task = tasks_of(recipe, "train", self.renderer)
        self.sampling = Sampling(
            recipe.rollout.temperature, recipe.rollout.top_p, recipe.rollout.limits.max_turn_tokens
        )
        self.rollout = Rollout(
            self._player,
            lambda name: task(int(name)),
            self.sampling,
            eos_token_id=min(self.renderer.stop_token_ids),
            before=self._moved,
            seed=recipe.seed,
        )
        self.stopping = False
        """Whether to end after the step under way."""
        self._trajectories = 0
        self._found: dict[str, float] = {}

    def request_stop(self) -> None:
        """Finish the step under way, write a checkpoint, and end."""
        self.stopping = True

    def train(self) -> Outcome:
        """Run the recipe to its end, or to a requested stop.

        Raises:
            ConfigError: TRL refuses an argument, or shards the weights.
            RolloutError: every episode of a step failed for reasons of ours.
        """
        trainer = self._trl()
        began = time.monotonic()
        try:
            before = self._before()
            self.observer.baseline(before.get("sampled", {}))
            done, checkpoint = self._last_checkpoint() if self._resume else (0, None)
            if self._resume and self.run is not None:
                self.run.truncate_after(done)
            self.observer.start(self.recipe.steps, self._header(), done=done)
            trainer.train(resume_from_checkpoint=checkpoint)
            step = trainer.state.global_step // updates_per_step(self.recipe.learner)
            if step < self.recipe.steps:
                self.observer.note(f"stopped at step {step}; go on with --resume {self.run.path if self.run else ''}")
                return Outcome({}, finished=False)
            self._save(trainer, step)
            after = self._measure(step, self.final, save=True)
            self.observer.validation(after.get("sampled", {}))
            summary = {
                "before": before.get("sampled", {}),
                "after": after.get("sampled", {}),
                "before_greedy": before.get("greedy", {}),
                "after_greedy": after.get("greedy", {}),
                "minutes": round((time.monotonic() - began) / 60, 2),
                "steps": step,
                "seed": self.recipe.seed,
                "trajectories": self._trajectories,
            }
            if self.run is not None:
                self.run.write_json(SUMMARY, summary)
            return Outcome(summary, finished=True)
        finally:
            self.rollout.run(self._close())
            self.rollout.close()
            if self.log is not None:
                self.log.close()

    async def _close(self) -> None:
        await self._local.__aexit__(None, None, None)

    def _trl(self) -> Any:
        """TRL's trainer, made of the recipe."""
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from datasets import Dataset
        from transformers.trainer_callback import PrinterCallback
        from trl import GRPOConfig, GRPOTrainer

        recipe = self.recipe
        settings = arguments(
            recipe,
            self._output(),
            processes=_processes(),
            bfloat16=self._loaded.dtype == torch.bfloat16,
            cpu=self._loaded.device.type == "cpu",
        )
        every = recipe.checkpoint_every * updates_per_step(recipe.learner)
        if every:
            settings |= {"save_strategy": "steps", "save_steps": every, "save_total_limit": recipe.keep_checkpoints}

        class Scheduled(GRPOTrainer):  # type: ignore[misc]
            """TRL's trainer with the learning rate of the recipe."""

            def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
                scheduler: Any = getattr(self, "lr_scheduler", None)
                if scheduler is None:
                    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, _rate(recipe))
                self.lr_scheduler = scheduler
                return scheduler

        rows = [{"prompt": prompt_for(str(number))} for number in range(self._count)]
        try:
            trainer = Scheduled(
                model=self.model,
                reward_funcs=reward,
                args=GRPOConfig(**settings),
                train_dataset=Dataset.from_list(rows),
                processing_class=self.tokenizer,
                rollout_func=self.rollout,
                callbacks=[_callback(self)],
            )
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(f"engine trl: {(str(error).strip().splitlines() or [repr(error)])[0]}") from error
        trainer.remove_callback(PrinterCallback)
        if trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and _zero_stage(trainer) == 3):
            raise ConfigError(
                "engine trl: our loop samples with whole weights; take ZeRO stage 1 or 2, or --engine verl"
            )
        return trainer

    def _player(self, trainer: Any) -> Player:
        """What plays: our engine over the trained weights, or TRL's vLLM."""
        kind, stops = self.recipe.trl.sampler, sorted(self.renderer.stop_token_ids)
        if kind == "model":
            return self._local.player
        policy: Policy
        if kind == "colocate":
            policy = WavePolicy(colocated(trainer.vllm_generation.llm, stops))
        else:
            end = self.renderer.turn("")[-1]
            client = getattr(trainer.vllm_generation, "vllm_client", None)  # of the first process only
            policy = OpenAIPolicy(
                f"{self.recipe.trl.server_url.rstrip('/')}/v1",
                self.recipe.policy.model if client is None else client.model,
                stop_token_ids=[end, *sorted(self.renderer.stop_token_ids - {end})],
            )
        texts = self.renderer.stop_texts
        return replace(self._local.player, policy=StopAtText(policy, self.renderer.decode, texts) if texts else policy)

    def _moved(self, global_step: int) -> None:
        """The weights are those after so many optimizer steps."""
        self._local.policy.version = global_step // updates_per_step(self.recipe.learner)

    def _before(self) -> dict[str, dict[str, float]]:
        """Success before training, of a run that goes on as it was found then."""
        path = None if self.run is None else self.run.path / CHECKPOINTS / "before.json"
        if self._resume and path is not None and path.exists():
            known: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
            return known
        found = self._measure(0, self.final, save=True)
        if self.run is not None:
            self.run.write_json(f"{CHECKPOINTS}/before.json", found)
        return found

    def _measure(self, step: int, tasks: Sequence[Any], *, save: bool) -> dict[str, dict[str, float]]:
        """Success of the model as it is, by mode and kind; nothing in all processes but the first."""
        if self.run is None or self.log is None:
            return {}
        self._local.policy.version = step
        keep = self.run if save and self.recipe.save_trajectories else None
        found: dict[str, dict[str, float]]
        found, self._found = self.rollout.run(
            measure(
                self._local.player,
                tasks,
                self.sampling,
                self.splits,
                step=step,
                seed=self.recipe.seed,
                run=keep,
                modes=("sampled", "greedy") if save else ("sampled",),
            )
        )
        if save:
            self.log.append(step, self._found)
        return found

    def learned(self, global_step: int, logged: Mapping[str, float], seconds: float) -> None:
        """Write down one step of ours, when its last optimizer step is done."""
        step, share = global_step // updates_per_step(self.recipe.learner), self.rollout.last
        groups = _gathered(share)
        if self.run is None or self.log is None:
            return
        self._trajectories += sum(len(group.trajectories) for group in groups)
        if self.recipe.save_trajectories:
            self.run.write_groups(step, groups)
        metrics = {**rollout_metrics(groups), **our_names(logged), "time/step_s": seconds}
        every = self.recipe.validation.every
        if every and step % every == 0 and step < self.recipe.steps:
            self._measure(step, self.validation, save=False)
            metrics |= self._found
        self.log.append(step, metrics)
        self.observer.step(metrics | {"step": float(step)})

    def _save(self, trainer: Any, step: int) -> None:
        """Write the final weights in Hugging Face's format; every process takes part."""
        if self.run is None:
            return
        model = trainer.accelerator.unwrap_model(trainer.model)
        with self.run.checkpoint_dir(step) as folder:
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def _last_checkpoint(self) -> tuple[int, str]:
        """The step of TRL's last checkpoint, and where it is.

        Raises:
            ConfigError: there is none.
        """
        found = []
        for path in self._output().glob("checkpoint-*"):
            with suppress(ValueError):
                found.append((int(path.name.removeprefix("checkpoint-")), str(path)))
        if not found:
            raise ConfigError("--resume: TRL has left no checkpoint yet")
        updates, path_of_last = max(found)
        return updates // updates_per_step(self.recipe.learner), path_of_last

    def _output(self) -> Path:
        return (self.run.path if self.run else self._shared) / CHECKPOINTS

    def _header(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        rollout = self.recipe.rollout
        return (
            f"{self.recipe.policy.model}, {size:.1f}M parameters, {self.recipe.learner.algorithm} on TRL, "
            f"{rollout.groups} x {rollout.group_size} trajectories a step, seed {self.recipe.seed}"
        )


def our_names(logged: Mapping[str, float]) -> dict[str, float]:
    """TRL's metrics under our names, those that have none under `trl/`."""
    return {
        NAMES.get(name, f"trl/{name}"): float(value) for name, value in logged.items() if isinstance(value, int | float)
    }


def _callback(owner: TrlTrainer) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        """Puts what TRL logs of optimizer steps together to steps of ours, and passes on a wish to stop."""

        def __init__(self) -> None:
            self._logged: list[Mapping[str, float]] = []
            self._since = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not logs or "loss" not in logs:
                return
            self._logged.append({name: value for name, value in logs.items() if isinstance(value, int | float)})
            if state.global_step % updates_per_step(owner.recipe.learner):
                return
            now = time.perf_counter()
            owner.learned(state.global_step, _means(self._logged), now - self._since)
            self._logged, self._since = [], time.perf_counter()
            self._stop(control)

        def _stop(self, control: Any) -> None:
            if owner.stopping:
                control.should_training_stop = control.should_save = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if state.global_step % updates_per_step(owner.recipe.learner) == 0:
                self._stop(control)
            return control

    return Steps()


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _rate(recipe: TrainRecipe) -> Any:
    """The share of the learning rate at an optimizer step."""
    updates = updates_per_step(recipe.learner)
    return lambda update: recipe.learner.rate(update // updates, recipe.steps) / recipe.learner.learning_rate


def _gathered(share: Share | None) -> list[Group]:
    """What all processes played, groups that were split among them put together."""
    if share is None:
        raise RolloutError("TRL learned without having called the loop")
    if _processes() == 1:
        return share.groups
    from accelerate.utils import gather_object  # type: ignore[import-untyped]

    whole: dict[str, Group] = {}
    for group in gather_object(share.groups):
        known = whole.get(group.task.id)
        whole[group.task.id] = group if known is None else _joined(known, group)
    return list(whole.values())


def _joined(one: Group, other: Group) -> Group:
    return Group(one.task, [*one.trajectories, *other.trajectories], [*one.rewards, *other.rewards])


def _processes() -> int:
    from accelerate import PartialState  # type: ignore[import-untyped]

    return int(PartialState().num_processes)


def _zero_stage(trainer: Any) -> int:
    plugin = trainer.accelerator.state.deepspeed_plugin
    return int(plugin.zero_stage) if plugin is not None else 0
