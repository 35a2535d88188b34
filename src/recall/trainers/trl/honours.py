"""A recipe as the arguments of TRL's `GRPOConfig`, and what TRL cannot do of it, refused by name."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recall.errors import ConfigError
from recall.evaluation.splits import has_splits
from recall.trainers.recipe import LearnerSettings, TrainRecipe

VERSIONS = ((1, 16), (1, 17))
"""TRL from the first version on and before the second one; `rollout_func` is marked experimental there."""
LOSSES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "grpo": {"loss_type": "grpo", "scale_rewards": "group"},
        "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
        "dapo": {"loss_type": "dapo", "scale_rewards": "group"},
        "gspo": {"loss_type": "grpo", "scale_rewards": "group", "importance_sampling_level": "sequence"},
        "cispo": {"loss_type": "cispo", "scale_rewards": "group"},
    }
)
"""The algorithms that TRL has, as its own arguments."""


def arguments(recipe: TrainRecipe, output: Path, *, processes: int, bfloat16: bool, cpu: bool) -> dict[str, Any]:
    """The arguments of `GRPOConfig`.

    Args:
        recipe: checked by `check`.
        output: where TRL may write.
        processes: that train side by side.
        bfloat16: compute in it.
        cpu: train on the CPU.

    Raises:
        ConfigError: a step does not divide evenly, or `trl.args` sets what the recipe has a setting for.
    """
    learner, rollout, trl = recipe.learner, recipe.rollout, recipe.trl
    whole = rollout.groups * rollout.group_size
    pieces = trl.pass_trajectories * processes * learner.minibatches
    if whole % pieces:
        raise ConfigError(
            f"trl.pass_trajectories: {rollout.groups} groups of {rollout.group_size} do not divide into "
            f"{learner.minibatches} minibatches of passes of {trl.pass_trajectories} on {processes} processes"
        )
    per_step = whole // (trl.pass_trajectories * processes)
    found = {
        "output_dir": str(output),
        "max_steps": recipe.steps * updates_per_step(learner),
        "per_device_train_batch_size": trl.pass_trajectories,
        "gradient_accumulation_steps": per_step // learner.minibatches,
        "steps_per_generation": per_step,
        "num_iterations": learner.epochs,
        "num_generations": rollout.group_size,
        "shuffle_dataset": False,
        "max_completion_length": learner.constant_length
        if learner.algorithm == "dr_grpo"  # where TRL divides by it; how long an episode is our limits say
        else rollout.limits.max_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "learning_rate": learner.learning_rate,
        "weight_decay": learner.weight_decay,
        "adam_beta1": learner.betas[0],
        "adam_beta2": learner.betas[1],
        "max_grad_norm": learner.max_grad_norm,
        "beta": learner.kl,
        "entropy_coef": learner.entropy_coefficient,
        "gradient_checkpointing": trl.gradient_checkpointing,
        "bf16": bfloat16,
        "use_cpu": cpu,
        "seed": recipe.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **loss_arguments(learner),
        **_sampler(recipe),
    }
    if doubled := sorted(found.keys() & trl.args.keys()):
        raise ConfigError(f"trl.args.{doubled[0]}: is set by the recipe's own settings")
    return found | trl.args


def updates_per_step(learner: LearnerSettings) -> int:
    """Optimizer steps of one step of ours."""
    return learner.minibatches * learner.epochs


def loss_arguments(learner: LearnerSettings) -> dict[str, Any]:
    """How TRL computes the loss of an algorithm."""
    algorithm = learner.chosen()
    high = algorithm.clip_high
    if learner.algorithm == "cispo":
        high += 1  # TRL's is the largest weight, ours how far it may be above 1
    return {**LOSSES[learner.algorithm], "epsilon": algorithm.clip_low, "epsilon_high": high}


def _sampler(recipe: TrainRecipe) -> dict[str, Any]:
    trl = recipe.trl
    if trl.sampler == "model":
        return {"use_vllm": False}
    cap = recipe.learner.importance_cap
    found: dict[str, Any] = {
        "use_vllm": True,
        "vllm_mode": trl.sampler,
        "vllm_importance_sampling_correction": cap is not None,
        "vllm_importance_sampling_mode": "token_truncate",
    }
    if cap is not None:
        found["vllm_importance_sampling_clip_max"] = cap
    if trl.sampler == "server":
        return found | {"vllm_server_base_url": trl.server_url}
    return found | {
        "vllm_gpu_memory_utilization": trl.engine_memory,
        "vllm_max_model_length": recipe.rollout.limits.max_tokens,
    }


def check(recipe: TrainRecipe) -> None:
    """Refuse what TRL would do otherwise than the recipe says.

    Raises:
        ConfigError: one line that names the first setting, and what would be accepted.
    """
    for setting, problem in (*_tasks(recipe), *_learner(recipe), *_rest(recipe)):
        raise ConfigError(f"{setting}: engine trl {problem}")


def check_installed() -> None:
    """Refuse an environment without a version of TRL that these adapters know.

    Raises:
        ConfigError: TRL is not there, or of another version.
    """
    try:
        installed = metadata.version("trl")
    except metadata.PackageNotFoundError:
        raise ConfigError("engine trl: trl is not installed; pip install 'recall[trl]'") from None
    low, high = VERSIONS
    if not low <= tuple(int(part) for part in installed.split(".")[:2]) < high:
        raise ConfigError(f"engine trl: version {installed} is installed; accepted are those of 1.16")


def _tasks(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    source, by = recipe.tasks.source, recipe.curriculum.by
    endless = source == "synth" or has_splits(source)
    if by not in ("auto", "none") or (by == "auto" and endless):
        yield "curriculum.by", f"takes tasks in order, not by {by!r}; set none"
    if endless and recipe.tasks.revisit:
        yield "tasks.revisit", f"does not come back to tasks, so it cannot be {recipe.tasks.revisit:g}; set 0"
    if recipe.curriculum.levels.start:
        yield "curriculum.levels.start", "does not move levels; leave it out"
    if recipe.rollout.resample:
        yield "rollout.resample", "does not replace groups without variance; set 0"


def _learner(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    learner = recipe.learner
    if learner.algorithm not in LOSSES:
        learner.chosen()  # a name that nobody knows is refused as such
        yield "learner.algorithm", f"has no {learner.algorithm!r}; accepted are {', '.join(LOSSES)}"
    if learner.micro_tokens != LearnerSettings().micro_tokens:
        yield "learner.micro_tokens", "cuts a step by trajectories; leave it out, and set trl.pass_trajectories"
    if learner.algorithm != "dr_grpo" and learner.constant_length != LearnerSettings().constant_length:
        yield "learner.constant_length", f"divides by it with dr_grpo, not with {learner.algorithm}; leave it out"
    if learner.importance_cap is not None and recipe.trl.sampler == "model":
        yield "learner.importance_cap", "samples with the trained weights; leave it out, or set trl.sampler"


def _rest(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    policy, trl, limits = recipe.policy, recipe.trl, recipe.rollout.limits
    if policy.engine != "torch":
        yield "policy.engine", "takes vLLM by trl.sampler, colocate or server; leave it out"
    if trl.sampler == "server" and not trl.server_url:
        yield "trl.server_url", "needs the address of the server"
    if trl.sampler != "server" and trl.server_url:
        yield "trl.server_url", f"is for trl.sampler = 'server', not {trl.sampler!r}"
    if trl.sampler == "colocate" and trl.args.get("vllm_enable_sleep_mode"):
        yield "trl.args.vllm_enable_sleep_mode", "keeps vLLM awake under our loop; lower trl.engine_memory instead"
    if trl.sampler == "colocate" and trl.args.get("vllm_tensor_parallel_size", 1) != 1:
        yield "trl.args.vllm_tensor_parallel_size", "has one vLLM on each GPU under our loop; leave it out, or serve it"
    if recipe.shuffle_rewards:
        yield "shuffle_rewards", "scores episodes one by one, and cannot deal their rewards out anew"
    if recipe.deterministic and trl.sampler != "model":
        yield "deterministic", "does not repeat bit for bit with vLLM; leave it out"
    if recipe.validation.patience:
        yield "validation.patience", "does not stop early; set 0"
    if limits.episode_timeout_s is None and trl.sampler == "server":
        yield "rollout.limits.episode_timeout_s", "waits for ever for an episode that hangs; give seconds"
