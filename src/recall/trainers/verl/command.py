"""A recipe as verl's own command line: every setting in the words of verl's configuration."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recall.trainers.recipe import TrainRecipe
from recall.trainers.verl.numbered import AGENT

if TYPE_CHECKING:
    from recall.trainers.algorithms import Algorithm

CHECKPOINTS = "verl"
"""The directory of a run with verl's own checkpoints, `global_step_N` each."""
LOOPS = "agent_loops.yaml"
"""The file of a run that names our agent loop to verl."""

_SCALED = ("grpo", "dapo", "gspo", "cispo")
"""The advantages that are divided by the standard deviation of their group."""
UNCLIPPED = 1e6
"""A bound of ratios that none reaches."""
_HYDRA_WORDS = ("true", "false", "null", "nan", "inf")
"""What Hydra takes for something else than text, whatever its case."""


@dataclass(frozen=True, slots=True)
class Command:
    """What has to be run, and where."""

    arguments: tuple[str, ...]
    """The program and its arguments."""
    env: Mapping[str, str]
    """Environment variables for it, beside those that are there."""

    def text(self) -> str:
        """The command as a shell takes it, one argument a line."""
        env = [f"{name}={shlex.quote(value)}" for name, value in sorted(self.env.items())]
        words = [" ".join([*env, *map(shlex.quote, self.arguments[:3])]), *map(shlex.quote, self.arguments[3:])]
        return " \\\n    ".join(words)


def command(
    recipe: TrainRecipe,
    run: Path,
    model: Path,
    *,
    python: str,
    ray_address: str = "",
    metrics: Path | None = None,
    resumed: bool = False,
) -> Command:
    """The command that trains by a recipe.

    Args:
        recipe: passed `honours.check`.
        run: the run directory, absolute.
        model: the directory of the model, absolute.
        python: the interpreter that has verl.
        ray_address: the cluster to join; empty lets verl start Ray on this machine.
        metrics: the file that verl's logger writes; by default one in the run directory.
        resumed: there is a checkpoint to go on from, so success before training is known already.
    """
    env = {"VERL_FILE_LOGGER_PATH": str(metrics or run / "verl_metrics-1.jsonl"), **recipe.verl.env}
    settings = {
        **_data(recipe, run),
        **_model(recipe, model),
        **_actor(recipe),
        **_algorithm(recipe),
        **_rollout(recipe, run),
        **_trainer(recipe, run),
        "trainer.val_before_train": not resumed,
        **_ray(env, ray_address),
    }
    overrides = [word for word in recipe.verl.overrides if not (ray_address and _sizes_ray(word))]
    last_words = {override.partition("=")[0].lstrip("+~") for override in overrides}
    written = [f"{name}={_value(value)}" for name, value in settings.items() if name.lstrip("+") not in last_words]
    arguments = (python, "-m", "verl.trainer.main_ppo", *written, *overrides)
    return Command(arguments, {"HYDRA_FULL_ERROR": "1", **env})


def _sizes_ray(override: str) -> bool:
    """Whether it says how Ray is started, which a cluster that is there already refuses to be told."""
    name = override.lstrip("+~")
    return name.startswith("ray_kwargs.ray_init.") and not name.startswith("ray_kwargs.ray_init.runtime_env.")


def loops_text(run: Path) -> str:
    """The file that names our agent loop to verl; JSON is YAML."""
    return json.dumps([{"name": AGENT, "_target_": "recall.trainers.verl.loop.RecallAgentLoop", "run": str(run)}])


def _value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z/][\w:/.@-]*", value) and value.lower() not in _HYDRA_WORDS
        return value if plain else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(recipe: TrainRecipe, run: Path) -> dict[str, Any]:
    prompt, response = lengths(recipe)
    return {
        "data.train_files": ["train"],
        "data.val_files": ["validation"],
        "data.custom_cls.path": "pkg://recall.trainers.verl.dataset",
        "data.custom_cls.name": "TaskDataset",
        "+data.recall_run": str(run),
        "data.train_batch_size": recipe.rollout.groups,
        "data.max_prompt_length": prompt,
        "data.max_response_length": response,
        "data.shuffle": False,  # the tasks come in an order of their own
        "data.seed": recipe.seed,
        "data.dataloader_num_workers": 0,
    }


def lengths(recipe: TrainRecipe) -> tuple[int, int]:
    """The most tokens of a prompt and of what follows it; together those of an episode."""
    limits = recipe.rollout.limits
    prompt = recipe.verl.prompt_tokens or max(1, limits.max_tokens - limits.max_turn_tokens)
    return prompt, limits.max_tokens - prompt


def _model(recipe: TrainRecipe, model: Path) -> dict[str, Any]:
    policy = recipe.policy
    found: dict[str, Any] = {
        "actor_rollout_ref.model.path": str(model),
        "actor_rollout_ref.model.enable_gradient_checkpointing": recipe.verl.gradient_checkpointing,
        "actor_rollout_ref.model.use_remove_padding": True,
    }
    if policy.lora_rank:
        found |= {
            "actor_rollout_ref.model.lora_rank": policy.lora_rank,
            "actor_rollout_ref.model.lora_alpha": 2 * policy.lora_rank,
            "actor_rollout_ref.model.target_modules": "all-linear",
        }
    return found


def _actor(recipe: TrainRecipe) -> dict[str, Any]:
    learner, verl, actor = recipe.learner, recipe.verl, "actor_rollout_ref.actor"
    dtype = "bfloat16" if recipe.policy.dtype == "auto" else recipe.policy.dtype
    found: dict[str, Any] = {
        f"{actor}.strategy": verl.strategy,
        f"{actor}.optim.lr": learner.learning_rate,
        f"{actor}.optim.lr_warmup_steps": learner.warmup_steps,
        f"{actor}.optim.lr_scheduler_type": "constant",
        f"{actor}.optim.weight_decay": learner.weight_decay,
        f"{actor}.optim.betas": list(learner.betas),
        f"{actor}.optim.clip_grad": learner.max_grad_norm,
        f"{actor}.grad_clip": learner.max_grad_norm,
        f"{actor}.ppo_mini_batch_size": recipe.rollout.groups // learner.minibatches,
        f"{actor}.ppo_epochs": learner.epochs,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": learner.micro_tokens,
        f"{actor}.ulysses_sequence_parallel_size": verl.sequence_parallel,
        f"{actor}.entropy_coeff": learner.entropy_coefficient,
        f"{actor}.calculate_entropy": True,
        f"{actor}.data_loader_seed": recipe.seed,
        f"{actor}.fsdp_config.dtype": dtype,
        f"{actor}.fsdp_config.seed": recipe.seed,
        f"{actor}.fsdp_config.param_offload": verl.offload_weights,
        f"{actor}.fsdp_config.optimizer_offload": verl.offload_optimizer,
        f"{actor}.use_kl_loss": learner.kl > 0,
    }
    whole = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    if dtype == "float32":  # otherwise verl computes in bfloat16 whatever the weights are
        found[f"+{actor}.fsdp_config.mixed_precision"] = whole
    if learner.kl:
        ref = "actor_rollout_ref.ref"
        if dtype == "float32":
            found[f"+{ref}.fsdp_config.mixed_precision"] = whole
        found |= {
            f"{actor}.kl_loss_coef": learner.kl,
            f"{actor}.kl_loss_type": "low_var_kl",  # k3, Schulman 2020
            f"{ref}.log_prob_max_token_len_per_gpu": _logprob_tokens(recipe),
            f"{ref}.fsdp_config.param_offload": verl.offload_reference,
            f"{ref}.fsdp_config.dtype": dtype,
        }
    return found


def _algorithm(recipe: TrainRecipe) -> dict[str, Any]:
    """How credit, ratio, clip and average of our algorithms are said in verl's words."""
    named, actor = recipe.learner.chosen(), "actor_rollout_ref.actor"
    averages = {"sequence": "seq-mean-token-mean", "token": "token-mean", "constant": "seq-mean-token-sum-norm"}
    mode = {"detached": "cispo"}.get(named.clip, "gspo" if named.ratio == "sequence" else "vanilla")
    clipped = named.clip != "none"
    found: dict[str, Any] = {
        "algorithm.adv_estimator": _estimator(named),
        "algorithm.norm_adv_by_std_in_grpo": named.advantage in _SCALED,
        "algorithm.use_kl_in_reward": False,
        f"{actor}.policy_loss.loss_mode": mode,
        f"{actor}.clip_ratio_low": named.clip_low if clipped else 1.0,
        f"{actor}.clip_ratio_high": named.clip_high if clipped else UNCLIPPED,
        f"{actor}.clip_ratio_c": UNCLIPPED,  # a third bound, for negative advantages, that none of them has
        f"{actor}.loss_agg_mode": averages[named.average],
    }
    if named.average == "constant":
        found[f"{actor}.loss_scale_factor"] = recipe.learner.constant_length
    if recipe.learner.importance_cap is not None:
        found |= {
            "algorithm.rollout_correction.rollout_is": "token",
            "algorithm.rollout_correction.rollout_is_threshold": recipe.learner.importance_cap,
        }
    return found


def _estimator(named: "Algorithm") -> str:
    """Whose advantages verl computes; `norm_adv_by_std_in_grpo` tells GRPO's from Dr. GRPO's."""
    if named.whiten:
        return "reinforce_plus_plus" if named.advantage == "none" else "reinforce_plus_plus_baseline"
    return "rloo" if named.advantage == "rloo" else "grpo"


def _rollout(recipe: TrainRecipe, run: Path) -> dict[str, Any]:
    verl, rollout, where = recipe.verl, recipe.rollout, "actor_rollout_ref.rollout"
    limits = rollout.limits
    found: dict[str, Any] = {
        f"{where}.name": verl.engine,
        f"{where}.n": rollout.group_size,
        f"{where}.temperature": rollout.temperature,
        f"{where}.top_p": rollout.top_p,
        f"{where}.calculate_log_probs": True,
        f"{where}.seed": recipe.seed,
        f"{where}.dtype": "bfloat16" if recipe.policy.dtype == "auto" else recipe.policy.dtype,
        f"{where}.tensor_model_parallel_size": verl.tensor_parallel,
        f"{where}.gpu_memory_utilization": verl.engine_memory,
        f"{where}.max_model_len": limits.max_tokens,
        f"{where}.max_num_seqs": recipe.policy.max_batch,
        f"{where}.max_num_batched_tokens": max(8192, limits.max_tokens),
        f"{where}.log_prob_max_token_len_per_gpu": _logprob_tokens(recipe),
        f"{where}.agent.num_workers": verl.agent_workers,
        f"{where}.agent.default_agent_loop": AGENT,
        f"{where}.agent.agent_loop_config_path": str(run / LOOPS),
        f"{where}.val_kwargs.do_sample": True,
        f"{where}.val_kwargs.temperature": rollout.temperature,
        f"{where}.val_kwargs.top_p": rollout.top_p,
        f"{where}.val_kwargs.n": 1,
    }
    if verl.mode == "separate_async":
        found |= {
            "actor_rollout_ref.hybrid_engine": False,
            f"{where}.nnodes": verl.rollout_nodes,
            f"{where}.n_gpus_per_node": verl.rollout_gpus_per_node,
            f"{where}.checkpoint_engine.backend": "nccl",
        }
    return found


def _trainer(recipe: TrainRecipe, run: Path) -> dict[str, Any]:
    verl, cluster, every = recipe.verl, recipe.cluster, recipe.validation.every
    mode = "trainer.v1.sampler"
    sampler = "MeasuredReplayBuffer" if verl.mode == "sync" else "MeasuredAsyncReplayBuffer"
    extra: dict[str, Any] = {"group_size": recipe.rollout.group_size}
    found: dict[str, Any] = {
        "trainer.v1.trainer_mode": verl.mode,
        f"{mode}.custom_sampler.path": "pkg://recall.trainers.verl.sampler",
        f"{mode}.custom_sampler.name": sampler,
        f"{mode}.max_off_policy_threshold": verl.max_staleness,
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus_per_node,
        "trainer.logger": ["console", "file"],
        "trainer.project_name": recipe.tracking.project,
        "trainer.experiment_name": recipe.tracking.name or run.name,
        "trainer.total_training_steps": recipe.steps,
        "trainer.total_epochs": 1,
        "trainer.test_freq": every or recipe.steps,
        "trainer.save_freq": recipe.checkpoint_every or recipe.steps,
        "trainer.max_actor_ckpt_to_keep": recipe.keep_checkpoints,
        "trainer.default_local_dir": str(run / CHECKPOINTS),
        "trainer.resume_mode": "auto",
        "hydra.run.dir": str(run / "hydra"),
    }
    if verl.mode == "separate_async":
        found["trainer.v1.separate_async.parameter_sync_step"] = verl.sync_every
    if recipe.rollout.resample:
        found |= {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "reward"}
        extra["filter_groups_metric"] = "reward"
        if verl.mode == "sync":
            extra |= {"train_batch_size": recipe.rollout.groups, "gen_batch_size": 1}
    return found | {f"+{mode}.sampler_kwargs.{name}": value for name, value in extra.items()}


def _ray(env: Mapping[str, str], address: str) -> dict[str, Any]:
    """Where Ray is, and the environment of its processes, which that of a driver does not reach on another machine."""
    found: dict[str, Any] = {"+ray_kwargs.ray_init.address": address} if address else {}
    return found | {f"+ray_kwargs.ray_init.runtime_env.env_vars.{name}": value for name, value in env.items()}


def _logprob_tokens(recipe: TrainRecipe) -> int:
    return recipe.verl.logprob_tokens or 2 * recipe.learner.micro_tokens
