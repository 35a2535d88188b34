"""What verl cannot do of a recipe, refused by name before anything starts."""

from collections.abc import Iterator
from importlib import metadata

from recall.errors import ConfigError
from recall.evaluation.splits import has_splits
from recall.trainers.recipe import TrainRecipe, ValidationSettings

VERSIONS = ((0, 9, 1), (0, 10))
"""verl from the first version on and before the second one; its extension points move between minor versions."""


def check(recipe: TrainRecipe) -> None:
    """Refuse what verl would do otherwise than the recipe says.

    Raises:
        ConfigError: one line that names the first setting, and what would be accepted.
    """
    for setting, problem in (*_tasks(recipe), *_learner(recipe), *_sizes(recipe), *_rest(recipe)):
        raise ConfigError(f"{setting}: engine verl {problem}")


def check_installed() -> None:
    """Refuse an environment without a version of verl that these adapters know.

    Raises:
        ConfigError: verl or its queue is not there, or of another version.
    """
    try:
        installed = metadata.version("verl")
        metadata.version("TransferQueue")
    except metadata.PackageNotFoundError as missing:
        raise ConfigError(
            f"engine verl: {missing.name} is not installed; pip install 'recall[verl]', in an environment of its own"
        ) from None
    numbers = tuple(int(part) for part in installed.split(".")[:3] if part.isdigit())
    low, high = VERSIONS
    if not low <= numbers < high:
        raise ConfigError(f"engine verl: version {installed} is installed; accepted are 0.9.1 and later 0.9 ones")


def _tasks(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    source, by = recipe.tasks.source, recipe.curriculum.by
    endless = source == "synth" or has_splits(source)
    if by not in ("auto", "none") or (by == "auto" and endless):
        yield "curriculum.by", f"takes tasks in order, not by {by!r}; set none"
    if endless and recipe.tasks.revisit:
        yield "tasks.revisit", f"does not come back to tasks, so it cannot be {recipe.tasks.revisit:g}; set 0"
    if recipe.curriculum.levels.start:
        yield "curriculum.levels.start", "does not move levels; leave it out"


def _learner(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    learner, groups = recipe.learner, recipe.rollout.groups
    if learner.final_rate != 1:
        yield (
            "learner.final_rate",
            f"keeps the rate after its rise, and does not let it fall to {learner.final_rate:g}; set 1",
        )
    if learner.warmup_steps and learner.initial_rate:
        yield "learner.initial_rate", f"starts the rise from 0, not from {learner.initial_rate:g}; set 0"
    if groups % learner.minibatches:
        yield (
            "learner.minibatches",
            f"cuts a step into equal parts, and {groups} groups do not make {learner.minibatches}",
        )
    if learner.importance_cap is not None and recipe.verl.mode == "separate_async" and recipe.verl.sync_every > 1:
        yield "learner.importance_cap", "computes it once a step; with verl.sync_every above 1 leave it out"


def _sizes(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    verl, cluster, limits = recipe.verl, recipe.cluster, recipe.rollout.limits
    gpus = cluster.nodes * cluster.gpus_per_node
    if gpus % (verl.tensor_parallel * verl.sequence_parallel) and gpus % verl.tensor_parallel:
        yield "verl.tensor_parallel", f"has {gpus} GPUs, which are no multiple of {verl.tensor_parallel}"
    if gpus % verl.sequence_parallel:
        yield "verl.sequence_parallel", f"has {gpus} GPUs, which are no multiple of {verl.sequence_parallel}"
    if recipe.learner.micro_tokens * verl.sequence_parallel < limits.max_tokens:
        yield (
            "learner.micro_tokens",
            f"puts whole trajectories into a pass, and one may have {limits.max_tokens} tokens (rollout.limits."
            f"max_tokens); {recipe.learner.micro_tokens} on each of {verl.sequence_parallel} GPUs is too small",
        )
    if verl.prompt_tokens is not None and verl.prompt_tokens >= limits.max_tokens:
        yield "verl.prompt_tokens", f"leaves no room for a turn in rollout.limits.max_tokens = {limits.max_tokens}"
    if limits.episode_timeout_s is None:
        yield "rollout.limits.episode_timeout_s", "waits for ever for an episode that hangs; give seconds"
    if (verl.mode == "separate_async") != (verl.rollout_nodes > 0):
        yield "verl.rollout_nodes", "samples on nodes of their own in mode separate_async, and only there"
    if verl.sync_every > 1 and verl.mode != "separate_async":
        yield "verl.sync_every", f"copies the weights after every step in mode {verl.mode}; set 1"


def _rest(recipe: TrainRecipe) -> Iterator[tuple[str, str]]:
    validation, sandbox, cluster = recipe.validation, recipe.sandbox, recipe.cluster
    if recipe.shuffle_rewards:
        yield "shuffle_rewards", "scores episodes one by one, and cannot deal their rewards out anew"
    if recipe.deterministic:
        yield "deterministic", "does not repeat bit for bit; leave it out"
    if validation.patience:
        yield "validation.patience", "does not stop early; set 0"
    if validation.final_tasks not in (validation.tasks, ValidationSettings().final_tasks):
        yield "validation.final_tasks", f"validates on validation.tasks = {validation.tasks} each time; leave it out"
    if recipe.policy.engine != "torch":
        yield "policy.engine", f"samples with what verl.engine names, not by {recipe.policy.engine!r}; leave it out"
    if recipe.policy.lora_rank and recipe.policy.lora_rank > 512:
        yield "policy.lora_rank", "serves adapters up to rank 512"
    if cluster.sandboxes and sandbox.urls:
        yield "cluster.sandboxes", "starts servers or takes those of sandbox.urls, not both"
    if cluster.retrievers and not sandbox.search:
        yield "cluster.retrievers", "needs the index that they serve in sandbox.search"
