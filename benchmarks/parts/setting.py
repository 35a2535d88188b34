"""What every part of the engine benchmark has in common: the model, the tasks, the limits, and how numbers travel."""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from recall.environment import Limits, ToolEnvironments
from recall.evaluation.play import Player
from recall.policy.torch import TorchPolicy
from recall.policy.torch.loading import load_model, load_tokenizer, resolve
from recall.renderer import Renderer, build
from recall.rewards import get
from recall.rewards.base import Reward
from recall.sandbox.base import Sandbox
from recall.sandbox.local import LocalSandbox
from recall.synth.tasks import ToolTasks
from recall.trainers.learner import LearnerSettings
from recall.trainers.recipe import TrainRecipe
from recall.types import Sampling, Task

KINDS = ("1", "2", "3", "join")
"""Kinds of task, in turn: chains of one to three calls, and joins of two chains."""

LEARNER = LearnerSettings(minibatches=1, learning_rate=1e-9, warmup_steps=0, entropy_coefficient=0.0)
"""The recipe's, but one optimizer step a batch, no entropy bonus, which the peers lack, and a learning rate that leaves
the weights as they are, so that every repetition does the same work."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the benchmark."""

    model: str
    """A model directory, or `nano`."""
    threads: int
    """Torch's."""
    repeats: int
    """Measured repetitions, after one that warms up."""
    groups: int = 24
    """Tasks a step."""
    group_size: int = 8
    """Episodes of each task."""

    def tasks(self, step: int) -> list[Task]:
        """The tasks of a step. Tools stand in the order of their names, as TRL lists them."""
        made = [
            ToolTasks(KINDS[i % len(KINDS)], split="train", seed=0)[step * self.groups + i] for i in range(self.groups)
        ]
        return [replace(task, tools=tuple(sorted(task.tools, key=lambda tool: tool.name))) for task in made]

    def text(self) -> str:
        """For the command line of a part."""
        return json.dumps(asdict(self))


class Bench:
    """A loaded setting."""

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        self.setting = setting
        # With the credit for form, which TRL's reward of this benchmark gives too, most groups carry a gradient. With
        # `exact` an untrained policy would leave the update nothing to do, and the comparison would flatter us.
        self.recipe = TrainRecipe(reward="outcome")
        source = resolve(setting.model)
        self.tokenizer = load_tokenizer(source)
        self.renderer: Renderer = build(self.tokenizer)
        self.model: Any = load_model(source, device=torch.device("cpu"), dtype=torch.float32)
        self.sandbox = LocalSandbox()

    @property
    def limits(self) -> Limits:
        """The recipe's."""
        return self.recipe.rollout.limits

    def sampling(self, temperature: float = 1.0) -> Sampling:
        """The recipe's, at this temperature."""
        return Sampling(temperature=temperature, max_tokens=self.limits.max_turn_tokens)

    def environments(self, sandbox: Sandbox | None = None) -> ToolEnvironments:
        """Episodes whose tools run in the sandbox, or in `sandbox`."""
        return ToolEnvironments(sandbox or self.sandbox, self.limits)

    def policy(self) -> TorchPolicy:
        """The engine, as `recall train` makes it."""
        return TorchPolicy(
            self.model,
            stop_token_ids=sorted(self.renderer.stop_token_ids),
            max_batch=self.recipe.policy.max_batch,
            deterministic=self.recipe.deterministic,
        )

    def player(self, policy: TorchPolicy, reward: Reward | None = None, sandbox: Sandbox | None = None) -> Player:
        """Plays episodes with the recipe's reward, or with `reward`, and in the sandbox, or in `sandbox`."""
        scored = reward or get(self.recipe.reward)
        return Player(policy, self.renderer, self.environments(sandbox), scored, self.limits)


def engine_seconds(policy: TorchPolicy) -> float:
    """Seconds that the engine's threads were busy since the last call, in the mean over its threads."""
    stats = policy.stats()
    return (stats.prefill_s + stats.decode_s) / policy.shards


def given() -> Setting:
    """The setting on the command line of a part."""
    return Setting(**json.loads(sys.argv[1]))


def middle(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)
