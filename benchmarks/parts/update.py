"""The update: `Learner.update` against the padded one, on the same trajectories from the same weights.

Two shapes. `2:1` has prompts of 256 random tokens and responses of 96 to 160, all sampled; `nano` is what the policy
itself played on the tasks of the benchmark, replies of tools included. Rewards are drawn at random, so that every
trajectory carries a gradient. One optimizer step a batch; tokens are those of the trajectories, padding not counted.
"""

import asyncio
import copy
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from parts.memory import Peak
from parts.padded import PaddedLearner, log_distributions
from parts.setting import LEARNER, Bench, given, middle
from recall.trainers.learner import Learner
from recall.types import Group, RewardResult, Segment, StopReason, Task, Trajectory

SHAPES = ("2:1", "nano")
Update = Callable[[Sequence[Group]], object]


def random_groups(bench: Bench, *, prompt: int = 256, response: tuple[int, int] = (96, 160)) -> list[Group]:
    """Groups of random tokens, with the log-probabilities that the model gives them."""
    rng, vocabulary = random.Random(0), range(bench.model.config.vocab_size)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.choices(vocabulary, k=length))

    def trajectory(start: Segment) -> Trajectory:
        ids = draw(rng.randint(*response))
        blank = Trajectory("", (start, Segment(ids, (0.0,) * len(ids))), StopReason.DONE)
        with torch.no_grad():
            normal, tokens, learned = log_distributions(bench.model, [blank], len(blank.token_ids))
        logprobs = normal.gather(-1, tokens[learned][:, None])[:, 0].tolist()
        return replace(blank, segments=(start, Segment(ids, tuple(logprobs))))

    groups = []
    for number in range(bench.setting.groups):
        start = Segment(draw(prompt))
        played = [trajectory(start) for _ in range(bench.setting.group_size)]
        groups.append(_rewarded(Task(str(number), "", ()), played, rng))
    return groups


async def played_groups(bench: Bench) -> list[Group]:
    """What the policy plays on the tasks of the first step."""
    policy = bench.policy()
    played = await bench.player(policy).play(
        bench.setting.tasks(0), samples=bench.setting.group_size, sampling=bench.sampling(), seed=1
    )
    policy.close()
    await bench.sandbox.close()
    rng = random.Random(0)
    return [_rewarded(group.task, group.trajectories, rng) for group in played]


def _rewarded(task: Task, trajectories: Sequence[Trajectory], rng: random.Random) -> Group:
    return Group(task, trajectories, [RewardResult(rng.random(), correct=False) for _ in trajectories])


def groups_of(bench: Bench, shape: str) -> list[Group]:
    """The groups of a shape."""
    return random_groups(bench) if shape == "2:1" else asyncio.run(played_groups(bench))


def shared(model: Any) -> tuple[Update, torch.optim.Optimizer]:
    """The learner, and its optimizer."""
    learner = Learner(model, LEARNER)
    return lambda groups: learner.update(groups, step=0, total_steps=1, seed=0), learner.optimizer


def padded(model: Any) -> tuple[Update, torch.optim.Optimizer]:
    """The padded learner, and its optimizer."""
    # `transformers` drops the gradient of the padding token's embedding, which a policy may well have sampled.
    model.get_input_embeddings().padding_idx = None
    learner = PaddedLearner(model, LEARNER)
    return learner.update, learner.optimizer


CONTENDERS = {"recall": shared, "padded": padded}


def gradients(update: Update, optimizer: torch.optim.Optimizer, groups: Sequence[Group]) -> torch.Tensor:
    """[P] the gradient that the optimizer is given, flat."""
    found: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
        found.append(torch.cat([parameter.grad.flatten().clone() for parameter in parameters]))

    handle = optimizer.register_step_pre_hook(keep)
    update(groups)
    handle.remove()
    return found[0]


def measure(bench: Bench, shape: str) -> dict[str, Any]:
    """Gradients once with each, which warms up and is compared; then both in turn."""
    groups = groups_of(bench, shape)
    made = {name: make(copy.deepcopy(bench.model)) for name, make in CONTENDERS.items()}
    grads = {name: gradients(update, optimizer, groups) for name, (update, optimizer) in made.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(bench.setting.repeats):
        for name, (update, _) in made.items():
            began = time.perf_counter()
            update(groups)
            seconds[name].append(time.perf_counter() - began)
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    tokens = sum(len(trajectory.token_ids) for trajectory in trajectories)
    rows = {name: {"tokens_per_s": tokens / middle(runs), "wall_s": middle(runs)} for name, runs in seconds.items()}
    return {
        **rows,
        "ratio": rows["recall"]["tokens_per_s"] / rows["padded"]["tokens_per_s"],
        "gradient_difference": float((grads["recall"] - grads["padded"]).norm() / grads["padded"].norm()),
        "prompt_tokens_mean": sum(len(t.prompt_ids) for t in trajectories) / len(trajectories),
        "response_tokens_mean": sum(len(t.token_ids) - len(t.prompt_ids) for t in trajectories) / len(trajectories),
        "longest": max(len(t.token_ids) for t in trajectories),
    }


def memory(bench: Bench, shape: str, contender: str) -> dict[str, float]:
    """Peak memory of one contender, alone in its process, at its second update."""
    groups = groups_of(bench, shape)
    update, _ = CONTENDERS[contender](bench.model)
    update(groups)
    with Peak() as peak:
        update(groups)
    return {"peak_mb": peak.mb, "grown_mb": peak.grown_mb}


if __name__ == "__main__":
    bench = Bench(given())
    shape, *contender = sys.argv[2:]
    print(json.dumps(memory(bench, shape, *contender) if contender else measure(bench, shape)))
