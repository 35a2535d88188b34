"""Checks of the model itself: a few groups are sampled as training would, and looked at as training would."""

import math
from collections.abc import Sequence
from typing import Any

from recall.doctor.findings import Finding, ok, skipped, wrong
from recall.evaluation.play import Player
from recall.types import CallStatus, Group, Sampling, Task

GROUPS_AT_ONCE = 24
"""Tasks that are sampled before it is looked whether that is enough, at most."""
MOST_ROUNDS = 4
"""So often more tasks are sampled where no group has any variance: early on, most groups have none."""
MOST_COMPARED = 4
"""Trajectories whose log-probabilities are computed again."""
_NOT_MADE = (CallStatus.MALFORMED, CallStatus.UNKNOWN_TOOL)
FLOAT32_NATS, BFLOAT16_NATS = 2e-3, 0.5
"""The largest difference that rounding explains; measured on nano it is 2e-5 in float32."""


async def sample_groups(
    player: Player, tasks: Sequence[Task], *, at_once: int, group_size: int, sampling: Sampling, seed: int
) -> list[Group]:
    """Groups of the first tasks, and of more where these show no variance or no parsed call."""
    groups: list[Group] = []
    for start in range(0, len(tasks), at_once):
        some = tasks[start : start + at_once]
        label = f"doctor/{start}/"
        groups += await player.play(some, samples=group_size, sampling=sampling, label=label, seed=seed + start)
        if any(map(_varies, groups)) and (_parsed(groups) or not any(group.task.tools for group in groups)):
            break
    return groups


def check_parsed(groups: Sequence[Group]) -> Finding:
    """The policy makes calls, and at least one is parsed and names a tool."""
    if not any(group.task.tools for group in groups):
        return skipped("parsed calls", "no task has tools")
    calls = [call for group in groups for trajectory in group.trajectories for call in trajectory.calls]
    malformed = sum(call.status in _NOT_MADE for call in calls)
    episodes = sum(len(group.trajectories) for group in groups)
    if len(calls) > malformed:
        return ok("parsed calls", f"{len(calls) - malformed} of {len(calls)} calls in {episodes} episodes are parsed")
    example = next((t.segments[1].text for group in groups for t in group.trajectories if len(t.segments) > 1), "")
    return wrong(
        "parsed calls",
        f"none of {len(calls)} calls in {episodes} episodes is parsed; a turn begins {example[:120]!r}",
        cost="a run that ends well while not one of its calls is ever parsed",
        cure="choose the dialect (policy.dialect) that the model was trained in, or tell it more in policy.template",
    )


def check_variance(groups: Sequence[Group]) -> Finding:
    """Rewards differ within a group, which is all that there is to learn from."""
    scores = [reward.score for group in groups for reward in group.rewards]
    varied = sum(map(_varies, groups))
    if varied:
        mean = sum(scores) / len(scores)
        return ok("variance", f"{varied} of {len(groups)} groups have different rewards; their mean is {mean:.2f}")
    seen = ", ".join(f"{score:g}" for score in sorted(set(scores))[:4])
    low = max(scores, default=0.0) < 0.5
    return wrong(
        "variance",
        f"all of {len(groups)} groups of {len(groups[0].rewards)} have equal rewards (seen: {seen})",
        cost="steps without a gradient, for as long as it stays so",
        cure="begin with easier tasks, or with a model that solves some"
        if low
        else "choose a reward that tells trajectories apart, or harder tasks",
    )


def check_faults(groups: Sequence[Group]) -> Finding:
    """No episode failed for a reason of ours."""
    faults = [t.fault for group in groups for t in group.trajectories if t.fault is not None]
    episodes = sum(len(group.trajectories) for group in groups)
    if not faults:
        return ok("faults", f"{episodes} episodes were played without a fault")
    return wrong(
        "faults",
        f"{len(faults)} of {episodes} episodes failed: {faults[0]}",
        cost="episodes that are paid for and left out of the gradient",
        cure="start what does not answer, or mend what it says",
    )


def check_logprobs(model: Any, groups: Sequence[Group], sampling: Sampling) -> Finding:
    """The engine's log-probabilities are those of the model that is trained.

    Args:
        model: a causal language model of `transformers`.
        groups: sampled from the same weights.
        sampling: what they were sampled with.
    """
    import torch

    trajectories = [t for group in groups for t in group.trajectories if t.fault is None and any(t.mask)]
    compared, total, worst, place = 0, 0.0, 0.0, ""
    parameter = next(model.parameters())
    for trajectory in trajectories[:: max(1, len(trajectories) // MOST_COMPARED)][:MOST_COMPARED]:
        ids = torch.tensor([trajectory.token_ids], device=parameter.device)
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].float()
        if sampling.temperature > 0:
            logits = logits / sampling.temperature
        own = [n for n, sampled in enumerate(trajectory.mask) if sampled]
        rows = torch.tensor([n - 1 for n in own], device=parameter.device)
        said = logits[rows].log_softmax(-1).gather(-1, ids[0, rows + 1][:, None])[:, 0].tolist()
        for n, value in zip(own, said, strict=True):
            difference = abs(value - trajectory.logprobs[n])
            compared, total = compared + 1, total + difference
            if difference > worst or math.isnan(difference):
                worst, place = (
                    difference,
                    f"task {trajectory.task_id!r}, token {n}: {trajectory.logprobs[n]:.4f}, {value:.4f}",
                )
    limit = FLOAT32_NATS if parameter.dtype == torch.float32 and parameter.device.type == "cpu" else BFLOAT16_NATS
    if not compared:
        return skipped("logprobs", "nothing was sampled")
    if not worst <= limit:
        return wrong(
            "logprobs",
            f"the engine's and the trainer's log-probabilities differ by up to {worst:.3g} nats, "
            f"{total / compared:.3g} on average ({place})",
            cost="updates that are off-policy from the first step, and a run that comes apart late",
            cure="sample with the weights, the precision and the temperature that are trained with",
        )
    return ok("logprobs", f"engine and trainer agree on {compared} tokens to {worst:.1e} nats")


def _varies(group: Group) -> bool:
    scores = [r.score for t, r in zip(group.trajectories, group.rewards, strict=True) if t.fault is None]
    return len(set(scores)) > 1


def _parsed(groups: Sequence[Group]) -> bool:
    calls = (call for group in groups for trajectory in group.trajectories for call in trajectory.calls)
    return any(call.status not in _NOT_MADE for call in calls)
