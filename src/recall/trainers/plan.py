"""Whether a recipe fits some GPUs, before any are had: memory by part, tokens and load of a step. Arithmetic only.

What is counted exactly are weights, gradients, moments and caches. Activations and logits are counted by tensor, which
is near; what the libraries themselves take is `LIBRARIES_GIB`, a guess.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from recall.errors import ConfigError
from recall.trainers.recipe import TrainRecipe
from recall.trainers.size import BF16, FP32, ModelSize, size_of
from recall.trainers.trl.honours import check as check_trl
from recall.trainers.verl.honours import check

GIB = 1 << 30
LIBRARIES_GIB = 3.0
"""A CUDA context, buffers of communication, and what is lost between allocations."""
ENGINE_OWN_GIB = 2.0
"""What a sampling engine takes of its share beside weights and cache: graphs and activations."""
SESSION_MB = 3.0
"""Memory of an open sandbox session (docs/benchmarks.md: 1.7 to 2.9)."""
_MOMENTS = 2 * FP32
_VERL_LOGITS = BF16 + FP32 + FP32
"""Bytes of one logit in verl's update: itself, a float32 softmax for the entropy, a gradient."""
_LOCAL_LOGITS = BF16 + 3 * FP32
"""Bytes of one logit in the local trainer's: itself, in float32, log-softmax, a gradient."""


@dataclass(frozen=True, slots=True)
class Machines:
    """What there is."""

    gpus: int
    """GPUs that train."""
    gpu_gib: float
    """Memory of each, GiB."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What a GPU holds at one time."""

    name: str
    parts: Mapping[str, float]
    """GiB by part."""

    @property
    def total(self) -> float:
        """GiB of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run takes."""

    size: ModelSize
    machines: Machines
    phases: tuple[Phase, ...]
    """At different times, so their totals do not add up."""
    step: Mapping[str, float]
    """Counts of one step, by what they count."""
    load: Mapping[str, float]
    """What sandboxes, retrievers, hosts and disks have to bear."""
    problems: tuple[str, ...] = field(default=())
    """What will not fit, each naming a setting to change; empty when all does."""


def plan(recipe: TrainRecipe, machines: Machines) -> Plan:
    """Count what a recipe takes on some GPUs.

    Raises:
        ConfigError: the engine cannot do what the recipe says, or the model's size is unknown.
    """
    size = size_of(recipe.policy.model)
    if recipe.engine == "verl":
        cluster = recipe.cluster.model_copy(update=_spread(machines.gpus, recipe.cluster.gpus_per_node))
        recipe = recipe.model_copy(update={"cluster": cluster})
        check(recipe)
        phases = _on_verl(recipe, size, machines)
    elif recipe.engine == "trl":
        check_trl(recipe)
        phases = _on_trl(recipe, size, machines)
    else:
        phases = _here(recipe, size, machines)
    step = _step(recipe, size, machines)
    problems = (*_overfull(phases, machines), *_engine_problems(recipe, size, machines, step))
    return Plan(size, machines, phases, step, _load(recipe, size, step), problems)


def _spread(gpus: int, per_node: int) -> dict[str, int]:
    nodes = ceil(gpus / per_node)
    return {"nodes": nodes, "gpus_per_node": gpus // nodes if gpus % nodes == 0 else gpus}


def _trained(recipe: TrainRecipe, size: ModelSize) -> int:
    """Parameters that are trained."""
    return size.adapter(recipe.policy.lora_rank) if recipe.policy.lora_rank else size.parameters


def _on_verl(recipe: TrainRecipe, size: ModelSize, machines: Machines) -> tuple[Phase, ...]:
    """FSDP: weights, gradients and moments in float32, a share on each GPU; layers are gathered one by one."""
    verl, gpus, trained = recipe.verl, machines.gpus, _trained(recipe, size)
    adapter = trained if recipe.policy.lora_rank else 0
    wide = _compute_bytes(recipe) / BF16
    weights = FP32 * (size.parameters + adapter) / gpus
    gathered = wide * BF16 * (2 * size.layer_parameters + size.embedding * (1 if size.tied else 2))
    reference = FP32 * size.parameters / gpus
    has_copy = recipe.learner.kl > 0 and not adapter and not verl.offload_reference
    update_tokens = _pass_tokens(recipe, machines, recipe.learner.micro_tokens)
    score_tokens = _pass_tokens(recipe, machines, verl.logprob_tokens or 2 * recipe.learner.micro_tokens)
    kept = size.activations_per_token(checkpointing=verl.gradient_checkpointing)
    one_layer = size.activations_per_token(checkpointing=True)
    resident = {"reference": reference if has_copy else 0.0}
    engine = verl.engine_memory * machines.gpu_gib * GIB
    separate, stays = verl.mode == "separate_async", _engine_stays(recipe)
    update = _phase(
        "update",
        {"engine": engine if stays and not separate else 0.0, "weights": weights, "gradients": FP32 * trained / gpus}
        | {"moments": _MOMENTS * trained / gpus, "gathered layers": gathered, **resident}
        | {"activations": update_tokens * wide * kept, "logits": update_tokens * size.vocabulary * _VERL_LOGITS},
    )
    moments = 0.0 if verl.offload_optimizer else _MOMENTS * trained / gpus
    score = _phase(
        "score",
        {"engine": engine if stays and not separate else 0.0, "weights": weights, "moments": moments}
        | {"gathered layers": gathered, **resident, "activations": score_tokens * wide * one_layer / size.layers}
        | {"logits": score_tokens * size.vocabulary * (BF16 + FP32)},
    )
    held = {} if separate else {"weights": 0.0 if verl.offload_weights else weights, "moments": moments, **resident}
    return _phase("sample", {"engine": engine, **held}), score, update


def _here(recipe: TrainRecipe, size: ModelSize, machines: Machines) -> tuple[Phase, ...]:
    """The local trainer: everything on one GPU, what is trained in float32, the base of an adapter in bfloat16."""
    policy, rollout, trained = recipe.policy, recipe.rollout, _trained(recipe, size)
    wide = _compute_bytes(recipe) / BF16
    weights, copy = _whole(recipe, size)
    held = {
        "weights": float(weights),
        "moments": float(_MOMENTS * trained),
        "reference": float(weights if recipe.learner.kl else 0),
    }
    longest = rollout.limits.max_tokens  # a longer trajectory is computed in one pass all the same
    tokens = min(max(recipe.learner.micro_tokens, longest), rollout.groups * rollout.group_size * longest)
    if policy.engine == "vllm":
        engine = {"engine": policy.vllm.gpu_memory * machines.gpu_gib * GIB}
        stays = policy.vllm.sleep is False
    else:
        at_once = min(policy.max_batch, rollout.groups * rollout.group_size)
        engine = {"copy to sample with": float(copy)}
        engine["cache"] = at_once * rollout.limits.max_tokens * size.cache_per_token * wide
        stays = False
    update = {
        **(engine if stays else {}),
        **held,
        "gradients": float(FP32 * trained),
        "copy to compute with": float(copy),
        "activations": tokens * wide * size.activations_per_token(checkpointing=False),
        "logits": float(tokens * size.vocabulary * _LOCAL_LOGITS),
    }
    return _phase("sample", {**engine, **held}), _phase("update", update)


def _whole(recipe: TrainRecipe, size: ModelSize) -> tuple[int, int]:
    """Bytes of the weights where one GPU holds them all, and of a copy of them in the type that is computed in."""
    compute, trained = _compute_bytes(recipe), _trained(recipe, size)
    if recipe.policy.lora_rank:
        return compute * size.parameters + FP32 * trained, 0
    return FP32 * size.parameters, 0 if compute == FP32 else BF16 * size.parameters


def _on_trl(recipe: TrainRecipe, size: ModelSize, machines: Machines) -> tuple[Phase, ...]:
    """TRL: a process on each GPU with all weights; what else is whole too, but for what DeepSpeed's ZeRO shares out.

    ZeRO 1 shares out the moments, ZeRO 2 the gradients too (Rajbhandari et al. 2020, arXiv:1910.02054).
    """
    rollout, trl, gpus, trained = recipe.rollout, recipe.trl, machines.gpus, _trained(recipe, size)
    stage, wide = _zero_stage(recipe), _compute_bytes(recipe) / BF16
    adapter = bool(recipe.policy.lora_rank)
    weights, copy = _whole(recipe, size)
    held = {
        "weights": float(weights),
        "moments": _MOMENTS * trained / (gpus if stage >= 1 else 1),
        "reference": float(weights if recipe.learner.kl and not adapter else 0),
    }
    engine: dict[str, float] = {}
    if trl.sampler == "colocate":
        engine["engine"] = trl.engine_memory * machines.gpu_gib * GIB
    elif trl.sampler == "model":
        at_once = min(recipe.policy.max_batch, ceil(rollout.groups * rollout.group_size / gpus))
        engine["copy to sample with"] = float(copy)
        engine["cache"] = at_once * rollout.limits.max_tokens * size.cache_per_token * wide
    tokens = trl.pass_trajectories * rollout.limits.max_tokens
    update = {
        **({"engine": engine["engine"]} if "engine" in engine else {}),
        **held,
        "gradients": FP32 * trained / (gpus if stage >= 2 else 1),
        "buckets": float(FP32 * trained if gpus > 1 and not stage else 0),
        "copy to compute with": float(copy),
        "activations": tokens * wide * size.activations_per_token(checkpointing=trl.gradient_checkpointing),
        "logits": float(tokens * size.vocabulary * _LOCAL_LOGITS),
    }
    return _phase("sample", {**engine, **held}), _phase("update", update)


def _zero_stage(recipe: TrainRecipe) -> int:
    """The stage of DeepSpeed's ZeRO that `trl.args.deepspeed` asks for; 0 without.

    Raises:
        ConfigError: its file cannot be read.
    """
    given = recipe.trl.args.get("deepspeed")
    if given is None:
        return 0
    try:
        config = given if isinstance(given, dict) else json.loads(Path(str(given)).read_text(encoding="utf-8"))
        return int(config.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"trl.args.deepspeed: {given}: cannot be read: {error}") from None


def _phase(name: str, bytes_by_part: Mapping[str, float]) -> Phase:
    parts = {part: taken / GIB for part, taken in bytes_by_part.items() if taken}
    return Phase(name, parts | {"libraries": LIBRARIES_GIB})


def _compute_bytes(recipe: TrainRecipe) -> int:
    """Bytes of a number that is computed with."""
    policy = recipe.policy
    return FP32 if policy.dtype == "float32" or policy.device == "cpu" else BF16


def _pass_tokens(recipe: TrainRecipe, machines: Machines, limit: int) -> float:
    """Tokens of one pass on one GPU: no more than it has of a minibatch."""
    rollout, learner = recipe.rollout, recipe.learner
    share = rollout.groups * rollout.group_size * rollout.limits.max_tokens / learner.minibatches / machines.gpus
    longest = rollout.limits.max_tokens / recipe.verl.sequence_parallel
    return min(limit, max(share, longest))


def _engine_stays(recipe: TrainRecipe) -> bool:
    return any("free_cache_engine=False" in override for override in recipe.verl.overrides)


def _step(recipe: TrainRecipe, size: ModelSize, machines: Machines) -> dict[str, float]:
    """What is played in a step, and how much of it at once."""
    rollout, limits = recipe.rollout, recipe.rollout.limits
    trajectories = rollout.groups * rollout.group_size
    found: dict[str, float] = {
        "trajectories": trajectories,
        "tokens, at most": trajectories * limits.max_tokens,
        "turns, at most": trajectories * limits.max_turns,
        "calls, at most": trajectories * limits.max_calls,
        "trajectories of one optimizer step": trajectories / recipe.learner.minibatches,
    }
    room = _cache_tokens(recipe, size, machines)
    if room is not None:
        found["engines"], found["tokens in their caches"] = room
        found["full-length episodes at once"] = room[1] // limits.max_tokens
    return found


def _cache_tokens(recipe: TrainRecipe, size: ModelSize, machines: Machines) -> tuple[int, int] | None:
    """How many engines there are, and how many tokens their caches hold together; None where there is no share."""
    verl, wide = recipe.verl, _compute_bytes(recipe) / BF16
    if recipe.engine == "verl":
        separate = verl.mode == "separate_async"
        gpus = verl.rollout_nodes * verl.rollout_gpus_per_node if separate else machines.gpus
        share, parallel = verl.engine_memory, verl.tensor_parallel
    elif recipe.engine == "trl":
        if recipe.trl.sampler != "colocate":
            return None
        gpus, share, parallel = machines.gpus, recipe.trl.engine_memory, 1
    elif recipe.policy.engine == "vllm":
        gpus, share, parallel = 1, recipe.policy.vllm.gpu_memory, 1
    else:
        return None
    engines = gpus // parallel
    left = parallel * (share * machines.gpu_gib - ENGINE_OWN_GIB) * GIB - wide * BF16 * size.parameters
    return engines, max(0, int(left / (size.cache_per_token * wide))) * engines


def _load(recipe: TrainRecipe, size: ModelSize, step: Mapping[str, float]) -> dict[str, float]:
    """What the services, the hosts and the disk have to bear."""
    verl, nodes = recipe.verl, recipe.cluster.nodes if recipe.engine == "verl" else 1
    trained = _trained(recipe, size)
    offloaded = FP32 * size.parameters * verl.offload_weights + _MOMENTS * trained * verl.offload_optimizer
    if recipe.learner.kl and verl.offload_reference and not recipe.policy.lora_rank:
        offloaded += FP32 * size.parameters
    kept = FP32 * trained + _MOMENTS * trained
    found = {
        "sandbox sessions at once": step["trajectories"],
        "sandbox memory, GiB": step["trajectories"] * SESSION_MB / 1024,
        "searches at once, at most": step["trajectories"],
        "searches a step, at most": step["calls, at most"],
        "checkpoints on disk, GiB": recipe.keep_checkpoints * kept / GIB,
    }
    if recipe.engine == "verl":
        found["host memory of a node for what is offloaded, GiB"] = offloaded / GIB / nodes
    return found


def _overfull(phases: tuple[Phase, ...], machines: Machines) -> Iterator[str]:
    for phase in phases:
        if phase.total > machines.gpu_gib:
            largest = max(phase.parts, key=lambda part: phase.parts[part])
            yield (
                f"{phase.name}: {phase.total:.1f} GiB of {machines.gpu_gib:g}; the largest part is {largest}; "
                f"{_CURES[largest]}"
            )


_CURES = {
    "weights": "take more GPUs or policy.lora_rank; verl.offload_weights helps while the engine samples",
    "gradients": "take more GPUs, or policy.lora_rank",
    "moments": "take more GPUs or policy.lora_rank; verl.offload_optimizer helps all but the update",
    "buckets": "let DeepSpeed share gradients out: trl.args.deepspeed with stage 2",
    "gathered layers": "layers are computed whole: take GPUs with more memory",
    "reference": "set verl.offload_reference, or learner.kl_coefficient = 0",
    "activations": "lower learner.micro_tokens (with TRL trl.pass_trajectories) and rollout.limits.max_tokens; with "
    "verl, verl.gradient_checkpointing",
    "logits": "lower learner.micro_tokens (with TRL trl.pass_trajectories) and rollout.limits.max_tokens; with verl, "
    "verl.logprob_tokens too",
    "engine": "lower verl.engine_memory, trl.engine_memory, or policy.vllm.gpu_memory with the local trainer",
    "cache": "lower policy.max_batch or rollout.limits.max_tokens",
    "copy to sample with": "take policy.lora_rank, or a GPU with more memory",
    "copy to compute with": "take policy.lora_rank, or a GPU with more memory",
    "libraries": "take GPUs with more memory",
}
"""What helps, by the part that is largest."""


def _engine_problems(
    recipe: TrainRecipe, size: ModelSize, machines: Machines, step: Mapping[str, float]
) -> Iterator[str]:
    """What the sampling engine has no room for, or cannot split."""
    if recipe.engine == "local" and machines.gpus > 1:
        yield f"gpus: the local trainer uses one of {machines.gpus} GPUs; engines trl and verl use them all"
    parallel = recipe.verl.tensor_parallel
    if recipe.engine == "verl" and size.heads % parallel:
        yield f"verl.tensor_parallel: {size.heads} attention heads cannot be split by {parallel}"
    episodes = step.get("full-length episodes at once")
    if episodes is not None and episodes < step["engines"]:
        name = {"local": "policy.vllm.gpu_memory"}.get(recipe.engine, f"{recipe.engine}.engine_memory")
        more = ", or verl.tensor_parallel" if recipe.engine == "verl" else ""
        yield (
            f"{name}: the engines have room for {episodes:.0f} episodes of rollout.limits.max_tokens = "
            f"{recipe.rollout.limits.max_tokens} in all; raise it{more}"
        )
