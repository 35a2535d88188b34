"""What a recipe adds to its reward for the sake of learning. Success counts what the reward itself calls correct."""

from dataclasses import replace
from typing import TYPE_CHECKING

from recall.errors import ConfigError
from recall.rewards import get
from recall.types import RewardResult, StopReason, Task, Trajectory

if TYPE_CHECKING:
    from recall.rewards.base import Reward
    from recall.trainers.recipe import TrainRecipe


def reward_of(recipe: "TrainRecipe") -> "Reward":
    """The reward that a recipe learns from: the one it names, with its soft punishment of length.

    Raises:
        ConfigError: there is no such reward, or the punishment would begin before the episode does.
    """
    reward, ramp, limit = get(recipe.reward), recipe.learner.overlong_tokens, recipe.rollout.limits.max_tokens
    if not ramp:
        return reward
    if ramp >= limit:
        raise ConfigError(
            f"learner.overlong_tokens: {ramp} leaves nothing unpunished; rollout.limits.max_tokens is {limit}"
        )

    def shaped(task: Task, trajectory: Trajectory) -> RewardResult:
        scored = reward(task, trajectory)
        punishment = overlong(trajectory, limit=limit, ramp=ramp)
        return replace(scored, score=scored.score + punishment, parts={**scored.parts, "overlong": punishment})

    return shaped


def overlong(trajectory: Trajectory, *, limit: int, ramp: int) -> float:
    """From 0 down to -1: how near to its limit of tokens an episode came, in reward units.

    Args:
        trajectory: all of its tokens count, the prompt's too, as they do for the limit.
        limit: the most tokens of an episode.
        ramp: the last so many tokens before it, over which the punishment grows evenly.

    Source: soft overlong punishment, equation 13 of DAPO, Yu et al. 2025, arXiv:2503.14476.
    """
    if trajectory.stop_reason is StopReason.MAX_TOKENS:
        return -1.0
    return -min(1.0, max(0.0, (len(trajectory.token_ids) - (limit - ramp)) / ramp))
